import Certificates
import Decisions
import EventLog
import Foundation
import Issuing
import TestSupport
import Testing
@testable import Enforcement

/// What can go wrong between a CRL and a broker, at a real Mosquitto.
@Suite(.serialized) struct EnforcerFailureTests {
    /// What the broker finds in place of its CRL file.
    enum Damage: String, CaseIterable {
        case missing, empty, cut, corrupt, expired, fromTheFuture, old, withoutAnIssuer
    }

    /// Somebody replaces the file and the broker reads it: the standing proof fails, and the file is written and
    /// reloaded again, without another CRL.
    @Test(arguments: Damage.allCases) func aBrokerWithAnotherFileIsPutRight(damage: Damage) async throws {
        let lab = try await EnforcerLab(more: ["second"])
        let enforcer = lab.enforcer(lab.takeover, proofSeconds: 1)
        let revoked = try await lab.device("d1"), live = try await lab.device("d2")
        let other = try await lab.device("d3", authority: "second")
        let old = try Data(contentsOf: URL(fileURLWithPath: lab.crlPath))
        try await lab.change(revoked)
        try await lab.enforce(enforcer)
        #expect(!lab.isAccepted(revoked) && lab.isAccepted(live) && lab.isAccepted(other))
        let good = try Data(contentsOf: URL(fileURLWithPath: lab.crlPath)), issued = try lab.count("crl.issued/1")

        let authority = try TestAuthority("ca", in: lab.server.folder)
        func pem(_ der: [UInt8]) -> Data { Data(CRLFile.pem(der)) }
        let second = try #require(try await lab.crls.current("second")).list.der
        let file: Data? =
            switch damage {
            case .missing: nil
            case .empty: Data()
            case .cut: good.prefix(good.count / 4)
            case .corrupt: Data(good.map { $0 == UInt8(ascii: "A") ? UInt8(ascii: "B") : $0 })
            case .expired: pem(try authority.crl([], from: -7_200, until: -3_600)) + pem(second)
            case .fromTheFuture: pem(try authority.crl([], from: 3_600)) + pem(second)
            case .old: old
            case .withoutAnIssuer: pem(try #require(try await lab.crls.current("fleet")).list.der)
            }
        try? FileManager.default.removeItem(atPath: lab.crlPath)
        try file?.write(to: URL(fileURLWithPath: lab.crlPath))
        func reloads() -> Int { lab.server.logText.components(separatedBy: "Reloading config.").count }
        let before = reloads()
        lab.server.reload()
        try #require(await eventually { reloads() > before })
        // Mosquitto reads the file after that line; so that the damage is in force.
        let isDamaged = await eventually {
            lab.isAccepted(revoked) || !lab.isAccepted(live) || !lab.isAccepted(other)
        }
        #expect(isDamaged)

        await enforcer.expireProofs()
        let problem = try #require(try await enforcer.round().unproved)
        switch damage {
        case .missing, .empty, .cut, .corrupt, .old: #expect(problem.contains("still accepts"), "\(problem)")
        case .expired, .fromTheFuture, .withoutAnIssuer: #expect(problem.contains("TLS alert"), "\(problem)")
        }
        #expect(await lab.status?.enforcement.error != nil || damage == .withoutAnIssuer)
        try await lab.enforce(enforcer)
        #expect(!lab.isAccepted(revoked) && lab.isAccepted(live) && lab.isAccepted(other))
        #expect(try lab.count("crl.issued/1") == issued)
    }

    @Test func oneAuthoritysMissingKeyHoldsUpNoOther() async throws {
        let lab = try await EnforcerLab(more: ["second"])
        try await lab.enforce(lab.enforcer(lab.takeover))
        let device = try await lab.device("d1"), other = try await lab.device("d2", authority: "second")
        let client = try lab.connect(device)
        try lab.restart()
        let keys = try FileManager.default.contentsOfDirectory(atPath: lab.keyFolder)
        let all = try await lab.certificates.authorities()
        let second = try #require(all.first { $0.added.id == "second" }).added.spkiSHA256
        let key = try #require(keys.first { $0.contains(second) })
        try FileManager.default.moveItem(atPath: "\(lab.keyFolder)/\(key)", toPath: lab.server.folder + "/hidden")
        try await lab.change(device)
        let enforcer = lab.enforcer(lab.takeover)
        var problem: String?
        #expect(
            await eventually(within: 30) {
                problem = (try? await enforcer.round())?.unproved
                return problem != nil && !lab.isAccepted(device)
            })
        #expect(problem?.contains("second") == true && problem?.contains("fleet") == false, "\(problem ?? "")")
        #expect(await eventually { !lab.isAlive(client) })
        // The broker has the other one's last CRL: its devices are not locked out.
        #expect(lab.isAccepted(other))
        try FileManager.default.moveItem(atPath: lab.server.folder + "/hidden", toPath: "\(lab.keyFolder)/\(key)")
        try await lab.enforce(enforcer)
    }

    /// After a start every authority signs a canary: one that hangs holds up itself.
    @Test func aSignCommandThatHangsHoldsUpNoOther() async throws {
        let lab = try await EnforcerLab(hsm: true)
        try await lab.enforce(lab.enforcer(lab.takeover))
        let device = try await lab.device("d1"), client = try lab.connect(device)
        let other = try await lab.device("d2", authority: "hsm")
        try lab.restart()
        let hang = lab.server.folder + "/hang"
        try Data().write(to: URL(fileURLWithPath: hang))
        let enforcer = lab.enforcer(lab.takeover)
        _ = try await enforcer.round()
        try await lab.change(device)
        let began = ContinuousClock.now
        #expect(
            await eventually(within: 15) {
                _ = try? await enforcer.round()
                return !lab.isAlive(client) && !lab.isAccepted(device)
            })
        #expect(ContinuousClock.now - began < .seconds(15) && lab.isAccepted(other))
        #expect(await enforcer.provedNumbers.count == 1)
        try FileManager.default.removeItem(atPath: hang)
        try await lab.enforce(enforcer)
    }

    /// A proof that cannot succeed does not hold up an authority whose canaries are signed during it.
    @Test func canariesThatAreSignedDuringAnotherProofAreShownEarly() async throws {
        let lab = try await EnforcerLab(more: ["untrusted"], isTrusted: false, hsm: true)
        let hang = lab.server.folder + "/hang"
        try Data().write(to: URL(fileURLWithPath: hang))
        let enforcer = lab.enforcer(proofSeconds: 600)
        let running = Task { await enforcer.run { _ in } }
        func isProved(_ authority: String) async -> Bool {
            let key = EnforcementKey(broker: "north", authority: authority)
            return (try? await lab.registry.query { $0.enforcements[key]?.proved ?? 0 > 0 }) ?? false
        }
        #expect(
            await eventually(within: 60) {
                guard await isProved("fleet") else { return false }
                return await lab.crls.hasLiveCanary("untrusted")
            })
        try FileManager.default.removeItem(atPath: hang)
        #expect(await eventually(within: 60) { await isProved("hsm") })
        running.cancel()
        await running.value
    }

    /// A proof that cannot succeed does not hold up the next CRL.
    @Test func aRevocationDuringAnotherProofIsWrittenEarly() async throws {
        let lab = try await EnforcerLab(more: ["untrusted"], isTrusted: false)
        let device = try await lab.device("d1"), client = try lab.connect(device)
        let enforcer = lab.enforcer(lab.takeover, proofSeconds: 600)
        let running = Task { await enforcer.run { _ in } }
        func isWaiting() async -> Bool {
            (await lab.status?.enforcement.proved ?? 0) > 0
                && (try? lab.count("crl.written/1")) ?? 0 >= 2
        }
        try #require(await eventually(within: 30) { await isWaiting() })
        try await lab.change(device)
        enforcer.wake()
        #expect(await eventually(within: 60) { !lab.isAccepted(device) && !lab.isAlive(client) })
        running.cancel()
        await running.value
    }

    /// CRLs that follow one another faster than the broker reads them are no failure, until one of them has had its
    /// whole time.
    @Test func aCRLDuringAProofInterruptsIt() async throws {
        let lab = try await EnforcerLab()
        try await lab.enforce(lab.enforcer())
        let devices = [try await lab.device("d1"), try await lab.device("d2"), try await lab.device("d3")]
        func problem(of enforcer: CRLEnforcer, whileRevoking device: EnforcerLab.Device) async throws -> String? {
            let written = try lab.count("crl.written/1")
            async let round = enforcer.round()
            try #require(await eventually(within: 30) { ((try? lab.count("crl.written/1")) ?? 0) > written })
            try await lab.change(device)
            return try await round.unproved
        }
        // It reloads nothing, so that no proof succeeds.
        let enforcer = lab.enforcer(reload: "true", proofSeconds: 60)
        try await lab.change(devices[0])
        #expect(try await problem(of: enforcer, whileRevoking: devices[1]) == nil)
        #expect(try lab.count("crl.unproved/1") == 0)
        let impatient = lab.enforcer(reload: "true", proofSeconds: 5)
        await impatient.setInterruptions(since: 0)
        #expect(try await problem(of: impatient, whileRevoking: devices[2]) != nil)
        #expect(try lab.count("crl.unproved/1") == 1)
        try await lab.enforce(lab.enforcer())
    }

    /// An HSM may lock a key after several failed attempts.
    @Test func aSignCommandThatFailsIsNotRunInALoop() async throws {
        let lab = try await EnforcerLab(hsm: true)
        // Canaries are gone. Their next signatures fail.
        try lab.restart()
        try FileManager.default.removeItem(atPath: lab.server.folder + "/hsm.key")
        let enforcer = lab.enforcer(), signed = lab.signTimes.count
        let running = Task { await enforcer.run { _ in } }
        let isTriedAgain = await eventually(within: 90) { lab.signTimes.count > signed + 1 }
        running.cancel()
        await running.value
        try #require(isTriedAgain)
        #expect(lab.signTimes[signed + 1] - lab.signTimes[signed] > 4_000_000_000, "it is tried again after 5 s")
    }

    /// Nothing is reloaded while the file is not whole, and the broker keeps what it has.
    @Test(.enabled(if: geteuid() == 0)) func aFullDiskIsWaitedFor() async throws {
        let lab = try await EnforcerLab()
        let folder = lab.server.folder + "/small", target = folder + "/fleet.crl"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
        let mount = try ChildProcess(
            ["/usr/bin/mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], log: lab.server.folder + "/mount.log")
        mount.wait()
        try #require(mount.exitCode == 0, "root cannot mount a tmpfs here: the full disk is not tested")
        defer { umount2(folder, Int32(MNT_DETACH)) }
        // The broker's file is a link to the small disk.
        try FileManager.default.moveItem(atPath: lab.crlPath, toPath: target)
        try FileManager.default.createSymbolicLink(atPath: lab.crlPath, withDestinationPath: target)
        let enforcer = lab.enforcer(lab.takeover)
        try await lab.enforce(enforcer)
        let device = try await lab.device("d1"), client = try lab.connect(device)
        let descriptor = open(folder + "/filler", O_WRONLY | O_CREAT, 0o600), piece = [UInt8](repeating: 1, count: 4096)
        while write(descriptor, piece, piece.count) > 0 {}
        close(descriptor)
        let before = try Data(contentsOf: URL(fileURLWithPath: target)), reloads = lab.reloadCount
        try await lab.change(device)
        for _ in 0..<3 {
            let problem = try await enforcer.round().unproved
            #expect(problem?.contains("No space left on device") == true, "\(problem ?? "")")
        }
        #expect(try Data(contentsOf: URL(fileURLWithPath: target)) == before && lab.reloadCount == reloads)
        #expect(lab.isAlive(client) && lab.isAccepted(device))
        try FileManager.default.removeItem(atPath: folder + "/filler")
        try await lab.enforce(enforcer)
        #expect(!lab.isAlive(client) && !lab.isAccepted(device))
    }

    /// Set back: the next CRL is still newer, and in force. Set forward: devices are locked out, which the live canary
    /// shows, until the clock is right.
    @Test func theClockIsSet() async throws {
        let lab = try await EnforcerLab()
        let enforcer = lab.enforcer(lab.takeover, proofSeconds: 1)
        try await lab.enforce(enforcer)
        let one = try await lab.device("d1"), two = try await lab.device("d2"), three = try await lab.device("d3")
        lab.shiftClock(seconds: -3_600)
        try await lab.change(one)
        try await lab.enforce(enforcer)
        #expect(!lab.isAccepted(one) && lab.isAccepted(two))
        lab.shiftClock(seconds: 3_600 + 600)
        try await lab.change(two)
        let problem = try await enforcer.round().unproved
        #expect(problem?.contains("TLS alert") == true && !lab.isAccepted(three), "\(problem ?? "")")
    }

    @Test func theBrokerIsAway() async throws {
        let lab = try await EnforcerLab()
        let enforcer = lab.enforcer(lab.takeover, reload: "true", proofSeconds: 1)
        let device = try await lab.device("d1")
        lab.server.kill()
        try await lab.change(device)
        var problem: String?
        #expect(
            await eventually {
                problem = try? await enforcer.round().unproved
                return problem?.contains("Connection refused") == true
            }, "\(problem ?? "")")
        // Nobody is connected after it, and the file is whole.
        try lab.server.start()
        try await lab.enforce(enforcer)
        #expect(!lab.isAccepted(device))
        #expect(await lab.status?.uncut == 0)
    }
}

extension EnforcerLab {
    func count(_ schema: String) throws -> Int { try schemas().count { $0 == schema } }
}
