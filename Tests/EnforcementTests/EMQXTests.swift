import Enforcement
import Foundation
import Synchronization
import TestSupport
import Testing

/// EMQX cannot be had from Debian: its HTTP API as its source of 5.0 to 6.2 has it, scripted, with its faults.
struct EMQXTests {
    /// An EMQX in memory: who is connected, who is banned.
    final class Lab: Sendable {
        struct State {
            /// Usernames by client id.
            var connected: [String: String] = [:]
            var banned: Set<String> = []
            var requests: [String] = []
            var token = 0
            /// How often a kicked client is still listed.
            var lag = 0
            var kicked: Set<String> = []
            /// What is sent instead, while it is set.
            var fault: (String) -> String? = { _ in nil }
        }
        let state = Mutex(State())
        private let server: Mutex<ScriptedBroker?> = Mutex(nil)

        init() throws {
            let made = try ScriptedBroker { [weak self] connection in
                while let request = connection.receiveHTTP(), let self {
                    let line = request.split(separator: "\r\n").first.map(String.init) ?? ""
                    let answer = state.withLock { Self.answer(request, line, &$0) }
                    try connection.send(Array(answer.utf8))
                }
            }
            server.withLock { $0 = made }
        }

        var url: String { "http://127.0.0.1:\(server.withLock { $0?.port ?? 0 })" }
        var requests: [String] { state.withLock { $0.requests } }

        static func reply(_ status: Int, _ body: String = "") -> String {
            "HTTP/1.1 \(status) X\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)"
        }

        private static func answer(_ request: String, _ line: String, _ state: inout State) -> String {
            let words = line.split(separator: " ").map(String.init)
            let call = "\(words[0]) \(words[1].dropFirst("/api/v5".count))"
            state.requests.append(call)
            if let fault = state.fault(call) { return fault }
            let body = request.components(separatedBy: "\r\n\r\n").last ?? ""
            if call == "POST /login" {
                guard body.contains("\"password\":\"right\"") else {
                    return reply(401, #"{"code":"BAD_USERNAME_OR_PWD"}"#)
                }
                state.token += 1
                return reply(
                    200, "{\"token\":\"t\(state.token)\",\"version\":\"5.8.0\",\"license\":{\"edition\":\"ee\"}}")
            }
            let key = "Basic " + Data("key:secret".utf8).base64EncodedString()
            guard
                request.contains("Authorization: Bearer t\(state.token)\r\n")
                    || request.contains("Authorization: \(key)\r\n")
            else { return reply(401, #"{"code":"BAD_TOKEN"}"#) }
            return act(call, body, &state)
        }

        private static func client(_ id: String, _ username: String, connected: Bool) -> String {
            "{\"clientid\":\"\(id)\",\"username\":\"\(username)\",\"connected\":\(connected),\"node\":\"emqx@h\"}"
        }

        private static func act(_ call: String, _ body: String, _ state: inout State) -> String {
            func listed(_ id: String) -> Bool {
                guard state.kicked.contains(id) else { return true }
                state.lag -= 1
                if state.lag < 0 { state.connected[id] = nil }
                return state.lag >= 0
            }
            let path = call.split(separator: " ")[1].removingPercentEncoding ?? ""
            switch call {
            case "POST /banned":
                let ban = (try? JSONSerialization.jsonObject(with: Data(body.utf8))) as? [String: String] ?? [:]
                let who = "\(ban["as"] ?? "")/\(ban["who"] ?? "")"
                guard ISO8601DateFormatter().date(from: ban["until"] ?? "").map({ $0 > Date() }) == true else {
                    return reply(400, #"{"code":"BAD_REQUEST"}"#)
                }
                guard state.banned.insert(who).inserted else { return reply(400, #"{"code":"ALREADY_EXISTS"}"#) }
                if ban["as"] == "clientid" { state.kicked.insert(ban["who"] ?? "") }
                return reply(200, body)
            case "POST /clients/kickout/bulk":
                state.kicked.formUnion((try? JSONDecoder().decode([String].self, from: Data(body.utf8))) ?? [])
                return reply(204)
            case let text where text.hasPrefix("DELETE /banned/"):
                return state.banned.remove(String(path.dropFirst("/banned/".count))) == nil
                    ? reply(404, #"{"code":"NOT_FOUND"}"#) : reply(204)
            case let text where text.hasPrefix("GET /clients?"):
                let name = path.components(separatedBy: "username=").last ?? ""
                let found = state.connected.filter { $0.value == name }.keys.sorted().filter(listed)
                return reply(
                    200, "{\"data\":[\(found.map { client($0, name, connected: true) }.joined(separator: ","))]}")
            case let text where text.hasPrefix("GET /clients/"):
                let id = String(path.dropFirst("/clients/".count))
                guard let name = state.connected[id], listed(id) else {
                    return reply(404, #"{"code":"CLIENTID_NOT_FOUND"}"#)
                }
                return reply(200, client(id, name, connected: name != "offline"))
            default: return reply(404, #"{"code":"NOT_FOUND"}"#)
            }
        }
    }

    private func api(_ lab: Lab, password: String = "right", suffix: String = "", seconds: Double = 5) -> EMQXAPI {
        EMQXAPI(lab.url + suffix, .login(username: "admin", password: password), timeout: .seconds(seconds))
    }

    @Test func banKickAndProof() throws {
        let lab = try Lab()
        lab.state.withLock { $0.connected = ["dev/1": "acme/dev-1", "dev/1b": "acme/dev-1", "dev/2": "acme/dev-2"] }
        let target = ClientTarget(clientID: "dev/1", username: "acme/dev-1")
        let cutter = EMQXCutter(api(lab))
        #expect(
            cutter.cut(target)
                == .cut(evidence: "banned and kicked; EMQX no longer lists the client ids \"dev/1\", \"dev/1b\""))
        #expect(lab.state.withLock { $0.banned } == ["username/acme/dev-1", "clientid/dev/1"])
        #expect(lab.state.withLock { $0.connected.keys.sorted() } == ["dev/2"])
        let calls = lab.requests
        #expect(calls[1] == "POST /banned" && calls.firstIndex(of: "POST /clients/kickout/bulk")! > 1, "\(calls)")
        // Banned already, and gone.
        #expect(cutter.cut(target) == .wasNotConnected)
        try cutter.lift(target)
        try cutter.lift(target)
        #expect(lab.state.withLock { $0.banned } == [])
    }

    @Test func manyAreKickedAtOnce() throws {
        let lab = try Lab()
        let ids = (0..<1200).map { "d\($0)" }
        lab.state.withLock { for id in ids { $0.connected[id] = "u-\(id)" } }
        let outcomes = EMQXCutter(api(lab)).cut(ids.map { ClientTarget(clientID: $0) })
        #expect(outcomes.count == 1200 && outcomes.allSatisfy { if case .cut = $0 { true } else { false } })
        #expect(lab.requests.count { $0 == "POST /clients/kickout/bulk" } == 2)
    }

    @Test func aClientThatStays() throws {
        let lab = try Lab()
        lab.state.withLock {
            $0.connected = ["a": "u", "offline": "offline"]; $0.lag = 3
        }
        #expect(
            EMQXCutter(api(lab)).cut(ClientTarget(clientID: "a"))
                == .cut(evidence: "banned and kicked; EMQX no longer lists the client ids \"a\""))
        lab.state.withLock {
            $0.connected = ["b": "u"]; $0.lag = 10_000
        }
        #expect(
            EMQXCutter(api(lab), confirmSeconds: 0.3).cut(ClientTarget(clientID: "b"))
                == .stillConnected(reason: "EMQX lists the client ids \"b\""))
        // A session without a connection.
        #expect(EMQXCutter(api(lab)).cut(ClientTarget(clientID: "offline")) == .wasNotConnected)
    }

    @Test func loginAndURLs() throws {
        let lab = try Lab()
        for suffix in ["", "/", "/api/v5", "/api/v5/"] { #expect(try api(lab, suffix: suffix).client("x") == nil) }
        let one = api(lab)
        for _ in 0..<3 { _ = try one.client("x") }
        #expect(lab.requests.count { $0 == "POST /login" } == 5)
        // The token ends: one more login.
        lab.state.withLock { $0.token += 100 }
        _ = try one.client("x")
        #expect(lab.requests.count { $0 == "POST /login" } == 6)
        let key = EMQXAPI(lab.url, .apiKey(key: "key", secret: "secret"))
        #expect(try key.client("x") == nil)
    }

    @Test func wrongCredentials() throws {
        let lab = try Lab()
        let wrong = EMQXAPI(lab.url, .apiKey(key: "key", secret: "wrong"))
        for api in [api(lab, password: "wr0ng"), wrong] {
            let error = #expect(throws: EMQXError.self) { _ = try api.client("x") }
            #expect(error?.status == 401)
            let text = error?.description ?? ""
            #expect(
                text.contains("check EMQX_API_USER") && !text.contains("wr0ng") && !text.contains("wrong"), "\(text)")
        }
    }

    /// What the API answers to everything, or to one call, and what its caller is told.
    static let faults: [(name: String, at: String, answer: String, expected: String)] = [
        ("500", "GET", Lab.reply(500, "{\"code\":\"INTERNAL_ERROR\"}"), "status 500 (INTERNAL_ERROR)"),
        ("503 with HTML", "GET", Lab.reply(503, "<html>away</html>"), "status 503"),
        ("a redirect", "GET", "HTTP/1.1 302 X\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", "status 302"),
        ("garbage", "GET", Lab.reply(200, "]]"), "not EMQX's JSON"),
        ("empty", "GET", Lab.reply(200), "not EMQX's JSON"),
        ("another type", "GET", Lab.reply(200, "{\"clientid\":7,\"connected\":\"yes\"}"), "not EMQX's JSON"),
        ("deep", "GET", Lab.reply(200, String(repeating: "[", count: 100_000)), "not EMQX's JSON"),
        ("no HTTP", "GET", "SSH-2.0-OpenSSH\r\n", "EMQX API GET /clients/x: "),
        ("a login without token", "POST /login", Lab.reply(200, "{}"), "/login: the response is not EMQX's JSON"),
        ("a token with line breaks", "POST /login", Lab.reply(200, "{\"token\":\"a\\r\\nX: y\"}"), "control character"),
        (
            "a refused ban", "POST /banned", Lab.reply(400, "{\"code\":\"BAD_REQUEST\"}"),
            "POST /banned: status 400 (BAD_REQUEST)"
        ),
        ("a refused kick", "POST /clients", Lab.reply(403, "{\"code\":\"API_KEY_NOT_ALLOW\"}"), "status 403"),
    ]

    @Test(arguments: faults)
    func answersThatFail(name: String, at: String, answer: String, expected: String) throws {
        let lab = try Lab()
        lab.state.withLock { state in
            state.connected = ["x": "u"]
            state.fault = { $0.hasPrefix(at) ? answer : nil }
        }
        let outcome = EMQXCutter(api(lab)).cut(ClientTarget(clientID: "x"))
        guard case .failed(let error) = outcome else {
            Issue.record("\(outcome)")
            return
        }
        #expect(error.contains(expected), "\(error)")
    }

    @Test func aSlowOrAbsentAPI() throws {
        let slow = try ScriptedBroker { connection in while connection.receiveHTTP() != nil {} }
        let began = ContinuousClock.now
        let api = EMQXAPI("http://127.0.0.1:\(slow.port)", .apiKey(key: "k", secret: "s"), timeout: .milliseconds(300))
        #expect(throws: EMQXError.self) { try api.kickOut(["a"]) }
        #expect(ContinuousClock.now - began < .seconds(3))
        let away = EMQXAPI("http://127.0.0.1:\(freeLoopbackPort())", .apiKey(key: "k", secret: "s"))
        let error = #expect(throws: EMQXError.self) { try away.kickOut(["a"]) }
        #expect(error?.status == nil && error?.description.contains("Connection refused") == true)
        #expect(EMQXCutter(away).cut(ClientTarget()) == .failed(error: "neither a username nor a client id is known"))
    }
}
