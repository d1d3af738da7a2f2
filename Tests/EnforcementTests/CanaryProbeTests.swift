import Foundation
import MQTT
import TestSupport
import Testing
@testable import Enforcement

/// Every outcome of a probe, from a real Mosquitto where it can be made to produce it, else from a peer that
/// misbehaves.
struct CanaryProbeTests {
    private let folder: String
    private let certificates: TestCertificates
    private let identity: ClientIdentity

    init() throws {
        folder = try makeTemporaryFolder("probe")
        certificates = try TestCertificates(folder: folder)
        identity = try TestAuthority("ca", in: folder).issue("acme/canary", serial: 100).identity
    }

    private func probe(
        _ port: Int, host: String = "127.0.0.1", of server: MosquittoServer? = nil, _ other: ClientIdentity? = nil,
        ca: String? = nil, verify: Bool = true, version: BrokerSettings.ProtocolPreference = .v311, seconds: Double = 5,
        user: String? = nil
    ) -> CanaryProbe.Outcome {
        let tls = BrokerSettings.TLS(caFile: ca ?? server?.certificates?.ca ?? certificates.ca, verify: verify)
        var settings = BrokerSettings(name: "north", host: host, port: port, clientID: "unused", tls: tls)
        settings.protocolPreference = version
        settings.username = user
        return CanaryProbe(settings, timeout: .seconds(seconds)).perform(other ?? identity, clientID: "canary")
    }

    @Test(arguments: ["tlsv1.2", "tlsv1.3"], [BrokerSettings.ProtocolPreference.v311, .v5, .automatic])
    func accepted(tls: String, version: BrokerSettings.ProtocolPreference) throws {
        let server = try MosquittoServer(tls: true, clientCertificates: true, lines: ["tls_version \(tls)"])
        let own = try TestAuthority("ca", in: server.folder).issue("acme/canary", serial: 7).identity
        #expect(probe(server.port, of: server, own, version: version) == .accepted)
        #expect(probe(server.port, host: "localhost", of: server, own, version: version) == .accepted)
        #expect(server.logText.contains("Client canary disconnected"))
    }

    @Test func theBrokerIsVerified() throws {
        let server = try MosquittoServer(tls: true, serverNames: "DNS:elsewhere.example")
        guard case .brokerUntrusted = probe(server.port, ca: certificates.strangerCA) else {
            Issue.record("a broker whose CA is unknown is not trusted")
            return
        }
        #expect(probe(server.port, of: server) == .brokerUntrusted("IP address mismatch"))
        #expect(probe(server.port, host: "localhost", of: server) == .brokerUntrusted("hostname mismatch"))
        #expect(probe(server.port, verify: false) == .accepted)
        #expect(reason(probe(server.port, ca: folder + "/none.pem")).contains("cannot read the CA file"))
    }

    /// Under TLS 1.3 the alert arrives after the client's side of the handshake has succeeded.
    @Test(arguments: ["tlsv1.2", "tlsv1.3"]) func anUnknownIssuerIsRefused(tls: String) throws {
        let server = try MosquittoServer(tls: true, clientCertificates: true, lines: ["tls_version \(tls)"])
        #expect(probe(server.port, of: server) == .refused(.tlsAlert(code: 48, name: "unknown CA")))
    }

    @Test func aConnackThatRefuses() throws {
        let server = try MosquittoServer(tls: true, allowAnonymous: false)
        #expect(probe(server.port, of: server) == .refused(.connack(code: 5)))
        #expect(probe(server.port, of: server, version: .v5, user: "x") == .refused(.connack(code: 0x87)))
        #expect("\(CanaryProbe.Refusal.connack(code: 5))".contains("not authorised"))
        #expect("\(CanaryProbe.Refusal.connack(code: 0x87))".contains("Not authorized"))
        #expect("\(CanaryProbe.Refusal.certificateRevoked)".contains("44"))
    }

    // MARK: Peers that misbehave

    private func reason(_ outcome: CanaryProbe.Outcome) -> String {
        if case .unreachable(let reason) = outcome { reason } else { "\(outcome)" }
    }

    @Test func noBroker() throws {
        #expect(reason(probe(freeLoopbackPort())) == "Connection refused")
        #expect(reason(probe(1883, host: "nowhere.invalid")).contains("cannot resolve nowhere.invalid"))
    }

    /// What the peer sends over TLS in place of a CONNACK.
    static let answers: [(name: String, bytes: [UInt8], reason: String)] = [
        ("nothing", [], "the broker closed the connection"),
        ("half a CONNACK", [0x20, 2, 0], "the broker closed the connection"),
        ("a CONNACK without code", [0x20, 1, 0], "packet type 2 instead of a CONNACK"),
        ("another packet", [0xD0, 0], "packet type 13 instead of a CONNACK"),
        ("DISCONNECT with a reason", [0xE0, 1, 0x89], "packet type 14, reason code 137"),
        ("a length without end", [0x20, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], "invalid packet length"),
        ("256 MiB", [0x20, 0xFF, 0xFF, 0xFF, 0x7F], "a packet of 268435455 bytes"),
        ("HTTP", Array("HTTP/1.1 400 Bad Request\r\n\r\n".utf8), "the broker closed the connection"),
        ("zeroes", [UInt8](repeating: 0, count: 5000), "packet type 0 instead of a CONNACK"),
    ]

    @Test(arguments: answers)
    func garbageOverTLS(name: String, bytes: [UInt8], expected: String) throws {
        let peer = try ScriptedBroker(certificates: certificates) { connection in
            _ = connection.receiveConnect()
            if !bytes.isEmpty { try connection.send(bytes) }
        }
        let text = reason(probe(peer.port))
        #expect(text.contains(expected), "\(text)")
    }

    @Test func garbageInPlaceOfTLS() throws {
        for bytes in [Array("220 mail.example ESMTP\r\n".utf8), [UInt8](repeating: 0x16, count: 70_000)] {
            let peer = try ScriptedBroker { connection in try connection.send(bytes) }
            let text = reason(probe(peer.port))
            #expect(text.contains("TLS: ") || text.contains("closed"), "\(text)")
        }
    }

    @Test func randomBytesNeverTrap() throws {
        for seed in 0..<60 as Range<UInt64> {
            let peer = try ScriptedBroker(certificates: seed % 2 == 0 ? certificates : nil) { connection in
                var generator = SystemRandomNumberGenerator()
                if seed % 2 == 0 { _ = connection.receiveConnect() }
                let first: [UInt8] = seed % 2 == 0 ? [0x20] : [0x16, 3, 3]
                let count = Int.random(in: 0...300, using: &generator)
                try connection.send(first + (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) })
            }
            let outcome = probe(peer.port, seconds: 1)
            #expect(outcome != .accepted || seed % 2 == 0)
        }
    }

    /// Silence, a byte now and then, and a stream without end: the deadline is for the whole exchange.
    @Test(arguments: ["silent TCP", "silent TLS", "slow TLS", "slow TCP", "endless TLS"])
    func theDeadlineHolds(kind: String) throws {
        let peer = try ScriptedBroker(certificates: kind.hasSuffix("TLS") ? certificates : nil) { connection in
            switch kind {
            case "silent TCP", "silent TLS": while connection.receive() != nil {}
            case "slow TLS":
                // A CONNACK of 127 bytes, one every 50 ms.
                try connection.send([0x20, 127])
                while true {
                    usleep(50_000)
                    try connection.send([0])
                }
            case "slow TCP":
                // A handshake record of 16 KiB.
                try connection.send([0x16, 3, 3, 0x40, 0])
                while true {
                    usleep(50_000)
                    try connection.send([2])
                }
            default: while true { try connection.send([UInt8](repeating: 0xFF, count: 16 << 10)) }
            }
        }
        let began = ContinuousClock.now
        let outcome = probe(peer.port, seconds: 0.4)
        let took = ContinuousClock.now - began
        #expect(outcome == .timedOut || kind == "endless TLS" || kind == "slow TCP", "\(outcome)")
        #expect(outcome != .accepted && took < .seconds(2), "\(took)")
    }

    @Test func identitiesThatCannotBeUsed() throws {
        let authority = try TestAuthority("ca", in: folder)
        let one = try authority.issue("a", serial: 201), two = try authority.issue("b", serial: 202)
        func problem(_ certificates: [UInt8], _ key: [UInt8]) -> String {
            do throws(TLSContextError) {
                _ = try ClientIdentity(certificatesPEM: certificates, keyPEM: key)
                return ""
            } catch {
                return error.description
            }
        }
        let cert = try authority.bytes(one.certFile), key = try authority.bytes(one.keyFile)
        #expect(problem(cert, key) == "" && problem(cert + cert, key) == "")
        #expect(problem([], key).contains("cannot read the certificate"))
        #expect(problem(cert, []).contains("cannot read the private key"))
        #expect(problem(cert, Array("garbage".utf8)).contains("cannot read the private key"))
        #expect(problem(cert, try authority.bytes(two.keyFile)).contains("does not fit"))
    }

    @Test func onAThreadOfItsOwn() async {
        let settings = BrokerSettings(name: "north", host: "127.0.0.1", port: freeLoopbackPort(), clientID: "unused")
        #expect(await CanaryProbe(settings).run(identity, clientID: "canary") == .unreachable("Connection refused"))
    }
}
