import HTTPTypes
import Hummingbird

/// Who may do what. One token of full power; reading is free only for this machine.
public struct AccessPolicy: Sendable {
    private let token: [UInt8]
    /// The server listens on loopback only.
    private let isLoopback: Bool
    /// Names, beside loopback's own, under which a declared proxy serves it (lower case, without port).
    private let hosts: [String]

    /// `bindHost` is the address the server listens on.
    public init(token: String, bindHost: String, hosts: [String] = []) {
        precondition(!token.isEmpty, "an empty token would let everybody write")
        self.token = Array(token.utf8)
        isLoopback = Self.isLoopback(bindHost)
        self.hosts = hosts.map { $0.lowercased() }
    }

    func check(_ access: Route.Access, _ request: Request) throws(Problem) {
        switch access {
        case .open: return
        case .read: if !isLoopback { try checkToken(request) }
        case .write:
            try checkOrigin(request)
            try checkToken(request)
        }
    }

    /// RFC 6750, 2.1 and 3.
    private func checkToken(_ request: Request) throws(Problem) {
        guard let header = request.headers[.authorization] else {
            throw Problem(
                .unauthorized, "token_required",
                "send `Authorization: Bearer …` with the content of the file `token` in the data folder",
                headers: [.wwwAuthenticate: "Bearer realm=\"refold\""])
        }
        let parts = header.split(separator: " ", omittingEmptySubsequences: true)
        guard parts.count == 2, parts[0].lowercased() == "bearer", matches(Array(parts[1].utf8)) else {
            throw Problem(
                .unauthorized, "token_invalid", "the token is not this daemon's",
                headers: [.wwwAuthenticate: "Bearer realm=\"refold\", error=\"invalid_token\""])
        }
    }

    /// Takes the same time wherever the first difference lies.
    private func matches(_ candidate: [UInt8]) -> Bool {
        var difference = UInt8(candidate.count == token.count ? 0 : 1)
        for index in token.indices {
            difference |= token[index] ^ (index < candidate.count ? candidate[index] : 0)
        }
        return difference == 0
    }

    /// A page of another site that makes the browser send a command names itself in `Origin` (RFC 6454, 7).
    private func checkOrigin(_ request: Request) throws(Problem) {
        guard let origin = request.headers[.origin] else { return }
        guard let separator = origin.firstRange(of: "://"),
            isOwn(host: Self.withoutPort(origin[separator.upperBound...]))
        else {
            throw Problem(.forbidden, "foreign_origin", "commands are not taken from pages of other origins")
        }
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
}
