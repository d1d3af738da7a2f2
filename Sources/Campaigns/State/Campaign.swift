import CampaignRules
import Deciding
import Decisions
import EventModel
import HeapModule

/// One campaign: the fold of the decisions about it and of what its devices report. Every queue here is made of the
/// fold and could be made again from it: what is decided depends on the log alone, not on since when the engine runs.
struct Campaign: Sendable {
    /// As it was created.
    let created: CampaignCreated
    let id: Int64
    let tenantID: String
    let firmwareVersionID: Int64
    /// Devices a tick; nil: as many as can be sent.
    let rate: Int64?
    let threshold: Double?
    let plan: CampaignPlan
    /// Under which its creation was answered: the positions of its targets belong to that answer.
    let createdBy: IdempotencyLedger<CommandAnswer>.Key?
    let failureKinds: Set<OTAFailureKind>
    let retryKinds: Set<OTAFailureKind>

    var status = CampaignStatus.created
    /// The start, or the last time that failed devices were to be tried again: the deadlines count from here.
    var startedAt: Timestamp?
    var endedAt: Timestamp?
    /// When a device of it ended last; nil also in snapshots of older versions.
    var deviceEndedAt: Timestamp?
    /// The engine, and no person, has paused it.
    var wasPausedByEngine = false
    /// The event that allows to send: start, resumption, stage.
    var allowedBy = Position(0)

    var targets: ContiguousArray<Target> = []
    var indexes: [String: Int32] = [:]
    var counts = CampaignCounts()
    /// Devices that wait for another attempt.
    var retryCount: Int64 = 0

    var stage = 0
    /// Since when enough of the stage's devices have ended.
    var stageEndedAt: Timestamp?
    /// Its success was judged by a person who resumed the campaign.
    var waivedStage = -1

    /// The pace: so many were dispatched since then.
    var paceFrom: Int64 = 0
    var paceCount: Int64 = 0

    /// Results since somebody judged them last.
    var successes: Int64 = 0
    var failures: Int64 = 0
    var consecutiveFailures: Int64 = 0
    /// The last failures, at most 20.
    var evidence: [UInt64] = []
    var lastResult: Position?
    var test: SequentialFailureTest?

    // Queues. Stale entries are skipped when they are taken.
    var ready: Heap<Turn> = []
    var timers: Heap<Due> = []
    var retries: Heap<Due> = []
    var verdicts: [Int32] = []
    /// Commands that the broker has not acknowledged, by their decision.
    var unpublished: [Position: [Int32]] = [:]
    /// Rank of each target in the order of sending; nil: as listed.
    var ranks: [Int32]?
    /// Devices with a retained command that have ended since this was emptied.
    var endedRetained: [Int32] = []
    var windows = WindowCache()

    static let evidenceMax = 20

    init(_ event: CampaignCreated) {
        created = event
        id = event.id
        tenantID = event.tenantID
        firmwareVersionID = event.firmwareVersionID
        rate = event.rolloutRate
        threshold = event.abortThreshold
        var plan = event.plan ?? CampaignPlan()
        if event.rolloutStrategy == "canary", plan.stages.isEmpty { plan.stages = CampaignPlan.Stage.defaults }
        self.plan = plan
        createdBy = event.idempotencyKey.map { .init(tenantID: event.tenantID, key: $0) }
        failureKinds = Self.kinds(plan.abort.kinds) ?? Set(OTAFailureKind.allCases).subtracting([.unreachable])
        retryKinds = Self.kinds(plan.retry.kinds) ?? [.download, .timedOut, .unreachable]
        resetTest()
    }

    private static func kinds(_ names: [String]?) -> Set<OTAFailureKind>? {
        names.map { Set($0.compactMap(OTAFailureKind.init)) }
    }

    mutating func resetTest() {
        test = plan.abort.method == .sequential ? threshold.map { SequentialFailureTest(threshold: $0) } : nil
    }

    // MARK: Derived values

    var hasEnded: Bool { status == .completed || status == .aborted }
    /// Devices that have been dispatched, or came by themselves.
    var begun: Int64 { counts.total - counts.pending - counts.skipped }
    var isLastStage: Bool { stage >= max(plan.stages.count, 1) - 1 }

    /// So many devices may have begun in a stage.
    func devicesMax(stage: Int) -> Int64 {
        guard plan.stages.indices.contains(stage), stage < plan.stages.count - 1 else { return counts.total }
        let share = Double(counts.total) * plan.stages[stage].percent / 100
        return min(counts.total, max(1, Int64(saturating: share.rounded(.up))))
    }

    /// Whether a device that failed so is tried again by itself.
    func retries(_ target: Target) -> Bool {
        guard !hasEnded, target.part.status.count == .failed, let kind = target.part.kind else { return false }
        return Int(target.part.attempt) < plan.retry.attemptsMax && retryKinds.contains(kind)
    }

    /// Whether a device failed in one of these ways; nil: in any.
    func hasFailed(_ kinds: Set<OTAFailureKind>?) -> Bool {
        targets.contains { target in
            target.part.status.count == .failed && kinds.map { $0.contains(target.part.kind ?? .install) } ?? true
        }
    }

    func rank(_ index: Int32) -> Int32 { ranks?[Int(index)] ?? index }
    func address(_ index: Int32) -> String { "tenant/\(tenantID)/device/\(targets[Int(index)].id)" }

    // MARK: the queues

    /// The device may be dispatched, as far as this campaign is concerned.
    mutating func queue(_ index: Int32) {
        let target = targets[Int(index)]
        guard plan.delivery != .onConnect || target.isAwake else { return }
        if target.part.status == .pending {
            ready.insert(Turn(rank: rank(index), index: index))
        }
        if let at = target.retryAt { retries.insert(Due(at: at, index: index)) }
    }

    /// Makes every queue again.
    mutating func rebuildQueues() {
        if plan.order == .shuffled { ranks = Self.shuffled(id, targets) }
        (ready, timers, retries, verdicts, unpublished) = ([], [], [], [], [:])
        for index in targets.indices {
            let target = targets[index]
            queue(Int32(index))
            if target.timer != .max { timers.insert(Due(at: target.timer, index: Int32(index))) }
            if target.verdict != nil { verdicts.append(Int32(index)) }
            let isUnsent = target.part.status.isInFlight && !target.isPublished && !target.hasAnswered
            if isUnsent, let command = target.part.command {
                unpublished[command, default: []].append(Int32(index))
            }
        }
    }

    private static func shuffled(_ campaign: Int64, _ targets: ContiguousArray<Target>) -> [Int32] {
        // FNV-1a with a finisher: the same order in every process.
        let hashes = targets.map { target in
            var hash: UInt64 = 0xcbf2_9ce4_8422_2325 ^ UInt64(bitPattern: campaign)
            for byte in target.id.utf8 { hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01b3 }
            hash = (hash ^ (hash >> 33)) &* 0xff51_afd7_ed55_8ccd
            return hash ^ (hash >> 33)
        }
        var ranks = [Int32](repeating: 0, count: targets.count)
        for (rank, index) in targets.indices.sorted(by: { (hashes[$0], $0) < (hashes[$1], $1) }).enumerated() {
            ranks[index] = Int32(rank)
        }
        return ranks
    }
}
