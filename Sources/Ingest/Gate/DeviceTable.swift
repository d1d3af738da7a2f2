import Glibc

/// Hash of a device's address (`tenant/{t}/device/{d}`), the same for every table, so that one serves several look-ups.
/// Seeded per process: device names come from outside.
struct DeviceHash {
    private static let seed = UInt64.random(in: .min ... .max)

    private let value: UInt64

    init(_ name: UnsafeRawBufferPointer) {
        var state = Self.seed ^ UInt64(truncatingIfNeeded: name.count)
        var offset = 0
        while offset < name.count {
            var word: UInt64 = 0
            if name.count - offset >= 8 {
                word = name.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
            } else {
                for byte in name[offset...] { word = word << 8 | UInt64(byte) }
            }
            let product = (state ^ word).multipliedFullWidth(by: 0x9E37_79B9_7F4A_7C15)
            state = product.high ^ product.low
            offset += 8
        }
        value = state ^ state >> 29
    }

    var slot: Int { Int(truncatingIfNeeded: value) }
    var tag: UInt32 { UInt32(truncatingIfNeeded: value >> 32) }
}

/// Device addresses → dense entries: open addressing over 8-byte slots (tag and index), names in one arena.
struct DeviceTable<Entry: Sendable>: Sendable {
    private struct Slot: Sendable {
        var tag: UInt32 = 0
        /// Index of the entry plus one; 0 is empty.
        var index: UInt32 = 0
    }

    private var slots = ContiguousArray(repeating: Slot(), count: 64)
    private var names: [UInt8] = []
    private var nameEnds: ContiguousArray<Int> = []
    var entries: ContiguousArray<Entry> = []

    var count: Int { entries.count }

    func find(_ name: UnsafeRawBufferPointer, _ hash: DeviceHash) -> Int? {
        let mask = slots.count - 1
        var position = hash.slot & mask
        while true {
            let slot = slots[position]
            if slot.index == 0 { return nil }
            if slot.tag == hash.tag, isName(Int(slot.index) - 1, name) { return Int(slot.index) - 1 }
            position = (position + 1) & mask
        }
    }

    mutating func insert(_ name: UnsafeRawBufferPointer, _ hash: DeviceHash, _ entry: Entry) -> Int {
        if (entries.count + 1) * 4 > slots.count * 3 { grow() }
        entries.append(entry)
        names.append(contentsOf: name)
        nameEnds.append(names.count)
        place(UInt32(entries.count), hash)
        return entries.count - 1
    }

    mutating func removeAll() {
        slots = ContiguousArray(repeating: Slot(), count: 64)
        names = []
        nameEnds = []
        entries = []
    }

    func withName<Result>(_ index: Int, _ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        names.withUnsafeBytes {
            body(UnsafeRawBufferPointer(rebasing: $0[(index == 0 ? 0 : nameEnds[index - 1])..<nameEnds[index]]))
        }
    }

    private func isName(_ index: Int, _ name: UnsafeRawBufferPointer) -> Bool {
        let start = index == 0 ? 0 : nameEnds[index - 1]
        guard nameEnds[index] - start == name.count else { return false }
        return names.withUnsafeBytes { memcmp($0.baseAddress! + start, name.baseAddress!, name.count) == 0 }
    }

    private mutating func place(_ index: UInt32, _ hash: DeviceHash) {
        let mask = slots.count - 1
        var position = hash.slot & mask
        while slots[position].index != 0 { position = (position + 1) & mask }
        slots[position] = Slot(tag: hash.tag, index: index)
    }

    private mutating func grow() {
        slots = ContiguousArray(repeating: Slot(), count: slots.count * 2)
        var start = 0
        for index in entries.indices {
            let hash = names.withUnsafeBytes {
                DeviceHash(UnsafeRawBufferPointer(rebasing: $0[start..<nameEnds[index]]))
            }
            start = nameEnds[index]
            place(UInt32(index + 1), hash)
        }
    }
}
