import Decoding

/// A device's metrics, merged by name as telemetry comes, the later value standing. Merging reads both objects, so it
/// is put off while it can be: an object with the same names as an earlier one replaces it unread, and the few that
/// differ in their names wait behind each other until the row is written. The outcome is that of merging each at once,
/// because nothing waits that could reach `FactDecoder.metricsBytesMax`.
struct DeviceMetrics {
    /// What was merged.
    var merged = ByteRef()
    /// `shape(u64) count(u32) object` of each object that waits, the oldest first; no two of one shape.
    var waiting = ByteRef()
    /// The names of `merged`, when it is one message's object as it came; 0 otherwise.
    private var shape: UInt64 = 0
    /// `merged` is known to be small, its numbers written out included.
    private var isLight = false

    private static let headBytes = 12
    private static let lightBytesMax = 64 << 10
    private static let waitingObjectBytesMax = 1 << 10
    private static let waitingBytesMax = 4 << 10

    @inline(__always)
    mutating func add(_ telemetry: Telemetry, in arena: inout ByteArena, _ decoder: FactDecoder) {
        if waiting.isNone, merged.isNone || (telemetry.shape != 0 && telemetry.shape == shape) {
            arena.put(telemetry.metrics, in: &merged)
            shape = telemetry.shape
            isLight = shape != 0 && telemetry.metrics.count <= Self.lightBytesMax
        } else {
            addOther(telemetry, in: &arena, decoder)
        }
    }

    @inline(never)
    private mutating func addOther(_ telemetry: Telemetry, in arena: inout ByteArena, _ decoder: FactDecoder) {
        let count = telemetry.metrics.count
        guard telemetry.shape != 0, isLight, count <= Self.waitingObjectBytesMax else {
            settle(in: &arena, decoder)
            return merge(telemetry.metrics, telemetry.shape, in: &arena, decoder)
        }
        if !waiting.isNone, Int(waiting.count) + Self.headBytes + count > Self.waitingBytesMax {
            settle(in: &arena, decoder)
            guard isLight else { return merge(telemetry.metrics, telemetry.shape, in: &arena, decoder) }
        }
        var same = 0..<0
        if !waiting.isNone {
            var at = 0
            Self.forEach(arena.bytes(waiting)) { shape, whole in
                if shape == telemetry.shape { same = at..<(at + whole.count) }
                at += whole.count
            }
        }
        arena.splice(&waiting, removing: same, appending: Self.headBytes + count) { room in
            room.storeBytes(of: telemetry.shape, as: UInt64.self)
            room.storeBytes(of: UInt32(count), toByteOffset: 8, as: UInt32.self)
            UnsafeMutableRawBufferPointer(rebasing: room[Self.headBytes...]).copyMemory(from: telemetry.metrics)
        }
    }

    /// Merges what waits. To be called before the row is written.
    @inline(__always)
    mutating func settle(in arena: inout ByteArena, _ decoder: FactDecoder) {
        if !waiting.isNone { settleNow(in: &arena, decoder) }
    }

    @inline(never)
    private mutating func settleNow(in arena: inout ByteArena, _ decoder: FactDecoder) {
        let all = Array(arena.bytes(waiting))
        arena.free(&waiting)
        all.withUnsafeBytes { all in
            Self.forEach(all) { shape, whole in
                merge(UnsafeRawBufferPointer(rebasing: whole[Self.headBytes...]), shape, in: &arena, decoder)
            }
        }
    }

    private mutating func merge(
        _ object: UnsafeRawBufferPointer, _ objectShape: UInt64, in arena: inout ByteArena, _ decoder: FactDecoder
    ) {
        let (result, isOnlyNewer, weight) = decoder.merge(metrics: arena.bytes(merged), with: object)
        arena.put(result, in: &merged)
        shape = isOnlyNewer ? objectShape : 0
        isLight = weight <= Self.lightBytesMax
    }

    private static func forEach(
        _ bytes: UnsafeRawBufferPointer, _ body: (UInt64, UnsafeRawBufferPointer) -> Void
    ) {
        var at = 0
        while at < bytes.count {
            let shape = bytes.loadUnaligned(fromByteOffset: at, as: UInt64.self)
            let end = at + headBytes + Int(bytes.loadUnaligned(fromByteOffset: at + 8, as: UInt32.self))
            body(shape, UnsafeRawBufferPointer(rebasing: bytes[at..<end]))
            at = end
        }
    }
}
