import Foundation
import TestSupport
import Testing

@testable import FleetSimulator

/// Whole runs against a real Mosquitto, with `mosquitto_sub` as the witness beside the ledger.
@Suite(.serialized) struct SimulatorTests {
    @Test func whatTheLedgerSaysIsWhatTheBrokerPassedOn() async throws {
        let world = try await World()
        var settings = world.settings
        settings.shape.devices = 20
        settings.shape.duplicates = 0.02
        settings.shape.malformed = 0.05
        settings.shape.outOfOrder = 0.03
        settings.shape.late = 0.03
        settings.extent = .messages(1500)
        let statistics = try await FleetSimulator(settings).run()
        #expect(statistics.generated == 1500)
        #expect(statistics.published == 1540)  // a birth and a farewell a device
        #expect(statistics.acknowledged == 1540)
        #expect(statistics.connectionsLost == 0)
        let ledger = try world.ledger()
        #expect(ledger.count == 1540)
        #expect(!ledger.contains { !$0.acknowledged })
        #expect(ledger.filter { $0.defect != nil }.count == statistics.malformed)
        #expect(await eventually { world.witness.arrivals.count >= 1540 })
        #expect(counted(world.witness.arrivals.map(\.entry)) == counted(ledger.map(\.entry)))
        #expect(statistics.ackMicrosP99 >= statistics.ackMicrosP50 && statistics.ackMicrosP50 > 0)
    }

    @Test func messagesOfADeviceArriveInTheirOrder() async throws {
        let world = try await World()
        var settings = world.settings
        settings.shape.devices = 5
        settings.extent = .messages(500)
        settings.rate = 0
        _ = try await FleetSimulator(settings).run()
        #expect(await eventually { world.witness.arrivals.count >= 510 })
        let expected = FleetGenerator.sequence(settings, count: 500)
        let arrivals = world.witness.arrivals.filter { !$0.topic.hasSuffix("/connection") }
        for device in 0..<5 {
            let address = settings.shape.address(ofDevice: device)
            let arrived = arrivals.filter { $0.topic.hasPrefix(address + "/") }.map(\.payload)
            #expect(arrived == expected.filter { $0.device == device }.map(\.payload), "\(address)")
        }
    }

    @Test func theBrokerPublishesTheLastWillOfWhoeverLeavesWithoutAWord() async throws {
        let world = try await World()
        var settings = world.settings
        settings.shape.devices = 10
        settings.shape.churn = 0.05
        settings.shape.ungraceful = 0.5
        settings.extent = .messages(400)
        let statistics = try await FleetSimulator(settings).run()
        #expect(statistics.ungracefulLeaves > 3)
        #expect(statistics.unacknowledged == 0)
        func words(_ status: String) -> Int {
            world.witness.arrivals.filter {
                String(decoding: $0.payload, as: UTF8.self).contains("\"\(status)\"")
            }.count
        }
        // Two leaves of a device that was away already are one.
        #expect(await eventually { words("CONNECTION_LOST") > 3 && words("CONNECTED") >= statistics.connectionsMade })
        #expect(words("CONNECTION_LOST") <= statistics.ungracefulLeaves)
        #expect(words("CONNECTION_LOST") + words("DISCONNECTED") == statistics.connectionsMade)
    }

    @Test func twoThousandDevicesHaveAConnectionEach() async throws {
        let world = try await World()
        var settings = world.settings
        settings.shape.devices = 2000
        settings.extent = .messages(4000)
        settings.rate = 0
        let statistics = try await FleetSimulator(settings).run()
        #expect(statistics.connectionsMade == 2000)
        #expect(statistics.acknowledged == 8000)
        #expect(await eventually { world.witness.arrivals.count >= 8000 })
    }

    @Test func nothingAcknowledgedIsLostWhenTheBrokerRestarts() async throws {
        let world = try await World()
        var settings = world.settings
        settings.shape.devices = 30
        settings.rate = 1500
        settings.extent = .messages(3000)
        let simulator = try FleetSimulator(settings)
        async let running = simulator.run()
        #expect(await eventually { simulator.statistics.acknowledged > 500 })
        world.broker.stop()
        try world.broker.start()
        let statistics = try await running
        #expect(statistics.connectionsLost >= 30)
        #expect(statistics.unacknowledged == 0)
        #expect(statistics.generated == 3000)
        let ledger = try world.ledger()
        #expect(ledger.count == statistics.published)
        let complete = await eventually {
            let arrived = counted(world.witness.arrivals.map(\.entry))
            // At least once: what was sent again may be there twice.
            return counted(ledger.map(\.entry)).allSatisfy { arrived[$0.key, default: 0] >= $0.value }
        }
        #expect(complete)
    }

    @Test func aBrokerThatStopsAnsweringLeavesItsMessagesUnacknowledgedInTheLedger() async throws {
        let world = try await World()
        var settings = world.settings
        settings.shape.devices = 5
        settings.rate = 500
        settings.extent = .messages(2000)
        settings.drainTimeoutSeconds = 0.5
        let simulator = try FleetSimulator(settings)
        async let running = simulator.run()
        #expect(await eventually { simulator.statistics.acknowledged > 100 })
        world.broker.freeze()
        let statistics = try await running
        world.broker.thaw()
        #expect(statistics.unacknowledged > 0)
        let ledger = try world.ledger()
        #expect(ledger.count == statistics.published)
        #expect(ledger.filter { !$0.acknowledged }.count == statistics.unacknowledged)
    }

    @Test func stoppingEndsInOrderWithACompleteLedger() async throws {
        let world = try await World()
        var settings = world.settings
        settings.extent = .endless
        settings.rate = 2000
        let simulator = try FleetSimulator(settings)
        let task = Task { try await simulator.run() }
        #expect(await eventually { simulator.statistics.acknowledged > 200 })
        task.cancel()
        let statistics = try await task.value
        #expect(statistics.unacknowledged == 0)
        #expect(statistics.connected == 0)
        let ledger = try world.ledger()
        #expect(ledger.count == statistics.published)
    }

    @Test func devicesAnswerAnUpdateCommand() async throws {
        let world = try await World()
        var settings = world.settings
        settings.shape.devices = 4
        settings.shape.ota.failures = 0
        settings.shape.ota.stepSeconds = 0.02
        settings.extent = .endless
        settings.rate = 20
        let simulator = try FleetSimulator(settings)
        let task = Task { try await simulator.run() }
        #expect(await eventually { simulator.statistics.connected == 4 })
        let address = settings.shape.address(ofDevice: 2)
        let command =
            #"{"campaign_id":12,"firmware_url":"http://localhost/f","version":"2.5.0","checksum":"00","#
            + #""action":"update","command_id":99}"#
        try MosquittoWitness.publish(world.broker, topic: address + "/ota", payload: command)
        func statuses() -> [String] {
            world.witness.arrivals.filter { $0.topic == address + "/ota/status" }.compactMap {
                (try? JSONSerialization.jsonObject(with: Data($0.payload)) as? [String: Any])
                    .flatMap {
                        $0["campaign_id"] as? Int == 12 && $0["command_id"] as? Int == 99
                            ? $0["status"] as? String : nil
                    }
            }
        }
        #expect(await eventually { statuses().last == "SUCCESS" })
        #expect(statuses() == ["DOWNLOADING", "INSTALLING", "SUCCESS"])
        #expect(
            await eventually {
                world.witness.arrivals.contains {
                    $0.topic == address + "/shadow/reported"
                        && String(decoding: $0.payload, as: UTF8.self).contains("\"2.5.0\"")
                }
            })
        task.cancel()
        let statistics = try await task.value
        #expect(statistics.commands == 1)
    }

    @Test func sharedConnectionsCarryMoreDevicesThanSockets() async throws {
        let world = try await World()
        var settings = world.settings
        settings.shape.devices = 20_000
        settings.connections = 3
        settings.rate = 0
        settings.extent = .messages(5000)
        let statistics = try await FleetSimulator(settings).run()
        #expect(statistics.connectionsMade == 3)
        #expect(statistics.published == 5000)  // no births, no farewells
        #expect(statistics.acknowledged == 5000)
    }

    @Test func anUnreachableBrokerIsAnErrorAtOnce() async throws {
        var settings = FleetSettings(broker: try BrokerURL(parsing: "mqtt://127.0.0.1:\(freeLoopbackPort())"))
        settings.connectTimeoutSeconds = 2
        let simulator = try FleetSimulator(settings)
        let error = await #expect(throws: FleetError.self) { _ = try await simulator.run() }
        guard case .unreachable(let text)? = error else { throw SystemError("\(String(describing: error))") }
        #expect(text.contains("Connection refused"))
    }

    @Test func aBrokerThatRefusesUsIsAnErrorAtOnce() async throws {
        let broker = try MosquittoServer(
            allowAnonymous: false, lines: ["password_file $folder/passwords"], files: ["passwords": ""])
        let settings = FleetSettings(broker: try BrokerURL(parsing: "mqtt://somebody:wrong@127.0.0.1:\(broker.port)"))
        let simulator = try FleetSimulator(settings)
        let error = await #expect(throws: FleetError.self) { _ = try await simulator.run() }
        guard case .unreachable(let text)? = error else { throw SystemError("\(String(describing: error))") }
        #expect(text.contains("not authorised") && !text.contains("wrong"), "\(text)")
    }
}

/// A broker, a witness and the settings of a small fleet.
struct World {
    let broker: MosquittoServer
    let witness: MosquittoWitness
    let settings: FleetSettings
    private let ledgerPath: String

    init() async throws {
        broker = try MosquittoServer(persistent: true)
        witness = try await MosquittoWitness(broker)
        ledgerPath = broker.folder + "/ledger"
        var settings = FleetSettings(broker: try BrokerURL(parsing: broker.url))
        settings.shape.devices = 10
        settings.seed = 42
        settings.rate = 1000
        settings.startTime = .init(microseconds: 1_800_000_000_000_000)
        settings.ledgerPath = ledgerPath
        self.settings = settings
    }

    struct Line: Decodable {
        var topic: String
        var sha256: String
        var acknowledged: Bool
        var device: String
        var kind: String
        var index: Int?
        var defect: String?

        var entry: String { topic + " " + sha256 }
    }

    func ledger() throws -> [Line] {
        try String(contentsOfFile: ledgerPath, encoding: .utf8).split(separator: "\n").map {
            try JSONDecoder().decode(Line.self, from: Data($0.utf8))
        }
    }
}

extension MosquittoWitness.Arrival {
    var entry: String {
        topic + " " + sha256(payload)
    }
}

/// How often each element occurs.
func counted<T: Hashable>(_ elements: [T]) -> [T: Int] { elements.reduce(into: [:]) { $0[$1, default: 0] += 1 } }

extension FleetGenerator {
    /// The first `count` messages that a run with these settings draws, when its start time is set and its rate is 0.
    static func sequence(_ settings: FleetSettings, count: Int) -> [FleetMessage] {
        var generator = FleetGenerator(seed: settings.seed, shape: settings.shape)
        var messages: [FleetMessage] = []
        while messages.count < count {
            let at = settings.startTime!.adding(microseconds: 1000 * Int64(generator.count))
            if case .publish(let message) = generator.next(at: at) { messages.append(message) }
        }
        return messages
    }
}
