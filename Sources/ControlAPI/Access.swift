import Access
import HTTPTypes
import Hummingbird

/// Who may do what. Every route passes here before its handler runs: who asks (a token, a session, nobody), whether
/// the role is enough, and whether the tenant in the path is theirs.
public struct AccessPolicy: Sendable {
    private let folderSecret: String
    private let tokenIndex: TokenIndex?
    let sessions = SessionStore()
    let reachability: Reachability

    /// - Parameters:
    ///   - token: the data folder's.
    ///   - tokenIndex: the tokens of the log; nil: there are none.
    public init(token: String, reachability: Reachability, tokenIndex: TokenIndex? = nil) {
        precondition(!token.isEmpty, "an empty token would let everybody write")
        folderSecret = Secrets.sha256(token)
        self.reachability = reachability
        self.tokenIndex = tokenIndex
    }

    /// Reading is free for programs of this machine until the first token is created. Behind a proxy nobody is known to
    /// be of this machine.
    private func readsAreOpen(_ request: Request) -> Bool { isLocal(request) && !(tokenIndex?.hasTokens ?? false) }

    private func isLocal(_ request: Request) -> Bool {
        reachability.isLoopback && !reachability.hasProxy && !reachability.isForwarded(request)
    }

    /// While tokens cannot be read back from a damaged log, local requests may read the status without one.
    private func isDiagnosis(_ route: Route, _ request: Request) -> Bool {
        isLocal(request) && ["/api/v1/status", "/api/v1/projections", "/metrics"].contains(route.path)
            && tokenIndex.map { $0.tokens == nil } ?? false
    }

    /// - Returns: who asks.
    func authorize(_ route: Route, _ request: Request, _ context: APIContext) throws(Problem) -> Principal {
        let needed: Role
        switch route.access {
        case .open: return .anonymous
        case .read(let role): needed = role
        case .write(let role):
            try reachability.checkOrigin(request)
            needed = role
        }
        let principal: Principal
        if let known = try identify(request, isWrite: route.access.isWrite) {
            principal = known
        } else if !route.access.isWrite, needed == .viewer, readsAreOpen(request) || isDiagnosis(route, request) {
            principal = .anonymous
        } else {
            throw Self.tokenRequired
        }
        // The tenant first: who asks for another tenant's is not told what they could do there.
        switch route.scope {
        case .tenant:
            guard principal.mayAct(for: try context.id("tenant")) else { throw Self.foreignTenant }
        case .system:
            guard principal.tenantID == nil else {
                throw Problem(
                    .forbidden, "all_tenants_required",
                    "this concerns every tenant; a token of one tenant is not enough")
            }
        case .own: break
        }
        guard principal.role >= needed else {
            throw Problem(
                .forbidden, "role_insufficient",
                "this needs the role \(needed.rawValue), and the token has the role \(principal.role.rawValue)")
        }
        return principal
    }

    /// Whether the principal is still authorized; for streaming responses.
    func isStill(_ principal: Principal, _ request: Request) -> Bool {
        guard let known = try? identify(request, isWrite: false) else {
            return principal == .anonymous
                && (readsAreOpen(request) || isLocal(request) && tokenIndex.map { $0.tokens == nil } ?? false)
        }
        return known == principal
    }

    /// The same for every tenant but one's own, whether it exists or not.
    static var foreignTenant: Problem {
        Problem(.forbidden, "foreign_tenant", "the token is not for this tenant")
    }

    static var tokenRequired: Problem {
        Problem(
            .unauthorized, "token_required",
            "send `Authorization: Bearer …` with a token (refold token create), or the content of the file `token` in "
                + "the data folder",
            headers: [.wwwAuthenticate: "Bearer realm=\"refold\""])
    }

    /// Nil without credentials. An invalid token is always an error; an expired session counts as no session.
    private func identify(_ request: Request, isWrite: Bool) throws(Problem) -> Principal? {
        if let header = request.headers[.authorization] { return try principal(header) }
        guard let cookie = sessionSecret(request), let session = sessions.find(cookie) else { return nil }
        guard let principal = try principal(session) else {
            sessions.end(cookie)
            return nil
        }
        // Browsers send a host's cookies to every port of it (RFC 6265, 8.5): another server on this host may have the
        // cookie, so it is not enough. Only pages of our origin, port included, hold the other half.
        guard session.accepts(csrf: request.headers[.csrfToken]) else {
            if isWrite { throw Self.csrfRequired }
            return nil
        }
        return principal
    }

    static var csrfRequired: Problem {
        Problem(
            .forbidden, "csrf_token_required",
            "send `X-CSRF-Token` with the value that POST /login answered with, beside the session's cookie")
    }

    /// RFC 6750, 2.1 and 3.
    private func principal(_ header: String) throws(Problem) -> Principal {
        let parts = header.split(separator: " ", omittingEmptySubsequences: true)
        guard parts.count == 2, parts[0].lowercased() == "bearer",
            let principal = try principal(secret: String(parts[1]))
        else {
            throw Problem(
                .unauthorized, "token_invalid", "the token is unknown to this daemon, revoked or expired",
                headers: [.wwwAuthenticate: "Bearer realm=\"refold\", error=\"invalid_token\""])
        }
        return principal
    }

    /// Nil when there is no such token.
    func principal(secret: String) throws(Problem) -> Principal? {
        // Digests are compared, so timing reveals nothing about the secret.
        if Secrets.sha256(secret) == folderSecret { return .folderAdmin }
        return try known(tokenIndex?.find(secret: secret) ?? .unknown)
    }

    private func principal(_ session: SessionStore.Session) throws(Problem) -> Principal? {
        guard let id = session.tokenID else { return .folderAdmin }
        return try known(tokenIndex?.find(id: id) ?? .unknown)
    }

    private func known(_ finding: TokenIndex.Finding) throws(Problem) -> Principal? {
        switch finding {
        case .found(let principal): return principal
        case .unknown: return nil
        case .notReady:
            throw Problem.unavailable(
                "starting", "the daemon is reading back who has which token", retryAfterSeconds: 1)
        }
    }
}

extension Principal {
    /// Who reads where reading is free.
    static let anonymous = Principal(name: "anonymous", role: .viewer)
}

extension HTTPField.Name {
    static let idempotencyKey = HTTPField.Name("Idempotency-Key")!
    static let csrfToken = HTTPField.Name("X-CSRF-Token")!
}
