import Foundation
import MQTT
import TestSupport
import Testing
@testable import Enforcement

/// A daemon, and a broker of devices whose CRL file it keeps. Devices reach the broker over TLS; at another listener it
/// asks for no certificate.
final class EnforcedWorld {
    let world: World
    let devices: MosquittoServer
    let internalPort = freeLoopbackPort()
    /// The reload command fails while it does not exist: a broker that is starting ends by SIGHUP.
    var switchPath: String { world.folder + "/reload" }

    /// - Parameter database: another URL than that of a new database.
    init(database: String? = nil) throws {
        world = try World(postgres: try PostgresServer.shared.get(), url: database.map { url in { _ in url } })
        devices = try MosquittoServer(
            tls: true, clientCertificates: true,
            lines: [
                "crlfile $folder/fleet.crl", "pid_file $folder/pid", "listener \(internalPort) 127.0.0.1",
            ], started: false)
    }

    var reload: String { "test -e \(switchPath) && kill -HUP $(cat \(devices.folder)/pid)" }

    /// - Parameter cutURL: nil: clients are not cut.
    func startDaemon(reload: String? = nil, cutURL: String? = nil) async throws {
        let probe = "mqtts://127.0.0.1:\(devices.port)", folder = devices.folder
        var settings = [
            "broker.crl_file=\(folder)/fleet.crl", "broker.crl_reload_command=\(reload ?? self.reload)",
            "broker.crl_probe_url=\(probe)", "broker.crl_probe_ca_file=\(folder)/ca.pem",
        ]
        if let cutURL { settings += ["broker.crl_cut=takeover", "broker.crl_cut_url=\(cutURL)"] }
        try world.startDaemon(settings.flatMap { ["--set", $0] })
        try await world.untilSubscribed()
    }

    var cutURL: String { "mqtt://127.0.0.1:\(internalPort)" }

    func startBroker() async throws {
        try devices.start()
        try #require(await eventually(within: 20) { devices.logText.contains(" running\n") })
        try Data().write(to: URL(fileURLWithPath: switchPath))
    }

    /// Imports the broker's authority, issues the devices' certificates, and starts the broker. Returns when the first
    /// CRL is proved.
    func begin(devices names: [String]) async throws {
        let folder = devices.folder
        _ = try refold("ca", "import", "fleet", "--certificates", folder + "/ca.pem", "--key", folder + "/ca.key")
        for device in names { try issue(device) }
        try #require(await eventually(within: 20) { FileManager.default.fileExists(atPath: folder + "/fleet.crl") })
        try await startBroker()
        try #require(await eventually(within: 30) { (try? isProved) == true }, "\(world.daemonLog.suffix(2_000))")
    }

    func issue(_ device: String) throws {
        _ = try refold(
            "cert", "issue", "--tenant", "acme", "--device", device, "--generate-key", "P-256", "--out", world.folder)
    }

    func refold(_ arguments: String...) throws -> World.Outcome {
        let address = ["log", "replay"].contains(arguments.first) ? [] : ["--http", world.http]
        let outcome = try world.run(arguments + ["--data", world.data] + address)
        #expect(outcome.code == 0, "\(arguments): \(outcome.error)")
        return outcome
    }

    /// Whether the broker takes a message of the device.
    func isAccepted(_ device: String) throws -> Bool {
        let child = try ChildProcess(
            [
                "mosquitto_pub", "-h", "127.0.0.1", "-p", "\(devices.port)", "--cafile", devices.folder + "/ca.pem",
                "--cert", "\(world.folder)/\(device).pem", "--key", "\(world.folder)/\(device).key", "-q", "1", "-t",
                "t",
                "-m", "x",
            ], log: world.folder + "/mosquitto_pub.log")
        child.wait()
        return child.exitCode == 0
    }

    /// A client that stays connected.
    func connect(_ device: String) throws -> MQTTExchange {
        func bytes(_ path: String) throws -> [UInt8] { Array(try Data(contentsOf: URL(fileURLWithPath: path))) }
        let settings = BrokerSettings(
            name: "devices", host: "127.0.0.1", port: devices.port, clientID: "unused",
            tls: BrokerSettings.TLS(caFile: devices.folder + "/ca.pem"))
        let identity = try ClientIdentity(
            certificatesPEM: bytes("\(world.folder)/\(device).pem"), keyPEM: bytes("\(world.folder)/\(device).key"))
        let client = try MQTTExchange(settings, identity: identity, deadline: Deadline(in: .seconds(5)))
        #expect(try client.connect(clientID: device, username: nil, password: nil) == 0)
        return client
    }

    /// Whether the broker still answers a client.
    func isAlive(_ client: MQTTExchange) -> Bool {
        client.deadline = Deadline(in: .seconds(3))
        // PINGREQ
        return (try? client.socket.send([0xC0, 0])) != nil && (try? client.receive().header) == 0xD0
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
