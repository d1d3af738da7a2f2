import Certificates
import Decisions
import Foundation
import Issuing
import MQTT
import TestSupport
import Testing
@testable import Enforcement

/// Clients of revoked certificates at a real Mosquitto: disconnected after the proof of their CRL, never before it, and
/// none is forgotten.
@Suite(.serialized) struct EnforcerTests {
    @Test(arguments: [false, true]) func aConnectedClientIsCutAfterTheProof(dynsec: Bool) async throws {
        let lab = try await EnforcerLab(dynsec: dynsec)
        let enforcer = lab.enforcer(dynsec ? lab.dynsec : lab.takeover)
        try await lab.enforce(enforcer)
        let one = try await lab.device("d1"), two = try await lab.device("d2")
        let client = try lab.connect(one), bystander = try lab.connect(two)
        let begin = lab.log.durableCount
        try await lab.change(one)
        #expect(lab.isAlive(client), "the CRL alone cuts nobody")
        try await lab.enforce(enforcer)
        #expect(!lab.isAlive(client) && lab.isAlive(bystander) && !lab.isAccepted(one) && lab.isAccepted(two))
        #expect(
            try lab.schemas(from: begin) == [
                "certificate.revoked/1", "crl.issued/1", "crl.written/1", "crl.reloaded/1", "crl.proved/1",
                "client.cut/1",
            ])
        let status = try #require(await lab.status)
        #expect(status.uncut == 0 && status.enforcement.uncutError == nil)
        #expect(lab.reloadCount == 2)
    }

    @Test func nobodyIsCutBeforeTheProof() async throws {
        let lab = try await EnforcerLab()
        try await lab.enforce(lab.enforcer(lab.takeover))
        let device = try await lab.device("d1"), client = try lab.connect(device)
        try await lab.change(device)
        // The reload command fails; it succeeds and does nothing.
        for reload in ["false", "true"] {
            let enforcer = lab.enforcer(lab.takeover, reload: reload, proofSeconds: 1)
            for _ in 0..<3 {
                let problems = try await enforcer.round()
                #expect(problems.uncut == nil && lab.isAlive(client))
            }
            #expect(await lab.status?.uncut == 1)
        }
        #expect(try !lab.schemas().contains("client.cut/1"))
        try await lab.enforce(lab.enforcer(lab.takeover))
        #expect(!lab.isAlive(client) && !lab.isAccepted(device))
    }

    /// After a rotation. What the broker does not know is no proof, and no fault once nobody needs it.
    @Test func abandonedAuthorityIsNoFault() async throws {
        let lab = try await EnforcerLab(more: ["old"], isTrusted: false)
        let enforcer = lab.enforcer(lab.takeover, proofSeconds: 1)
        let device = try await lab.device("d1", authority: "old")
        func unproved() async throws -> String? { try await enforcer.round().unproved }
        try #require(try await eventually { try await unproved()?.contains("unknown CA") == true })
        _ = try await lab.certificates.retire("old", by: EnforcerLab.by)
        await enforcer.expireProofs()
        #expect(try await unproved() != nil, "its device is locked out")
        try await lab.change(device)
        #expect(try await eventually { try await unproved() == nil })
        await enforcer.expireProofs()
        #expect(try await unproved() == nil)
        let key = EnforcementKey(broker: "north", authority: "old")
        #expect(try await lab.registry.query { $0.enforcements[key]?.proved } == 0)
        // Clients that connected while the broker trusted it are disconnected, and the error ends.
        let status = try #require(try await lab.certificates.enforcements().first { $0.key == key })
        #expect(
            try status.state == .unused && status.uncut == 0 && status.error == nil
                && lab.schemas().contains("client.cut/1"))
    }

    @Test func aHoldCutsTooAndAReleaseInTimeDoesNot() async throws {
        let lab = try await EnforcerLab()
        let enforcer = lab.enforcer(lab.takeover)
        try await lab.enforce(enforcer)
        let held = try await lab.device("d1"), released = try await lab.device("d2")
        let one = try lab.connect(held), two = try lab.connect(released)
        try await lab.change(held, released, as: .hold)
        try await lab.change(released, as: .release)
        try await lab.enforce(enforcer)
        #expect(!lab.isAlive(one) && lab.isAlive(two) && !lab.isAccepted(held) && lab.isAccepted(released))
        // Held already: a revocation changes nothing for the broker.
        let begin = lab.log.durableCount
        try await lab.change(held)
        try await lab.enforce(enforcer)
        #expect(try !lab.schemas(from: begin).contains("client.cut/1"))
    }

    /// Brokers know clients by name, not by certificate.
    @Test func aDeviceWithAnotherLiveCertificateIsCutOnceAndConnectsAgain() async throws {
        let lab = try await EnforcerLab()
        let enforcer = lab.enforcer(lab.takeover)
        try await lab.enforce(enforcer)
        let old = try await lab.device("d1"), new = try await lab.device("d1")
        let client = try lab.connect(new)
        try await lab.change(old)
        try await lab.enforce(enforcer)
        #expect(!lab.isAlive(client))
        let again = try lab.connect(new)
        await enforcer.expireProofs()
        try await lab.enforce(enforcer)
        #expect(lab.isAlive(again))
    }

    /// The broker's administration is away: visible, repeated, and done after a restart at the latest.
    @Test func aCutThatFailsIsRepeatedAlsoAfterARestart() async throws {
        let lab = try await EnforcerLab()
        try await lab.enforce(lab.enforcer(lab.takeover))
        let device = try await lab.device("d1"), client = try lab.connect(device)
        try await lab.change(device)
        let away = BrokerSettings(name: "north", host: "127.0.0.1", port: freeLoopbackPort(), clientID: "c")
        let failing = lab.enforcer(.afterProof(TakeoverCutter(away)))
        try #require(await eventually(within: 30) { (try? await failing.round().uncut) != nil })
        let first = try await failing.round()
        #expect(first.unproved == nil && first.uncut?.contains("Connection refused") == true, "\(first)")
        // A retry that is not due yet, and one that is: the failure is on the record once.
        await failing.expireRetries()
        #expect(try await failing.round() == first)
        #expect(try lab.schemas().count { $0 == "crl.uncut/1" } == 1)
        let status = try #require(await lab.status)
        #expect(status.uncut == 1 && status.enforcement.uncutError == first.uncut)
        // A new revocation does not wait for the retry.
        let other = try await lab.device("d2"), second = try lab.connect(other)
        try await lab.change(other)
        try #require(
            await eventually(within: 30) {
                _ = try? await failing.round(); return await lab.isInForce
            })
        #expect(await lab.status?.uncut == 2 && lab.isAlive(client) && lab.isAlive(second))

        try lab.restart()
        try await lab.enforce(lab.enforcer(lab.takeover))
        #expect(!lab.isAlive(client) && !lab.isAlive(second))
        #expect(await lab.status?.uncut == 0)
    }

    /// Without a cutter too, so that a broker that is given one later makes up for it.
    @Test func aBrokerThatIsGivenACutterMakesUpForIt() async throws {
        let lab = try await EnforcerLab()
        let device = try await lab.device("d1"), client = try lab.connect(device)
        // Revoked before the first CRL at this broker, and after it.
        try await lab.change(device)
        try await lab.enforce(lab.enforcer())
        let other = try await lab.device("d2"), second = try lab.connect(other)
        try await lab.change(other)
        try await lab.enforce(lab.enforcer())
        #expect(await lab.status?.uncut == 2 && lab.isAlive(client) && lab.isAlive(second))
        try lab.restart()
        try await lab.enforce(lab.enforcer(lab.takeover))
        #expect(!lab.isAlive(client) && !lab.isAlive(second))
    }

    @Test func aThousandRevocationsAreOneCRLOneReloadAndOneCut() async throws {
        let lab = try await EnforcerLab(dynsec: true)
        let enforcer = lab.enforcer(lab.dynsec)
        try await lab.enforce(enforcer)
        let new = (0..<1_000).map { NewCertificate(tenantID: "acme", deviceID: "d\($0)", key: .generated(.p256)) }
        guard case .issued(_, let issued) = try await lab.certificates.issue(new, by: EnforcerLab.by) else {
            Issue.record("not issued")
            return
        }
        let clients = try issued.prefix(50).map { made in
            try lab.connect(
                .init(
                    id: made.deviceID, reference: made.reference,
                    identity: ClientIdentity(
                        certificatesPEM: Array(made.pem.utf8), keyPEM: made.privateKey ?? [])))
        }
        let begin = lab.log.durableCount, reloads = lab.reloadCount
        await withTaskGroup(of: Void.self) { group in
            for made in issued {
                group.addTask {
                    _ = try? await lab.certificates.change(
                        made.reference, CertificateChange(.revoke(.keyCompromise)), by: EnforcerLab.by)
                }
            }
        }
        _ = try await lab.crls.issue("fleet")
        let began = ContinuousClock.now
        try await lab.enforce(enforcer)
        let took = ContinuousClock.now - began
        let schemas = try lab.schemas(from: begin)
        for (schema, count) in [
            ("certificate.revoked/1", 1_000), ("crl.issued/1", 1), ("crl.proved/1", 1), ("client.cut/1", 1_000),
        ] { #expect(schemas.count { $0 == schema } == count, "\(schema)") }
        #expect(lab.reloadCount == reloads + 1)
        // One connection of the administrator for each batch.
        #expect(lab.server.logText.split(separator: "as refold-cutter ").count <= 1 + 4)
        #expect(clients.allSatisfy { !lab.isAlive($0) })
        #expect(took < .seconds(20), "\(took)")
        print("1,000 revocations: proved and cut in \(took)")
    }
}
