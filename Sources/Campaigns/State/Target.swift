import CampaignRules
import EventModel

/// One device of one campaign, as the engine knows it: its part, and what time and others mean for it.
struct Target: Sendable, Equatable {
    /// A decision to be made because of an event, and not because of time.
    struct PendingOutcome: Sendable, Equatable {
        var status: OTADeviceStatus
        var kind: OTAFailureKind?
        var cause: Position
    }

    /// What the device has shown to run since its attempt began.
    struct Shown: Sendable, Equatable {
        var isCampaigns: Bool
        var at: Position
    }

    enum Outcome: UInt8, Sendable { case none, success, failure }

    let id: String
    var part: TargetProgress
    /// The broker has acknowledged the attempt's command.
    var isPublished = false
    /// The device has acknowledged or reported: it need not be sent again.
    var hasAnswered = false
    /// When its present state has lasted too long; microseconds since 1970.
    var timer = Int64.max
    /// From when on it is to be tried again; nil: it is not.
    var retryAt: Int64?
    /// For delivery on connect: it has shown itself since the campaign's start.
    var isAwake = false
    var shown: Shown?
    var verdict: PendingOutcome?
    /// Its place among those dispatched, in the campaign's failure test; below 0: none.
    var sample: Int32 = -1
    /// What it counts as for the rules.
    var outcome = Outcome.none

    init(_ id: String, targetedAt position: Position) {
        self.id = id
        part = TargetProgress(targetedAt: position)
    }
}

/// A place in a queue by time.
struct Due: Sendable, Comparable {
    let at: Int64
    let index: Int32

    static func < (a: Due, b: Due) -> Bool { (a.at, a.index) < (b.at, b.index) }
}

/// A place in the order in which devices are dispatched.
struct Turn: Sendable, Comparable {
    let rank: Int32
    let index: Int32

    static func < (a: Turn, b: Turn) -> Bool { a.rank < b.rank }
}
