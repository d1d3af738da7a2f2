import CampaignRules
import Decisions
import EventModel

/// One campaign as a snapshot keeps it.
struct StoredCampaign: Codable {
    struct Device: Codable {
        var id: String
        var part: TargetProgress
        var isPublished: Bool?
        var hasAnswered: Bool?
        var timer: Int64?
        var retryAt: Int64?
        var isAwake: Bool?
        var shownIsCampaigns: Bool?
        var shownAt: Position?
        var verdict: OTADeviceStatus?
        var verdictKind: OTAFailureKind?
        var verdictCause: Position?
        var sample: Int32?
        var outcome: UInt8?

        init(_ target: Target) {
            id = target.id
            part = target.part
            isPublished = target.isPublished ? true : nil
            hasAnswered = target.hasAnswered ? true : nil
            timer = target.timer == .max ? nil : target.timer
            retryAt = target.retryAt
            isAwake = target.isAwake ? true : nil
            shownIsCampaigns = target.shown?.isCampaigns
            shownAt = target.shown?.at
            verdict = target.verdict?.status
            verdictKind = target.verdict?.kind
            verdictCause = target.verdict?.cause
            sample = target.sample < 0 ? nil : target.sample
            outcome = target.outcome == .none ? nil : target.outcome.rawValue
        }

        var target: Target {
            var target = Target(id, targetedAt: part.last)
            target.part = part
            target.isPublished = isPublished ?? false
            target.hasAnswered = hasAnswered ?? false
            target.timer = timer.map { Int64(storedMicroseconds: $0) } ?? .max
            target.retryAt = retryAt.map { Int64(storedMicroseconds: $0) }
            target.isAwake = isAwake ?? false
            if let shownIsCampaigns, let shownAt {
                target.shown = Target.Shown(isCampaigns: shownIsCampaigns, at: shownAt)
            }
            if let verdict, let verdictCause {
                target.verdict = Target.PendingOutcome(status: verdict, kind: verdictKind, cause: verdictCause)
            }
            target.sample = sample ?? -1
            target.outcome = outcome.flatMap(Target.Outcome.init) ?? .none
            return target
        }
    }

    var created: CampaignCreated
    var status: CampaignStatus
    var startedAt: Int64?
    var endedAt: Int64?
    var deviceEndedAt: Int64?
    var wasPausedByEngine: Bool
    var allowedBy: Position
    var devices: [Device]
    var counts: CampaignCounts
    var retryCount: Int64
    var stage: Int
    var stageEndedAt: Int64?
    var waivedStage: Int
    var paceFrom: Int64
    var paceCount: Int64
    var successes: Int64
    var failures: Int64
    var consecutiveFailures: Int64
    var evidence: [UInt64]
    var lastResult: Position?

    init(_ campaign: Campaign) {
        created = campaign.created
        status = campaign.status
        startedAt = campaign.startedAt?.microseconds
        endedAt = campaign.endedAt?.microseconds
        deviceEndedAt = campaign.deviceEndedAt?.microseconds
        wasPausedByEngine = campaign.wasPausedByEngine
        allowedBy = campaign.allowedBy
        devices = campaign.targets.map(Device.init)
        counts = campaign.counts
        retryCount = campaign.retryCount
        stage = campaign.stage
        stageEndedAt = campaign.stageEndedAt?.microseconds
        waivedStage = campaign.waivedStage
        paceFrom = campaign.paceFrom
        paceCount = campaign.paceCount
        successes = campaign.successes
        failures = campaign.failures
        consecutiveFailures = campaign.consecutiveFailures
        evidence = campaign.evidence
        lastResult = campaign.lastResult
    }

    func campaign() -> Campaign {
        var campaign = Campaign(created)
        campaign.status = status
        campaign.startedAt = startedAt.map { Timestamp(storedMicroseconds: $0) }
        campaign.endedAt = endedAt.map { Timestamp(storedMicroseconds: $0) }
        campaign.deviceEndedAt = deviceEndedAt.map { Timestamp(storedMicroseconds: $0) }
        campaign.wasPausedByEngine = wasPausedByEngine
        campaign.allowedBy = allowedBy
        campaign.targets = ContiguousArray(devices.map(\.target))
        for (index, target) in campaign.targets.enumerated() { campaign.indexes[target.id] = Int32(index) }
        campaign.counts = counts
        campaign.retryCount = retryCount
        campaign.stage = stage
        campaign.stageEndedAt = stageEndedAt.map { Timestamp(storedMicroseconds: $0) }
        campaign.waivedStage = waivedStage
        campaign.paceFrom = Int64(storedMicroseconds: paceFrom)
        campaign.paceCount = max(0, paceCount)
        campaign.successes = successes
        campaign.failures = failures
        campaign.consecutiveFailures = consecutiveFailures
        campaign.evidence = evidence
        campaign.lastResult = lastResult
        campaign.rebuildTest()
        campaign.rebuildQueues()
        return campaign
    }
}

extension Campaign {
    /// The failure test is what its samples say, in their order.
    fileprivate mutating func rebuildTest() {
        let sampled = targets.filter { $0.sample >= 0 }.sorted { $0.sample < $1.sample }
        for target in sampled where test != nil {
            test!.append()
            if target.outcome == .failure { test!.set(Int(target.sample), failed: true) }
        }
    }
}
