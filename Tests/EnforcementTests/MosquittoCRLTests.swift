import Foundation
import MQTT
import TestSupport
import Testing
@testable import Enforcement

/// What Mosquitto 2.0 does with a CRL file, measured: the facts that decide the order of writing, proving and cutting.
/// A newer Mosquitto that behaves otherwise fails here.
struct MosquittoCRLTests {
    private let lab: MosquittoLab

    init() throws { lab = try MosquittoLab() }

    @Test func aConnectedClientStaysAndANewConnectionIsRefused() async throws {
        let client = try lab.connect(lab.first, "first")
        try await lab.publish([lab.authority.crl([lab.first.serial], number: 2)])
        #expect(lab.probe(lab.first) == .refused(.certificateRevoked))
        #expect(lab.probe(lab.second) == .accepted)
        #expect(lab.isAlive(client), "Mosquitto cut it: then no cutter is needed")
    }

    /// The alert under both versions: in the handshake, and after it.
    @Test(arguments: ["tlsv1.2", "tlsv1.3"]) func theAlertIsReadEveryTime(version: String) async throws {
        let lab = try MosquittoLab(lines: ["tls_version \(version)"])
        try await lab.publish([lab.authority.crl([lab.first.serial], number: 2)])
        for _ in 0..<100 { #expect(lab.probe(lab.first) == .refused(.certificateRevoked)) }
    }

    /// Mosquitto 2.0 fails open when it cannot read the file: why the file is replaced as a whole, and read back before
    /// the reload.
    @Test(arguments: ["missing", "empty", "truncated", "corrupt"])
    func aFileThatCannotBeReadLetsTheRevokedIn(kind: String) async throws {
        let good = try lab.authority.crl([lab.first.serial], number: 2)
        try await lab.publish([good])
        #expect(lab.probe(lab.first) == .refused(.certificateRevoked))
        let pem = CRLFile.pem(good)
        switch kind {
        case "missing": unlink(lab.crlPath)
        case "empty": try lab.overwrite([])
        case "truncated": try lab.overwrite(Array(pem.prefix(pem.count / 2)))
        default: try lab.overwrite(pem.map { $0 == UInt8(ascii: "M") ? UInt8(ascii: "!") : $0 })
        }
        await lab.reload()
        #expect(lab.probe(lab.first) == .accepted)
        #expect(lab.server.pid != nil)
        // A good file mends it.
        try await lab.publish([good])
        #expect(lab.probe(lab.first) == .refused(.certificateRevoked))
    }

    /// Nobody can connect: what the live canary is for.
    @Test(arguments: [(-7200, -60, 45), (3600, 7200, 42)] as [(Int, Int, UInt8)])
    func anExpiredOrFutureCRLLocksAllOut(from: Int, until: Int, alert: UInt8) async throws {
        try await lab.publish([lab.authority.crl([], number: 2, from: from, until: until)])
        guard case .refused(.tlsAlert(let code, _)) = lab.probe(lab.second) else {
            Issue.record("\(lab.probe(lab.second))")
            return
        }
        #expect(code == alert)
    }

    @Test func severalIssuersInOneFileAndOneWithoutACRL() async throws {
        let lab = try MosquittoLab(secondIssuer: true)
        let other = try #require(lab.other), foreign = try other.issue("acme/foreign", serial: 9)
        let own = try lab.authority.crl([lab.first.serial], number: 2)
        try await lab.publish([own, other.crl([], number: 1)])
        #expect(lab.probe(lab.first) == .refused(.certificateRevoked))
        #expect(lab.probe(lab.second) == .accepted && lab.probe(foreign) == .accepted)
        try await lab.publish([own])
        #expect(lab.probe(foreign) == .refused(.tlsAlert(code: 48, name: "unknown CA")))
        #expect(lab.probe(lab.second) == .accepted)
    }

    @Test func aDeltaIsIgnoredBesideItsBaseAndCountsAsCompleteAlone() async throws {
        let base = try lab.authority.crl([lab.first.serial], number: 2)
        let delta = try lab.authority.crl([lab.second.serial], number: 3, base: 2)
        try await lab.publish([base, delta])
        #expect(lab.probe(lab.first) == .refused(.certificateRevoked))
        #expect(lab.probe(lab.second) == .accepted)
        try await lab.publish([delta])
        #expect(lab.probe(lab.first) == .accepted)
        #expect(lab.probe(lab.second) == .refused(.certificateRevoked))
    }

    /// Why thisUpdate rises by a second at least: within one second, the number decides nothing.
    @Test func ofTwoCRLsTheLaterWinsAndWithinASecondTheFirst() async throws {
        let low = try lab.authority.crl([lab.first.serial], number: 2, from: -100)
        let high = try lab.authority.crl([lab.second.serial], number: 3, from: -50)
        try await lab.publish([low, high])
        #expect(lab.probe(lab.first) == .accepted && lab.probe(lab.second) == .refused(.certificateRevoked))
        let same = try lab.sameSecond {
            try lab.authority.crl([lab.first.serial], number: 8)
        } second: {
            try lab.authority.crl([lab.second.serial], number: 9)
        }
        try await lab.publish([same.0, same.1])
        #expect(lab.probe(lab.first) == .refused(.certificateRevoked) && lab.probe(lab.second) == .accepted)
    }

    @Test func holdAndRelease() async throws {
        try await lab.publish([lab.authority.crl([lab.first.serial], number: 2, isHold: true)])
        #expect(lab.probe(lab.first) == .refused(.certificateRevoked))
        try await lab.publish([lab.authority.crl([], number: 3)])
        #expect(lab.probe(lab.first) == .accepted)
    }

    /// It opens its listeners, and ends.
    @Test func noStartWithoutAFile() async throws {
        let lab = try MosquittoLab(started: false)
        unlink(lab.crlPath)
        try? lab.server.start()
        let hasEnded = await eventually { !acceptsLoopback(port: lab.server.port) }
        #expect(hasEnded && lab.server.logText.contains("Unable to load certificate revocation file"))
    }

    private func acceptsLoopback(port: Int) -> Bool {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        return connectLoopback(descriptor, port: port)
    }

    /// The whole path: file, the operator's command, both canaries.
    @Test func writeReloadProve() async throws {
        let pid = try #require(lab.server.pid)
        _ = try CRLFile(lab.crlPath).write([lab.authority.crl([lab.first.serial], number: 2)])
        try ReloadCommand("kill -HUP \(pid)").run(crlPath: lab.crlPath, broker: "north")
        #expect(await eventually { lab.probe(lab.first) == .refused(.certificateRevoked) })
        #expect(lab.probe(lab.second) == .accepted)
    }

    /// From the first byte of the file to the first refusal.
    @Test(arguments: [10, 10_000, 100_000]) func timeToTheFirstRefusal(entries: Int) async throws {
        let crl = try lab.authority.crl([lab.first.serial] + (0..<UInt64(entries)).map { 1_000_000 + $0 }, number: 2)
        var times: [(write: Duration, total: Duration)] = []
        for _ in 0..<(entries > 50_000 ? 3 : 10) {
            try await lab.publish([lab.authority.crl([], number: 1)])
            #expect(lab.probe(lab.first) == .accepted)
            let began = ContinuousClock.now
            _ = try CRLFile(lab.crlPath).write([crl])
            let written = ContinuousClock.now
            lab.server.reload()
            while lab.probe(lab.first) != .refused(.certificateRevoked), ContinuousClock.now - began < .seconds(20) {}
            times.append((written - began, ContinuousClock.now - began))
        }
        #expect(times.allSatisfy { $0.total < .seconds(10) })
    }
}
