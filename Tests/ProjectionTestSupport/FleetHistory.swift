import Decisions
import EventLog
import EventModel
import Foundation
import Primitives

/// A little of everything that a fleet does, by seed: event i is received at second 1,700,000,000 + i.
public struct FleetHistory {
    private var random: SeededRandom
    private var count: UInt64 = 0
    private var campaigns: Int64 = 0
    private var chaos = CampaignChaos()
    private var jobs = JobChaos()
    private var jobRandom: SeededRandom
    public static let devices = (0..<9).map { "d\($0)" }
    public static let tenants = ["acme", "b.corp"]

    public init(seed: UInt64) { (random, jobRandom) = (SeededRandom(seed: seed), SeededRandom(seed: ~seed)) }

    public static func time(_ position: UInt64) -> Timestamp {
        Timestamp(microseconds: (1_700_000_000 + Int64(position)) * 1_000_000)
    }

    /// Appends so many more events, a few a commit.
    public mutating func append(_ events: Int, to log: some LogWriter) throws {
        var left = events
        while left > 0 {
            var batch = RecordBatch()
            for _ in 0..<min(left, Int.random(in: 1...7, using: &random)) where batch.count < left {
                try event(&batch)
            }
            left -= batch.count
            _ = try log.append(&batch)
        }
    }

    private mutating func event(_ batch: inout RecordBatch) throws {
        func pick(_ range: Range<Int>) -> Int { Int.random(in: range, using: &random) }
        let tenant = Self.tenants[pick(0..<2)], device = Self.devices[pick(0..<Self.devices.count)]
        let topic = "tenant/\(tenant)/device/\(device)/"
        switch pick(0..<23) {
        case 0..<6: message(&batch, topic + "telemetry", "{\"metrics\":{\"t\":\(pick(0..<99)),\"m\(pick(0..<3))\":1}}")
        case 6: message(&batch, topic + "heartbeat", "{\"seq\":\(pick(0..<9))}")
        case 7:
            message(
                &batch, topic + "shadow/reported",
                "{\"version\":\(pick(0..<30)),\"reported\":{\"firmware_version\":\"1.\(pick(0..<9))\"}}")
        case 8: message(&batch, topic + "connection", "{\"status\":\"\(["CONNECTED", "DISCONNECTED"][pick(0..<2)])\"}")
        case 9: message(&batch, topic + "telemetry", "{\"metrics\":")
        case 10..<13:
            let status = ["DOWNLOADING", "INSTALLING", "SUCCESS", "FAILED"][pick(0..<4)]
            let id = Int64(pick(1..<4)), command = pick(0..<3) == 0 ? chaos.command(id, device) : nil
            let written = command.map { ",\"command_id\":\($0)" } ?? ""
            chaos.reported(status, tenant: tenant, device: device, campaign: id, command: command, at: count)
            message(&batch, topic + "ota/status", "{\"campaign_id\":\(id),\"status\":\"\(status)\"\(written)}")
        case 13 where campaigns < 3:
            campaigns += 1
            let targets = Self.devices.filter { _ in Bool.random(using: &random) }
            chaos.created(campaigns, tenant: tenant)
            chaos.targeted(campaigns, targets, at: count + 1)
            try own(
                &batch, .decision, "campaign.created/1",
                CampaignCreated(
                    id: campaigns, tenantID: tenant, name: "c\(campaigns)", firmwareVersionID: 1,
                    rolloutStrategy: "linear",
                    totalDevices: Int64(targets.count), actor: "ann"))
            try own(
                &batch, .decision, "campaign.targets/1",
                CampaignTargets(
                    campaignID: campaigns, tenantID: tenant, firstID: campaigns * 100, devices: targets))
        case 14:
            try own(&batch, .connection, "broker.connected/1", BrokerEvent(clientID: "c\(pick(0..<3))"), broker: "main")
        case 16..<19:
            if let (schema, event) = chaos.decide(at: count, using: &random) {
                try own(&batch, .decision, schema.rawValue, event)
            } else {
                message(&batch, topic + "heartbeat", "{}")
            }
        case 15:
            // Draws of their own: the events of other kinds stay as they are.
            _ = pick(0..<99)
            let (schema, event) = jobs.decide(at: count, using: &jobRandom)
            try own(&batch, .decision, schema.rawValue, event)
        case 19..<23:
            let (schema, event) = CertificateChaos.decide(using: &random)
            try own(&batch, .decision, schema.rawValue, event)
        default: message(&batch, topic + "commands/ack", "{\"command_id\":\"c\(pick(0..<99))\",\"status\":\"ok\"}")
        }
    }

    private mutating func message(_ batch: inout RecordBatch, _ topic: String, _ payload: String) {
        let parts = [topic, payload, "main"].map { Array($0.utf8) }
        parts[0].withUnsafeBytes { topic in
            parts[1].withUnsafeBytes { payload in
                parts[2].withUnsafeBytes { broker in
                    batch.append(
                        kind: .message, verdict: .accepted, flags: RecordFlags(qos: 1), receivedAt: Self.time(count),
                        packetID: 1, broker: broker, topic: topic,
                        properties: UnsafeRawBufferPointer(start: nil, count: 0), payload: payload)
                }
            }
        }
        count += 1
    }

    private mutating func own(
        _ batch: inout RecordBatch, _ kind: EventKind, _ schema: String, _ event: some Encodable, broker: String = ""
    ) throws {
        batch.append(
            kind: kind, schema: schema, broker: broker, receivedAt: Self.time(count),
            json: Array(try JSONEncoder().encode(event)))
        count += 1
    }
}
