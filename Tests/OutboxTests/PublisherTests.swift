import Decisions
import EventLog
import EventModel
import Foundation
import Ingest
import MQTT
import Synchronization
import TestSupport
import Testing
@testable import Outbox

/// A publisher against a real Mosquitto, with what it reported as acknowledged.
final class PublisherRig: Sendable {
    let publisher: CommandPublisher
    private let reported = Reported()
    private final class Reported: Sendable { let commands = Mutex<[Delivery]>([]) }

    init(
        _ ports: [Int], options: CommandPublisher.Options = .init(), _ adjust: (inout BrokerSettings) -> Void = { _ in }
    ) {
        let brokers = ports.enumerated().map { index, port in
            var settings = BrokerSettings(
                name: "b\(index)", host: "127.0.0.1", port: port, clientID: "refold-test-\(index)")
            settings.backoff.millisecondsMin = 5
            settings.backoff.millisecondsMax = 50
            adjust(&settings)
            return settings
        }
        publisher = CommandPublisher(brokers: brokers, logID: String(repeating: "ab", count: 16), options: options)
        publisher.onAcknowledged { [reported] commands in reported.commands.withLock { $0 += commands } }
        publisher.start()
    }

    var acknowledged: [Delivery] { reported.commands.withLock { $0 } }
    var status: CommandPublisher.Status { publisher.statuses[0] }
    func stop() async { await publisher.stop() }
}

func command(
    _ device: String, _ position: UInt64, campaign: Int64 = 7, isRetained: Bool = false, isRemoval: Bool = false
) -> Delivery {
    let update = UpdateCommand(
        campaignID: campaign, firmwareURL: "https://firmware.example/\(campaign).bin", version: "2.0.\(campaign)",
        checksum: "00ff", command: Position(position))
    return Delivery(
        id: Position(position), subject: UpdateCommand.subject(campaign), tenantID: "acme", deviceID: device,
        channel: UpdateCommand.channel, payload: isRemoval ? [] : update.payload, isRetained: isRetained)
}

/// The `command_id`s that arrived, by device, in their order.
func arrived(_ witness: MosquittoWitness) -> [String: [UInt64]] {
    var arrived: [String: [UInt64]] = [:]
    for arrival in witness.arrivals {
        let object = try? JSONSerialization.jsonObject(with: Data(arrival.payload)) as? [String: Any]
        guard let id = object?["command_id"] as? UInt64 else { continue }
        arrived[String(arrival.topic.split(separator: "/")[3]), default: []].append(id)
    }
    return arrived
}

@Suite(.serialized) struct PublisherTests {
    @Test(arguments: [BrokerSettings.ProtocolPreference.automatic, .v5, .v311])
    func commandsArriveInOrderAndAreAcknowledged(version: BrokerSettings.ProtocolPreference) async throws {
        let server = try MosquittoServer(), witness = try await MosquittoWitness(server)
        let rig = PublisherRig([server.port]) { $0.protocolPreference = version }
        for round in UInt64(1)...5 {
            rig.publisher.send((0..<1_000).map { command("d\($0)", round) })
        }
        #expect(await eventually { rig.acknowledged.count == 5_000 })
        #expect(await eventually { witness.arrivals.count == 5_000 })
        #expect(arrived(witness).count == 1_000)
        #expect(arrived(witness).values.allSatisfy { $0 == [1, 2, 3, 4, 5] })
        let text =
            #"{"campaign_id":7,"firmware_url":"https://firmware.example/7.bin","version":"2.0.7","#
            + #""checksum":"00ff","action":"update","command_id":1}"#
        #expect(witness.arrivals.first?.payload == Array(text.utf8))
        let status = rig.status
        #expect(status.isConnected && status.lastError == nil && status.connections == 1)
        #expect(status.acknowledged == 5_000)
        #expect(status.waiting == 0 && status.sent == 0 && status.refused == 0)
        #expect(status.protocolVersion == (version == .v311 ? "3.1.1" : "5.0"))
        await rig.stop()
    }

    /// One after the other, a round trip each, would take as long as the broker takes to answer five thousand times.
    @Test func manyAreUnderWayAtATime() async throws {
        let most = Mutex(0)
        let peer = try ScriptedBroker { connection in
            guard try connection.accept() != nil else { return }
            while true {
                var ids: [[UInt8]] = []
                // Answers when nothing more comes, all together.
                while connection.hasInput(withinMilliseconds: 200) {
                    guard let packet = connection.receive() else { return }
                    guard packet.header & 0xF0 == 0x30 else { continue }
                    let at = 2 + Int(packet.body[0]) << 8 + Int(packet.body[1])
                    ids.append(Array(packet.body[at..<(at + 2)]))
                }
                most.withLock { $0 = max($0, ids.count) }
                try connection.send(ids.flatMap { [0x40, 2] + $0 })
                if ids.isEmpty, !connection.hasInput(withinMilliseconds: 5_000) { return }
            }
        }
        var options = CommandPublisher.Options()
        options.window = 300
        let rig = PublisherRig([peer.port], options: options)
        rig.publisher.send((0..<1_000).map { command("d\($0)", 1) })
        #expect(await eventually { rig.acknowledged.count == 1_000 })
        #expect(most.withLock { $0 } == 300)
        await rig.stop()
    }

    @Test func whatIsSentBeforeThereIsABrokerArrivesWhenThereIsOne() async throws {
        let server = try MosquittoServer(persistent: true)
        let witness = try await MosquittoWitness(server)
        server.stop()
        let rig = PublisherRig([server.port])
        rig.publisher.send((0..<100).map { command("d\($0)", 1) })
        #expect(await eventually { rig.status.lastError != nil })
        #expect(!rig.status.isConnected && rig.status.waiting == 100)
        try server.start()
        #expect(await eventually { rig.acknowledged.count == 100 && rig.status.lastError == nil })
        #expect(await eventually { arrived(witness).count == 100 })
        await rig.stop()
    }

    @Test func aBrokerThatRestartsUnderLoadGetsEverythingInOrder() async throws {
        let server = try MosquittoServer(persistent: true), witness = try await MosquittoWitness(server)
        let rig = PublisherRig([server.port])
        for round in UInt64(1)...4 {
            rig.publisher.send((0..<2_000).map { command("d\($0)", round) })
            if round < 4 {
                #expect(await eventually { rig.acknowledged.count >= Int(round) * 1_000 })
                server.stop()
                try server.start()
            }
        }
        #expect(await eventually { rig.acknowledged.count == 8_000 })
        #expect(await eventually { arrived(witness).values.reduce(0) { $0 + Set($1).count } == 8_000 })
        for (device, ids) in arrived(witness) {
            // Sent again means the same again, before anything later.
            #expect(ids == ids.sorted() && Set(ids) == [1, 2, 3, 4], "\(device): \(ids)")
        }
        #expect(rig.status.connections > 1)
        #expect(Set(rig.acknowledged.map { "\($0.deviceID) \($0.id)" }).count == 8_000, "each is told once")
        await rig.stop()
    }

    @Test func aBrokerThatIsKilledIsFoundAgain() async throws {
        let server = try MosquittoServer()
        let rig = PublisherRig([server.port])
        for round in UInt64(1)...5 {
            rig.publisher.send((0..<3_000).map { command("d\($0)", round) })
            #expect(await eventually { rig.acknowledged.count > Int(round - 1) * 3_000 })
            server.kill()
            try server.start()
        }
        #expect(await eventually { rig.acknowledged.count == 15_000 })
        await rig.stop()
    }

    @Test func whatTheBrokerRefusesHoldsUpNobodyElse() async throws {
        let allowed = (0..<50).map { "topic readwrite tenant/acme/device/good-\($0)/ota\n" }.joined()
        let server = try MosquittoServer(
            persistent: true, lines: ["acl_file $folder/acl"], files: ["acl": allowed])
        var options = CommandPublisher.Options()
        options.refusedMillisecondsMin = 20
        options.refusedMillisecondsMax = 50
        // By 3.1.1 nothing tells that a publish was refused.
        let rig = PublisherRig([server.port], options: options) { $0.protocolPreference = .v5 }
        rig.publisher.send((0..<50).flatMap { [command("bad-\($0)", 1), command("good-\($0)", 1)] })
        rig.publisher.send((0..<50).flatMap { [command("bad-\($0)", 2), command("good-\($0)", 2)] })
        #expect(await eventually { rig.acknowledged.count == 100 && rig.status.refusals > 60 })
        #expect(rig.acknowledged.allSatisfy { $0.deviceID.hasPrefix("good") })
        #expect(rig.status.refused == 50)
        #expect(await eventually { rig.status.lastError?.contains("ot authorized") == true }, "\(rig.status)")
        // The operator sets it right.
        server.stop()
        try "topic readwrite #\n".write(toFile: server.folder + "/acl", atomically: true, encoding: .utf8)
        try server.start()
        #expect(await eventually { rig.acknowledged.count == 200 && rig.status.lastError == nil })
        let bad = rig.acknowledged.filter { $0.deviceID == "bad-3" }.map(\.id.rawValue)
        #expect(bad == [1, 2])
        await rig.stop()
    }

    /// EMQX, for one, may be told to end the connection on a publish that it does not allow.
    @Test func aCommandThatEndsTheConnectionIsFoundAndPutAside() async throws {
        let seen = Mutex<Set<String>>([])
        let peer = try ScriptedBroker { connection in
            guard try connection.accept() != nil else { return }
            while let packet = connection.receive() {
                guard packet.header & 0xF0 == 0x30 else { continue }
                let at = 2 + Int(packet.body[0]) << 8 + Int(packet.body[1])
                let topic = String(decoding: packet.body[2..<at], as: UTF8.self)
                if topic.contains("poison") { return }
                // Slow enough that the poison is always under way with others.
                usleep(2_000)
                seen.withLock { _ = $0.insert(topic) }
                try connection.send([0x40, 2] + packet.body[at..<(at + 2)])
            }
        }
        let rig = PublisherRig([peer.port])
        rig.publisher.send([command("poison", 1)] + (0..<20).map { command("d\($0)", 1) })
        #expect(await eventually { rig.acknowledged.count == 20 })
        #expect(await eventually { rig.status.refusals > 0 })
        await rig.stop()
    }

    @Test func itSpeaksTLSWithAClientCertificate() async throws {
        let server = try MosquittoServer(tls: true, clientCertificates: true)
        let certificates = try #require(server.certificates)
        let rig = PublisherRig([server.port]) {
            $0.tls = .init(
                caFile: certificates.ca, certFile: certificates.clientCert, keyFile: certificates.clientKey)
        }
        rig.publisher.send((0..<3_000).map { command("d\($0)", 1) })
        #expect(await eventually { rig.acknowledged.count == 3_000 })
        await rig.stop()
        let stranger = PublisherRig([server.port]) { $0.tls = .init(caFile: certificates.strangerCA) }
        stranger.publisher.send([command("d", 1)])
        #expect(await eventually { stranger.status.lastError != nil })
        #expect(!stranger.status.isConnected && stranger.acknowledged.isEmpty)
        await stranger.stop()
    }

    @Test func aBrokerThatDoesNotSpeakMQTT5IsSpokenToIn311() async throws {
        let peer = try ScriptedBroker { connection in
            guard let level = connection.receiveConnect() else { return }
            try connection.send([0x20, 2, 0, level == 5 ? 1 : 0])
            guard level == 4 else { return }
            while let packet = connection.receive() {
                guard packet.header & 0xF0 == 0x30 else { continue }
                let at = 2 + Int(packet.body[0]) << 8 + Int(packet.body[1])
                try connection.send([0x40, 2] + packet.body[at..<(at + 2)])
            }
        }
        let rig = PublisherRig([peer.port])
        rig.publisher.send([command("d", 1)])
        #expect(await eventually { rig.acknowledged.count == 1 })
        #expect(rig.status.protocolVersion == "3.1.1")
        await rig.stop()
    }

    @Test func whatIsWithdrawnIsNotSent() async throws {
        let server = try MosquittoServer(persistent: true), witness = try await MosquittoWitness(server)
        server.stop()
        let rig = PublisherRig([server.port])
        rig.publisher.send((0..<100).map { command("d\($0)", 1, campaign: 1) })
        rig.publisher.send((100..<200).map { command("d\($0)", 1, campaign: 2) })
        rig.publisher.withdraw(subject: "campaign:1")
        try server.start()
        #expect(await eventually { rig.acknowledged.count == 100 })
        #expect(await eventually { witness.arrivals.count == 100 })
        #expect(rig.acknowledged.allSatisfy { $0.campaignID == 2 })
        #expect(rig.status.waiting == 0)
        await rig.stop()
    }

    @Test func aRetainedCommandIsThereUntilItIsTakenBack() async throws {
        let server = try MosquittoServer()
        let rig = PublisherRig([server.port])
        let retained = command("sleepy", 5, isRetained: true)
        rig.publisher.send([retained])
        #expect(await eventually { rig.acknowledged == [retained] })
        let early = try await MosquittoWitness(server, session: "early")
        #expect(await eventually { arrived(early) == ["sleepy": [5]] })
        rig.publisher.send([command("sleepy", 5, isRetained: true, isRemoval: true)])
        #expect(await eventually { rig.status.acknowledged == 2 })
        let late = try await MosquittoWitness(server, session: "late")
        #expect(late.arrivals.isEmpty)
        #expect(rig.acknowledged == [retained], "what takes back is not reported")
        await rig.stop()
    }

    @Test func withSeveralBrokersAllMustHaveTakenIt() async throws {
        let first = try MosquittoServer(), second = try MosquittoServer(started: false)
        let rig = PublisherRig([first.port, second.port])
        rig.publisher.send((0..<50).map { command("d\($0)", 1) })
        #expect(await eventually { rig.publisher.statuses[0].acknowledged == 50 })
        #expect(rig.acknowledged.isEmpty)
        try second.start()
        #expect(await eventually { rig.acknowledged.count == 50 })
        #expect(rig.publisher.statuses[1].acknowledged == 50)
        await rig.stop()
    }

    /// What nobody was there to hear is counted: the broker keeps it for nobody.
    @Test func commandsThatNobodyHearsAreCounted() async throws {
        let server = try MosquittoServer()
        let rig = PublisherRig([server.port]) { $0.protocolPreference = .v5 }
        rig.publisher.send([command("d", 1)])
        #expect(await eventually { rig.status.withoutSubscribers == 1 && rig.acknowledged.count == 1 })
        await rig.stop()
    }
}
