import EventModel
import Primitives

/// What a projector is doing, as of the call that gave it.
public struct ProjectorStatus: Sendable, Equatable {
    public enum State: String, Sendable, CaseIterable {
        /// Up with the log, or was within the last two seconds.
        case running = "RUNNING"
        /// Folding, and further behind than that.
        case catchingUp = "CATCHING_UP"
        /// By command; `resume` goes on.
        case paused = "PAUSED"
        /// It cannot go on by itself; it tries again every `ProjectorOptions.failedRetry`. `lastError` says
        /// why.
        case failed = "FAILED"
        /// For its store, or for its first look at it.
        case waiting = "WAITING"
    }

    public var name: String
    public var version: Int
    public var partition: Int
    public var state: State
    /// The last event whose effect stands in the tables; nil when none does.
    public var position: Position?
    /// Durable events that are not in the tables yet.
    public var lagEvents: UInt64
    /// For how long the tables have lacked something: 0 when they lack nothing; else seconds since the later
    /// of the received-at of the last event folded by this process and the moment when they last lacked
    /// nothing (before either is known, since the projector began).
    public var lagSeconds: Double
    /// Events folded a second, over the last five seconds.
    public var eventsPerSecond: Double
    /// Why it failed, waits or started again; nil once it has gone on.
    public var lastError: String?
    /// Keys whose events wait since their rows were refused, by position. The position and the lag do not count them.
    public var parked: [ParkedKey] = []
    public var transactions: UInt64
    public var rowsWritten: UInt64
    /// How often somebody else had moved our checkpoint.
    public var checkpointConflicts: UInt64
    /// Fold and commit of each transaction.
    public var applySeconds: Histogram
    /// For how long every attempt has failed; nil while it goes on.
    public var failingSeconds: Double?
    /// Seconds since the heartbeat was due; nil when on time.
    public var overdueSeconds: Double?
}

/// Why a projector cannot go on, when neither the log nor the store says so themselves.
public enum ProjectorError: Error, Sendable, CustomStringConvertible {
    case pastTheEnd(projection: String, checkpoint: Position, durableCount: UInt64)

    public var description: String {
        switch self {
        case .pastTheEnd(let projection, let checkpoint, let durableCount):
            """
            a projector position past the log's end: \(projection) stands at position \(checkpoint), the log holds \
            \(durableCount) events. The database belongs to another log, or the log was restored from an older copy: \
            rebuild the projection, or use the log that belongs to this database
            """
        }
    }
}

/// How a projector works. The defaults suit a projection of many keys.
public struct ProjectorOptions: Sendable {
    /// Transactions are at least this far apart: for a projection of few, often changed rows.
    public var minimumCommitInterval: Duration = .zero
    /// A transaction is begun at the latest when so many rows changed, …
    public var dirtyRowsMax = 20_000
    /// … so many bytes of the log were folded, …
    public var foldedBytesMax = 32 << 20
    /// … or the oldest change has waited so long.
    public var commitDelayMax: Duration = .milliseconds(500)
    /// A position that moved without any row changing is written at the latest after this time.
    public var checkpointDelay: Duration = .milliseconds(250)
    /// How much of the log is read at once.
    public var readBytes = 512 << 10
    /// What the fold may remember between transactions.
    public var stateBytesMax = 128 << 20
    /// Beyond so many parked keys the projector fails: what is refused is hardly these keys' fault.
    public var parkedKeysMax = 1000
    /// How often an idle projector confirms that the store still has its checkpoint, beside `Projector.confirm`.
    public var confirmEvery: Duration = .seconds(30)
    /// How often a failed projector tries again.
    public var failedRetry: Duration = .seconds(30)
    /// The longest pause between two attempts to reach the store.
    public var backoffMax: Duration = .seconds(5)
    /// After so long without an end, `stop` interrupts the store.
    public var stopPatience: Duration = .milliseconds(1500)
    /// The clock for all of these.
    public var now: @Sendable () -> ContinuousClock.Instant = { .now }

    public init() {}
}
