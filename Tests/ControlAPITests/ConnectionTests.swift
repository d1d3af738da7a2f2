import Foundation
import Logging
import NIOCore
import TestSupport
import Testing
@testable import ControlAPI

/// Clients that hold connections without a request, on real sockets.
@Suite struct ConnectionTests {
    static let probe = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"

    private func withServer(
        connectionsMax: Int, headerTime: TimeAmount, _ body: (Int) async throws -> Void
    ) async throws {
        let (ports, listening) = AsyncStream<Int>.makeStream()
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        let server = StandIn().api().server(
            host: "127.0.0.1", port: 0, connectionsMax: connectionsMax, headerTime: headerTime, logger: logger
        ) { listening.yield($0) }
        let running = Task { try await server.run() }
        defer { running.cancel() }
        try await body(try #require(await ports.first { _ in true }))
    }

    /// Without the limit, 16 of these keep out everything until they time out.
    @Test(arguments: [
        "", "GET /healthz HTTP/1.1\r\nHo", ConnectionTests.probe,
        "POST /api/v1/tokens HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{",
    ])
    func connectionsWithoutARequestMakeRoomForProbes(sent: String) async throws {
        try await withServer(connectionsMax: 16, headerTime: .seconds(60)) { port in
            var clients: [RawClient] = []
            for _ in 0..<8 {
                for _ in 0..<12 {
                    let client = try RawClient(port: port)
                    client.send(sent)
                    clients.append(client)
                }
                let probe = try RawClient(port: port)
                probe.send(Self.probe)
                let answer = try await probe.receive(seconds: 5)
                #expect(answer?.hasPrefix("HTTP/1.1 200") == true, "\(String(describing: answer))")
            }
            withExtendedLifetime(clients) {}
        }
    }

    @Test func aHeaderThatIsLateEndsItsConnection() async throws {
        try await withServer(connectionsMax: 16, headerTime: .seconds(1)) { port in
            let silent = try RawClient(port: port), half = try RawClient(port: port)
            half.send("GET /healthz HTTP/1.1\r\nHo")
            #expect(try await silent.receive(seconds: 10) == "")
            #expect(try await half.receive(seconds: 10) == "")

            // Idle between two requests is something else; half of the second one is not.
            let kept = try RawClient(port: port)
            for _ in 0..<2 {
                kept.send(Self.probe)
                #expect(try await kept.receive(seconds: 5)?.hasPrefix("HTTP/1.1 200") == true)
                #expect(try await kept.receive(seconds: 1.5) == nil, "still open")
            }
            kept.send("GET /hea")
            #expect(try await kept.receive(seconds: 10) == "")
        }
    }

    @Test(arguments: [
        "Transfer-Encoding: xchunked\r\n\r\n{}", "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    ])
    func aBodyThatIsNoHTTPIsTheClientsError(rest: String) async throws {
        try await withServer(connectionsMax: 16, headerTime: .seconds(5)) { port in
            let client = try RawClient(port: port)
            client.send(
                "POST /api/v1/tokens HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \(StandIn.token)\r\n"
                    + "Content-Type: application/json\r\n" + rest)
            let answer = try #require(try await client.receive(seconds: 5))
            #expect(answer.hasPrefix("HTTP/1.1 400") && answer.contains("malformed_request"), "\(answer)")
        }
    }
}

/// A TCP client that sends what it is told; closed with the object.
private final class RawClient {
    private let descriptor: Int32

    init(port: Int) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        try #require(connectLoopback(descriptor, port: port))
    }

    deinit { close(descriptor) }

    func send(_ text: String) {
        let bytes = Array(text.utf8)
        _ = Foundation.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL))
    }

    /// What arrives until the server pauses; "" when it has closed the connection, nil when nothing arrives in time.
    func receive(seconds: Double) async throws -> String? {
        var deadline = ContinuousClock.now + .seconds(seconds), text: String?
        var bytes = [UInt8](repeating: 0, count: 4096)
        while ContinuousClock.now < deadline {
            let count = recv(descriptor, &bytes, bytes.count, Int32(MSG_DONTWAIT))
            if count > 0 {
                text = (text ?? "") + String(decoding: bytes[..<count], as: UTF8.self)
                deadline = ContinuousClock.now + .milliseconds(200)
            } else if count == 0 || errno != EAGAIN {
                return text ?? ""
            } else {
                try await Task.sleep(for: .milliseconds(10))
            }
        }
        return text
    }
}
