import EventModel
import TestSupport
import Testing

@testable import Ingest

/// Messages of devices with and without a live certificate, over a real broker.
@Suite(.serialized) struct CertificateCheckTests {
    private func certificates(of devices: String...) -> LiveCertificates {
        var live = LiveCertificates()
        for device in devices { live.set(tenantID: "acme", deviceID: device, [0...Int64.max]) }
        return live
    }

    @Test func aDeviceWithoutACertificateIsRefusedAndKept() async throws {
        let broker = try MosquittoServer()
        let check = CertificateCheck(refuses: true)
        check.load(certificates(of: "d"))
        var gate = GateSettings()
        gate.payloadBytesMax = 10
        let rig = try Rig(port: broker.port, gate: gate, certificates: check) { $0.filters = ["#"] }
        try await rig.subscribed()
        let publisher = try TestPublisher(port: broker.port)
        try publisher.publish(device("d"), "fine")
        try publisher.publish(device("e"), "kept")
        try publisher.publish(device("e"), "longer than the limit")
        try publisher.publish(device("e", "ota"), "theirs")
        try publisher.publish("elsewhere", "x")
        try await publisher.flush()
        #expect(await eventually { rig.status.acknowledged == 5 })
        #expect(
            rig.log.messages.map(\.verdict) == [
                .accepted, .certMismatch, .certMismatch, .foreignCommand, .badTopicFormat,
            ])
        #expect(rig.log.messages[1].text == "kept")
        #expect(rig.status.withoutCertificate == 2 && rig.status.verdicts[Int(Verdict.certMismatch.rawValue)] == 2)
        let worst = rig.service.mostWithoutCertificate(10)
        #expect(worst.map(\.broker) == ["b1"] && worst.map(\.device.device) == ["e"])
        #expect(worst.first?.device.messages == 2)
        #expect(rig.service.deviceStatistics(tenant: "acme", device: "e")?.withoutCertificate == 2)
        #expect(rig.service.deviceStatistics(tenant: "acme", device: "d")?.withoutCertificate == 0)
        await rig.stop()
    }

    @Test func aReportLetsThemPassAndCounts() async throws {
        let broker = try MosquittoServer()
        let check = CertificateCheck(refuses: false)
        let rig = try Rig(port: broker.port, certificates: check)
        try await rig.subscribed()
        let publisher = try TestPublisher(port: broker.port)
        try publisher.publish(device("e"), "before the certificates are read")
        try await publisher.flush()
        #expect(await eventually { rig.status.acknowledged == 1 })
        check.load(certificates(of: "d"))
        for name in ["d", "e", "e"] { try publisher.publish(device(name), "x") }
        try await publisher.flush()
        #expect(await eventually { rig.status.acknowledged == 4 })
        #expect(rig.log.messages.allSatisfy { $0.verdict == .accepted })
        #expect(rig.status.withoutCertificate == 2)
        await rig.stop()
    }

    /// Neither accepted because nothing is known yet, nor refused.
    @Test func nothingIsReceivedBeforeTheCertificatesAreRead() async throws {
        let broker = try MosquittoServer(persistent: true)
        let log = MemoryLog()
        let first = try Rig(port: broker.port, log: log)
        try await first.subscribed()
        await first.stop()
        let publisher = try TestPublisher(port: broker.port)
        for name in ["d", "e"] { try publisher.publish(device(name), name) }
        try await publisher.flush()
        let check = CertificateCheck(refuses: true)
        let rig = try Rig(port: broker.port, log: log, certificates: check)
        #expect(await eventually { rig.status.lastError?.contains("are being read") == true })
        #expect(!rig.status.connected && log.messages.isEmpty)
        check.load(certificates(of: "d"))
        #expect(await eventually { rig.status.acknowledged == 2 })
        #expect(log.messages.map(\.verdict) == [.accepted, .certMismatch])
        #expect(rig.status.lastError == nil)
        await rig.stop()
    }

    @Test func aStopEndsTheWait() async throws {
        let rig = try Rig(port: freeLoopbackPort(), certificates: CertificateCheck(refuses: true))
        #expect(await rig.stop())
    }

    /// Judged before the disk was full, appended after the revocation.
    @Test func whatIsHeldIsJudgedAgain() async throws {
        let broker = try MosquittoServer(persistent: true)
        let log = MemoryLog(), check = CertificateCheck(refuses: true)
        check.load(certificates(of: "d", "e"))
        let rig = try Rig(port: broker.port, log: log, certificates: check)
        try await rig.subscribed()
        let publisher = try TestPublisher(port: broker.port)
        log.mode = .full
        for name in ["d", "e", "d"] { try publisher.publish(device(name), name) }
        try await publisher.flush()
        #expect(await eventually { rig.status.state == .held })
        let accepted = Int(Verdict.accepted.rawValue)
        #expect(rig.status.verdicts[accepted] == rig.status.received)
        check.beginQueueing { $0.set(tenantID: "acme", deviceID: "d", []) }
        check.endQueueing()
        log.mode = .working
        #expect(await eventually { rig.status.acknowledged >= 3 })
        #expect(log.messages.map(\.text) == ["d", "e", "d"])
        #expect(log.messages.map(\.verdict) == [.certMismatch, .accepted, .certMismatch])
        #expect(rig.status.verdicts[Int(Verdict.certMismatch.rawValue)] == 2 && rig.status.verdicts[accepted] == 1)
        await rig.stop()
    }
}
