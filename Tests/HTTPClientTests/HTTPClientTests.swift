import Foundation
import Synchronization
import TestSupport
import Testing
@testable import HTTPClient

/// Every answer, and every way to get none, from a scripted server over a real socket.
struct HTTPClientTests {
    typealias Code = HTTPClientError.Code

    enum Outcome: Sendable, Equatable {
        case answer(Int, String)
        case error(Code)
    }

    private static let ok = "HTTP/1.1 200 OK\r\n", chunked = ok + "Transfer-Encoding: chunked\r\n\r\n"
    private static func ok(_ length: String, _ body: String) -> String {
        ok + "Content-Length: \(length)\r\n\r\n" + body
    }

    /// What the server sends, what the client makes of it.
    static let answers: [(name: String, sent: String, outcome: Outcome)] = [
        ("a length", ok("2", "ok"), .answer(200, "ok")),
        ("chunks", chunked + "1\r\no\r\n1\r\nk\r\n0\r\n\r\n", .answer(200, "ok")),
        ("until the end", "HTTP/1.0 200 OK\r\n\r\nok", .answer(200, "ok")),
        ("no content", "HTTP/1.1 204 No Content\r\n\r\n", .answer(204, "")),
        ("an error with a body", "HTTP/1.1 503 Away\r\nContent-Length: 4\r\n\r\naway", .answer(503, "away")),
        ("an interim answer", "HTTP/1.1 103 Early\r\n\r\n" + ok("0", ""), .answer(200, "")),
        ("a redirect", "HTTP/1.1 302 F\r\nLocation: http://127.0.0.1:1/\r\n\r\n", .answer(302, "")),
        ("the limit", ok("8", "12345678"), .answer(200, "12345678")),
        ("beyond the limit", ok("9", "123456789"), .error(.responseTooLarge)),
        ("beyond the limit, in chunks", chunked + "5\r\n12345\r\n5\r\n12345\r\n", .error(.responseTooLarge)),
        ("nothing", "", .error(.outcomeUnknown)),
        ("no HTTP", "SSH-2.0-OpenSSH_9.2\r\n", .error(.outcomeUnknown)),
        ("half a head", ok + "Content-Le", .error(.outcomeUnknown)),
        ("half a head after an interim one", "HTTP/1.1 103 Early\r\n\r\n" + ok, .error(.outcomeUnknown)),
        ("half a body", ok("5", "12"), .error(.outcomeUnknown)),
        ("a broken chunk", chunked + "zz\r\n", .error(.outcomeUnknown)),
        ("a negative length", ok("-1", ""), .error(.outcomeUnknown)),
        // RFC 9112, 6.3 asks for an error. libcurl reads to the end of the connection.
        ("a length beyond 64 bits", ok("99999999999999999999", "ok"), .answer(200, "ok")),
    ]

    @Test(arguments: answers)
    func responseOutcomes(name: String, sent: String, outcome: Outcome) async throws {
        let server = try ScriptedBroker { connection in
            guard connection.receiveHTTP() != nil, !sent.isEmpty else { return }
            try connection.send(Array(sent.utf8))
        }
        var request = HTTPRequest(.post, "http://127.0.0.1:\(server.port)/")
        request.responseBytesMax = 8
        #expect(await ask(request) == outcome)
    }

    @Test func whatIsSentIsOneWholeRequest() async throws {
        let requests = Mutex<[String]>([])
        let server = try echoing { request, _ in requests.withLock { $0.append(request) } }
        let client = HTTPClient(), host = "127.0.0.1:\(server.port)"
        for (method, body) in [
            (HTTPRequest.Method.get, nil), (.post, nil), (.post, ""), (.post, "{}"), (.put, "{}"), (.put, nil),
            (.delete, nil),
        ] as [(HTTPRequest.Method, String?)] {
            var request = HTTPRequest(method, "http://\(host)/a%20b/../c?d=e")
            request.headers = [("X-Empty", " "), ("Accept", "application/json")]
            request.body = body.map { Array($0.utf8) }
            if body != nil { request.headers.append(("Content-Type", "application/json")) }
            _ = try await client.send(request)
        }
        func expected(_ method: String, _ length: Int?, type: Bool = false, _ body: String = "") -> String {
            "\(method) /a%20b/../c?d=e HTTP/1.1\r\nHost: \(host)\r\nX-Empty:\r\nAccept: application/json\r\n"
                + (type ? "Content-Type: application/json\r\n" : "")
                + (length.map { "Content-Length: \($0)\r\n" } ?? "") + "\r\n\(body)"
        }
        let received = requests.withLock { $0 }
        #expect(
            received == [
                expected("GET", nil), expected("POST", 0), expected("POST", 0, type: true),
                expected("POST", 2, type: true, "{}"), expected("PUT", 2, type: true, "{}"), expected("PUT", 0),
                expected("DELETE", nil),
            ])
    }

    @Test func aLargeBodyIsSentWithoutExpectContinue() async throws {
        let length = Mutex(0), isAsked = Mutex(false)
        let server = try echoing { request, _ in
            length.withLock { $0 = request.utf8.count }
            isAsked.withLock { $0 = request.contains("Expect:") }
        }
        var request = HTTPRequest(.post, "http://127.0.0.1:\(server.port)/")
        request.body = [UInt8](repeating: UInt8(ascii: "x"), count: 3 << 20)
        #expect(await ask(request) == .answer(200, ""))
        #expect(length.withLock { $0 } > 3 << 20 && !isAsked.withLock { $0 })
    }

    /// RFC 9110, 9.2.2: what is not idempotent is not sent again by itself, so it begins on a connection of its own.
    @Test func connectionsAreReusedWhereSendingTwiceDoesNoHarm() async throws {
        let numbers = Mutex<[Int]>([])
        let server = try echoing { _, number in numbers.withLock { $0.append(number) } }
        let client = HTTPClient()
        for method in [HTTPRequest.Method.get, .get, .post, .post] {
            _ = try await client.send(HTTPRequest(method, "http://127.0.0.1:\(server.port)/"))
        }
        let seen = numbers.withLock { $0 }
        #expect(seen.count == 4 && seen[0] == seen[1] && Set(seen.dropFirst()).count == 3, "\(seen)")
    }

    @Test func aConnectionThatTheServerClosedIsReplaced() async throws {
        let server = try ScriptedBroker { connection in
            guard connection.receiveHTTP() != nil else { return }
            try connection.send(Array("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".utf8))
        }
        let client = HTTPClient()
        for _ in 0..<5 {
            #expect(try await client.send(HTTPRequest(.get, "http://127.0.0.1:\(server.port)/")).status == 200)
        }
    }

    @Test func silenceEndsWithTheTimeOut() async throws {
        let server = try ScriptedBroker { connection in while connection.receiveHTTP() != nil {} }
        var request = HTTPRequest(.get, "http://127.0.0.1:\(server.port)/")
        request.timeout = .milliseconds(50)
        #expect(await ask(request) == .error(.timedOut))
    }

    @Test func cancellationEndsTheTransfer() async throws {
        let hasCome = Mutex(false)
        let server = try ScriptedBroker { connection in
            while connection.receiveHTTP() != nil { hasCome.withLock { $0 = true } }
        }
        let port = server.port
        let task = Task { await ask(HTTPRequest(.get, "http://127.0.0.1:\(port)/")) }
        #expect(await eventually { hasCome.withLock { $0 } })
        task.cancel()
        #expect(await task.value == .error(.cancelled))
    }

    @Test func refusedAndUnresolvedHostsAreNotConnected() async throws {
        // Port 1 of loopback: no listener. RFC 6761, 6.4: the name never resolves.
        let reasons = ["127.0.0.1:1": "Connection refused", "nowhere.invalid": "nowhere.invalid"]
        for (host, reason) in reasons {
            await #expect {
                _ = try await HTTPClient().send(HTTPRequest(.get, "http://\(host)/"))
            } throws: {
                let error = $0 as? HTTPClientError
                return error?.code == .notConnected && error?.description.contains(reason) == true
            }
        }
    }

    @Test(arguments: [
        ("http://127.0.0.1:1/", "X", "a\r\nY: b"), ("http://127.0.0.1:1/", "X", "a\u{0}"),
        ("http://127.0.0.1:1/", "X: a\r\nY", "b"), ("http://127.0.0.1:1/", "", "b"), ("http://127.0.0.1:1/", "Ä", "b"),
        ("file:///etc/passwd", "X", "a"), ("gopher://127.0.0.1:1/", "X", "a"), ("http://127.0.0.1:99999/", "X", "a"),
        ("http://127.0.0.1:1/\u{0}", "X", "a"), ("", "X", "a"), ("127.0.0.1:1/", "X", "a"),
        ("http://u:p@127.0.0.1:1/", "X", "a"), ("http://127.0.0.1:1/", "content-length", "1"),
    ])
    func aMalformedRequestIsRefusedBeforeItIsSent(url: String, name: String, value: String) async throws {
        var request = HTTPRequest(.get, url)
        request.headers = [(name, value)]
        #expect(await ask(request) == .error(.invalidRequest))
    }

    /// Nothing was sent: the request may be repeated without harm.
    @Test func aServerWithoutTLSIsNotConnected() async throws {
        let server = try echoing { _, _ in }
        var request = HTTPRequest(.post, "https://127.0.0.1:\(server.port)/")
        request.connectTimeout = .milliseconds(500)
        #expect(await ask(request) == .error(.notConnected))
    }

    @Test func manyAtATime() async throws {
        let server = try echoing { _, _ in }
        let client = HTTPClient(), port = server.port
        let statuses = try await withThrowingTaskGroup(of: Int.self) { group in
            for _ in 0..<40 {
                group.addTask { try await client.send(HTTPRequest(.get, "http://127.0.0.1:\(port)/")).status }
            }
            return try await group.reduce(into: [Int]()) { $0.append($1) }
        }
        #expect(statuses == Array(repeating: 200, count: 40))
    }

    @Test(arguments: [
        (Duration.zero, 1), (.nanoseconds(1), 1), (.milliseconds(50), 50), (.seconds(60), 60_000),
        (.seconds(Int64.max), 2_000_000_000), (.seconds(-5), 1),
        (.seconds(Int64.min), 1),
    ])
    func timeOutsInMilliseconds(duration: Duration, milliseconds: Int) {
        #expect(duration.milliseconds == milliseconds)
    }

    private func echoing(_ see: @escaping @Sendable (String, Int) -> Void) throws -> ScriptedBroker {
        try ScriptedBroker { connection in
            while let request = connection.receiveHTTP() {
                see(request, connection.number)
                try connection.send(Array("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".utf8))
            }
        }
    }

    private func ask(_ request: HTTPRequest) async -> Outcome {
        do {
            let response = try await HTTPClient().send(request)
            return .answer(response.status, String(decoding: response.body, as: UTF8.self))
        } catch {
            return .error(error.code)
        }
    }
}
