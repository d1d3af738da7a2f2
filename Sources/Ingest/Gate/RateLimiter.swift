import Glibc

/// A token bucket a device, in bounded memory.
///
/// Devices lie in two generations. A device that is seen enters (or moves to) the young one; when that holds half of
/// `devicesMax`, it becomes the old one and the former old one is forgotten. So whoever was seen among the last
/// `devicesMax / 2` devices is remembered. A forgotten device starts again with a full bucket and zero counts.
struct RateLimiter {
    struct Entry {
        var tokens: Double
        /// When `tokens` was true, in µs.
        var at: Int64
        var accepted: UInt64 = 0
        var rejected: UInt64 = 0
        /// Messages charged to the credit `creditNumber`.
        var creditTaken = 0.0
        var creditNumber: UInt32 = 0
    }

    let tokensPerMicro: Double
    let burst: Double
    private let generationMax: Int
    private var young: DeviceTable
    private var old: DeviceTable
    /// Messages that each device may send beside its bucket; `creditNumber` counts the credits that have ended.
    private var credit = 0.0
    private var creditNumber: UInt32 = 0
    /// A longer absence earns no more.
    static let creditMicrosMax: Int64 = 30 * 86_400 * 1_000_000

    init(tokensPerSecond: Double, burst: Int, devicesMax: Int) {
        tokensPerMicro = tokensPerSecond / 1_000_000
        self.burst = Double(max(1, burst))
        generationMax = max(1, devicesMax / 2)
        let seed = UInt64.random(in: .min ... .max)
        young = DeviceTable(seed: seed)
        old = DeviceTable(seed: seed)
    }

    var count: Int { young.count + old.count }

    /// Lets each device send what its rate allows in `micros`, beside its bucket. Adds to a credit that has not ended.
    mutating func credit(micros: Int64) {
        let limit = Double(Self.creditMicrosMax) * tokensPerMicro
        credit = min(limit, credit + Double(max(0, micros)) * tokensPerMicro)
    }

    mutating func endCredit() {
        credit = 0
        creditNumber &+= 1
    }

    /// Takes a token of the device that `address` (`tenant/{t}/device/{d}`) names, at `time` in µs.
    /// False: it has none.
    mutating func take(_ address: UnsafeRawBufferPointer, at time: Int64) -> Bool {
        let hash = young.hash(address)
        let index = young.find(address, hash) ?? admit(address, hash, at: time)
        // Through a local value: a call on `self` beside `&young.entries` would copy all entries first.
        var entry = young.entries[index]
        let isTaken = charge(&entry, time)
        young.entries[index] = entry
        return isTaken
    }

    private mutating func admit(_ address: UnsafeRawBufferPointer, _ hash: UInt64, at time: Int64) -> Int {
        let known = old.find(address, hash).map { old.entries[$0] }
        if young.count >= generationMax {
            swap(&young, &old)
            young.removeAll()
        }
        return young.insert(address, hash, known ?? Entry(tokens: burst, at: time))
    }

    /// Devices that were refused, the most refused first, by their `tenant/{t}/device/{d}`.
    func mostRejected(_ limit: Int) -> [(address: String, entry: Entry)] {
        var found: [(address: String, entry: Entry)] = []
        for (table, newer) in [(young, nil), (old, young)] as [(DeviceTable, DeviceTable?)] {
            for (index, entry) in table.entries.enumerated() where entry.rejected > 0 {
                let name = table.name(index)
                let isOutdated = name.withUnsafeBytes { newer?.find($0, table.hash($0)) } != nil
                if !isOutdated { found.append((String(decoding: name, as: UTF8.self), entry)) }
            }
        }
        found.sort { ($1.entry.rejected, $0.address) < ($0.entry.rejected, $1.address) }
        return Array(found.prefix(limit))
    }

    func entry(_ address: UnsafeRawBufferPointer) -> Entry? {
        let hash = young.hash(address)
        if let index = young.find(address, hash) { return young.entries[index] }
        return old.find(address, hash).map { old.entries[$0] }
    }

    /// Tokens that the entry has at `time`.
    func tokens(_ entry: Entry, at time: Int64) -> Double {
        min(burst, entry.tokens + Double(max(0, time - entry.at)) * tokensPerMicro)
    }

    private func charge(_ entry: inout Entry, _ time: Int64) -> Bool {
        let available = tokens(entry, at: time)
        // A clock that steps back gives nothing, and takes nothing afterwards.
        entry.at = time
        if available >= 1 {
            entry.tokens = available - 1
            entry.accepted += 1
            return true
        }
        entry.tokens = available
        if entry.creditNumber != creditNumber { (entry.creditTaken, entry.creditNumber) = (0, creditNumber) }
        if credit - entry.creditTaken >= 1 {
            entry.creditTaken += 1
            entry.accepted += 1
            return true
        }
        entry.rejected += 1
        return false
    }
}

/// Device addresses → dense entries: open addressing over 8-byte slots (tag and index), names in one arena.
struct DeviceTable {
    private struct Slot {
        var tag: UInt32 = 0
        /// Index of the entry plus one; 0 is empty.
        var index: UInt32 = 0
    }

    private let seed: UInt64
    private var slots = ContiguousArray(repeating: Slot(), count: 64)
    private var names: [UInt8] = []
    private var nameEnds: ContiguousArray<Int> = []
    var entries: ContiguousArray<RateLimiter.Entry> = []

    init(seed: UInt64) { self.seed = seed }

    var count: Int { entries.count }

    /// Seeded per process: device names come from outside.
    func hash(_ name: UnsafeRawBufferPointer) -> UInt64 {
        var state = seed ^ UInt64(truncatingIfNeeded: name.count)
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
        return state ^ state >> 29
    }

    func find(_ name: UnsafeRawBufferPointer, _ hash: UInt64) -> Int? {
        let mask = slots.count - 1
        var position = Int(truncatingIfNeeded: hash) & mask
        let tag = UInt32(truncatingIfNeeded: hash >> 32)
        while true {
            let slot = slots[position]
            if slot.index == 0 { return nil }
            if slot.tag == tag, isName(Int(slot.index) - 1, name) { return Int(slot.index) - 1 }
            position = (position + 1) & mask
        }
    }

    mutating func insert(_ name: UnsafeRawBufferPointer, _ hash: UInt64, _ entry: RateLimiter.Entry) -> Int {
        if (entries.count + 1) * 4 > slots.count * 3 { grow() }
        entries.append(entry)
        names.append(contentsOf: name)
        nameEnds.append(names.count)
        place(Slot(tag: UInt32(truncatingIfNeeded: hash >> 32), index: UInt32(entries.count)), hash)
        return entries.count - 1
    }

    mutating func removeAll() {
        slots = ContiguousArray(repeating: Slot(), count: 64)
        names = []
        nameEnds = []
        entries = []
    }

    func name(_ index: Int) -> ContiguousArray<UInt8> {
        ContiguousArray(names[(index == 0 ? 0 : nameEnds[index - 1])..<nameEnds[index]])
    }

    private func isName(_ index: Int, _ name: UnsafeRawBufferPointer) -> Bool {
        let start = index == 0 ? 0 : nameEnds[index - 1]
        guard nameEnds[index] - start == name.count else { return false }
        return names.withUnsafeBytes { memcmp($0.baseAddress! + start, name.baseAddress!, name.count) == 0 }
    }

    private mutating func place(_ slot: Slot, _ hash: UInt64) {
        let mask = slots.count - 1
        var position = Int(truncatingIfNeeded: hash) & mask
        while slots[position].index != 0 { position = (position + 1) & mask }
        slots[position] = slot
    }

    private mutating func grow() {
        slots = ContiguousArray(repeating: Slot(), count: slots.count * 2)
        var start = 0
        for index in entries.indices {
            let hash = names.withUnsafeBytes {
                self.hash(UnsafeRawBufferPointer(rebasing: $0[start..<nameEnds[index]]))
            }
            start = nameEnds[index]
            place(Slot(tag: UInt32(truncatingIfNeeded: hash >> 32), index: UInt32(index + 1)), hash)
        }
    }
}
