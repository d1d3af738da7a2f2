// Who may use the API, on the record. Secrets are not: their SHA-256 is, which is enough to know one again.

/// What was decided about access (`EventKind.decision`).
public enum AccessSchema: String, Sendable, CaseIterable {
    case tokenCreated = "token.created/1"
    case tokenRevoked = "token.revoked/1"
}

public struct TokenCreated: Codable, Sendable, Equatable {
    public var id: Int64
    /// Who acts with it: the `actor` of what is done with it.
    public var name: String
    /// `admin`, `operator` or `viewer`.
    public var role: String
    /// The one tenant that it is for; `*`: all of them, and the system itself.
    public var tenantID: String
    /// SHA-256 of the secret, in hex.
    public var secretSHA256: String
    /// Microseconds since 1970; nil: until it is revoked.
    public var expiresAt: Int64?
    public var actor: String
    /// The actor's tenant, or `*`; nil where it was not recorded yet.
    public var actorTenantID: String?
    /// The actor's token; nil: the data folder's, or not recorded.
    public var actorTokenID: Int64?
    public var idempotencyKey: String?
    /// SHA-256 of the command, in hex: the same key with another command is refused.
    public var requestDigest: String?

    public init(id: Int64, name: String, role: String, tenantID: String, secretSHA256: String, actor: String) {
        self.id = id
        self.name = name
        self.role = role
        self.tenantID = tenantID
        self.secretSHA256 = secretSHA256
        self.actor = actor
    }

    enum CodingKeys: String, CodingKey {
        case id, name, role, tenantID = "tenant_id", secretSHA256 = "secret_sha256", expiresAt = "expires_at", actor
        case actorTenantID = "actor_tenant_id", actorTokenID = "actor_token_id"
        case idempotencyKey = "idempotency_key", requestDigest = "request_sha256"
    }
}

/// From here on it opens nothing.
public struct TokenRevoked: Codable, Sendable, Equatable {
    public var id: Int64
    public var name: String
    public var tenantID: String
    public var actor: String
    /// The actor's tenant, or `*`; nil where it was not recorded yet.
    public var actorTenantID: String?
    /// The token whose revocation ended this one too; nil: it was revoked itself.
    public var revokedWith: Int64?
    public var idempotencyKey: String?
    /// SHA-256 of the command, in hex: the same key with another command is refused.
    public var requestDigest: String?

    public init(id: Int64, name: String, tenantID: String, actor: String) {
        self.id = id
        self.name = name
        self.tenantID = tenantID
        self.actor = actor
    }

    enum CodingKeys: String, CodingKey {
        case id, name, tenantID = "tenant_id", actor, actorTenantID = "actor_tenant_id"
        case revokedWith = "revoked_with", idempotencyKey = "idempotency_key"
        case requestDigest = "request_sha256"
    }
}

/// Everything that the access decider decides, refusals aside. Their idempotency keys are the actor's tenant's, not the
/// token's, and in no envelope: one subject stands for all tokens.
let accessDecisions: [any Decision.Type] = [TokenCreated.self, TokenRevoked.self]

extension DecisionCatalog {
    public static let access = DecisionCatalog(accessDecisions)
}

extension TokenCreated: Decision {
    public static var schemas: [String] { [AccessSchema.tokenCreated.rawValue] }
    public var envelope: Envelope {
        Envelope(tenantID: tenantID, actor: actor, subject: "token:\(id)")
    }
    public var summary: String { "created the token \(id) \"\(name)\", \(role) of \(tenantID)" }
}

extension TokenRevoked: Decision {
    public static var schemas: [String] { [AccessSchema.tokenRevoked.rawValue] }
    public var envelope: Envelope {
        Envelope(tenantID: tenantID, actor: actor, subject: "token:\(id)")
    }
    public var summary: String { "revoked the token \(id) \"\(name)\"" }
}
