import EventLog
import EventModel
import Glibc
import Postgres
import PostgresStore
import Projecting
import Projections
import Snapshots
import Synchronization

// Rebuilding: tables from the log. `Rebuild` folds them anew, `Rollback` returns to the ones before, `ReplayVerifier`
// compares the live ones with the log.
//
// A rebuild folds history beside the live tables, which go on meanwhile; then one transaction exchanges them.
//
//     preparing   empty tables in refold_next, or those that an unfinished rebuild of this program left there
//     folding     the log up to its end, on several threads
//     finishing   indexes, row-level security, grants, statistics
//     following   what came meanwhile, until nothing is missing
//     swapping    attempts, as short as they must be, until nobody is in the way; it goes on following between them
//
// Lifecycle: `run` on a thread of one's own, once. Whatever ends it before the exchange (cancelled, killed, the
// database gone, the log damaged) leaves the live tables as they were, and what was folded in refold_next, where the
// next one goes on. One rebuild at a time in a database: others are told `.busy`.
//
// Memory is bounded by `BulkOptions`.

public enum RebuildError: Error, Sendable, CustomStringConvertible {
    /// Another rebuild, rollback or drop is going on in this database.
    case busy
    case cancelled
    /// There is nothing to go back to.
    case nothingKept(String)
    /// The database cannot be reached, or went away.
    case unavailable(String)
    case failed(String)

    public var description: String {
        switch self {
        case .busy: "another rebuild, rollback or drop is going on in this database: wait for it, or cancel it"
        case .cancelled: "cancelled: the live tables are as they were; the next rebuild goes on from here"
        case .nothingKept(let text), .unavailable(let text), .failed(let text): text
        }
    }

    init(_ error: any Error) {
        switch error {
        case let error as RebuildError: self = error
        case let error as PostgresError where error.kind == .refused: self = .failed("\(error)")
        case StoreError.refused(let text): self = .failed(text)
        case StoreError.checkpointMoved(let text): self = .failed(text)
        case is PostgresError, StoreError.unavailable: self = .unavailable("\(error)")
        default: self = .failed("\(error)")
        }
    }
}

public struct RebuildOptions: Sendable {
    public var bulk = BulkOptions()
    /// Forget what an unfinished rebuild left behind.
    public var startsOver = false
    /// Who folds: rows of another program are not gone on with, even if it calls its version the same.
    public var program = RebuildOptions.thisProgram
    /// The snapshot whose rows a rebuild of this projection begins with, of the same version; nil: it begins at the
    /// log's first event. For those whose log begins later, and for those in a hurry who trust the rows.
    public var beginning: @Sendable (ProjectionDescriptor) throws -> SnapshotFile? = { _ in nil }
    /// The longest that readers wait behind one attempt at the exchange.
    public var patienceMax: Duration = .milliseconds(500)
    /// How long those who write are held up at most; more only after ten attempts that took longer.
    public var budget: Duration = .milliseconds(35)
    /// The longest pause between two attempts.
    public var pauseMax: Duration = .seconds(2)

    public init() {}

    /// Size and time of the executable's file: another build has others.
    public static let thisProgram: String = {
        var status = stat()
        guard stat("/proc/self/exe", &status) == 0 else { return "unknown" }
        return "\(status.st_size)-\(status.st_mtim.tv_sec).\(status.st_mtim.tv_nsec)"
    }()
}

public struct RebuildProgress: Sendable, Equatable {
    public enum Stage: String, Sendable, CaseIterable {
        case preparing, folding, finishing, following, swapping, done, cancelled, failed
        public var isOver: Bool { self == .done || self == .cancelled || self == .failed }
    }
    public var stage = Stage.preparing
    /// Where it began, how far it is, and where the log ends, in events.
    public var from: UInt64 = 0
    public var folded: UInt64 = 0
    public var end: UInt64 = 0
    public var rows: UInt64 = 0
    public var eventsPerSecond = 0.0
    /// At that rate; nil before there is one.
    public var secondsLeft: Double?
    public var elapsedSeconds = 0.0
    /// Whom the exchange waits for, and how often it was tried.
    public var waitingFor: String?
    public var attempts = 0
    /// How long those who write could not.
    public var blockedMilliseconds: Double?
    /// What could not be taken along.
    public var remarks: [String] = []
    public var error: String?
}

/// See the page above. `progress` and `cancel` are for any thread.
public final class Rebuild: Sendable {
    public let entries: [Catalog.Entry]
    private let source: any LogSource
    private let target: DatabaseTarget
    private let options: RebuildOptions
    private let board = RebuildBoard()

    public init(
        _ entries: [Catalog.Entry], source: any LogSource, target: DatabaseTarget, options: RebuildOptions = .init()
    ) {
        precondition(!entries.isEmpty, "nothing to rebuild")
        self.entries = entries
        self.source = source
        self.target = target
        self.options = options
    }

    public var progress: RebuildProgress { board.progress(end: source.durableCount) }

    /// Takes effect at the next block. After the exchange it has none.
    public func cancel() { board.cancel() }

    /// Blocks until the new tables are live.
    public func run() throws(RebuildError) {
        do {
            try fold()
        } catch {
            let isCancelled = board.isCancelled
            let error = isCancelled ? RebuildError.cancelled : RebuildError(error)
            board.change {
                $0.stage = isCancelled ? .cancelled : .failed
                $0.error = error.description
            }
            throw error
        }
    }

    private func fold() throws {
        let exchange = try TableExchange(target, interrupt: board.interrupt)
        guard try exchange.lock() else { throw RebuildError.busy }
        let unfinished = options.startsOver ? [] : try exchange.unfinished()
        for entry in entries {
            let isOurs = unfinished.contains {
                $0.projection == entry.name && $0.version == entry.descriptor.version && $0.program == options.program
            }
            guard !isOurs else { continue }
            let snapshot = try options.beginning(entry.descriptor)
            // Rows of a snapshot that are not all there yet are nobody's.
            try exchange.begin(entry.descriptor, program: snapshot == nil ? options.program : "filling")
            guard let snapshot else { continue }
            let store = PostgresStore(named("rebuild"), place: .next, filling: true)
            board.onCancel(store.interrupter)
            try snapshot.fill(store, of: entry.descriptor)
            try exchange.adopt(entry.descriptor, program: options.program)
        }
        let stores = entries.map { _ in PostgresStore(named("rebuild"), place: .next, filling: true) }
        for store in stores { board.onCancel(store.interrupter) }
        // What an unfinished rebuild did last may have been to give its tables row-level security.
        if unfinished.contains(where: { $0.position != nil }) { for store in stores { store.endFilling() } }
        let bulk = try BulkFold(source: source, entries: entries, stores: stores, options: options.bulk)
        board.begins(bulk)
        try follow(bulk, until: 10_000)

        board.change { $0.stage = .finishing }
        for store in stores { store.endFilling() }
        for entry in entries { try exchange.finish(entry.descriptor) }
        board.change { $0.stage = .following }
        try follow(bulk, until: 0)
        try exchange.discard(entries.map(\.descriptor), in: .previous)
        try exchange.markComplete()
        try swap(exchange, bulk)
    }

    /// Folds up to the log's end again and again, until at most `left` events are missing or it gets no nearer.
    private func follow(_ bulk: BulkFold, until left: UInt64) throws {
        var missing = UInt64.max
        while true {
            let end = source.durableCount
            try run(bulk, to: Position(end))
            let now = source.durableCount - end
            if now <= left || now >= missing { return }
            missing = now
        }
    }

    private func run(_ bulk: BulkFold, to end: Position) throws {
        guard try bulk.run(to: end), !board.isCancelled else { throw RebuildError.cancelled }
    }

    private func swap(_ exchange: TableExchange, _ bulk: BulkFold) throws {
        board.change { $0.stage = .swapping }
        var patience = Duration.milliseconds(20), pause = Duration.milliseconds(50), budget = options.budget
        while true {
            try follow(bulk, until: 0)
            let outcome = try exchange.exchange(
                entries.map(\.descriptor), incoming: .next, outgoing: .previous, patience: patience, budget: budget
            ) { position in
                // From the last event that both have on; most often there is none.
                if position.next > bulk.position { try self.run(bulk, to: position.next) }
            }
            switch outcome {
            case .done(let blocked, let remarks):
                return board.change {
                    $0.stage = .done
                    $0.blockedMilliseconds = blocked / .milliseconds(1)
                    $0.remarks = remarks
                    $0.waitingFor = nil
                    $0.attempts += 1
                }
            case .inTheWay(let who):
                board.change {
                    $0.waitingFor = who
                    $0.attempts += 1
                }
                try board.rest(pause * Double.random(in: 0.5...1))
                patience = min(patience * 2, options.patienceMax)
                pause = min(pause * 2, options.pauseMax)
                // A machine that never gets it done in time shall do it late.
                if board.attempts > 10 { budget = min(budget * 1.25, .seconds(2)) }
            }
        }
    }

    private func named(_ what: String) -> DatabaseTarget {
        var target = target
        target.applicationName = "refold \(what)"
        return target
    }
}

/// What `Rebuild`'s thread and everybody else share.
final class RebuildBoard: Sendable {
    private struct State {
        var progress = RebuildProgress()
        var bulk: (@Sendable () -> BulkProgress)?
        var began = ContinuousClock.now
        var isCancelled = false
        var atCancel: [@Sendable () -> Void] = []
    }
    private let state = Mutex(State())
    let interrupt = Interrupt()

    var attempts: Int { state.withLock { $0.progress.attempts } }
    var isCancelled: Bool { state.withLock { $0.isCancelled } }

    func onCancel(_ body: @escaping @Sendable () -> Void) {
        let isCancelled = state.withLock { state in
            state.atCancel.append(body)
            return state.isCancelled
        }
        if isCancelled { body() }
    }

    func cancel() {
        let bodies = state.withLock { state -> [@Sendable () -> Void] in
            guard !state.progress.stage.isOver else { return [] }
            state.isCancelled = true
            // Indexes may take long. An exchange that was begun is not cut off: it must be known whether it was done.
            if state.progress.stage == .finishing { interrupt.signal() }
            return state.atCancel
        }
        for body in bodies { body() }
    }

    func begins(_ bulk: BulkFold) {
        let ask = bulk.progressReader, from = bulk.position.rawValue
        onCancel(bulk.cancel)
        state.withLock { state in
            state.bulk = ask
            state.began = .now
            state.progress.stage = .folding
            state.progress.from = from
            state.progress.folded = from
        }
    }

    func change(_ body: (inout RebuildProgress) -> Void) { state.withLock { body(&$0.progress) } }

    func progress(end: UInt64) -> RebuildProgress {
        state.withLock { state in
            guard let bulk = state.bulk, !state.progress.stage.isOver || state.progress.stage == .done else {
                return state.progress
            }
            let found = bulk()
            state.progress.folded = found.folded.rawValue
            state.progress.rows = found.rows
            if !state.progress.stage.isOver {
                state.progress.end = end
                state.progress.elapsedSeconds = (ContinuousClock.now - state.began) / .seconds(1)
            }
            let done = Double(state.progress.folded - state.progress.from)
            if state.progress.elapsedSeconds > 0 {
                state.progress.eventsPerSecond = done / state.progress.elapsedSeconds
            }
            let left = Double(end) - Double(state.progress.folded)
            state.progress.secondsLeft =
                state.progress.stage == .folding && state.progress.eventsPerSecond > 0
                ? max(0, left / state.progress.eventsPerSecond) : nil
            return state.progress
        }
    }

    func rest(_ duration: Duration) throws {
        let end = ContinuousClock.now + duration
        while ContinuousClock.now < end {
            if isCancelled { throw RebuildError.cancelled }
            usleep(10_000)
        }
    }
}
