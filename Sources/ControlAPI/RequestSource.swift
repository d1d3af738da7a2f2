import HTTPTypes
import Hummingbird
import NIOCore

// Where a request comes from: under which name the client asked, from which page, and over which proxy.

/// How clients reach the server.
public struct Reachability: Sendable {
    /// The server listens on loopback only.
    public let isLoopback: Bool
    /// The server speaks TLS itself.
    public let isTLS: Bool
    /// Names, beside loopback's own, under which a reverse proxy serves it (`http_hosts`).
    let hosts: [Authority]
    /// Reverse proxies that end TLS (`http_proxies`).
    let proxies: [AddressRange]

    /// - Parameters:
    ///   - bindHost: the address that the server listens on.
    ///   - hosts: `name` or `name:port`; those that are none are left out (the settings refuse them).
    public init(bindHost: String, hosts: [String] = [], proxies: [AddressRange] = [], isTLS: Bool = false) {
        isLoopback = Authority.isLoopback(bindHost)
        self.isTLS = isTLS
        self.hosts = hosts.compactMap { Authority($0) }
        self.proxies = proxies
    }

    /// What is wrong with an entry of `http_hosts`; nil when nothing is.
    public static func problem(withHost text: String) -> String? {
        Authority(text) == nil ? "'\(text)' is no host name: must be NAME or NAME:PORT" : nil
    }

    /// Nil when the settings may serve the API on this address.
    public static func problem(bindHost: String, hasProxies: Bool, isTLS: Bool) -> String? {
        guard !Authority.isLoopback(bindHost), !hasProxies, !isTLS else { return nil }
        return "http listens on \(bindHost), where tokens would cross the network unencrypted: set http_proxies to "
            + "the addresses of the reverse proxies that end TLS (such as 10.1.2.3 or 172.16.0.0/12), or listen on "
            + "127.0.0.1"
    }

    /// A reverse proxy is declared: whatever arrives may come from elsewhere.
    var hasProxy: Bool { !hosts.isEmpty || !proxies.isEmpty }

    /// A name that somebody lets point to 127.0.0.1 makes a browser believe it talks to their site (DNS rebinding):
    /// only names of ours are served. Probes are: they tell nothing, and load balancers ask under any name. CRLs are:
    /// they are public, and the name in a certificate may outlive the host's.
    func checkHost(_ request: Request) throws(Problem) {
        if Self.isPublic(request) { return }
        let authority = try authority(of: request)
        guard isServed(authority) else {
            throw Problem(
                .misdirectedRequest, "foreign_host",
                "this server does not serve the name \(authority.host); if a reverse proxy does under this name, add "
                    + "it to the setting http_hosts (REFOLD_HTTP_HOSTS=\(authority.host))")
        }
    }

    private func isServed(_ authority: Authority) -> Bool {
        if authority.isLoopback || hosts.contains(where: { $0.host == authority.host }) { return true }
        // Addresses cannot be rebound. Without declared names, beyond loopback, any is ours.
        return !isLoopback && (hosts.isEmpty || authority.isAddress)
    }

    /// RFC 9112, 3.2: exactly one Host field. An absolute form's authority is in it (`AbsoluteFormHandler`).
    private func authority(of request: Request) throws(Problem) -> Authority {
        guard let text = request.head.authority, let authority = Authority(text), request.headers[.host] == nil else {
            throw Self.invalidHost
        }
        return authority
    }

    private static var invalidHost: Problem {
        Problem(.badRequest, "invalid_host", "send exactly one Host field, with a name or an address and a port")
    }

    private static func isPublic(_ request: Request) -> Bool {
        let path = request.uri.path
        return [.get, .head].contains(request.method)
            && (["/healthz", "/readyz"].contains(path) || path.hasPrefix("/crl/"))
    }

    /// Tokens in plain text are taken from the proxies that end TLS, and from this machine.
    func checkPeer(_ request: Request, _ peer: SocketAddress?) throws(Problem) {
        guard !isLoopback, !isTLS, !Self.isPublic(request), let address = peer?.ipAddress else { return }
        guard Authority.isLoopback(address) || proxies.contains(where: { $0.contains(address) }) else {
            throw Problem(
                .forbidden, "tls_required",
                "plain HTTP is taken from the proxies in the setting http_proxies only, and \(address) is none of them")
        }
    }

    /// The request came through a proxy, so its client may be anywhere.
    func isForwarded(_ request: Request) -> Bool {
        if HTTPField.Name.ofProxies.contains(where: { request.headers[$0] != nil }) { return true }
        return !(request.head.authority.flatMap { Authority($0) }?.isLoopback ?? false)
    }

    /// A page that makes the browser send a command names itself in `Origin` (RFC 6454, 7). Cookies are shared by all
    /// ports and, in part, schemes of a host; origins are not.
    func checkOrigin(_ request: Request) throws(Problem) {
        guard let text = request.headers[.origin] else { return }
        guard let origin = WebOrigin(text), isOwn(origin, request) else {
            throw Problem(.forbidden, "foreign_origin", "commands are not taken from pages of other origins")
        }
    }

    private func isOwn(_ origin: WebOrigin, _ request: Request) -> Bool {
        // Declared names, for proxies that put another name into Host. Without a port: the scheme's own.
        let isDeclared = hosts.contains {
            $0.host == origin.host && ($0.port ?? WebOrigin.defaultPort(origin.isSecure)) == origin.port
        }
        if isDeclared { return true }
        // The name that the browser asked for.
        guard let own = request.head.authority.flatMap({ Authority($0) }), own.host == origin.host,
            (own.port ?? WebOrigin.defaultPort(origin.isSecure)) == origin.port
        else { return false }
        if isTLS { return origin.isSecure }
        // A proxy may have ended TLS.
        return !origin.isSecure || !isLoopback || isForwarded(request)
    }

    /// Over TLS, here or in a proxy: then the cookie never leaves it.
    func isSecure(_ request: Request) -> Bool {
        isTLS || !isLoopback || request.headers[.origin].flatMap { WebOrigin($0) }?.isSecure ?? false
    }
}

struct HostMiddleware: RouterMiddleware {
    typealias Context = APIContext
    let reachability: Reachability

    func handle(
        _ request: Request, context: APIContext, next: (Request, APIContext) async throws -> Response
    ) async throws -> Response {
        try reachability.checkPeer(request, context.peer)
        try reachability.checkHost(request)
        return try await next(request, context)
    }
}

extension HTTPField.Name {
    static let host = HTTPField.Name("Host")!
    /// What proxies add (RFC 7239; RFC 9110, 7.6.3; and custom).
    static let ofProxies = [
        "Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port",
        "X-Forwarded-Server", "X-Real-IP", "X-Client-IP", "True-Client-IP", "CF-Connecting-IP", "X-Original-Host",
    ].map { HTTPField.Name($0)! }
}
