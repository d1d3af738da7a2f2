import EventModel

/// The fold of the decisions about access, in log order. Pure: time is the events'.
public struct AccessState: Sendable, Equatable {
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
        public internal(set) var revokedAt: Timestamp?

        public func isLive(at now: Timestamp) -> Bool {
            revokedAt == nil && expiresAt.map { now < $0 } ?? true
        }

        public var principal: Principal { Principal(name: name, role: role, tenantID: tenantID, tokenID: id) }

        enum CodingKeys: String, CodingKey {
            case id, name, role, tenantID = "tenant_id", secretSHA256 = "secret_sha256", expiresAt = "expires_at"
            case createdAt = "created_at", createdBy = "created_by", revokedAt = "revoked_at"
        }
    }

    /// What was answered under an idempotency key.
    struct Answer: Sendable, Equatable, Codable {
        let actor: String
        let key: String
        let digest: String?
        let at: Timestamp
        let position: UInt64
        let id: Int64
    }

    public private(set) var tokens: [Int64: Token] = [:]
    private var bySecret: [String: Int64] = [:]
    /// Oldest first.
    private(set) var answers: [Answer] = []
    public private(set) var nextID: Int64 = 1

    /// How long a key keeps its answer, in event time.
    static let answerMicroseconds: Int64 = 24 * 3600 * 1_000_000
    static let answersMax = 1_000

    public init() {}

    /// Nil when no token that opens anything at `now` has this secret.
    public func principal(secretSHA256: String, now: Timestamp) -> Principal? {
        guard let id = bySecret[secretSHA256], let token = tokens[id], token.isLive(at: now) else { return nil }
        return token.principal
    }

    public func principal(id: Int64, now: Timestamp) -> Principal? {
        guard let token = tokens[id], token.isLive(at: now) else { return nil }
        return token.principal
    }

    func answer(actor: String, key: String, now: Timestamp) -> Answer? {
        answers.last {
            $0.actor == actor && $0.key == key
                && now.microseconds - $0.at.microseconds < Self.answerMicroseconds
        }
    }

    public mutating func apply(_ event: AccessEvent, at position: Position, time: Timestamp) {
        switch event {
        case .created(let event):
            // A role that this version does not know gives the least.
            let token = Token(
                id: event.id, name: event.name, role: Role(rawValue: event.role) ?? .viewer,
                tenantID: event.tenantID == TokenSpec.allTenants ? nil : event.tenantID,
                secretSHA256: event.secretSHA256, expiresAt: event.expiresAt.map { Timestamp(microseconds: $0) },
                createdAt: time, createdBy: event.actor)
            add(token)
            nextID = max(nextID, event.id + 1)
            remember(event.actor, event.idempotencyKey, event.requestDigest, event.id, position, time)
        case .revoked(let event):
            if tokens[event.id]?.revokedAt == nil { tokens[event.id]?.revokedAt = time }
            remember(event.actor, event.idempotencyKey, event.requestDigest, event.id, position, time)
        }
    }

    private mutating func add(_ token: Token) {
        tokens[token.id] = token
        bySecret[token.secretSHA256] = token.id
    }

    private mutating func remember(
        _ actor: String, _ key: String?, _ digest: String?, _ id: Int64, _ position: Position, _ time: Timestamp
    ) {
        answers.removeAll { time.microseconds - $0.at.microseconds >= Self.answerMicroseconds }
        guard let key else { return }
        answers.append(
            Answer(actor: actor, key: key, digest: digest, at: time, position: position.rawValue, id: id))
        if answers.count > Self.answersMax { answers.removeFirst(answers.count - Self.answersMax) }
    }
}

// MARK: in snapshots

extension AccessState {
    /// Under which a snapshot keeps this fold.
    public static let storedName = "access"
    /// Raised whenever the fold means something else: a state of another version is not gone on from.
    public static let storedVersion = 1

    private struct Stored: Codable {
        var tokens: [Token]
        var answers: [Answer]
        var nextID: Int64
    }

    /// The state as JSON, the same bytes for the same state.
    public func stored() throws -> [UInt8] {
        try AccessEvent.json(Stored(
            tokens: tokens.values.sorted { $0.id < $1.id }, answers: answers, nextID: nextID))
    }

    /// - Throws: `AccessLogError` when they are no state of this version.
    public init(stored: [UInt8]) throws {
        let form: Stored
        do {
            form = try AccessEvent.value(stored)
        } catch {
            throw AccessLogError("the tokens in the snapshot cannot be understood (\(error))")
        }
        for token in form.tokens { add(token) }
        answers = form.answers
        nextID = form.nextID
    }
}
