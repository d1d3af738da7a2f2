import Access
import Foundation
import HTTPTypes
import Hummingbird
import Logging
import NIOCore
import NIOPosix
import Testing
@testable import ControlAPI

/// Under which names, from which pages and over which proxies the API is served.
@Suite struct ReachabilityTests {
    let local = Reachability(bindHost: "127.0.0.1")
    let proxied = Reachability(bindHost: "127.0.0.1", hosts: ["refold.example", "fleet.example:8443"])

    func request(
        _ authority: String?, path: String = "/api/v1/status", method: HTTPRequest.Method = .get,
        _ headers: HTTPFields = [:]
    ) -> Request {
        Request(
            head: HTTPRequest(
                method: method, scheme: "http", authority: authority, path: path, headerFields: headers),
            body: .init(buffer: ByteBuffer()))
    }

    func code(_ body: () throws -> Void) -> String? {
        do {
            try body()
            return nil
        } catch {
            return (error as? Problem)?.code ?? "\(error)"
        }
    }

    @Test(arguments: [
        ("localhost", nil), ("LOCALHOST:7480", nil), ("127.0.0.1:7480", nil), ("127.9.9.9", nil), ("[::1]:7480", nil),
        ("refold.example:80", nil), ("refold.example", nil), ("fleet.example", nil),
        ("evil.example", "foreign_host"), ("127.0.0.1.evil.example", "foreign_host"), ("127.0.0", "foreign_host"),
        ("[::2]:7480", "foreign_host"), ("localhost.", "foreign_host"), ("", "invalid_host"),
    ])
    func onLoopbackOnlyOwnNamesAreServed(host: String, problem: String?) {
        #expect(code { try proxied.checkHost(request(host)) } == problem)
    }

    @Test(arguments: [
        "localhost:evil.com", "[::1].evil.com", "[::1]evil.com", "localhost:", "localhost:99999", "localhost:7480:1",
        "a@localhost", "localhost/x", "localhost#x", "local host", "[::1", "127.+1.0.1", "localhost\\evil", "[]:80",
    ])
    func hostsAreReadStrictly_F26(host: String) {
        #expect(code { try local.checkHost(request(host)) } == "invalid_host")
        #expect(code { try Reachability(bindHost: "0.0.0.0").checkHost(request(host)) } == "invalid_host")
    }

    @Test func oneHostIsNeeded_F26() {
        #expect(code { try local.checkHost(request("localhost", [.host: "evil.com"])) } == "invalid_host")
        #expect(code { try local.checkHost(request(nil)) } == "invalid_host")
    }

    /// On a real connection: what the library drops is looked at before.
    @Test func twoHostsAndForeignAbsoluteFormsAreRefused_F26() async throws {
        let system = StandIn(), (ports, listening) = AsyncStream<Int>.makeStream()
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        let server = system.api().server(host: "127.0.0.1", port: 0, logger: logger) { listening.yield($0) }
        let running = Task { try await server.run() }
        defer { running.cancel() }
        let port = try #require(await ports.first { _ in true })
        for (head, status) in [
            ("GET /api/v1/status HTTP/1.1\r\nHost: localhost", 200),
            ("GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nHost: evil.com", 400),
            ("GET http://evil.com/api/v1/status HTTP/1.1\r\nHost: localhost", 421),
            ("GET http://localhost/api/v1/status HTTP/1.1\r\nHost: localhost", 200),
            ("GET http:///api/v1/status HTTP/1.1\r\nHost: localhost", 400),
            ("GET /api/v1/status HTTP/1.0", 400), ("GET /healthz HTTP/1.0", 200),
        ] {
            #expect(try await answer(to: head + "\r\nConnection: close\r\n\r\n", port) == status, "\(head)")
        }
    }

    /// The status code of what is answered to these bytes.
    private func answer(to text: String, _ port: Int) async throws -> Int? {
        let channel = try await ClientBootstrap(group: .singletonMultiThreadedEventLoopGroup)
            .connect(host: "127.0.0.1", port: port) { channel in
                channel.eventLoop.makeCompletedFuture {
                    try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
                }
            }
        return try await channel.executeThenClose { inbound, outbound in
            try await outbound.write(ByteBuffer(string: text))
            for try await piece in inbound { return Int(String(buffer: piece).split(separator: " ")[1]) }
            return nil
        }
    }

    /// Behind nginx with `proxy_set_header Host $host` every path was 421, and the text named no setting that exists.
    @Test func aProxysNameIsASettingAndProbesAnswer_core63083() throws {
        for path in ["/healthz", "/readyz", "/crl/ca.crl"] {
            for host in ["fleet.internal", "", "10.0.0.7:7480"] {
                #expect(code { try local.checkHost(request(host, path: path)) } == nil, "\(path) \(host)")
            }
        }
        do {
            try local.checkHost(request("fleet.internal:80"))
            Issue.record("a foreign name is served")
        } catch {
            #expect(error.status == .misdirectedRequest)
            #expect(error.detail.contains("http_hosts") && error.detail.contains("REFOLD_HTTP_HOSTS=fleet.internal"))
        }
        let declared = Reachability(bindHost: "127.0.0.1", hosts: ["fleet.internal"])
        #expect(code { try declared.checkHost(request("fleet.internal:80")) } == nil)
    }

    @Test func beyondLoopbackAddressesAreServedAndDeclaredNames() {
        let open = Reachability(bindHost: "0.0.0.0"), named = Reachability(bindHost: "0.0.0.0", hosts: ["a.example"])
        #expect(code { try open.checkHost(request("anything.example")) } == nil)
        for (host, problem) in [
            ("a.example", nil), ("10.1.2.3:7480", nil), ("localhost", nil), ("b.example", "foreign_host"),
        ] {
            #expect(code { try named.checkHost(request(host)) } == problem, "\(host)")
        }
    }

    @Test(arguments: [
        ("http://127.0.0.1:7480", true), ("http://127.0.0.1:9999", false), ("https://127.0.0.1:7480", false),
        ("http://localhost:7480", false), ("chrome-extension://localhost", false), ("http://127.0.0.1", false),
        ("null", false), ("", false), ("http://evil.example", false), ("HTTP://127.0.0.1:7480", true),
        ("http://127.0.0.1:7480.evil.example", false), ("http://127.0.0.1:7480@evil.example", false),
    ])
    func originsAreComparedWhole_F17(origin: String, isOwn: Bool) {
        let problem = code { try local.checkOrigin(request("127.0.0.1:7480", method: .post, [.origin: origin])) }
        #expect(problem == (isOwn ? nil : "foreign_origin"))
    }

    @Test(arguments: [
        // The proxy keeps the name, or puts its own in its place.
        ("refold.example", "https://refold.example", true), ("127.0.0.1:7480", "https://refold.example", true),
        ("127.0.0.1:7480", "https://fleet.example:8443", true), ("fleet.example", "https://fleet.example:8443", true),
        ("refold.example", "http://refold.example", true),
        ("refold.example", "https://refold.example:9999", false),
        ("fleet.example", "https://fleet.example:8444", false),
        ("refold.example", "https://evil.example", false),
    ])
    func aDeclaredProxysPagesAreOurs_F17(host: String, origin: String, isOwn: Bool) {
        let problem = code { try proxied.checkOrigin(request(host, method: .post, [.origin: origin])) }
        #expect(problem == (isOwn ? nil : "foreign_origin"))
    }

    /// Loopback reads are free; a reverse proxy on the same host opened the fleet to everybody.
    @Test func aForwardedRequestIsRemote() async throws {
        let system = StandIn()
        func status(_ hosts: [String], _ headers: HTTPFields) async throws -> Int {
            let client = RouterClient(system.api(hosts: hosts).router())
            return try await client.execute(uri: "/api/v1/status", method: .get, headers: headers).status.code
        }
        #expect(try await status([], [:]) == 200)
        for name in HTTPField.Name.ofProxies {
            #expect(try await status([], [name: "203.0.113.9"]) == 401, "\(name)")
        }
        #expect(try await status(["fleet.example"], [:]) == 401, "behind a declared proxy nobody is local")
        let known: HTTPFields = [HTTPField.Name("Via")!: "1.1 x", .authorization: "Bearer \(StandIn.token)"]
        #expect(try await status([], known) == 200)
    }

    @Test func plainHTTPIsTakenFromDeclaredProxiesOnly_F29() throws {
        let block = try #require(AddressRange("10.1.0.0/16")), six = try #require(AddressRange("fd00::/8"))
        let far = Reachability(bindHost: "0.0.0.0", proxies: [block, six])
        for (peer, problem) in [
            ("10.1.2.3", nil), ("10.2.0.1", "tls_required"), ("127.0.0.1", nil), ("fd12::1", nil),
            ("2001:db8::1", "tls_required"), ("::ffff:10.1.9.9", nil), ("::1", nil),
        ] {
            let address = try SocketAddress(ipAddress: peer, port: 5)
            #expect(code { try far.checkPeer(request("x"), address) } == problem, "\(peer)")
            #expect(code { try far.checkPeer(request("x", path: "/healthz"), address) } == nil)
            #expect(code { try far.checkPeer(request("x", path: "/crl/ca.crl"), address) } == nil)
            #expect(code { try far.checkPeer(request("x", path: "/crlx"), address) } == problem)
        }
        #expect(
            Reachability.problem(bindHost: "0.0.0.0", hasProxies: false, isTLS: false)?.contains("http_proxies")
                == true)
        #expect(Reachability.problem(bindHost: "0.0.0.0", hasProxies: true, isTLS: false) == nil)
        #expect(Reachability.problem(bindHost: "localhost", hasProxies: false, isTLS: false) == nil)
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "a", "10.0.0.0/-1", "10.0.0.0/8/8", "fd00::/129"] {
            #expect(AddressRange(wrong) == nil, "\(wrong)")
        }
    }

    /// Two daemons on one host, and servers of others beside them, share cookies by name.
    @Test func theCookieIsBoundToThePort_F17() {
        let policy = AccessPolicy(token: StandIn.token, reachability: local)
        let plain = policy.cookie("s", seconds: 1, request("127.0.0.1:7480", method: .post))
        #expect(plain == "refold_session_7480=s; Path=/; Max-Age=1; HttpOnly; SameSite=Strict")
        #expect(policy.sessionSecret(request("127.0.0.1:7480", [.cookie: "refold_session_7480=s"])) == "s")
        #expect(policy.sessionSecret(request("127.0.0.1:7481", [.cookie: "refold_session_7480=s"])) == nil)
        let secure = AccessPolicy(token: StandIn.token, reachability: proxied)
            .cookie("s", seconds: 1, request("refold.example", method: .post, [.origin: "https://refold.example"]))
        #expect(secure == "__Host-refold_session=s; Path=/; Max-Age=1; HttpOnly; SameSite=Strict; Secure")
        let far = AccessPolicy(token: StandIn.token, reachability: Reachability(bindHost: "0.0.0.0"))
        #expect(far.cookie("s", seconds: 1, request("a.example")).hasSuffix("; Secure"))
    }
}
