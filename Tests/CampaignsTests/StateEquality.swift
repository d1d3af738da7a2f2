@testable import Campaigns

/// Two states are the same when a snapshot of them is: queues and caches are made again.
func == (a: CampaignState, b: CampaignState) -> Bool {
    do {
        return try a.stored() == b.stored()
    } catch {
        return false
    }
}
