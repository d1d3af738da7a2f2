import CampaignRules
import Decisions
import EventModel

/// What operators and an engine decide of campaigns and groups, at random: mostly with the truth in `seen`, sometimes
/// in ignorance. It is told of devices' reports, so that it knows what the truth is.
public struct CampaignChaos {
    private struct Part: Hashable, Comparable {
        let campaign: Int64
        let device: String
        static func < (a: Part, b: Part) -> Bool { (a.campaign, a.device) < (b.campaign, b.device) }
    }
    private struct Campaign {
        let tenant: String
        let verifies: Bool
        var status = "CREATED"
        var stage = -1
    }
    private var campaigns: [Int64: Campaign] = [:]
    private var parts: [Part: TargetProgress] = [:]
    private var groups: [Int64: String] = [:]

    public init() {}

    public mutating func created(_ campaign: Int64, tenant: String, verifies: Bool = false) {
        campaigns[campaign] = Campaign(tenant: tenant, verifies: verifies)
    }

    /// `campaign.targets` at `position`.
    public mutating func targeted(_ campaign: Int64, _ devices: [String], at position: UInt64) {
        for device in devices where parts[Part(campaign: campaign, device: device)] == nil {
            parts[Part(campaign: campaign, device: device)] = TargetProgress(targetedAt: Position(position))
        }
    }

    /// A report that counts: not replayed by the broker, and of a status that there is.
    public mutating func reported(
        _ status: String, tenant: String, device: String, campaign: Int64, command: UInt64?, at position: UInt64
    ) {
        guard let known = campaigns[campaign], known.tenant == tenant, known.status != "DELETED" else { return }
        let reports: [String: TargetProgress.Report] = [
            "DOWNLOADING": .downloading, "INSTALLING": .installing, "SUCCESS": .success, "FAILED": .failed,
        ]
        guard let report = reports[status.uppercased()] else { return }
        _ = parts[Part(campaign: campaign, device: device)]?.apply(
            report, command: command.map { Position($0) }, verifies: known.verifies, at: Position(position))
    }

    /// The `command_id` that a device of a campaign would give.
    public func command(_ campaign: Int64, _ device: String) -> UInt64? {
        parts[Part(campaign: campaign, device: device)]?.command?.rawValue
    }

    /// The next decision, which is to stand at `position`; nil when there is none to make.
    public mutating func decide(
        at position: UInt64, using random: inout some RandomNumberGenerator
    ) -> (CampaignSchema, any Encodable & Sendable)? {
        func number(_ range: Range<Int>) -> Int { Int.random(in: range, using: &random) }
        if number(0..<6) == 0 { return group(&random) }
        let open = campaigns.keys.sorted().filter { campaigns[$0]!.status != "DELETED" }
        guard let id = open.randomElement(using: &random), let campaign = campaigns[id] else { return nil }
        let all = parts.keys.filter { $0.campaign == id }.sorted()
        let some = all.filter { _ in number(0..<3) != 0 }
        let seen = some.map { part in
            number(0..<5) == 0 ? UInt64(number(0..<Int(max(1, position)))) : parts[part]!.last.rawValue
        }
        let devices = some.map(\.device)
        switch number(0..<10) {
        case 0..<4:
            for (part, seen) in zip(some, seen) {
                _ = parts[part]?.dispatch(seen: Position(seen), at: Position(position))
            }
            var event = CampaignDispatched(
                campaignID: id, tenantID: campaign.tenant, stage: max(0, campaign.stage), devices: devices, seen: seen,
                paceFrom: 0, paceCount: 0, cause: 0)
            (event.firmwareURL, event.version) = ("https://h/f", "1")
            return (.campaignDispatched, event)
        case 4..<7:
            let status = ["SUCCESS", "FAILED", "TIMED_OUT", "UNREACHABLE", "SKIPPED"].randomElement(using: &random)!
            let kind = status == "FAILED" ? "REJECTED" : status == "SKIPPED" ? "ABORTED" : nil
            for (part, seen) in zip(some, seen) {
                _ = parts[part]?.end(
                    as: OTADeviceStatus(rawValue: status)!, kind: kind.flatMap(OTAFailureKind.init),
                    seen: Position(seen), at: Position(position))
            }
            var event = CampaignDevicesEnded(
                campaignID: id, tenantID: campaign.tenant, status: status, kind: kind,
                reason: Bool.random(using: &random) ? "no answer in time" : nil, devices: devices, seen: seen)
            if status == "FAILED" { event.causes = seen }
            return (.campaignDevicesEnded, event)
        case 7:
            campaigns[id]!.stage += 1
            var event = CampaignStageBegun(
                campaignID: id, tenantID: campaign.tenant, stage: campaign.stage + 1, devicesMax: Int64(number(1..<9)),
                counts: CampaignCounts())
            event.cause = position / 2
            return (.campaignStageBegun, event)
        case 8:
            return (
                .campaignPublished,
                CampaignPublished(
                    campaignID: id, tenantID: campaign.tenant,
                    batches: [.init(command: position / 2), .init(command: position / 3, devices: devices)])
            )
        default: return change(id, campaign, &random)
        }
    }

    private mutating func change(
        _ id: Int64, _ campaign: Campaign, _ random: inout some RandomNumberGenerator
    ) -> (CampaignSchema, any Encodable & Sendable)? {
        let ways: [String: [(CampaignSchema, String)]] = [
            "CREATED": [
                (.campaignStarted, "RUNNING"), (.campaignStarted, "RUNNING"), (.campaignStarted, "RUNNING"),
                (.campaignDeleted, "DELETED"),
            ],
            "RUNNING": [(.campaignPaused, "PAUSED"), (.campaignAborted, "ABORTED"), (.campaignCompleted, "COMPLETED")],
            "PAUSED": [(.campaignResumed, "RUNNING"), (.campaignAborted, "ABORTED")],
            "ABORTED": [(.campaignRetried, "RUNNING")], "COMPLETED": [(.campaignRetried, "RUNNING")],
        ]
        guard let way = ways[campaign.status]?.randomElement(using: &random) else { return nil }
        campaigns[id]!.status = way.1
        var event = CampaignStatusChanged(
            campaignID: id, tenantID: campaign.tenant, before: campaign.status, after: way.1, actor: "ann")
        if way.0 == .campaignAborted {
            event.actor = EngineActor.name
            event.code = "ABORT_THRESHOLD"
            event.reason = "too many failed"
            event.cause = 1
            event.evidence = [1, 2]
            event.counts = CampaignCounts()
        }
        if way.0 == .campaignRetried, Bool.random(using: &random) { event.kinds = ["DOWNLOAD", "TIMED_OUT"] }
        return (way.0, event)
    }

    private mutating func group(
        _ random: inout some RandomNumberGenerator
    ) -> (CampaignSchema, any Encodable & Sendable) {
        func number(_ range: Range<Int>) -> Int { Int.random(in: range, using: &random) }
        let tenant = ["acme", "b.corp"].randomElement(using: &random)!
        switch number(0..<6) {
        case 0 where groups.count < 4:
            let id = Int64(groups.count + 1)
            groups[id] = tenant
            var event = GroupCreated(id: id, tenantID: tenant, name: "g\(id)", actor: "ann")
            if id == 2 {
                var query = GroupQuery()
                query.sites = ["s1"]
                query.seenWithinSeconds = 60
                event.query = query
            }
            return (.groupCreated, event)
        case 1:
            var event = TenantConfigured(tenantID: tenant, timeZone: "Europe/Berlin", actor: "ann")
            event.before = Bool.random(using: &random) ? "UTC" : nil
            return (.tenantConfigured, event)
        case 2 where number(0..<3) == 0 && groups.count > 3:
            return (.groupDeleted, GroupDeleted(groupID: 4, tenantID: groups[4]!, actor: "bob"))
        default:
            let id = Int64(number(1..<5))
            var event = GroupMembers(groupID: id, tenantID: groups[id] ?? tenant, actor: "bob")
            event.added = (0..<6).filter { _ in Bool.random(using: &random) }.map { "d\($0)" }
            event.removed = number(0..<2) == 0 ? nil : (0..<6).filter { _ in number(0..<4) == 0 }.map { "d\($0)" }
            return (.groupMembers, event)
        }
    }
}
