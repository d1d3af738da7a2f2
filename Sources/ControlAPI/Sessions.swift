import Access
import HTTPTypes
import Hummingbird
import Synchronization

// Sessions: how people who use the pages say once who they are. A session opens what its token opens, and not longer.

/// Sessions of this daemon; they end with it.
final class SessionStore: Sendable {
    struct Session: Sendable {
        /// Nil: the data folder's token.
        let tokenID: Int64?
        let tenantID: String?
        let csrf: String
        let end: ContinuousClock.Instant

        /// Digests are compared, so timing reveals nothing about the secret.
        func accepts(csrf text: String?) -> Bool { text.map { Secrets.sha256($0) } == Secrets.sha256(csrf) }
    }

    static let seconds = 12 * 3600
    private let perTokenMax: Int
    private let sessionsMax: Int

    /// By the digest of their secret.
    private let sessions = Mutex<[String: Session]>([:])

    /// - Parameters:
    ///   - perTokenMax: of one token; beyond it the token's oldest session ends, never another token's.
    ///   - sessionsMax: in all; beyond it the oldest session of the tenant that has the most ends.
    init(perTokenMax: Int = 50, sessionsMax: Int = 10_000) {
        self.perTokenMax = perTokenMax
        self.sessionsMax = sessionsMax
    }

    /// - Returns: the secret for the cookie, and the session.
    func begin(_ principal: Principal, now: ContinuousClock.Instant = .now) -> (secret: String, session: Session) {
        let secret = Secrets.random()
        let session = Session(
            tokenID: principal.tokenID, tenantID: principal.tenantID, csrf: Secrets.random(),
            end: now + .seconds(Self.seconds))
        sessions.withLock { sessions in
            sessions = sessions.filter { $0.value.end > now }
            let own = sessions.filter { $0.value.tokenID == session.tokenID }
            if own.count >= perTokenMax {
                Self.endOldest(of: own, in: &sessions)
            } else if sessions.count >= sessionsMax {
                let byTenant = Dictionary(grouping: sessions, by: { $0.value.tenantID })
                let largest = byTenant.values.max { $0.count < $1.count } ?? []
                Self.endOldest(of: Dictionary(uniqueKeysWithValues: largest.map { ($0.key, $0.value) }), in: &sessions)
            }
            sessions[Secrets.sha256(secret)] = session
        }
        return (secret, session)
    }

    private static func endOldest(of some: [String: Session], in sessions: inout [String: Session]) {
        if let oldest = some.min(by: { $0.value.end < $1.value.end })?.key { sessions[oldest] = nil }
    }

    func find(_ secret: String, now: ContinuousClock.Instant = .now) -> Session? {
        let session = sessions.withLock { $0[Secrets.sha256(secret)] }
        return session.flatMap { $0.end > now ? $0 : nil }
    }

    func end(_ secret: String) {
        let digest = Secrets.sha256(secret)
        sessions.withLock { $0[digest] = nil }
    }
}

struct LoginBody: BodyFields {
    static let fields = ["token"]
    let token: String
}

/// Who asks, and what they may do: what the pages show.
struct SessionRow: Encodable, Sendable {
    let name: String
    let role: Role
    /// Nil: all tenants.
    @Nullable var tenant: String?
    /// What commands of this session must send as `X-CSRF-Token`; nil without a session.
    @Nullable var csrf: String?
    /// Nobody has said who they are: reading is free, commands need a login.
    let isAnonymous: Bool

    init(_ principal: Principal, csrf: String?) {
        name = principal.name
        role = principal.role
        tenant = principal.tenantID
        self.csrf = csrf
        isAnonymous = principal == .anonymous
    }

    enum CodingKeys: String, CodingKey { case name, role, tenant, csrf, isAnonymous = "anonymous" }
}

extension ControlAPI {
    var sessionRoutes: [Route] {
        [
            .post("/login", .open) { request, _ in
                // A page elsewhere must not log its visitor in as somebody.
                try policy.reachability.checkOrigin(request)
                let body = try await request.json(LoginBody.self)
                guard let principal = try policy.principal(secret: body.token) else {
                    throw Problem(
                        .unauthorized, "token_invalid", "the token is unknown to this daemon, revoked or expired",
                        headers: [.wwwAuthenticate: "Bearer realm=\"refold\", error=\"invalid_token\""])
                }
                let (secret, session) = policy.sessions.begin(principal)
                var response = try Response.json(SessionRow(principal, csrf: session.csrf))
                response.headers[.setCookie] = policy.cookie(secret, seconds: SessionStore.seconds, request)
                return response
            },
            .post("/logout", .open) { request, _ in
                try policy.reachability.checkOrigin(request)
                if let secret = policy.sessionSecret(request), let session = policy.sessions.find(secret) {
                    guard session.accepts(csrf: request.headers[.csrfToken]) else { throw AccessPolicy.csrfRequired }
                    policy.sessions.end(secret)
                }
                var response = Response(status: .noContent)
                response.headers[.setCookie] = policy.cookie("", seconds: 0, request)
                return response
            },
            .get("/api/v1/session", scope: .own) { request, context in
                let session =
                    request.headers[.authorization] == nil
                    ? policy.sessionSecret(request).flatMap { policy.sessions.find($0) } : nil
                // For whoever has sent it already.
                let isOwn = session?.accepts(csrf: request.headers[.csrfToken]) ?? false
                return try .json(SessionRow(context.principal, csrf: isOwn ? session?.csrf : nil))
            },
        ]
    }
}

extension AccessPolicy {
    /// RFC 6265, 4.1, and 4.1.3.2 of its successor for `__Host-`: over TLS no other name of the domain can set it. Two
    /// daemons on one host differ by the port in the name.
    func cookie(_ secret: String, seconds: Int, _ request: Request) -> String {
        let isSecure = reachability.isSecure(request), name = Self.cookieName(request, isSecure: isSecure)
        return "\(name)=\(secret); Path=/; Max-Age=\(seconds); HttpOnly; SameSite=Strict"
            + (isSecure ? "; Secure" : "")
    }

    /// Of the session's cookie.
    func sessionSecret(_ request: Request) -> String? {
        request.cookie(Self.cookieName(request, isSecure: true))
            ?? request.cookie(Self.cookieName(request, isSecure: false))
    }

    private static func cookieName(_ request: Request, isSecure: Bool) -> String {
        let port = request.head.authority.flatMap { Authority($0) }?.port
        return (isSecure ? "__Host-refold_session" : "refold_session") + (port.map { "_\($0)" } ?? "")
    }
}

extension Request {
    /// RFC 6265, 4.2.
    func cookie(_ name: String) -> String? {
        for header in headers[values: .cookie] {
            for pair in header.split(separator: ";") {
                let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                guard parts.count == 2, parts[0].drop(while: { $0 == " " }) == name else { continue }
                return String(parts[1])
            }
        }
        return nil
    }
}
