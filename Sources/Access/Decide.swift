import Deciding
import Decisions
import EventModel
import Primitives

/// The requested properties of a new token.
public struct TokenSpec: Sendable, Equatable {
    public var name: String
    public var role: Role
    /// Nil: all tenants.
    public var tenantID: String?
    /// From its creation; nil: until it is revoked.
    public var lifetimeSeconds: Double?

    public init(name: String, role: Role, tenantID: String? = nil, lifetimeSeconds: Double? = nil) {
        self.name = name
        self.role = role
        self.tenantID = tenantID
        self.lifetimeSeconds = lifetimeSeconds
    }

    public static let lifetimeSecondsMax = 100.0 * 365 * 24 * 3600
}

public enum AccessCommand: Sendable, Equatable {
    case create(TokenSpec)
    case revoke(Int64)

    /// The name on the record (`command.rejected/1`).
    public var name: String {
        switch self {
        case .create: "token.create"
        case .revoke: "token.revoke"
        }
    }
}

/// A command with who gives it and under which idempotency key.
public struct AccessRequest: Sendable, Equatable {
    public var principal: Principal
    /// At most 255 characters; the same key gets the same answer for 24 hours.
    public var idempotencyKey: String?
    public var command: AccessCommand

    public init(principal: Principal, idempotencyKey: String? = nil, command: AccessCommand) {
        self.principal = principal
        self.idempotencyKey = idempotencyKey
        self.command = command
    }

    var digest: String {
        switch command {
        case .create(let spec):
            // No field may hold a line break: names and tenants keep to the grammar of ids.
            let fields = [
                "create", spec.name, spec.role.rawValue, spec.tenantID ?? Envelope.everyTenant,
                spec.lifetimeSeconds.map { String($0) } ?? "",
            ]
            return Secrets.sha256(fields.joined(separator: "\n"))
        case .revoke(let id): return Secrets.sha256("revoke\n\(id)")
        }
    }
}

/// The result of a token command, returned once its events are durable.
public enum AccessAnswer: Sendable, Equatable {
    /// `secret` is nil where the token had been created before, under the same idempotency key: it is told once.
    case created(position: Position, token: AccessState.Token, secret: String?)
    /// `also`: the tokens that it had created, which ended with it.
    case revoked(position: Position, token: AccessState.Token, also: [AccessState.Token])
    case rejected(position: Position, code: AccessRefusal.Code, reason: String)
}

public typealias AccessRefusal = CodedError<AccessRefusalCode>

public enum AccessRefusalCode: String, Sendable {
    case notFound = "not_found", invalidValue = "invalid_value", nameTaken = "name_taken"
    case illegalTransition = "illegal_transition", keyReused = "idempotency_key_reused"
    /// The token that gave the command ended before it was decided.
    case tokenInvalid = "token_invalid"
}

/// A request, and the secret for the token that it may create.
public struct NewSecret: Sendable {
    let request: AccessRequest
    let secret: String

    init(for request: AccessRequest, secret: String = Secrets.token()) {
        (self.request, self.secret) = (request, secret)
    }
}

/// Live tokens of one tenant, and of all tenants. The data folder's admin is free of it, so that nobody can be locked
/// out by what others created.
public let tokensPerTenantMax = 1_000

extension AccessState {
    public func decide(_ new: NewSecret, now: Timestamp) -> Outcome<AccessEvent, AccessAnswer> {
        let request = new.request, digest = request.idempotencyKey.map { _ in request.digest }
        if let key = request.idempotencyKey,
            let stored = answers.entry(
                for: .init(
                    tenantID: request.principal.tenantID ?? Envelope.everyTenant, actor: request.principal.name,
                    key: key), now: now),
            let token = tokens[stored.answer.id], request.principal.mayGovern(token)
        {
            if stored.digest == digest {
                return .repeated(answer(request.command, token, at: Position(stored.answer.position), secret: nil))
            }
            return .append([reject(request, AccessRefusal(.keyReused, idempotencyKeyReused))])
        }
        do throws(AccessRefusal) {
            if let id = request.principal.tokenID, principal(id: id, now: now) == nil {
                throw AccessRefusal(.tokenInvalid, "the token that sent this command has been revoked or has expired")
            }
            return .append(try accept(request, self, now, digest, Secrets.sha256(new.secret)))
        } catch {
            return .append([reject(request, error)])
        }
    }

    public func answer(
        to new: NewSecret, _ events: [AccessEvent], at positions: Range<Position>
    ) throws(UnreadableDecision) -> AccessAnswer {
        let position = positions.lowerBound, id: Int64
        switch events[0] {
        case .created(let event): id = event.id
        case .revoked(let event): id = event.id
        case .rejected(let event):
            return .rejected(
                position: position, code: event.code.flatMap(AccessRefusal.Code.init) ?? .invalidValue,
                reason: event.reason)
        }
        guard let token = tokens[id] else {
            throw UnreadableDecision("the decision at position \(position) about token \(id) was not folded")
        }
        return answer(new.request.command, token, at: position, secret: new.secret)
    }

    private func answer(
        _ command: AccessCommand, _ token: Token, at position: Position, secret: String?
    ) -> AccessAnswer {
        guard case .revoke = command else { return .created(position: position, token: token, secret: secret) }
        let also = tokens.values.filter { $0.revokedWith == token.id }.sorted { $0.id < $1.id }
        return .revoked(position: position, token: token, also: also)
    }
}

private func accept(
    _ request: AccessRequest, _ state: AccessState, _ now: Timestamp, _ digest: String?, _ secretSHA256: String
) throws(AccessRefusal) -> [AccessEvent] {
    let actorTenant = request.principal.tenantID ?? Envelope.everyTenant
    switch request.command {
    case .create(let spec):
        try check(spec, request.principal, state, now)
        var event = TokenCreated(
            id: state.nextID, name: spec.name, role: spec.role.rawValue,
            tenantID: spec.tenantID ?? Envelope.everyTenant, secretSHA256: secretSHA256,
            actor: request.principal.name)
        event.actorTenantID = actorTenant
        event.actorTokenID = request.principal.tokenID
        event.expiresAt = try expiry(spec, request.principal, state, now)
        event.idempotencyKey = request.idempotencyKey
        event.requestDigest = digest
        return [.created(event)]
    case .revoke(let id):
        guard let token = state.tokens[id], request.principal.mayGovern(token) else {
            throw AccessRefusal(.notFound, "there is no token \(id)")
        }
        guard token.revokedAt == nil else {
            throw AccessRefusal(.illegalTransition, "the token \(id) has been revoked already")
        }
        return ([token] + state.descendants(of: id, now: now)).map { ended in
            var event = TokenRevoked(
                id: ended.id, name: ended.name, tenantID: ended.tenantID ?? Envelope.everyTenant,
                actor: request.principal.name)
            event.actorTenantID = actorTenant
            if ended.id == id {
                event.idempotencyKey = request.idempotencyKey
                event.requestDigest = digest
            } else {
                event.revokedWith = id
            }
            return .revoked(event)
        }
    }
}

/// In microseconds; nil: until it is revoked. A token never outlives the one that creates it: without a lifetime it
/// ends with it, and a longer one is refused.
private func expiry(
    _ spec: TokenSpec, _ principal: Principal, _ state: AccessState, _ now: Timestamp
) throws(AccessRefusal) -> Int64? {
    let creatorEnd = principal.tokenID.flatMap { state.tokens[$0]?.expiresAt }
    guard let lifetime = spec.lifetimeSeconds else { return creatorEnd?.microseconds }
    let end = now.microseconds + Int64(lifetime * 1_000_000)
    if let creatorEnd, end > creatorEnd.microseconds {
        throw AccessRefusal(
            .invalidValue,
            "a token cannot outlive the token that creates it, which expires at \(creatorEnd); "
                + "give a shorter lifetime_seconds, or none to expire with it")
    }
    return end
}

extension Principal {
    /// Of a tenant's tokens the tenant's admins decide; of all, those of all tenants.
    public func mayGovern(_ token: AccessState.Token) -> Bool { tenantID == nil || tenantID == token.tenantID }
}

private func check(
    _ spec: TokenSpec, _ principal: Principal, _ state: AccessState, _ now: Timestamp
) throws(AccessRefusal) {
    func refuse(_ reason: String) -> AccessRefusal { AccessRefusal(.invalidValue, reason) }
    let grammar = "1 to 128 characters of A-Z a-z 0-9 . _ : -"
    guard DeviceTopic.isID(spec.name) else { throw refuse("name must be \(grammar)") }
    guard !Principal.reservedNames.contains(spec.name.lowercased()) else {
        throw refuse("the name \(spec.name) is reserved for another actor in the log; choose another name")
    }
    if let tenant = spec.tenantID, !DeviceTopic.isID(tenant) { throw refuse("tenant must be \(grammar)") }
    guard spec.role <= principal.role else {
        throw refuse("a token creates no token of a higher role: role must be \(principal.role.rawValue) or less")
    }
    guard principal.tenantID == nil || principal.tenantID == spec.tenantID else {
        throw refuse("a token of one tenant creates tokens of that tenant only: tenant must be \(principal.tenantID!)")
    }
    if let lifetime = spec.lifetimeSeconds, !(1...TokenSpec.lifetimeSecondsMax).contains(lifetime) {
        throw refuse("lifetime_seconds must be 1 to \(Int64(TokenSpec.lifetimeSecondsMax))")
    }
    let live = state.tokens.values.filter { $0.isLive(at: now) }
    // The name identifies the actor in the record: it must be unique among the live tokens of a tenant. The check
    // reveals no names of other tenants.
    let isTaken = live.contains { other in
        other.name == spec.name
            && (other.tenantID == spec.tenantID || other.tenantID == nil || spec.tenantID == nil)
    }
    guard !isTaken else {
        throw AccessRefusal(.nameTaken, "there is a token \(spec.name) already; revoke it, or take another name")
    }
    let own = live.filter { $0.tenantID == spec.tenantID }.count
    guard own < tokensPerTenantMax || principal.tokenID == nil else {
        throw refuse(
            "there are \(tokensPerTenantMax) tokens \(spec.tenantID.map { "of tenant \($0)" } ?? "of all tenants") "
                + "already; revoke some, or use the data folder's token")
    }
}

private func reject(_ request: AccessRequest, _ refusal: AccessRefusal) -> AccessEvent {
    let subject = if case .revoke(let id) = request.command { "token:\(id)" } else { "" }
    // Without the key: an idempotency key's answer is kept for what was done.
    var event = CommandRejected(
        command: request.command.name, subject: subject,
        tenantID: request.principal.tenantID ?? Envelope.everyTenant, actor: request.principal.name,
        reason: refusal.description)
    event.code = refusal.code.rawValue
    return .rejected(event)
}
