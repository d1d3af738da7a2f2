import CampaignRules
import Decisions
import EventModel

/// Where a campaign stands, for those who look on.
public struct CampaignStanding: Sendable, Equatable {
    public var status: CampaignStatus
    public var counts: CampaignCounts
    /// From 0.
    public var stage: Int
    public var startedAt: Timestamp?
    public var endedAt: Timestamp?
}

extension CampaignState {
    /// Nil: it is not known, was deleted, or ended more than a day ago.
    public func standing(_ campaign: Int64) -> CampaignStanding? {
        campaigns[campaign].map {
            CampaignStanding(
                status: $0.status, counts: $0.counts, stage: $0.stage, startedAt: $0.startedAt, endedAt: $0.endedAt)
        }
    }

    /// The devices of a campaign with their parts, in the order in which they were named; none where it is not known.
    public func parts(of campaign: Int64) -> [(device: String, part: DevicePart)] {
        campaigns[campaign]?.targets.map { ($0.id, $0.part) } ?? []
    }
}
