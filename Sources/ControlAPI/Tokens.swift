import Access
import EventModel
import HTTPTypes
import Hummingbird

// Tokens, as the API shows and takes them.

/// Gives commands about tokens to their decider, and knows those that there are.
public protocol TokenKeeping: Sendable {
    /// In the order of their ids, revoked ones included; nil until the log's decisions are read back.
    func tokens() async -> [AccessState.Token]?
    /// Returns when the decision is durable. A refusal is an answer.
    /// - Throws: `AppendError` when the log takes nothing at the moment.
    func execute(_ request: AccessRequest) async throws -> AccessAnswer
}

extension AccessDecider: TokenKeeping {
    public func tokens() async -> [AccessState.Token]? { tokenIndex.tokens }
}

struct TokenBody: BodyFields {
    static let fields = CodingKeys.allCases.map(\.rawValue)
    let name: String
    let role: String
    let tenant: String?
    let lifetimeSeconds: Double?

    enum CodingKeys: String, CodingKey, CaseIterable { case name, role, tenant, lifetimeSeconds = "lifetime_seconds" }

    func spec(_ principal: Principal) throws(Problem) -> TokenSpec {
        guard let role = Role(rawValue: role) else {
            let all = Role.allCases.map(\.rawValue).joined(separator: ", ")
            throw Problem(.unprocessableContent, "invalid_value", "role must be one of: \(all)")
        }
        // A tenant's admin need not say which tenant is meant.
        return TokenSpec(
            name: name, role: role, tenantID: tenant ?? principal.tenantID, lifetimeSeconds: lifetimeSeconds)
    }
}

/// One token, without its secret.
struct TokenRow: Encodable, Sendable {
    let token: AccessState.Token
    /// Of the event that was just recorded about it.
    var position: UInt64?
    /// Told once.
    var secret: String?
    /// The tokens that it had created, which its revocation revoked too.
    var alsoRevoked: [Int64]?

    enum CodingKeys: String, CodingKey {
        case id, name, role, tenant, expiresAt = "expires_at", createdAt = "created_at", createdBy = "created_by"
        case revokedAt = "revoked_at", position, token, alsoRevoked = "also_revoked"
    }

    func encode(to encoder: any Encoder) throws {
        var fields = encoder.container(keyedBy: CodingKeys.self)
        try fields.encode(token.id, forKey: .id)
        try fields.encode(token.name, forKey: .name)
        try fields.encode(token.role, forKey: .role)
        try fields.encode(token.tenantID, forKey: .tenant)
        try fields.encode(token.expiresAt?.description, forKey: .expiresAt)
        try fields.encode(token.createdAt.description, forKey: .createdAt)
        try fields.encode(token.createdBy, forKey: .createdBy)
        try fields.encode(token.revokedAt?.description, forKey: .revokedAt)
        try fields.encodeIfPresent(position, forKey: .position)
        try fields.encodeIfPresent(secret, forKey: .token)
        try fields.encodeIfPresent(alsoRevoked, forKey: .alsoRevoked)
    }
}

extension ControlAPI {
    var tokenRoutes: [Route] {
        [
            .get("/api/v1/tokens", .read(.admin), scope: .own) { request, context in
                try request.allowQuery()
                guard let all = await system.tokens.tokens() else { throw Self.starting }
                let rows = all.filter(context.principal.mayGovern).map { TokenRow(token: $0) }
                return try .json(Items(items: rows))
            },
            .post("/api/v1/tokens", .write(.admin), scope: .own) { request, context in
                let body = try await request.json(TokenBody.self)
                return try await execute(.create(try body.spec(context.principal)), request, context)
            },
            .post("/api/v1/tokens/{id}/revoke", .write(.admin), scope: .own) { request, context in
                try await execute(.revoke(try context.number("id", Int64.self)), request, context)
            },
        ]
    }

    private static var starting: Problem {
        .unavailable("starting", "the daemon is reading back who has which token", retryAfterSeconds: 1)
    }

    private func execute(
        _ command: AccessCommand, _ request: Request, _ context: APIContext
    ) async throws -> Response {
        let answer = try await system.tokens.execute(
            AccessRequest(
                principal: context.principal, idempotencyKey: try request.idempotencyKey(), command: command))
        switch answer {
        case .created(let position, let token, let secret):
            return try .json(TokenRow(token: token, position: position.rawValue, secret: secret), status: .created)
        case .revoked(let position, let token, let also):
            return try .json(TokenRow(token: token, position: position.rawValue, alsoRevoked: also.map(\.id)))
        case .rejected(let position, let code, let reason):
            let status: HTTPResponse.Status =
                switch code {
                case .notFound: .notFound
                case .illegalTransition, .nameTaken: .conflict
                case .invalidValue, .keyReused: .unprocessableContent
                case .tokenInvalid: .unauthorized
                }
            var problem = Problem(status, code.rawValue, reason)
            problem.position = position.rawValue
            throw problem
        }
    }
}
