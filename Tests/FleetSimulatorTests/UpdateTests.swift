import Foundation
import TestSupport
import Testing

@testable import FleetSimulator

/// What devices make of update commands, over a real Mosquitto.
@Suite(.serialized) struct UpdateTests {
    struct Case: Sendable, CustomTestStringConvertible {
        var name: String
        var change: @Sendable (inout OTABehaviour) -> Void
        /// What the device says of it, by topic and in order: OTA statuses, `ack:STATUS`, `shadow:VERSION`.
        var says: [String]
        var testDescription: String { name }
    }

    @Test(arguments: [
        Case(name: "succeeds", change: { _ in }, says: ["DOWNLOADING 9", "INSTALLING 9", "SUCCESS 9", "shadow:2.0"]),
        Case(name: "fails", change: { $0.failures = 1 }, says: ["DOWNLOADING 9", "INSTALLING 9", "FAILED 9"]),
        Case(name: "is silent", change: { $0.silent = 1 }, says: []),
        Case(name: "refuses", change: { $0.refusing = 1 }, says: ["ack:REJECTED 9"]),
        Case(name: "stalls", change: { $0.stalling = 1 }, says: ["DOWNLOADING 9"]),
        Case(
            name: "keeps its version", change: { $0.unverified = 1 },
            says: ["DOWNLOADING 9", "INSTALLING 9", "SUCCESS 9"]),
        Case(
            name: "rolls back", change: { $0.rollbacks = 1 },
            says: ["DOWNLOADING 9", "INSTALLING 9", "SUCCESS 9", "shadow:2.0", "shadow:1.0.0"]),
        Case(
            name: "numbers nothing", change: { $0.anonymous = 1 },
            says: ["DOWNLOADING -", "INSTALLING -", "SUCCESS -", "shadow:2.0"]),
        Case(
            name: "takes a bad build", change: { $0.badBuilds = ["2.0": 1] },
            says: ["DOWNLOADING 9", "INSTALLING 9", "FAILED 9"]),
        Case(
            name: "restarts", change: { $0.restartSeconds = 0.05 },
            says: ["DOWNLOADING 9", "INSTALLING 9", "SUCCESS 9", "DISCONNECTED", "CONNECTED", "shadow:2.0"]),
    ])
    func aDevice(_ test: Case) async throws {
        let world = try await World()
        var settings = world.settings
        settings.shape.devices = 1
        settings.shape.tenants = 1
        settings.shape.ota.failures = 0
        settings.shape.ota.stepSeconds = 0.01
        test.change(&settings.shape.ota)
        settings.otaLedgerPath = world.broker.folder + "/ota"
        settings.extent = .endless
        settings.rate = 0.001
        let simulator = try FleetSimulator(settings)
        let task = Task { try await simulator.run() }
        #expect(await eventually { said(world).contains("CONNECTED") })
        // Told twice, it does it once.
        for _ in 0..<2 { try tell(world, command: 9) }
        #expect(await eventually { said(world).suffix(test.says.count) == test.says[...] }, "\(said(world))")
        #expect(await eventually { simulator.statistics.commands == 2 })
        task.cancel()
        let statistics = try await task.value
        #expect(Array(said(world).dropFirst().prefix(test.says.count)) == test.says, "\(said(world))")
        #expect(statistics.repeatedCommands == (test.name == "numbers nothing" ? statistics.repeatedCommands : 1))
        let ledger = try String(contentsOfFile: world.broker.folder + "/ota", encoding: .utf8)
        #expect(ledger.split(separator: "\n").filter { $0.contains("\"event\":\"command\"") }.count == 2)
    }

    @Test func aLaterCommandReplacesAnEarlierOne() async throws {
        let world = try await World()
        var settings = world.settings
        settings.shape.devices = 1
        settings.shape.tenants = 1
        settings.shape.ota.failures = 0
        settings.shape.ota.stepSeconds = 0.3
        settings.extent = .endless
        settings.rate = 0.001
        let simulator = try FleetSimulator(settings)
        let task = Task { try await simulator.run() }
        #expect(await eventually { said(world).contains("CONNECTED") })
        try tell(world, command: 9)
        #expect(await eventually { said(world).contains("DOWNLOADING 9") })
        try tell(world, command: 11)
        try tell(world, command: 9)
        #expect(await eventually { said(world).last == "shadow:2.0" })
        #expect(said(world).filter { $0.hasPrefix("SUCCESS") } == ["SUCCESS 11"])
        #expect(said(world).filter { $0.hasPrefix("DOWNLOADING") } == ["DOWNLOADING 9", "DOWNLOADING 11"])
        task.cancel()
        _ = try await task.value
    }

    @Test func devicesThatAreAwayComeLater() async throws {
        let world = try await World()
        var settings = world.settings
        settings.shape.devices = 40
        settings.shape.ota.offline = 0.5
        settings.shape.ota.offlineSeconds = 1
        settings.extent = .endless
        let simulator = try FleetSimulator(settings)
        let task = Task { try await simulator.run() }
        #expect(await eventually { simulator.statistics.published > 100 })
        #expect((5..<35).contains(simulator.statistics.connected))
        #expect(await eventually { simulator.statistics.connected == 40 })
        task.cancel()
        _ = try await task.value
    }

    private func tell(_ world: World, command: Int) throws {
        let payload =
            #"{"campaign_id":12,"firmware_url":"http://h/f","version":"2.0","checksum":null,"#
            + #""action":"update","command_id":\#(command)}"#
        try MosquittoWitness.publish(world.broker, topic: "tenant/acme/device/dev-0001/ota", payload: payload)
    }

    private func said(_ world: World) -> [String] {
        world.witness.arrivals.compactMap { arrival in
            guard let object = try? JSONSerialization.jsonObject(with: Data(arrival.payload)) as? [String: Any]
            else { return nil }
            let status = object["status"] as? String ?? ""
            switch arrival.topic.split(separator: "/").dropFirst(4).joined(separator: "/") {
            case "ota/status": return "\(status) \((object["command_id"] as? Int).map(String.init) ?? "-")"
            case "commands/ack" where status == "REJECTED": return "ack:\(status) \(object["command_id"] ?? "-")"
            case "connection": return status
            case "shadow/reported":
                return "shadow:\((object["reported"] as? [String: Any])?["firmware_version"] as? String ?? "-")"
            default: return nil
            }
        }
    }
}
