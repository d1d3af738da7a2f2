import CampaignRules
import Decisions
import EventModel

/// Where a campaign stands, for those who look on.
public struct CampaignSummary: Sendable, Equatable {
    public var status: CampaignStatus
    public var counts: CampaignCounts
    /// From 0.
    public var stage: Int
    public var startedAt: Timestamp?
    public var endedAt: Timestamp?
}

extension CampaignState {
    /// Nil: it is not known, was deleted, or ended more than a day ago.
    public func summary(_ campaign: Int64) -> CampaignSummary? {
        campaigns[campaign].map {
            CampaignSummary(
                status: $0.status, counts: $0.counts, stage: $0.stage, startedAt: $0.startedAt, endedAt: $0.endedAt)
        }
    }

    /// The devices of a campaign with their parts, in the order in which they were named; none where it is not known.
    public func parts(of campaign: Int64) -> [(device: String, part: TargetProgress)] {
        campaigns[campaign]?.targets.map { ($0.id, $0.part) } ?? []
    }
}
