import Deciding
import Decisions
import EventModel
import FoundationEssentials

/// The fold of the decisions about access, in log order. Pure: time is the events'.
public struct AccessState: Decider, Equatable {
    public struct Token: Sendable, Equatable, Codable {
        public let id: Int64
        public let name: String
        public let role: Role
        /// Nil: all tenants.
        public let tenantID: String?
        public let secretSHA256: String
        public let expiresAt: Timestamp?
        public let createdAt: Timestamp
        public let createdBy: String
        /// The token that created it; nil: the data folder's, or not recorded.
        public let createdByTokenID: Int64?
        public internal(set) var revokedAt: Timestamp?
        /// The token whose revocation ended this one too.
        public internal(set) var revokedWith: Int64?

        public func isLive(at now: Timestamp) -> Bool {
            revokedAt == nil && expiresAt.map { now < $0 } ?? true
        }

        public var principal: Principal { Principal(name: name, role: role, tenantID: tenantID, tokenID: id) }

        enum CodingKeys: String, CodingKey {
            case id, name, role, tenantID = "tenant_id", secretSHA256 = "secret_sha256", expiresAt = "expires_at"
            case createdAt = "created_at", createdBy = "created_by", createdByTokenID = "created_by_token_id"
            case revokedAt = "revoked_at", revokedWith = "revoked_with"
        }
    }

    /// What is answered again under an idempotency key: the token, as it is then.
    struct KeyedAnswer: Sendable, Equatable {
        let position: UInt64
        let id: Int64
    }
    typealias Ledger = IdempotencyLedger<KeyedAnswer>

    public private(set) var tokens: [Int64: Token] = [:]
    private var bySecret: [String: Int64] = [:]
    /// Number of tokens in `tokens`, by tenant.
    private var counts: [String: Int] = [:]
    private(set) var answers = Ledger(tenantCountMax: 1_000)
    public private(set) var nextID: Int64 = 1
    /// The log's beginning, with the decisions in it, is gone, and no snapshot has them.
    private var isBeginningUnknown = false

    /// Tokens kept for each tenant: beyond it, the oldest that open nothing are evicted.
    static let tokensKeptMax = 2 * tokensPerTenantMax

    public init() {}

    public static func beginningUnknown(before horizon: Position) -> AccessState? {
        var state = AccessState()
        state.isBeginningUnknown = true
        return state
    }

    /// A token was created at some time, whether it is live or not. Then reads stay closed: an expiry or a revocation
    /// must never open anything.
    public var hasEverHadTokens: Bool { nextID > 1 || isBeginningUnknown }

    /// Nil when no token that opens anything at `now` has this secret.
    public func principal(secretSHA256: String, now: Timestamp) -> Principal? {
        guard let id = bySecret[secretSHA256], let token = tokens[id], token.isLive(at: now) else { return nil }
        return token.principal
    }

    public func principal(id: Int64, now: Timestamp) -> Principal? {
        guard let token = tokens[id], token.isLive(at: now) else { return nil }
        return token.principal
    }

    /// Live tokens that `id` created, directly or through others, in the order of their ids.
    func descendants(of id: Int64, now: Timestamp) -> [Token] {
        // A token's id is greater than its creator's.
        var family: Set<Int64> = [id], found: [Token] = []
        for token in tokens.values.sorted(by: { $0.id < $1.id }) {
            guard let creator = token.createdByTokenID, family.contains(creator) else { continue }
            family.insert(token.id)
            if token.isLive(at: now) { found.append(token) }
        }
        return found
    }

    public mutating func apply(_ event: AccessEvent, at position: Position, time: Timestamp) {
        answers.expire(before: time)
        switch event {
        case .created(let event):
            let tenant = event.actorTenantID ?? tenant(ofActor: event.actor, subject: event.tenantID, at: time)
            // A role that this version does not know gives the least.
            let token = Token(
                id: event.id, name: event.name, role: Role(rawValue: event.role) ?? .viewer,
                tenantID: event.tenantID == Envelope.everyTenant ? nil : event.tenantID,
                secretSHA256: event.secretSHA256, expiresAt: event.expiresAt.map { Timestamp(storedMicroseconds: $0) },
                createdAt: time, createdBy: event.actor, createdByTokenID: event.actorTokenID)
            add(token)
            evictEnded(tenantID: token.tenantID, time)
            // An id that cannot be raised comes from no decider of ours.
            nextID = max(nextID, event.id == .max ? event.id : event.id + 1)
            if let key = event.idempotencyKey {
                let answer = KeyedAnswer(position: position.rawValue, id: event.id)
                remember(answer, tenant, event.actor, key, digest: event.requestDigest, at: time)
            }
        case .revoked(let event):
            let tenant = event.actorTenantID ?? tenant(ofActor: event.actor, subject: event.tenantID, at: time)
            if tokens[event.id]?.revokedAt == nil {
                tokens[event.id]?.revokedAt = time
                tokens[event.id]?.revokedWith = event.revokedWith
            }
            if let key = event.idempotencyKey {
                let answer = KeyedAnswer(position: position.rawValue, id: event.id)
                remember(answer, tenant, event.actor, key, digest: event.requestDigest, at: time)
            }
        case .rejected: break
        }
    }

    /// The log's clock stepped (`ClockStepped`): an idempotency key keeps its answer for as long as before. A token's
    /// expiry is a date that people were given: it follows the clock.
    public mutating func moveTimers(by microseconds: Int64) {
        answers.move(by: microseconds)
    }

    private mutating func remember(
        _ answer: KeyedAnswer, _ tenant: String, _ actor: String, _ key: String, digest: String?, at time: Timestamp
    ) {
        answers.remember(
            .init(tenantID: tenant, actor: actor, key: key), .init(digest: digest, at: time, answer: answer))
    }

    private mutating func add(_ token: Token) {
        if tokens.updateValue(token, forKey: token.id) == nil { counts[Self.owner(token), default: 0] += 1 }
        bySecret[token.secretSHA256] = token.id
    }

    private static func owner(_ token: Token) -> String { token.tenantID ?? Envelope.everyTenant }

    /// A quarter more than needed, so that the search is rare.
    private mutating func evictEnded(tenantID: String?, _ time: Timestamp) {
        let count = counts[tenantID ?? Envelope.everyTenant] ?? 0
        guard count > Self.tokensKeptMax else { return }
        let ended = tokens.values.filter { $0.tenantID == tenantID && !$0.isLive(at: time) }.sorted { $0.id < $1.id }
        for token in ended.prefix(count - Self.tokensKeptMax * 3 / 4) {
            tokens[token.id] = nil
            bySecret[token.secretSHA256] = nil
            counts[Self.owner(token), default: 1] -= 1
        }
    }

    /// The tenant of an actor whose event does not record it: a name is unique among a tenant's live tokens and those
    /// of all tenants.
    private func tenant(ofActor name: String, subject: String, at time: Timestamp) -> String {
        let isOfTenant = tokens.values.contains { token in
            token.name == name && token.tenantID == subject && token.createdAt <= time
                && token.revokedAt.map { time <= $0 } ?? true
        }
        return isOfTenant ? subject : Envelope.everyTenant
    }
}

// MARK: in snapshots

extension AccessState {
    public static let storedName = "access"
    public static let storedVersion = 1
    public static let commonSubject: String? = "tokens"
    public var hasTimers: Bool { !answers.uses.isEmpty }

    private struct StoredAnswer: Codable {
        /// Nil only in snapshots of older versions.
        var tenantID: String?
        let actor: String
        let key: String
        let digest: String?
        let at: Timestamp
        let position: UInt64
        let id: Int64
    }

    private struct Stored: Codable {
        var tokens: [Token]
        var answers: [StoredAnswer]
        var nextID: Int64
        var isBeginningUnknown: Bool?
    }

    public func stored() -> [UInt8] {
        eventJSON(
            Stored(
                tokens: tokens.values.sorted { $0.id < $1.id },
                answers: answers.uses.compactMap { use in
                    answers.entries[use.key].map { entry in
                        StoredAnswer(
                            tenantID: use.key.tenantID, actor: use.key.actor ?? "", key: use.key.key,
                            digest: entry.digest, at: use.at, position: entry.answer.position, id: entry.answer.id)
                    }
                }, nextID: nextID,
                isBeginningUnknown: isBeginningUnknown ? true : nil))
    }

    public init(stored: [UInt8]) throws {
        let form: Stored
        do {
            form = try JSONDecoder().decode(Stored.self, from: Data(stored))
        } catch {
            throw UnreadableDecision("the tokens in the snapshot cannot be understood (\(error))")
        }
        for token in form.tokens { add(token) }
        for stored in form.answers {
            let subject = tokens[stored.id]?.tenantID ?? Envelope.everyTenant
            let tenant = stored.tenantID ?? tenant(ofActor: stored.actor, subject: subject, at: stored.at)
            let answer = KeyedAnswer(position: stored.position, id: stored.id)
            remember(answer, tenant, stored.actor, stored.key, digest: stored.digest, at: stored.at)
        }
        nextID = form.nextID
        isBeginningUnknown = form.isBeginningUnknown ?? false
    }
}
