import EventModel
import Testing

@testable import Projections

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers for a seed, on every machine.
struct Seeded: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}

extension History {
    /// A history of everything that can happen, by seed.
    static func random(seed: UInt64, count: Int) throws -> History {
        var random = Seeded(state: seed), history = History()
        var campaign: Int64 = 0
        while history.batches.count < count {
            let device = "d\(Int.random(in: 0..<6, using: &random))"
            let tenant = Bool.random(using: &random) ? "acme" : "b.corp"
            var flags: RecordFlags = Int.random(in: 0..<12, using: &random) == 0 ? .retained : []
            flags.insert(RecordFlags(qos: 1))
            func number(_ range: Range<Int>) -> Int { Int.random(in: range, using: &random) }
            switch number(0..<24) {
            case 0..<6:
                let names = ["t", "hum", "on", "\\u0074", "名"].filter { _ in Bool.random(using: &random) }
                let metrics = names.map { "\"\($0)\":\(number(0..<100))" }.joined(separator: ",")
                history.message(
                    "telemetry",
                    "{\"metrics\":{\(metrics)},\"seq\":\(number(0..<9)),\"site_id\":\"s\(number(0..<3))\"}",
                    tenant: tenant, device: device, flags: flags)
            case 6..<8:
                history.message(
                    "heartbeat", "{\"seq\":\(number(0..<9))}", tenant: tenant, device: device, flags: flags)
            case 8..<10:
                history.message(
                    "shadow/reported", "{\"version\":\(number(-2..<9)),\"reported\":{\"x\":[\(number(0..<9)),{}]}}",
                    tenant: tenant, device: device, flags: flags)
            case 10:
                history.message(
                    "commands/ack", "{\"command_id\":\"c\(number(0..<99))\",\"status\":\"ok\"}", tenant: tenant,
                    device: device)
            case 11..<17:
                let status = ["DOWNLOADING", "INSTALLING", "SUCCESS", "failed", "wrong"][number(0..<5)]
                history.message(
                    "ota/status",
                    "{\"campaign_id\":\(number(1..<5)),\"status\":\"\(status)\",\"progress\":\(number(0..<120))}",
                    tenant: tenant, device: device, flags: flags)
            case 17:
                let status = ["CONNECTED", "DISCONNECTED", "CONNECTION_LOST"][number(0..<3)]
                history.message(
                    "connection", "{\"status\":\"\(status)\"}", tenant: tenant, device: device, flags: flags)
            case 18: history.message("telemetry", "{\"metrics\":", tenant: tenant, device: device)
            case 19: history.message("x/y", "anything", tenant: tenant, device: device, broker: "second")
            case 20: history.message("telemetry", "{", device: device, verdict: .payloadTooLarge, flags: .truncated)
            case 21:
                history.message(
                    "rejected", "{\"count\":\(number(1..<9))}", device: device, kind: .rejection, verdict: .rateLimited)
            case 22:
                try history.token(Int64(number(1..<4)), tenant: tenant, isRevoked: Bool.random(using: &random))
                if campaign < 4 {
                    campaign += 1
                    try history.campaign(campaign, tenant: tenant, devices: (0..<number(1..<6)).map { "d\($0)" })
                }
            default:
                try history.broker(.connected, BrokerEvent(clientID: "c\(number(0..<3))"))
            }
        }
        return history
    }
}

/// Rows do not depend on how a history is cut into blocks, nor on when rows are written, forgotten and loaded again.
@Suite struct SplitTests {
    @Test(arguments: 1...12)
    func anySplitGivesTheSameRows(seed: Int) throws {
        let history = try History.random(seed: UInt64(seed), count: 160)
        var random = Seeded(state: UInt64(seed) &* 977)
        let count = history.batches.count
        for entry in Catalog.entries {
            let expected = history.fold(entry).lines
            #expect(!expected.isEmpty)
            for round in 0..<4 {
                let every = [1, 2, 7, 40][Int.random(in: 0..<4, using: &random)]
                let cuts = (1..<count).filter { _ in Int.random(in: 0..<every, using: &random) == 0 }
                func some(_ share: Int) -> Set<Int> {
                    Set(cuts.filter { _ in Int.random(in: 0..<share, using: &random) == 0 })
                }
                let restarts = round % 2 == 0 ? some(3) : [], drains = some(2), shrinks = round % 3 == 0 ? some(2) : []
                let lines = history.fold(entry, cuts: cuts, drains: drains, restarts: restarts, shrinks: shrinks).lines
                #expect(lines == expected, "\(entry.name), seed \(seed), round \(round)")
                if lines != expected { return }
            }
        }
    }

    /// The counts of campaigns, counted again from the history in the simplest way.
    @Test(arguments: 1...12)
    func campaignCountsAgreeWithARecount(seed: Int) throws {
        let history = try History.random(seed: UInt64(seed) &+ 1000, count: 400)
        var targets: [String: String] = [:], ended: [String: String] = [:]
        for batch in history.batches {
            batch.withUnsafeBytes { bytes in
                let record = RecordView(unchecked: bytes.baseAddress!)
                let payload = String(decoding: record.payload, as: UTF8.self), topic = record.topicString
                if topic == "campaign.targets/1" {
                    let id = payload.firstMatch(of: /"campaign_id":(\d+)/)!.1
                    let tenant = payload.firstMatch(of: /"tenant_id":"([^"]+)"/)!.1
                    for match in payload.firstMatch(of: /"devices":\[([^\]]*)\]/)!.1.matches(of: /"(d\d)"/) {
                        targets["\(id) \(match.1)"] = String(tenant)
                    }
                }
                guard topic.hasSuffix("ota/status"), !record.flags.contains(.retained) else { return }
                let parts = topic.split(separator: "/")
                let key = "\(payload.firstMatch(of: /"campaign_id":(\d+)/)!.1) \(parts[3])"
                let status = payload.firstMatch(of: /"status":"(\w+)"/)!.1.uppercased()
                guard targets[key] == String(parts[1]), ended[key] == nil else { return }
                if status == "SUCCESS" || status == "FAILED" { ended[key] = status }
            }
        }
        let rows = history.rows("campaigns", "ota_device_status", ["campaign_id", "device_id", "status"])
        for row in rows {
            let parts = row.split(separator: " ")
            let final = ended["\(parts[0]) \(parts[1])"]
            #expect(
                final == nil ? !["SUCCESS", "FAILED"].contains(parts[2]) : final! == parts[2],
                "\(row), seed \(seed)")
        }
        let tables = history.fold(Catalog.entry(named: "campaigns")!)
        for row in (tables.tables["ota_campaigns_v1"] ?? [:]).values {
            func value(_ name: String) -> Int { Int(MemoryTables.integer(row[name]?.flatMap { $0 } ?? [0])) }
            let mine = ended.filter { $0.key.hasPrefix("\(value("id")) ") }
            #expect(value("succeeded") == mine.count { $0.value == "SUCCESS" }, "seed \(seed)")
            #expect(value("failed") == mine.count { $0.value == "FAILED" }, "seed \(seed)")
        }
    }
}
