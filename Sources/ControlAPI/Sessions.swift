import Access
import HTTPTypes
import Hummingbird
import Synchronization

// Sessions: how people who use the pages say once who they are. A session opens what its token opens, and not longer.

/// Sessions of this daemon; they end with it.
final class SessionBook: Sendable {
    struct Session: Sendable {
        /// Nil: the data folder's token.
        let tokenID: Int64?
        let csrf: String
        let end: ContinuousClock.Instant
    }

    static let cookieName = "refold_session"
    static let seconds = 12 * 3600
    /// Beyond this many the oldest end before their time.
    static let sessionsMax = 1_000

    /// By the digest of their secret.
    private let sessions = Mutex<[String: Session]>([:])

    /// - Returns: the secret for the cookie, and the session.
    func begin(_ principal: Principal, now: ContinuousClock.Instant = .now) -> (secret: String, session: Session) {
        let secret = Secrets.random()
        let session = Session(
            tokenID: principal.tokenID, csrf: Secrets.random(), end: now + .seconds(Self.seconds))
        sessions.withLock { sessions in
            sessions = sessions.filter { $0.value.end > now }
            if sessions.count >= Self.sessionsMax,
                let oldest = sessions.min(by: { $0.value.end < $1.value.end })?.key {
                sessions[oldest] = nil
            }
            sessions[Secrets.sha256(secret)] = session
        }
        return (secret, session)
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
    let tenant: String?
    /// What commands of this session must send as `X-CSRF-Token`; nil without a session.
    let csrf: String?
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

    func encode(to encoder: any Encoder) throws {
        var fields = encoder.container(keyedBy: CodingKeys.self)
        try fields.encode(name, forKey: .name)
        try fields.encode(role, forKey: .role)
        try fields.encode(tenant, forKey: .tenant)
        try fields.encode(csrf, forKey: .csrf)
        try fields.encode(isAnonymous, forKey: .isAnonymous)
    }
}

extension ControlAPI {
    var sessionRoutes: [Route] {
        [
            .post("/login", .open) { request, _ in
                // A page elsewhere must not log its visitor in as somebody.
                try policy.checkOrigin(request)
                let body = try await request.json(LoginBody.self)
                guard let principal = try policy.principal(secret: body.token) else {
                    throw Problem(
                        .unauthorized, "token_invalid", "the token is unknown to this daemon, revoked or expired",
                        headers: [.wwwAuthenticate: "Bearer realm=\"refold\", error=\"invalid_token\""])
                }
                let (secret, session) = policy.sessions.begin(principal)
                var response = Response.json(SessionRow(principal, csrf: session.csrf))
                response.headers[.setCookie] = policy.cookie(secret, seconds: SessionBook.seconds)
                return response
            },
            .post("/logout", .open) { request, _ in
                try policy.checkOrigin(request)
                if let secret = request.cookie(SessionBook.cookieName) { policy.sessions.end(secret) }
                var response = Response(status: .noContent)
                response.headers[.setCookie] = policy.cookie("", seconds: 0)
                return response
            },
            .get("/api/v1/session", scope: .own) { request, context in
                let session = request.headers[.authorization] == nil
                    ? request.cookie(SessionBook.cookieName).flatMap { policy.sessions.find($0) } : nil
                return .json(SessionRow(context.principal, csrf: session?.csrf))
            },
        ]
    }
}

extension AccessPolicy {
    /// RFC 6265, 4.1. Beyond loopback there is TLS, here or in a proxy, and the cookie never leaves it.
    func cookie(_ secret: String, seconds: Int) -> String {
        let secure = isLoopback ? "" : "; Secure"
        return "\(SessionBook.cookieName)=\(secret); Path=/; Max-Age=\(seconds); HttpOnly; SameSite=Strict\(secure)"
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
