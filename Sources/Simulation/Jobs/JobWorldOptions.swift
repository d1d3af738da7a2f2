import Jobs

/// Bugs that a world of jobs can be given, to prove that it finds them.
public enum JobPlant: String, CaseIterable, Sendable {
    case ignoresTokens = "result-without-fencing"
    case neverPoisons = "rescue-without-end"
    case startsByPriorityOnly = "no-fair-start"
    case ignoresDeadlines = "deadline-ignored"
    case forgetsStartsInSnapshots = "snapshot-without-starts"
    case startsBesideAPause = "start-beside-pause"
    case queuesAKeyTwice = "key-queued-twice"
    case forgetsTicks = "tick-not-remembered"

    /// Runs `body` with the bug in the decider, where it has the same name.
    func planted<R>(_ body: () throws -> R) rethrows -> R {
        #if PLANTED_BUGS
        return try withJobsFault("\(self)", body)
        #else
        preconditionFailure(PlantedBugs.missing)
        #endif
    }
}

public typealias JobWorldOptions = PlantedWorldOptions<JobPlant>

public struct JobVerdict: Sendable {
    public let seed: UInt64
    /// Nil: every invariant held throughout.
    public let violation: String?
    public let traceHash: UInt64
    public let summary: JobWorldSummary
    /// The last lines, when they were recorded.
    public let lines: [String]
}

/// What happened, to see that a world does not pass by doing nothing.
public struct JobWorldSummary: WorldCounts, Sendable, Equatable {
    public var histories = 0
    public var queued = 0
    public var started = 0
    public var succeeded = 0
    public var failed = 0
    public var rescued = 0
    public var poisoned = 0
    public var late = 0
    public var cancelled = 0
    public var timedOut = 0
    /// Pauses that servers asked for.
    public var limited = 0
    public var rescheduled = 0
    public var ticks = 0
    public var missedTicks = 0
    /// Starts of the queue that waited longest, before a higher one.
    public var fairStarts = 0
    /// Leases that found a rate limit exhausted.
    public var rateLimited = 0
    /// Commands whose idempotency key had been used.
    public var repeated = 0
    /// Commands that waited for the next commit.
    public var deferred = 0
    public var refused = 0
    public var kills = 0
    public var failedAppends = 0
    public var clockSteps = 0
    public var snapshots = 0
    public var refolds = 0

    public init() {}

    public static var counts: [WritableKeyPath<Self, Int>] {
        [
            \.histories, \.queued, \.started, \.succeeded, \.failed, \.rescued, \.poisoned, \.late, \.cancelled,
            \.timedOut, \.limited, \.rescheduled, \.ticks, \.missedTicks, \.fairStarts, \.rateLimited, \.repeated,
            \.deferred, \.refused, \.kills, \.failedAppends, \.clockSteps, \.snapshots, \.refolds,
        ]
    }
}
