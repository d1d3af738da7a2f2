import EventModel

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
        /// When it has a live certificate, as of `version` of the table.
        var validity = LiveCertificates.Validity.never
        var version: UInt64 = 0
        var accepted: UInt64 = 0
        var rejected: UInt64 = 0
        /// Messages charged to the credit `creditNumber`.
        var creditTaken = 0.0
        var creditNumber: UInt32 = 0
        /// Messages while the device had no live certificate.
        var withoutCertificate: UInt32 = 0
        /// When the last of these arrived that was not sent during our absence, in seconds since 1970.
        var withoutCertificateAt: UInt32 = 0
    }

    let tokensPerMicro: Double
    let burst: Double
    private let generationMax: Int
    private var young = DeviceTable<Entry>()
    private var old = DeviceTable<Entry>()
    /// Messages that each device may send beside its bucket; `creditNumber` counts the credits that have ended.
    private var credit = 0.0
    private var creditNumber: UInt32 = 0
    /// Messages that arrive may have been sent during our absence.
    var readsBacklog = false
    /// A longer absence earns no more.
    static let creditMicrosMax: Int64 = 30 * 86_400 * 1_000_000

    init(tokensPerSecond: Double, burst: Int, devicesMax: Int) {
        tokensPerMicro = tokensPerSecond / 1_000_000
        self.burst = Double(max(1, burst))
        generationMax = max(1, devicesMax / 2)
    }

    var count: Int { young.count + old.count }

    /// Lets each device send what its rate allows in `micros`, beside its bucket. Adds to a credit that has not ended.
    mutating func credit(micros: Int64) {
        let limit = Double(Self.creditMicrosMax) * tokensPerMicro
        readsBacklog = true
        credit = min(limit, credit + Double(max(0, micros)) * tokensPerMicro)
    }

    mutating func endCredit() {
        credit = 0
        readsBacklog = false
        creditNumber &+= 1
    }

    /// Index of the device that `address` (`tenant/{t}/device/{d}`) names, until the next call.
    /// - Parameter time: in µs.
    mutating func index(of address: UnsafeRawBufferPointer, _ hash: DeviceHash, at time: Int64) -> Int {
        young.find(address, hash) ?? admit(address, hash, at: time)
    }

    /// Takes a token of a device. False: it has none.
    mutating func take(_ index: Int, at time: Int64) -> Bool {
        // Through a local value: a call on `self` beside `&young.entries` would copy all entries first.
        var entry = young.entries[index]
        let isTaken = charge(&entry, time)
        young.entries[index] = entry
        return isTaken
    }

    /// Whether a device has a live certificate. That it has one is remembered until the validity of any device shrinks,
    /// so that a second table is rarely looked into.
    mutating func isLive(
        _ index: Int, _ address: UnsafeRawBufferPointer, _ hash: DeviceHash, _ live: LiveCertificates,
        at seconds: UInt32
    ) -> Bool {
        let entry = young.entries[index]
        if entry.version == live.version, entry.validity.contains(seconds) { return true }
        guard let validity = live.validity(of: address, hash, at: seconds) else {
            young.entries[index].withoutCertificate = entry.withoutCertificate.saturatingAdding(1)
            if !readsBacklog { young.entries[index].withoutCertificateAt = seconds }
            return false
        }
        young.entries[index].validity = validity
        young.entries[index].version = live.version
        return true
    }

    private mutating func admit(_ address: UnsafeRawBufferPointer, _ hash: DeviceHash, at time: Int64) -> Int {
        let known = old.find(address, hash).map { old.entries[$0] }
        if young.count >= generationMax {
            swap(&young, &old)
            young.removeAll()
        }
        return young.insert(address, hash, known ?? Entry(tokens: burst, at: time))
    }

    /// The devices with the highest count above 0, the highest first, by their `tenant/{t}/device/{d}`. Of equal counts
    /// it takes those that are found first. Allocates for the result only: messages wait meanwhile.
    /// - Parameter prefix: of that.
    func highest(
        _ limit: Int, prefix: [UInt8] = [], _ count: (borrowing Entry) -> UInt64
    ) -> [(address: [UInt8], entry: Entry)] {
        // `place` counts the young ones, then the old ones.
        var best: [(count: UInt64, place: Int)] = [], least: UInt64 = 0
        best.reserveCapacity(2 * limit)
        func shorten() {
            best.sort { ($1.count, $0.place) < ($0.count, $1.place) }
            best.removeLast(max(0, best.count - limit))
            if best.count == limit { least = best.last?.count ?? .max }
        }
        func examine(_ table: DeviceTable<Entry>, _ begin: Int, isCurrent: (UnsafeRawBufferPointer) -> Bool) {
            for index in table.entries.indices {
                let value = count(table.entries[index])
                guard value > least, table.withName(index, { $0.starts(with: prefix) && isCurrent($0) }) else {
                    continue
                }
                best.append((value, begin + index))
                if best.count == 2 * limit { shorten() }
            }
        }
        examine(young, 0) { _ in true }
        examine(old, young.count) { young.find($0, DeviceHash($0)) == nil }
        shorten()
        return best.map { _, place in
            let (table, index) = place < young.count ? (young, place) : (old, place - young.count)
            return (table.withName(index) { [UInt8]($0) }, table.entries[index])
        }
    }

    func entry(_ address: UnsafeRawBufferPointer) -> Entry? {
        let hash = DeviceHash(address)
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
