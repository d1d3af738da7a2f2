import Foundation
import TestSupport
import Testing

/// Revocation at a real Mosquitto that devices reach over TLS: written, reloaded, proved, and what happens in between.
@Suite(.serialized) struct EnforcementTests {
    /// A daemon, and a broker of devices whose CRL file it keeps.
    private final class Lab {
        let world: World
        let devices: MosquittoServer
        /// The reload command fails while it does not exist: a broker that is starting ends by SIGHUP.
        var switchPath: String { world.folder + "/reload" }

        init() throws {
            world = try World(postgres: try PostgresServer.shared.get())
            devices = try MosquittoServer(
                tls: true, clientCertificates: true, lines: ["crlfile $folder/fleet.crl", "pid_file $folder/pid"],
                started: false)
        }

        func startDaemon() async throws {
            let probe = "mqtts://127.0.0.1:\(devices.port)", folder = devices.folder
            let reload = "test -e \(switchPath) && kill -HUP $(cat \(folder)/pid)"
            try world.startDaemon([
                "--set", "broker.crl_file=\(folder)/fleet.crl", "--set", "broker.crl_reload_command=\(reload)", "--set",
                "broker.crl_probe_url=\(probe)", "--set", "broker.crl_probe_ca_file=\(folder)/ca.pem",
            ])
            try await world.untilSubscribed()
        }

        func startBroker() async throws {
            try devices.start()
            try #require(await eventually(within: 20) { devices.logText.contains(" running\n") })
            try Data().write(to: URL(fileURLWithPath: switchPath))
        }

        func refold(_ arguments: String...) throws -> World.Outcome {
            let address = arguments.first == "log" ? [] : ["--http", world.http]
            let outcome = try world.run(arguments + ["--data", world.data] + address)
            #expect(outcome.code == 0, "\(arguments): \(outcome.error)")
            return outcome
        }

        /// Whether the broker takes a message of the device.
        func isAccepted(_ device: String) throws -> Bool {
            let child = try ChildProcess(
                [
                    "mosquitto_pub", "-h", "127.0.0.1", "-p", "\(devices.port)", "--cafile", devices.folder + "/ca.pem",
                    "--cert", "\(world.folder)/\(device).pem", "--key", "\(world.folder)/\(device).key", "-q", "1",
                    "-t",
                    "t", "-m", "x",
                ], log: world.folder + "/mosquitto_pub.log")
            child.wait()
            return child.exitCode == 0
        }

        func events(_ schema: String) throws -> [String] {
            try refold("log", "cat").out.split(separator: "\n").filter { $0.contains(" \(schema) ") }.map(String.init)
        }

        var isProved: Bool {
            get throws {
                let lists = try events("crl.issued/1"), proofs = try events("crl.proved/1")
                func number(_ line: String) -> Substring? { line.firstMatch(of: /"number":(\d+)/)?.1 }
                return lists.last.flatMap(number) == proofs.last.flatMap(number)
            }
        }

        func hasReason(_ text: String) -> Bool { world.status()?.reasons.contains { $0.contains(text) } ?? false }
    }

    @Test func aRevokedDeviceIsRefusedAndNobodyElse() async throws {
        let lab = try Lab()
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
        let lab = try Lab()
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
