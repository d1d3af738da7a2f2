import Decisions
import EventModel
import Foundation
import Ingest
import MQTT
import TestSupport
import Testing

/// Our own commands come back to us, and are not recorded again. Whoever only says that a command is ours is recorded
/// as a stranger.
@Suite(.serialized) struct CommandEchoTests {
    private static let logID = String(repeating: "ab", count: 16)

    /// A log in which firmware 3 was sent to the devices a and b of acme at `command`, and to c of globex after it.
    private struct Decided {
        let log = MemoryLog()
        let command: Position
        let other: Position

        init() throws {
            var firmware = FirmwareAdded(
                id: 3, tenantID: "acme", version: "2.0 \"β\"", fileURL: "https://fw/a\\b/2.bin", actor: "me")
            firmware.checksumSHA256 = "00ff"
            let elsewhere = FirmwareAdded(
                id: 4, tenantID: "globex", version: "9", fileURL: "https://fw/9", actor: "me")
            func dispatched(_ id: Int64, _ firmware: FirmwareAdded, _ devices: [String]) -> CampaignDispatched {
                var event = CampaignDispatched(
                    campaignID: id, tenantID: firmware.tenantID, stage: 0, devices: devices,
                    seen: devices.map { _ in 0 }, paceFrom: 0, paceCount: 2, cause: 0)
                (event.firmwareURL, event.version) = (firmware.fileURL, firmware.version)
                event.checksum = firmware.checksumSHA256
                return event
            }
            _ = try log.decide(.firmwareAdded, firmware)
            _ = try log.decide(.firmwareAdded, elsewhere)
            command = try log.decide(.campaignDispatched, dispatched(7, firmware, ["a", "b"]))
            other = try log.decide(.campaignDispatched, dispatched(8, elsewhere, ["c"]))
        }

        func payload(_ change: (inout UpdateCommand) -> Void = { _ in }) -> [UInt8] {
            var ours = UpdateCommand(
                campaignID: 7, firmwareURL: "https://fw/a\\b/2.bin", version: "2.0 \"β\"", checksum: "00ff",
                command: command)
            change(&ours)
            return ours.payload
        }
    }

    private func marks(_ position: Position, log: String = logID) -> TestPublisher.Properties {
        var properties = TestPublisher.Properties()
        properties.userProperties = [("refold-log", log), ("refold-position", "\(position)")]
        return properties
    }

    @Test(arguments: [BrokerSettings.ProtocolPreference.v5, .v311])
    func ourOwnCommandsAreNotRecordedAgain(version: BrokerSettings.ProtocolPreference) async throws {
        let broker = try MosquittoServer(), decided = try Decided()
        let rig = try Rig(port: broker.port, log: decided.log, logID: Self.logID) { $0.protocolPreference = version }
        try await rig.subscribed()
        let publisher = try TestPublisher(port: broker.port)
        for _ in 0..<3 {
            for name in ["a", "b"] {
                try publisher.publish(device(name, "ota"), decided.payload(), properties: marks(decided.command))
            }
        }
        let globex = UpdateCommand(
            campaignID: 8, firmwareURL: "https://fw/9", version: "9", checksum: nil, command: decided.other)
        try publisher.publish("tenant/globex/device/c/ota", globex.payload, properties: marks(decided.other))
        // Without properties, as one that speaks MQTT 3.1.1 sends it.
        try publisher.publish("tenant/globex/device/c/ota", globex.payload)
        try publisher.publish(device("a"), "the end")
        try await publisher.flush()
        #expect(await eventually { decided.log.messages.last?.text == "the end" })
        #expect(decided.log.messages.count == 1)
        #expect(await eventually { rig.status.acknowledged == 9 })
        #expect(rig.status.echoes == 8)
        await rig.stop()
    }

    @Test func whatTakesACommandBackIsRecognisedByItsProperties() async throws {
        let broker = try MosquittoServer(), decided = try Decided()
        let rig = try Rig(port: broker.port, log: decided.log, logID: Self.logID)
        try await rig.subscribed()
        let publisher = try TestPublisher(port: broker.port)
        try publisher.publish(device("a", "ota"), [UInt8](), retain: true, properties: marks(decided.command))
        try publisher.publish(device("a", "ota"), [UInt8](), retain: true)
        try publisher.publish(device("z", "ota"), [UInt8](), retain: true, properties: marks(decided.command))
        try await publisher.flush()
        #expect(await eventually { decided.log.messages.count == 2 })
        #expect(decided.log.messages.map(\.verdict) == [.foreignCommand, .foreignCommand])
        #expect(decided.log.messages.map(\.topic) == [device("a", "ota"), device("z", "ota")])
        #expect(rig.status.echoes == 1)
        await rig.stop()
    }

    @Test func forgedClaimsAreForeignCommands() async throws {
        let broker = try MosquittoServer(), decided = try Decided()
        let rig = try Rig(port: broker.port, log: decided.log, logID: Self.logID)
        try await rig.subscribed()
        let publisher = try TestPublisher(port: broker.port)
        let stranger = String(repeating: "cd", count: 16)
        let forgeries: [(topic: String, payload: [UInt8], TestPublisher.Properties)] = [
            // Another payload under a decision of ours.
            (device("a", "ota"), decided.payload { $0.firmwareURL = "https://evil/" }, marks(decided.command)),
            (device("a", "ota"), decided.payload { $0.checksum = nil }, marks(decided.command)),
            (device("a", "ota"), decided.payload { $0.campaignID = 8 }, marks(decided.command)),
            (device("a", "ota"), decided.payload() + [0x20], marks(decided.command)),
            (device("a", "ota"), Array("{}".utf8), marks(decided.command)),
            // A device that the decision does not name, in this tenant and in another.
            (device("c", "ota"), decided.payload(), marks(decided.command)),
            ("tenant/globex/device/a/ota", decided.payload(), marks(decided.command)),
            // Another decision, one that sends nothing, one that is not there, another log's.
            (device("a", "ota"), decided.payload { $0.command = decided.other }, marks(decided.other)),
            (device("a", "ota"), decided.payload(), marks(decided.other)),
            (device("a", "ota"), decided.payload { $0.command = Position(1) }, marks(Position(1))),
            (device("a", "ota"), decided.payload { $0.command = Position(1 << 40) }, marks(Position(1 << 40))),
            (device("a", "ota"), decided.payload(), marks(decided.command, log: stranger)),
            (device("a", "ota"), [], marks(decided.command, log: stranger)),
            // Only the payload's own word.
            (device("a", "ota"), decided.payload { $0.version = "3" }, .init()),
            (device("c", "ota"), decided.payload(), .init()),
            (device("a", "ota"), Array("not json".utf8), .init()),
        ]
        for (topic, payload, properties) in forgeries {
            try publisher.publish(topic, payload, properties: properties)
        }
        // And the true one among them.
        try publisher.publish(device("a", "ota"), decided.payload(), properties: marks(decided.command))
        try await publisher.flush()
        #expect(await eventually { rig.status.acknowledged == UInt64(forgeries.count) + 1 })
        #expect(decided.log.messages.map(\.payload) == forgeries.map(\.payload))
        #expect(decided.log.messages.allSatisfy { $0.verdict == .foreignCommand })
        #expect(rig.status.echoes == 1)
        await rig.stop()
    }

    /// Commands about certificates come back as commands of campaigns do; a forged one is recorded.
    @Test(arguments: [BrokerSettings.ProtocolPreference.v5, .v311])
    func commandsAboutCertificatesAreRecognised(version: BrokerSettings.ProtocolPreference) async throws {
        let broker = try MosquittoServer(), log = MemoryLog()
        func renewal(_ step: CertificateRenewal.Step, _ id: UInt64?) -> CertificateRenewal {
            CertificateRenewal(
                step, authority: "ca", serial: "4f21", tenantID: "acme", deviceID: "a", renewal: id, actor: "refold")
        }
        var requested = renewal(.requested, nil)
        requested.notAfter = Timestamp(seconds: 2_000_000_000)
        let asked = try log.decide(CertificateSchema.renewalRequested.rawValue, requested)
        var resent = renewal(.resent, asked.rawValue)
        (resent.issued, resent.certificate, resent.chain) = ("ca/4f22", "AAAA", ["BBBB"])
        let sent = try log.decide(CertificateSchema.renewalResent.rawValue, resent)
        let commands = try [(asked, requested), (sent, resent)].map { position, event in
            (position: position, delivery: try #require(event.deliveries(at: position).first))
        }
        let rig = try Rig(port: broker.port, log: log, logID: Self.logID) { $0.protocolPreference = version }
        try await rig.subscribed()
        let publisher = try TestPublisher(port: broker.port)
        for (position, delivery) in commands {
            #expect(delivery.topic == device("a", "certificate"))
            try publisher.publish(delivery.topic, delivery.payload, properties: marks(position))
            // As one that speaks MQTT 3.1.1 sends it.
            try publisher.publish(delivery.topic, delivery.payload)
        }
        let forgeries: [(topic: String, payload: [UInt8])] = [
            (device("a", "certificate"), commands[0].delivery.payload + [0x20]),
            (device("b", "certificate"), commands[0].delivery.payload),
            (device("a", "ota"), commands[1].delivery.payload),
            (device("a", "certificate"), Array("{}".utf8)),
            (device("a", "certificate"), []),
        ]
        for (topic, payload) in forgeries {
            try publisher.publish(topic, payload, properties: topic.hasSuffix("ota") ? marks(sent) : .init())
        }
        try await publisher.flush()
        #expect(await eventually { rig.status.acknowledged == 9 })
        #expect(rig.status.echoes == 4)
        #expect(log.messages.map(\.payload) == forgeries.map(\.payload))
        #expect(log.messages.allSatisfy { $0.verdict == .foreignCommand })
        await rig.stop()
    }

    /// What a stranger sent is in the log; that it is sent again with the position of that record hides nothing.
    @Test func aForeignCommandIsNotHiddenByItsOwnRecord() async throws {
        let broker = try MosquittoServer(), decided = try Decided()
        let rig = try Rig(port: broker.port, log: decided.log, logID: Self.logID)
        try await rig.subscribed()
        let publisher = try TestPublisher(port: broker.port)
        try publisher.publish(device("a", "ota"), "evil")
        #expect(await eventually { decided.log.messages.count == 1 })
        let count = Int(decided.log.durableCount) + 1
        for position in 0..<UInt64(count - 1) {
            try publisher.publish(device("a", "ota"), "evil".utf8, properties: marks(Position(position)))
        }
        try await publisher.flush()
        #expect(await eventually { decided.log.messages.count == count })
        #expect(rig.status.echoes == 0 && rig.status.replays == 0)
        await rig.stop()
    }

    @Test func oneCommandHasOneSpelling() {
        let command = UpdateCommand(
            campaignID: 12, firmwareURL: "https://h/a \"b\"\\\u{1}/ü", version: "1", checksum: nil,
            command: Position(99))
        let text = String(decoding: command.payload, as: UTF8.self)
        #expect(
            text == #"{"campaign_id":12,"firmware_url":"https://h/a \"b\"\\\u0001/ü","version":"1","#
                + #""checksum":null,"action":"update","command_id":99}"#)
        func claim(_ text: String) -> Position? { Array(text.utf8).withUnsafeBytes { UpdateCommand.claim(in: $0) } }
        #expect(claim(text) == Position(99))
        for other in [
            "", "}", "5}", ",\"command_id\":}", ",\"command_id\":99} ", ",\"command_id\":-9}",
            ",\"command_id\":99999999999999999999}", "\"command_id\":9}",
        ] {
            #expect(claim(other) == nil, "\(other)")
        }
    }
}

extension MemoryLog {
    fileprivate func decide(_ schema: CampaignSchema, _ event: some Encodable) throws -> Position {
        try decide(schema.rawValue, event)
    }

    fileprivate func decide(_ schema: String, _ event: some Encodable) throws -> Position {
        var batch = RecordBatch()
        batch.append(
            kind: .decision, schema: schema, receivedAt: Timestamp(microseconds: 1),
            json: Array(try JSONEncoder().encode(event)))
        return try append(&batch).lowerBound
    }
}
