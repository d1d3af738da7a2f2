import EventModel

/// What an event is found by in posting lists: `tenant/{t}/device/{d}` for what a device sent and for what was refused
/// of it, the schema name and version for events of our own, nothing for messages on topics of no device.
public enum EventKey {
    /// The key of a device.
    public static func device(tenant: String, device: String) -> String { "tenant/\(tenant)/device/\(device)" }

    @inline(__always)
    static func bytes(of record: RecordView) -> UnsafeRawBufferPointer {
        let topic = record.topic
        switch record.kind {
        case .message, .rejection:
            return UnsafeRawBufferPointer(rebasing: topic[DeviceTopic(topic)?.address ?? 0..<0])
        case .connection, .decision, .system: return topic
        }
    }
}

/// Gives the same number to the same bytes, from 0 on: open addressing over keys that lie in one array.
struct KeyTable {
    private(set) var count = 0
    private var bytes: [UInt8] = []
    /// Where key i ends; it begins where the one before ends.
    private var ends: [Int] = []
    /// A tag of the hash above, the key's number plus one below; 0 is free.
    private var slots: [UInt64]
    private let seed: UInt64

    init() {
        slots = [UInt64](repeating: 0, count: 1024)
        // Who names devices must not be able to name them all into one slot. The order of numbers is that of arrival.
        seed = UInt64.random(in: 0...UInt64.max)
    }

    mutating func number(of key: UnsafeRawBufferPointer) -> Int {
        let hash = Self.hash(key, seed)
        let tag = hash & 0xFFFF_FFFF_0000_0000
        let mask = slots.count - 1
        var slot = Int(truncatingIfNeeded: hash) & mask
        while slots[slot] != 0 {
            let number = Int(slots[slot] & 0xFFFF_FFFF) - 1
            if slots[slot] & 0xFFFF_FFFF_0000_0000 == tag, isKey(number, key) { return number }
            slot = (slot + 1) & mask
        }
        bytes.append(contentsOf: key)
        ends.append(bytes.count)
        slots[slot] = tag | UInt64(count + 1)
        count += 1
        if 2 * count > slots.count { grow() }
        return count - 1
    }

    func withKey<R>(_ number: Int, _ body: (UnsafeRawBufferPointer) -> R) -> R {
        bytes.withUnsafeBytes { body(UnsafeRawBufferPointer(rebasing: $0[range(number)])) }
    }

    /// All numbers, sorted by the bytes of their keys.
    func sorted() -> [Int] {
        bytes.withUnsafeBytes { bytes in
            (0..<count).sorted { bytes[range($0)].lexicographicallyPrecedes(bytes[range($1)]) }
        }
    }

    private func range(_ number: Int) -> Range<Int> { (number > 0 ? ends[number - 1] : 0)..<ends[number] }

    private func isKey(_ number: Int, _ key: UnsafeRawBufferPointer) -> Bool {
        let range = range(number)
        guard range.count == key.count else { return false }
        return bytes.withUnsafeBytes { UnsafeRawBufferPointer(rebasing: $0[range]).elementsEqual(key) }
    }

    private mutating func grow() {
        var larger = [UInt64](repeating: 0, count: 2 * slots.count)
        let mask = larger.count - 1
        for number in 0..<count {
            let hash = withKey(number) { Self.hash($0, seed) }
            var slot = Int(truncatingIfNeeded: hash) & mask
            while larger[slot] != 0 { slot = (slot + 1) & mask }
            larger[slot] = hash & 0xFFFF_FFFF_0000_0000 | UInt64(number + 1)
        }
        slots = larger
    }

    /// Multiply and fold, eight bytes at a time. Never on disk.
    private static func hash(_ key: UnsafeRawBufferPointer, _ seed: UInt64) -> UInt64 {
        var state = seed ^ UInt64(key.count)
        func mix(_ word: UInt64) {
            let product = (state ^ word).multipliedFullWidth(by: 0x9E37_79B9_7F4A_7C15)
            state = product.high ^ product.low
        }
        var offset = 0
        while offset + 8 <= key.count {
            mix(key.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
            offset += 8
        }
        var tail: UInt64 = 0
        while offset < key.count {
            tail = tail << 8 | UInt64(key[offset])
            offset += 1
        }
        mix(tail)
        mix(0xD6E8_FEB8_6659_FD93)
        return state
    }
}
