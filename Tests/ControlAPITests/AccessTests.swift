import Access
import EventModel
import Foundation
import HTTPTypes
import Hummingbird
import Testing
@testable import ControlAPI

/// Who gets in where: every route of the router, for every kind of token.
@Suite struct AccessTests {
    let system = StandIn()

    func send(
        _ method: HTTPRequest.Method, _ uri: String, token: String? = nil, headers: HTTPFields = [:],
        body: String? = nil, bindHost: String = "127.0.0.1"
    ) async throws -> RouterClient.Response {
        var headers = headers
        if let token { headers[.authorization] = "Bearer \(token)" }
        if body != nil { headers[.contentType] = "application/json" }
        return try await system.client(bindHost: bindHost) { [headers] client in
            try await client.execute(
                uri: uri, method: method, headers: headers, body: body.map { ByteBuffer(string: $0) })
        }
    }

    func code(_ response: RouterClient.Response) -> String? {
        (try? JSONSerialization.jsonObject(with: Data(buffer: response.body)) as? [String: Any])?["code"] as? String
    }

    /// A request to a route, with a tenant in its path's place.
    static func uri(_ route: Route, tenant: String) -> String {
        route.path.split(separator: "/").map { part in
            switch part {
            case "{tenant}": tenant
            case "{id}", "{position}": "1"
            case "{device}": "d1"
            case "{name}": "device_status"
            case "{authority}": "ca"
            case "{serial}": "4d"
            default: String(part)
            }
        }.reduce("") { "\($0)/\($1)" }
    }

    /// The whole router, a token of tenant `a`, and everything of tenant `b`: one answer, whatever exists.
    @Test func aTokenOfOneTenantOpensNothingOfAnother() async throws {
        let secrets = Role.allCases.map { system.tokens.add("of-a-\($0)", $0, tenant: "a") }
        let routes = system.api().routes.filter { $0.path.contains("{tenant}") }
        #expect(routes.count >= 10)
        for route in routes {
            var answers: Set<String> = []
            for secret in secrets {
                for tenant in ["b", "does-not-exist"] {
                    let uri = Self.uri(route, tenant: tenant), body = route.access.isWrite ? "{}" : nil
                    let response = try await send(route.method, uri, token: secret, body: body)
                    #expect(response.status == .forbidden, "\(route.method) \(route.path): \(response.status)")
                    #expect(code(response) == "foreign_tenant")
                    answers.insert(String(buffer: response.body).replacing("/\(tenant)/", with: "/…/"))
                }
            }
            #expect(answers.count == 1, "\(route.path) tells tenants apart")
        }
        #expect(system.requests.isEmpty && system.facts.withLock { $0.pages.isEmpty && $0.waits.isEmpty })
    }

    /// What the path may be spelt like so that a check and a handler see two tenants.
    @Test(arguments: [
        "/api/v1/tenants/a%2F..%2Fb/firmware", "/api/v1/tenants/a/../b/firmware", "/api/v1/tenants/%62/firmware",
        "/api/v1/tenants/b%00/firmware", "/api/v1/tenants//b/firmware", "/api/v1/tenants/a/%2e%2e/b/firmware",
        "/api/v1/tenants/b/firmware/", "/api/v1/tenants/b;a/firmware", "/api/v1//tenants/b/firmware",
        "/api/v1/tenants/b/firmware?tenant=a", "/api/v1/tenants/b%2Ffirmware", "/api/v1/./tenants/b/firmware",
        "/api/v1/tenants/%2562/firmware", "/api/v1/tenants/B/firmware", "/api/v1/tenants/a%20/firmware",
        "/api/v1/tenants/*/firmware", "/api/v1/tenants/%2A/firmware",
    ])
    func tricksOfThePath(uri: String) async throws {
        let secret = system.tokens.add("of-a", .admin, tenant: "a")
        for method: HTTPRequest.Method in [.get, .post, .head] {
            let response = try await send(
                method, uri, token: secret, headers: [HTTPField.Name("X-Tenant-ID")!: "a"],
                body: method == .post ? "{}" : nil)
            let isRefused = [400, 403, 404, 405].contains(response.status.code)
            #expect(isRefused, "\(method) \(uri): \(response.status.code)")
        }
        #expect(system.requests.isEmpty && system.facts.withLock { $0.pages.isEmpty })
    }

    @Test func everyRouteAsksForItsRole() async throws {
        let secrets = Role.allCases.map { ($0, system.tokens.add("all-\($0)", $0)) }
        for route in system.api().routes where !route.path.hasSuffix("/stream") {
            let needed: Role
            switch route.access {
            case .open: continue
            case .read(let role), .write(let role): needed = role
            }
            let uri = Self.uri(route, tenant: "a")
            #expect(try await send(route.method, uri, body: "{}").status == .unauthorized, "\(route.path) without")
            for (role, secret) in secrets {
                let response = try await send(route.method, uri, token: secret, body: route.access.isWrite ? "{}" : nil)
                let isRefused = code(response) == "role_insufficient"
                #expect(isRefused == (role < needed), "\(route.method) \(route.path) as \(role): \(response.status)")
                #expect(!isRefused || response.status == .forbidden)
            }
        }
    }

    @Test func whatConcernsAllTenantsIsNotATenants() async throws {
        let secret = system.tokens.add("of-a", .admin, tenant: "a")
        for route in system.api().routes where route.scope == .system && route.access != .open {
            let response = try await send(route.method, Self.uri(route, tenant: ""), token: secret)
            #expect(response.status == .forbidden && code(response) == "all_tenants_required", "\(route.path)")
        }
    }

    @Test func readingIsOpenUntilThereIsAToken() async throws {
        let uri = "/api/v1/tenants/a/firmware"
        #expect(try await send(.get, uri).status == .ok)
        #expect(try await send(.get, uri, bindHost: "0.0.0.0").status == .unauthorized)
        #expect(try await send(.get, uri, token: "wrong").status == .unauthorized, "a wrong token is not passed over")
        let revoked = system.tokens.add("gone", .viewer, revoked: true)
        #expect(try await send(.get, uri).status == .unauthorized, "no revocation opens anything")
        #expect(try await send(.get, uri, token: revoked).status == .unauthorized)
        let viewer = system.tokens.add("viewer", .viewer, tenant: "a")
        #expect(try await send(.get, uri).status == .unauthorized)
        #expect(try await send(.get, uri, token: viewer).status == .ok)
        #expect(try await send(.get, "/healthz").status == .ok)
    }

    /// The log is damaged, or still being read: nobody knows who has which token.
    @Test func untilTokensAreKnownOnlyTheStateIsOpen() async throws {
        let policy = AccessPolicy(
            token: StandIn.token, reachability: Reachability(bindHost: "127.0.0.1"),
            tokenIndex: TokenIndex(clock: { Timestamp(microseconds: 0) }))
        let api = ControlAPI(system: system.api().system, policy: policy)
        let client = RouterClient(api.router())
        for (uri, token, status) in [
            ("/api/v1/status", "", 200), ("/metrics", "", 200), ("/api/v1/dead-letters", "", 401),
            ("/api/v1/tenants/a/firmware", "", 401), ("/api/v1/tenants/a/firmware", "Bearer refold_x", 503),
            ("/api/v1/tenants/a/firmware", "Bearer \(StandIn.token)", 200),
        ] {
            let headers: HTTPFields = token.isEmpty ? [:] : [.authorization: token]
            let response = try await client.execute(uri: uri, method: .get, headers: headers)
            #expect(response.status.code == status, "\(uri) \(token)")
        }
    }

    @Test func theRecordNamesTheToken() async throws {
        let secret = system.tokens.add("night-shift", .operator, tenant: "a")
        for token in [secret, StandIn.token] {
            let response = try await send(
                .post, "/api/v1/tenants/a/firmware", token: token, body: #"{"version":"1","file_url":"https://h/f"}"#)
            #expect(response.status == .created)
        }
        #expect(system.requests.map(\.actor) == ["night-shift", "admin"])
    }

    // MARK: tokens

    @Test func tokensAreCreatedListedAndRevoked() async throws {
        let created = try await send(
            .post, "/api/v1/tokens", token: StandIn.token, body: #"{"name":"ci","role":"operator","tenant":"a"}"#)
        let row = try #require(try JSONSerialization.jsonObject(with: Data(buffer: created.body)) as? [String: Any])
        #expect(created.status == .created && row["token"] as? String == "refold_secret_of_ci")
        let listed = String(buffer: try await send(.get, "/api/v1/tokens", token: StandIn.token).body)
        #expect(listed.contains(#""name":"ci""#) && !listed.contains("refold_secret") && !listed.contains("sha256"))
        #expect(try await send(.post, "/api/v1/tokens/1/revoke", token: StandIn.token).status == .ok)
        #expect(try await send(.post, "/api/v1/tokens/7/revoke", token: StandIn.token).status == .notFound)
        let role = try await send(.post, "/api/v1/tokens", token: StandIn.token, body: #"{"name":"x","role":"root"}"#)
        #expect(role.status == .unprocessableContent && code(role) == "invalid_value")
    }

    @Test func aTenantsAdminSeesTheTenantsTokens() async throws {
        let admin = system.tokens.add("a-admin", .admin, tenant: "a")
        system.tokens.add("b-viewer", .viewer, tenant: "b")
        system.tokens.add("everywhere", .viewer)
        let listed = String(buffer: try await send(.get, "/api/v1/tokens", token: admin).body)
        #expect(listed.contains("a-admin") && !listed.contains("b-viewer") && !listed.contains("everywhere"))
        _ = try await send(.post, "/api/v1/tokens", token: admin, body: #"{"name":"more","role":"viewer"}"#)
        let request = try #require(system.tokens.requests.withLock { $0.last })
        #expect(request.command == .create(TokenSpec(name: "more", role: .viewer, tenantID: "a")))
    }

    // MARK: sessions

    func login(_ token: String) async throws -> (cookie: String, csrf: String) {
        let response = try await send(.post, "/login", body: #"{"token":"\#(token)"}"#)
        #expect(response.status == .ok, "\(String(buffer: response.body))")
        let row = try #require(try JSONSerialization.jsonObject(with: Data(buffer: response.body)) as? [String: Any])
        let cookie = try #require(response.headers[.setCookie])
        #expect(cookie.hasSuffix("; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict"))
        return (String(cookie.prefix { $0 != ";" }), try #require(row["csrf"] as? String))
    }

    @Test func aSessionReadsAndCommandsWithItsCSRFToken() async throws {
        let api = system.api()
        let secret = system.tokens.add("night-shift", .operator, tenant: "a")
        let client = RouterClient(api.router())
        func ask(
            _ method: HTTPRequest.Method, _ uri: String, _ headers: HTTPFields, _ body: String? = nil
        ) async throws -> RouterClient.Response {
            var headers = headers
            if body != nil { headers[.contentType] = "application/json" }
            return try await client.execute(
                uri: uri, method: method, headers: headers, body: body.map { ByteBuffer(string: $0) })
        }
        let login = try await ask(.post, "/login", [:], #"{"token":"\#(secret)"}"#)
        let cookie = String(try #require(login.headers[.setCookie]).prefix { $0 != ";" })
        let row = try JSONSerialization.jsonObject(with: Data(buffer: login.body)) as? [String: Any]
        let csrf = try #require(row?["csrf"] as? String)
        let firmware = "/api/v1/tenants/a/firmware", body = #"{"version":"1","file_url":"https://h/f"}"#
        let both: HTTPFields = [.cookie: "other=1; \(cookie)", .csrfToken: csrf]
        #expect(try await ask(.get, firmware, both).status == .ok)
        #expect(try await ask(.get, firmware, [.cookie: cookie]).status == .unauthorized, "a half opens nothing")
        #expect(try await ask(.get, "/api/v1/tenants/b/firmware", both).status == .forbidden)
        let shown = String(buffer: try await ask(.get, "/api/v1/session", both).body)
        #expect(shown.contains(csrf) && shown.contains("night-shift"))
        let bare = try await ask(.post, firmware, [.cookie: cookie], body)
        #expect(bare.status == .forbidden && code(bare) == "csrf_token_required")
        let wrong = try await ask(.post, firmware, [.cookie: cookie, .csrfToken: csrf + "0"], body)
        #expect(wrong.status == .forbidden)
        #expect(try await ask(.post, firmware, [.cookie: cookie, .csrfToken: csrf], body).status == .created)
        let elsewhere = try await ask(
            .post, firmware, [.cookie: cookie, .csrfToken: csrf, .origin: "https://evil.example"], body)
        #expect(elsewhere.status == .forbidden && code(elsewhere) == "foreign_origin")

        #expect(try await ask(.post, "/logout", [.cookie: cookie]).status == .forbidden)
        #expect(try await ask(.get, firmware, both).status == .ok, "nobody else ends it")
        let out = try await ask(.post, "/logout", both)
        #expect(out.status == .noContent && out.headers[.setCookie]?.contains("Max-Age=0") == true)
        #expect(try await ask(.get, firmware, both).status == .unauthorized)
        #expect(system.requests.map(\.actor) == ["night-shift"])
    }

    @Test func aSessionEndsWithItsToken() async throws {
        let store = SessionStore(perTokenMax: 5)
        let (secret, session) = store.begin(Principal(name: "x", role: .viewer, tokenID: 1))
        #expect(store.find(secret) != nil && store.find(session.csrf) == nil)
        #expect(store.find(secret, now: .now + .seconds(SessionStore.seconds + 1)) == nil)
        for _ in 0..<5 { _ = store.begin(Principal(name: "x", role: .viewer, tokenID: 1)) }
        #expect(store.find(secret) == nil, "the token's oldest makes room")
    }

    /// 1,001 logins of one viewer ended everybody's sessions.
    @Test func nobodyEndsAnotherTokensSessions_F15() {
        let store = SessionStore(perTokenMax: 5, sessionsMax: 100), now = ContinuousClock.now
        let mine = store.begin(.folderAdmin, now: now).secret
        let neighbour = store.begin(Principal(name: "n", role: .viewer, tenantID: "b", tokenID: 2), now: now).secret
        for index in 0..<1_001 {
            _ = store.begin(
                Principal(name: "v", role: .viewer, tenantID: "a", tokenID: 3), now: now + .milliseconds(index + 1))
        }
        #expect(store.find(mine, now: now) != nil && store.find(neighbour, now: now) != nil)
        // With as many tokens as the tenant can have: what makes room is the tenant's own.
        for token in 0..<30 {
            for _ in 0..<5 {
                _ = store.begin(
                    Principal(name: "v", role: .viewer, tenantID: "a", tokenID: Int64(100 + token)),
                    now: now + .seconds(2))
            }
        }
        #expect(store.find(mine, now: now) != nil && store.find(neighbour, now: now) != nil)
    }

    @Test func whoHasNoTokenDoesNotLogIn() async throws {
        let wrong = try await send(.post, "/login", body: #"{"token":"guess"}"#)
        #expect(wrong.status == .unauthorized && wrong.headers[.setCookie] == nil)
        let foreign = try await send(
            .post, "/login", headers: [.origin: "https://evil.example"], body: #"{"token":"\#(StandIn.token)"}"#)
        #expect(foreign.status == .forbidden && foreign.headers[.setCookie] == nil)
        let form = try await send(.post, "/login", headers: [.contentType: "text/plain"], body: nil)
        #expect(form.status == .badRequest)
    }
}
