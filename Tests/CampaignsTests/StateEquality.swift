@testable import Campaigns

/// Two states are the same when a snapshot of them is: queues and caches are made again.
func == (a: CampaignState, b: CampaignState) -> Bool { a.stored() == b.stored() }
