import Access
import HTTPTypes
import Hummingbird

/// Who may do what. Every route passes here before its handler runs: who asks (a token, a session, nobody), whether
/// the role is enough, and whether the tenant in the path is theirs.
public struct AccessPolicy: Sendable {
    private let folderSecret: String
    private let book: AccessBook?
    let sessions = SessionBook()
    /// The server listens on loopback only.
    let isLoopback: Bool
    /// Names, beside loopback's own, under which a declared proxy serves it (lower case, without port).
    private let hosts: [String]

    /// - Parameters:
    ///   - token: the data folder's.
    ///   - bindHost: the address that the server listens on.
    ///   - book: the tokens of the log; nil: there are none.
    public init(token: String, bindHost: String, hosts: [String] = [], book: AccessBook? = nil) {
        precondition(!token.isEmpty, "an empty token would let everybody write")
        folderSecret = Secrets.sha256(token)
        isLoopback = Self.isLoopback(bindHost)
        self.hosts = hosts.map { $0.lowercased() }
        self.book = book
    }

    /// Reading is free on this machine while nobody has been given a token: then there is nothing to tell apart.
    var readsAreOpen: Bool { isLoopback && !(book?.hasTokens ?? false) }

    /// While a damaged log keeps tokens from being known, whoever sits at the machine must be able to see why.
    private func isDiagnosis(_ route: Route) -> Bool {
        isLoopback && ["/api/v1/status", "/api/v1/projections", "/metrics"].contains(route.path)
            && book.map { $0.tokens == nil } ?? false
    }

    /// - Returns: who asks.
    func authorize(_ route: Route, _ request: Request, _ context: APIContext) throws(Problem) -> Principal {
        let needed: Role
        switch route.access {
        case .open: return .anonymous
        case .read(let role): needed = role
        case .write(let role):
            try checkOrigin(request)
            needed = role
        }
        let principal: Principal
        if let known = try identify(request, isWrite: route.access.isWrite) {
            principal = known
        } else if !route.access.isWrite, needed == .viewer, readsAreOpen || isDiagnosis(route) {
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

    /// Whether whoever asked then might still: for answers that go on and on.
    func isStill(_ principal: Principal, _ request: Request) -> Bool {
        guard let known = try? identify(request, isWrite: false) else {
            return principal == .anonymous && (readsAreOpen || book.map { $0.tokens == nil } ?? false)
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

    /// Nil when nobody says who they are. A token that is none is never passed over in silence; a session that is over
    /// is, where no session is needed.
    private func identify(_ request: Request, isWrite: Bool) throws(Problem) -> Principal? {
        if let header = request.headers[.authorization] { return try principal(header) }
        guard let cookie = request.cookie(SessionBook.cookieName), let session = sessions.find(cookie) else {
            return nil
        }
        guard let principal = try principal(session) else {
            sessions.end(cookie)
            return nil
        }
        // SameSite keeps the cookie from other sites' pages; this keeps commands to those who can read our answers.
        if isWrite, request.headers[.csrfToken].map({ Secrets.sha256($0) }) != Secrets.sha256(session.csrf) {
            throw Problem(
                .forbidden, "csrf_token_required",
                "send `X-CSRF-Token` with the value that GET /api/v1/session answers with")
        }
        return principal
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
        // Digests are compared: the time that takes tells nothing of the secret.
        if Secrets.sha256(secret) == folderSecret { return .folderAdmin }
        return try known(book?.find(secret: secret) ?? .unknown)
    }

    private func principal(_ session: SessionBook.Session) throws(Problem) -> Principal? {
        guard let id = session.tokenID else { return .folderAdmin }
        return try known(book?.find(id: id) ?? .unknown)
    }

    private func known(_ finding: AccessBook.Finding) throws(Problem) -> Principal? {
        switch finding {
        case .found(let principal): return principal
        case .unknown: return nil
        case .notReady:
            throw Problem.unavailable(
                "starting", "the daemon is reading back who has which token", retryAfterSeconds: 1)
        }
    }

    /// A page of another site that makes the browser send a command names itself in `Origin` (RFC 6454, 7).
    func checkOrigin(_ request: Request) throws(Problem) {
        guard let origin = request.headers[.origin] else { return }
        guard let separator = origin.firstRange(of: "://") else { throw Self.foreignOrigin }
        let host = Self.withoutPort(origin[separator.upperBound...])
        // Behind a proxy, or on another address, our own pages' origin is the name that the browser asked for.
        let own = request.head.authority.map { Self.withoutPort($0[...]) }
        guard isOwn(host: host) || (!isLoopback && host == own) else { throw Self.foreignOrigin }
    }

    private static var foreignOrigin: Problem {
        Problem(.forbidden, "foreign_origin", "commands are not taken from pages of other origins")
    }

    /// A name that somebody lets point to 127.0.0.1 makes a browser believe it talks to their site (DNS rebinding):
    /// on loopback only loopback's own names are served.
    func checkHost(_ request: Request) throws(Problem) {
        guard isLoopback else { return }
        guard let authority = request.head.authority, isOwn(host: Self.withoutPort(authority[...])) else {
            throw Problem(
                .misdirectedRequest, "foreign_host",
                "this server answers to localhost, 127.0.0.1 and [::1]; name others in the configuration")
        }
    }

    private func isOwn(host: String) -> Bool { Self.isLoopback(host) || hosts.contains(host) }

    static func isLoopback(_ host: String) -> Bool {
        if ["localhost", "::1", "[::1]"].contains(host.lowercased()) { return true }
        let parts = host.split(separator: ".", omittingEmptySubsequences: false)
        return parts.count == 4 && parts[0] == "127" && parts.allSatisfy { UInt8($0) != nil }
    }

    static func withoutPort(_ authority: Substring) -> String {
        if authority.hasPrefix("["), let end = authority.firstIndex(of: "]") {
            return authority[...end].lowercased()
        }
        return authority.prefix { $0 != ":" }.lowercased()
    }
}

extension Principal {
    /// Who reads where reading is free.
    static let anonymous = Principal(name: "anonymous", role: .viewer)
}

struct HostMiddleware: RouterMiddleware {
    typealias Context = APIContext
    let policy: AccessPolicy

    func handle(
        _ request: Request, context: APIContext, next: (Request, APIContext) async throws -> Response
    ) async throws -> Response {
        try policy.checkHost(request)
        return try await next(request, context)
    }
}

extension HTTPField.Name {
    static let idempotencyKey = HTTPField.Name("Idempotency-Key")!
    static let csrfToken = HTTPField.Name("X-CSRF-Token")!
}
