import Foundation
import MQTT
import TestSupport
import Testing
@testable import Enforcement

/// A Mosquitto that demands client certificates and reads a CRL file, with an internal listener without TLS.
final class MosquittoLab: Sendable {
    let server: MosquittoServer
    let authority: TestAuthority
    /// Another CA that the broker trusts.
    let other: TestAuthority?
    let first, second: TestAuthority.Issued
    let internalPort: Int
    var crlPath: String { server.folder + "/fleet.crl" }

    init(
        lines: [String] = [], internalLines: [String] = [], files: [String: String] = [:], anonymous: Bool = true,
        secondIssuer: Bool = false, started: Bool = true
    ) throws {
        internalPort = freeLoopbackPort()
        server = try MosquittoServer(
            tls: true, clientCertificates: true, allowAnonymous: anonymous,
            lines: ["crlfile $folder/fleet.crl", "use_identity_as_username true"] + lines
                + ["listener \(internalPort) 127.0.0.1"] + internalLines, files: files, started: false)
        authority = try TestAuthority("ca", in: server.folder)
        first = try authority.issue("acme/first", serial: 4711)
        second = try authority.issue("acme/second", serial: 4712)
        other = secondIssuer ? try TestAuthority("other", in: server.folder) : nil
        var crls = [try authority.crl([])]
        if let other {
            let file = try FileHandle(forWritingTo: URL(fileURLWithPath: authority.certFile))
            try file.seekToEnd()
            try file.write(contentsOf: Data(other.bytes(other.certFile)))
            try file.close()
            crls.append(try other.crl([]))
        }
        _ = try CRLFile(crlPath).write(crls)
        if started { try start() }
    }

    /// Returns when all listeners are open and SIGHUP is handled: earlier, SIGHUP ends the broker.
    private func start() throws {
        try server.start()
        let deadline = ContinuousClock.now + .seconds(20)
        while !server.logText.contains(" running\n") {
            guard ContinuousClock.now < deadline else { throw SystemError(server.logText) }
            usleep(2000)
        }
    }

    var settings: BrokerSettings {
        BrokerSettings(
            name: "north", host: "127.0.0.1", port: server.port, clientID: "unused",
            tls: BrokerSettings.TLS(caFile: server.folder + "/ca.pem"))
    }

    /// For the listener without TLS.
    var internalSettings: BrokerSettings {
        BrokerSettings(name: "north", host: "127.0.0.1", port: internalPort, clientID: "refold-cutter")
    }

    func probe(_ issued: TestAuthority.Issued) -> CanaryProbe.Outcome {
        CanaryProbe(settings).perform(issued.identity, clientID: "canary-\(issued.serial)")
    }

    /// Writes the file and waits until Mosquitto has read it.
    func publish(_ crls: [[UInt8]]) async throws {
        _ = try CRLFile(crlPath).write(crls)
        await reload()
    }

    /// Overwritten in place, as one must not.
    func overwrite(_ bytes: [UInt8]) throws { try Data(bytes).write(to: URL(fileURLWithPath: crlPath)) }

    /// Mosquitto's loop reloads between two rounds: a connection that it accepted after the log line sees the new file.
    func reload() async {
        func count() -> Int { server.logText.split(separator: "Reloading config.").count }
        let before = count()
        server.reload()
        let isDone = await eventually { count() > before }
        #expect(isDone, "\(server.logText.suffix(500))")
    }

    func connect(_ issued: TestAuthority.Issued, _ clientID: String) throws -> MQTTExchange {
        let exchange = try MQTTExchange(settings, identity: issued.identity, deadline: Deadline(in: .seconds(5)))
        #expect(try exchange.connect(clientID: clientID, username: nil, password: nil) == 0)
        return exchange
    }

    /// Whether the broker still answers a client.
    func isAlive(_ client: MQTTExchange) -> Bool {
        client.deadline = Deadline(in: .seconds(3))
        // PINGREQ
        return (try? client.socket.send([0xC0, 0])) != nil && (try? client.receive().header) == 0xD0
    }

    /// Two CRLs whose thisUpdate is the same second.
    func sameSecond(
        _ first: () throws -> [UInt8], second: () throws -> [UInt8]
    ) throws -> ([UInt8], [UInt8]) {
        while true {
            let before = time(nil)
            let crls = (try first(), try second())
            if time(nil) == before { return crls }
        }
    }
}
