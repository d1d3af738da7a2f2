import EventLog
import EventModel

/// The answer to `refold replay what-if`.
public struct WhatIfReport: Sendable {
    public struct Presence: Sendable {
        public struct Device: Sendable {
            public let address: String
            public let before: PresenceTally
            public let after: PresenceTally
        }
        public let before: PresenceThresholds
        public let after: PresenceThresholds
        public let devices: Int
        public let totalBefore: PresenceTally
        public let totalAfter: PresenceTally
        /// Those for which it makes a difference, most of all first: how often they would have become OFFLINE, then
        /// STALE.
        public let differing: [Device]
    }

    /// The positions that were looked at.
    public let range: Range<Position>
    public let campaigns: [CampaignWhatIf]
    public let presence: Presence?
    public let renewals: RenewalWhatIf?
    /// Campaigns that were asked about and are not in the history.
    public let missing: [Int64]
}

public enum WhatIf {
    /// Folds `range` of the log under `settings`. `presenceBefore` is what it is compared with: which thresholds were
    /// in force is not on record.
    /// - Throws: `LogError` where the log cannot be read.
    public static func run(
        _ settings: WhatIfSettings, presenceBefore: PresenceThresholds = PresenceThresholds(), over log: any LogSource,
        in range: Range<Position>
    ) throws -> WhatIfReport {
        var histories = CampaignHistories()
        var renewals = settings.renewals.map { _ in RenewalHistories() }
        var presence = settings.presence.map { PresenceHistory(before: presenceBefore, after: $0) }
        let reader = try log.reader(from: range.lowerBound), block = EventBlock(capacity: 1 << 20)
        var end: Timestamp?
        while reader.position < range.upperBound, try reader.read(into: block, atLeast: 1 << 20) {
            block.forEach { record, position in
                guard range.contains(position) else { return }
                end = record.receivedAt
                if settings.asksForCampaigns { histories.apply(record, position) }
                presence?.apply(record)
                renewals?.apply(record)
            }
        }
        if let end { presence?.end(at: end) }
        let campaigns = histories.campaigns.keys.sorted().compactMap { id -> CampaignWhatIf? in
            guard let history = histories.campaigns[id],
                let rule = settings.rule(campaign: id, recorded: history.threshold)
            else { return nil }
            return CampaignWhatIf(history, rule: rule)
        }
        return WhatIfReport(
            range: range, campaigns: campaigns, presence: presence.map(report),
            renewals: settings.renewals.flatMap { change in
                renewals.map {
                    RenewalWhatIf($0, change, from: range.lowerBound, until: end ?? Timestamp(microseconds: 0))
                }
            },
            missing: settings.campaigns.keys.filter { histories.campaigns[$0] == nil }.sorted())
    }

    private static func report(_ history: PresenceHistory) -> WhatIfReport.Presence {
        var before = PresenceTally(), after = PresenceTally()
        var differing: [WhatIfReport.Presence.Device] = []
        for address in history.devices.keys.sorted(by: { $0.lexicographicallyPrecedes($1) }) {
            guard let device = history.devices[address] else { continue }
            before += device.before
            after += device.after
            guard device.before != device.after else { continue }
            differing.append(
                .init(
                    address: String(decoding: address, as: UTF8.self), before: device.before, after: device.after))
        }
        // Stable: equal differences stay in the order of their addresses.
        func weight(_ device: WhatIfReport.Presence.Device) -> (Int, Int) {
            (
                abs(device.after.timesOffline - device.before.timesOffline),
                abs(device.after.timesStale - device.before.timesStale)
            )
        }
        let order = differing.indices.sorted { a, b in
            let left = weight(differing[a]), right = weight(differing[b])
            return left == right ? a < b : left > right
        }
        return .init(
            before: history.before, after: history.after, devices: history.devices.count, totalBefore: before,
            totalAfter: after, differing: order.map { differing[$0] })
    }
}
