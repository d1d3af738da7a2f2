import EventModel
import Primitives
import struct ProjectionTestSupport.CampaignChaos
import enum ProjectionTestSupport.CertificateChaos
import struct ProjectionTestSupport.JobChaos
import Testing

@testable import Projections

extension History {
    /// A history of everything that can happen, by seed: `count` events, and decisions about jobs among them.
    static func random(seed: UInt64, count: Int) throws -> History {
        var random = SeededRandom(seed: seed), history = History()
        var campaign: Int64 = 0, chaos = CampaignChaos()
        // Draws of its own, and not of `count`: the events of other kinds stay as they are.
        var jobs = JobChaos(), jobRandom = SeededRandom(seed: ~seed), jobCount = 0
        while history.batches.count - jobCount < count {
            if Int.random(in: 0..<3, using: &jobRandom) == 0 {
                let (schema, event) = jobs.decide(at: UInt64(history.batches.count), using: &jobRandom)
                try history.decision(schema, event)
                jobCount += 1
            }
            let device = "d\(Int.random(in: 0..<6, using: &random))"
            let tenant = Bool.random(using: &random) ? "acme" : "b.corp"
            var flags: RecordFlags = Int.random(in: 0..<12, using: &random) == 0 ? .retained : []
            flags.insert(RecordFlags(qos: 1))
            func number(_ range: Range<Int>) -> Int { Int.random(in: range, using: &random) }
            let position = UInt64(history.batches.count)
            switch number(0..<36) {
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
                let id = Int64(number(1..<5)), known = chaos.command(id, device)
                let command = number(0..<3) == 0 ? known : number(0..<5) == 0 ? UInt64(number(0..<400)) : nil
                let written = command.map { number(0..<2) == 0 ? ",\"command_id\":\($0)" : ",\"command_id\":\"\($0)\"" }
                history.message(
                    "ota/status",
                    """
                    {"campaign_id":\(id),"status":"\(status)","progress":\(number(0..<120))\
                    \(written ?? ",\"command_id\":[1]")}
                    """,
                    tenant: tenant, device: device, flags: flags)
                if !flags.contains(.retained) {
                    chaos.reported(
                        status, tenant: tenant, device: device, campaign: id, command: command, at: position)
                }
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
                    let devices = (0..<number(1..<6)).map { "d\($0)" }, verifies = number(0..<3) == 0
                    try history.campaign(campaign, tenant: tenant, devices: devices, verifies: verifies)
                    chaos.created(campaign, tenant: tenant, verifies: verifies)
                    chaos.targeted(campaign, devices, at: position + 1)
                }
            case 23..<31:
                if let (schema, event) = chaos.decide(at: position, using: &random) {
                    try history.decision(schema, event)
                }
            case 31..<35:
                let (schema, event) = CertificateChaos.decide(using: &random)
                try history.decision(schema, event)
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
        let history = try History.random(seed: UInt64(seed), count: 400)
        var random = SeededRandom(seed: UInt64(seed) &* 977)
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

    /// The counts of campaigns, counted again from the devices' rows, and the minutes' changes added up.
    @Test(arguments: 1...12)
    func campaignCountsAgreeWithARecount(seed: Int) throws {
        let history = try History.random(seed: UInt64(seed) &+ 1000, count: 400)
        let counts = [
            "PENDING": "pending", "DOWNLOADING": "in_flight", "INSTALLING": "in_flight", "VERIFYING": "in_flight",
            "SUCCESS": "succeeded", "FAILED": "failed", "TIMED_OUT": "failed", "UNREACHABLE": "failed",
            "SKIPPED": "skipped",
        ]
        var recount: [String: Int] = [:]
        for row in history.rows("campaigns", "ota_device_status", ["campaign_id", "status", "attempt"]) {
            let parts = row.split(separator: " ").map(String.init)
            recount[parts[0] + counts[parts[1]]!, default: 0] += 1
            recount[parts[0] + "dispatched", default: 0] += Int(parts[2])!
        }
        let columns = ["in_flight", "succeeded", "failed", "skipped", "dispatched"]
        var minutes: [String: Int] = [:]
        for row in history.rows("campaigns", "campaign_progress", ["campaign_id"] + columns.dropFirst()) {
            let parts = row.split(separator: " ").map(String.init)
            for (column, value) in zip(columns.dropFirst(), parts.dropFirst()) {
                minutes[parts[0] + column, default: 0] += Int(value)!
            }
        }
        let rows = history.rows("campaigns", "ota_campaigns", ["id", "total_devices"] + columns)
        #expect(!rows.isEmpty)
        for row in rows {
            let parts = row.split(separator: " ").map(String.init)
            for (column, value) in zip(columns, parts.dropFirst(2)) {
                #expect(Int(value)! == recount[parts[0] + column] ?? 0, "\(column) of \(parts[0]), seed \(seed)")
                if column != "in_flight" {
                    #expect(Int(value)! == minutes[parts[0] + column] ?? 0, "\(column) of \(parts[0]), seed \(seed)")
                }
            }
            let all = ["pending", "in_flight", "succeeded", "failed", "skipped"].reduce(0) {
                $0 + (recount[parts[0] + $1] ?? 0)
            }
            #expect(all == Int(parts[1])!, "seed \(seed)")
        }
    }
}
