/// The decoded records of one stretch of the log. One consumer owns it and hands it to a reader to be filled again
/// and again; its memory is kept. Not Sendable: it belongs to one thread or actor.
///
/// Behind the records lie `slackBytes` readable bytes (simdjson reads up to 64 beyond a payload).
public final class EventBlock {
    public static let slackBytes = 64

    /// Position of the first record.
    public private(set) var base = Position(0)
    public private(set) var count = 0
    /// First and last received-at; meaningless when empty.
    public private(set) var firstTime = Timestamp(microseconds: 0)
    public private(set) var lastTime = Timestamp(microseconds: 0)
    public private(set) var byteCount = 0
    @usableFromInline var storage: UnsafeMutableRawBufferPointer

    public init(capacity: Int = 64 << 10) {
        storage = .allocate(byteCount: capacity + Self.slackBytes, alignment: 64)
        storage.initializeMemory(as: UInt8.self, repeating: 0)
    }

    deinit { storage.deallocate() }

    /// Position behind the last record.
    public var end: Position { base.advanced(by: count) }
    public var isEmpty: Bool { count == 0 }

    public func removeAll(at position: Position) {
        base = position
        count = 0
        byteCount = 0
    }

    /// Adds `count` records that `fill` writes into the `byteCount` bytes it is given, then walks them.
    /// They must continue at `end` (or the block must be empty). False, with the block as it was, when `fill`
    /// says so or when the bytes are not exactly `count` well-formed records.
    public func append(
        base: Position, count: Int, byteCount: Int, fill: (UnsafeMutableRawBufferPointer) -> Bool
    ) -> Bool {
        precondition(isEmpty || base == end, "blocks join without a gap")
        ensureCapacity(self.byteCount + byteCount)
        let room = UnsafeMutableRawBufferPointer(rebasing: storage[self.byteCount..<(self.byteCount + byteCount)])
        guard count > 0, fill(room), let walked = Self.walk(UnsafeRawBufferPointer(room)), walked.count == count
        else { return false }
        if isEmpty {
            self.base = base
            firstTime = RecordView(unchecked: UnsafeRawPointer(room.baseAddress!)).receivedAt
        }
        self.count += count
        self.byteCount += byteCount
        let slack = UnsafeMutableRawBufferPointer(
            rebasing: storage[self.byteCount..<(self.byteCount + Self.slackBytes)])
        slack.initializeMemory(as: UInt8.self, repeating: 0)
        lastTime = RecordView(unchecked: UnsafeRawPointer(room.baseAddress!) + walked.last).receivedAt
        return true
    }

    /// Calls `body` with every record and its position, in order.
    @inlinable
    public func forEach<E: Error>(_ body: (RecordView, Position) throws(E) -> Void) throws(E) {
        guard var cursor = UnsafeRawPointer(storage.baseAddress) else { return }
        var position = base
        for _ in 0..<count {
            let record = RecordView(unchecked: cursor)
            try body(record, position)
            position = position.next
            cursor += record.length
        }
    }

    /// The record that begins `offset` bytes behind the first: as `forEach` would give it.
    @inlinable
    public func record(atOffset offset: Int) -> RecordView {
        precondition(offset < byteCount, "an offset beyond the block")
        return RecordView(unchecked: UnsafeRawPointer(storage.baseAddress.unsafelyUnwrapped) + offset)
    }

    public var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: storage[..<byteCount]) }

    /// How many well-formed records fill `bytes` exactly and where the last begins, or nil.
    static func walk(_ bytes: UnsafeRawBufferPointer) -> (count: Int, last: Int)? {
        var offset = 0, count = 0, last = 0
        while offset < bytes.count {
            guard let length = RecordView.check(bytes, at: offset) else { return nil }
            last = offset
            offset += length
            count += 1
        }
        return (count, last)
    }

    private func ensureCapacity(_ needed: Int) {
        guard needed + Self.slackBytes > storage.count else { return }
        let larger = UnsafeMutableRawBufferPointer.allocate(
            byteCount: max(needed, 2 * byteCount) + Self.slackBytes, alignment: 64)
        larger.initializeMemory(as: UInt8.self, repeating: 0)
        larger.copyMemory(from: UnsafeRawBufferPointer(rebasing: storage[..<byteCount]))
        storage.deallocate()
        storage = larger
    }
}
