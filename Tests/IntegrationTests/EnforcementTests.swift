import Foundation
import TestSupport
import Testing

/// Revocation at a real Mosquitto that devices reach over TLS: written, reloaded, proved, and what happens in between.
@Suite(.serialized) struct EnforcementTests {
    @Test func aRevokedDeviceIsRefusedAndNobodyElse() async throws {
        let lab = try EnforcedWorld()
        try await lab.startDaemon()
        defer { lab.world.killDaemon() }
        let folder = lab.devices.folder, out = lab.world.folder
        _ = try lab.refold("ca", "import", "fleet", "--certificates", folder + "/ca.pem", "--key", folder + "/ca.key")
        for device in ["d1", "d2", "d3"] {
            _ = try lab.refold(
                "cert", "issue", "--tenant", "acme", "--device", device, "--generate-key", "P-256", "--out", out)
        }
        let file = folder + "/fleet.crl"
        try #require(await eventually(within: 20) { FileManager.default.fileExists(atPath: file) })
        #expect(await eventually(within: 20) { lab.hasReason("reload_command of broker") }, "the broker is not up yet")
        try await lab.startBroker()
        #expect(await eventually(within: 30) { (try? lab.isProved) == true }, "\(lab.world.daemonLog.suffix(2_000))")
        #expect(await eventually(within: 10) { !lab.hasReason("CRL") })
        for device in ["d1", "d2", "d3"] { #expect(try lab.isAccepted(device), "\(device)") }

        _ = try lab.refold("cert", "revoke", "--tenant", "acme", "--device", "d1", "--reason", "keyCompromise")
        #expect(await eventually(within: 20) { (try? lab.isAccepted("d1")) == false })
        #expect(await eventually(within: 20) { (try? lab.isProved) == true })
        #expect(try lab.isAccepted("d2"))

        // The broker does not read the next one: not proved, and said.
        try FileManager.default.removeItem(atPath: lab.switchPath)
        _ = try lab.refold("cert", "hold", "--tenant", "acme", "--device", "d2")
        #expect(await eventually(within: 20) { lab.hasReason("reload_command of broker") })
        #expect(try lab.isAccepted("d2") && !lab.isProved)
        try Data().write(to: URL(fileURLWithPath: lab.switchPath))
        #expect(await eventually(within: 30) { (try? lab.isProved) == true && (try? lab.isAccepted("d2")) == false })

        // Killed, and a hold is released: the next CRL is proved after the start.
        lab.world.killDaemon()
        try await lab.startDaemon()
        _ = try lab.refold("cert", "release", "--tenant", "acme", "--device", "d2")
        #expect(await eventually(within: 30) { (try? lab.isProved) == true && (try? lab.isAccepted("d2")) == true })
        #expect(try !lab.isAccepted("d1") && lab.isAccepted("d3"))
        #expect(lab.world.stopDaemon().exitCode == 0)
    }

    /// Mosquitto 2.0 accepts every revoked client after it failed to read its CRL file (measured): a file that cannot
    /// be written is left as it is, and nothing is reloaded.
    @Test func aFileThatCannotBeWrittenIsNotReloaded() async throws {
        let lab = try EnforcedWorld()
        try await lab.startDaemon()
        defer { lab.world.killDaemon() }
        let folder = lab.devices.folder
        _ = try lab.refold("ca", "import", "fleet", "--certificates", folder + "/ca.pem", "--key", folder + "/ca.key")
        for device in ["d1", "d2"] {
            _ = try lab.refold(
                "cert", "issue", "--tenant", "acme", "--device", device, "--generate-key", "P-256", "--out",
                lab.world.folder)
        }
        _ = try lab.refold("cert", "revoke", "--tenant", "acme", "--device", "d1")
        let file = folder + "/fleet.crl"
        try #require(await eventually(within: 20) { FileManager.default.fileExists(atPath: file) })
        try await lab.startBroker()
        #expect(await eventually(within: 30) { (try? lab.isProved) == true })

        // A folder in place of the file: rename(2) fails, also for root.
        let before = try Data(contentsOf: URL(fileURLWithPath: file)), aside = file + ".aside"
        try FileManager.default.moveItem(atPath: file, toPath: aside)
        try FileManager.default.createDirectory(atPath: file, withIntermediateDirectories: false)
        let reloads = try lab.events("crl.reloaded/1").count
        _ = try lab.refold("cert", "revoke", "--tenant", "acme", "--device", "d2")
        #expect(await eventually(within: 20) { lab.hasReason("fleet.crl") }, "\(lab.world.status()?.reasons ?? [])")
        #expect(try lab.events("crl.reloaded/1").count == reloads)
        #expect(try !lab.isAccepted("d1") && lab.isAccepted("d2"), "the broker has the CRL before")
        #expect(try Data(contentsOf: URL(fileURLWithPath: aside)) == before)

        try FileManager.default.removeItem(atPath: file)
        #expect(await eventually(within: 30) { (try? lab.isProved) == true && (try? lab.isAccepted("d2")) == false })
        #expect(lab.world.stopDaemon().exitCode == 0)
    }
}
