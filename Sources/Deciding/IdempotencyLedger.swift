import DequeModule
import EventModel

/// Answers by idempotency key, kept for 24 hours of event time; the oldest are evicted above the limits. Part of a
/// decider's folded state.
public struct IdempotencyLedger<Answer: Sendable & Equatable>: Sendable, Equatable {
    public struct Key: Sendable, Hashable, Codable {
        public let tenantID: String
        /// Nil: all actors of the tenant share their keys.
        public let actor: String?
        public let key: String

        public init(tenantID: String, actor: String? = nil, key: String) {
            (self.tenantID, self.actor, self.key) = (tenantID, actor, key)
        }
    }

    public struct Entry: Sendable, Equatable {
        /// SHA-256 of the request, in hex. The decider compares it, to refuse a reused key.
        public let digest: String?
        public fileprivate(set) var at: Timestamp
        public var answer: Answer

        public init(digest: String?, at: Timestamp, answer: Answer) {
            (self.digest, self.at, self.answer) = (digest, at, answer)
        }
    }

    /// When a key was used; of a key that was used again there is more than one.
    public struct Use: Sendable, Equatable {
        public let at: Timestamp
        public let key: Key

        public init(at: Timestamp, key: Key) { (self.at, self.key) = (at, key) }
    }

    public private(set) var entries: [Key: Entry] = [:]
    /// Oldest first.
    public private(set) var uses: Deque<Use> = []
    private var tenantCounts: [String: Int] = [:]
    private let countMax: Int
    private let tenantCountMax: Int

    private static var lifetimeMicroseconds: Int64 { 24 * 3600 * 1_000_000 }

    /// - Parameters:
    ///   - countMax: of the answers kept. Beyond it the oldest are forgotten before their time.
    ///   - tenantCountMax: of the answers kept for one tenant; as `countMax`.
    public init(countMax: Int = .max, tenantCountMax: Int = .max) {
        (self.countMax, self.tenantCountMax) = (countMax, tenantCountMax)
    }

    /// Nil: the key is free.
    public func entry(for key: Key, now: Timestamp) -> Entry? {
        guard let entry = entries[key], !Self.hasExpired(entry.at, now) else { return nil }
        return entry
    }

    public mutating func remember(_ key: Key, _ entry: Entry) {
        entries[key] = entry
        uses.append(Use(at: entry.at, key: key))
        tenantCounts[key.tenantID, default: 0] += 1
        if uses.count > countMax { forget(at: 0) }
        if tenantCounts[key.tenantID, default: 0] > tenantCountMax,
            let oldest = uses.firstIndex(where: { $0.key.tenantID == key.tenantID })
        {
            forget(at: oldest)
        }
    }

    /// Changes an answer whose events continue after the first one.
    public mutating func amend(_ key: Key, _ answer: Answer) { entries[key]?.answer = answer }

    /// Forgets what has expired. Call it with the time of every event.
    public mutating func expire(before now: Timestamp) {
        while let oldest = uses.first, Self.hasExpired(oldest.at, now) { forget(at: 0) }
    }

    /// The log's clock stepped (`ClockStepped`): keys keep their answers for as long as before.
    public mutating func move(by microseconds: Int64) {
        guard microseconds != 0 else { return }
        entries = entries.mapValues { Entry(digest: $0.digest, at: $0.at.moved(by: microseconds), answer: $0.answer) }
        uses = Deque(uses.map { Use(at: $0.at.moved(by: microseconds), key: $0.key) })
    }

    /// From a snapshot.
    public mutating func restore(_ entries: [Key: Entry], uses: some Sequence<Use>) {
        self.entries = entries
        self.uses = Deque(uses)
        tenantCounts = self.uses.reduce(into: [:]) { $0[$1.key.tenantID, default: 0] += 1 }
    }

    private mutating func forget(at index: Int) {
        let use = uses.remove(at: index)
        // A key that was used again has a later answer, which stays.
        if entries[use.key]?.at == use.at { entries[use.key] = nil }
        let count = tenantCounts[use.key.tenantID, default: 1] - 1
        tenantCounts[use.key.tenantID] = count > 0 ? count : nil
    }

    private static func hasExpired(_ at: Timestamp, _ now: Timestamp) -> Bool {
        now.microseconds.saturatingSubtracting(at.microseconds) >= lifetimeMicroseconds
    }
}

/// Why a request under a used key is refused.
public let idempotencyKeyReused = "the idempotency key was used for another command within 24 hours; take a new one"
