import Decisions
import EventLog
import EventModel

/// Drives one decider over one log, in steps: without a thread and without a clock of its own. Not thread-safe; owned
/// by `DeciderService` in the daemon, and by simulations and what-if queries.
public final class DeciderRuntime<D: Decider> {
    private let writer: DecisionWriter
    private let source: any LogSource
    private let clock: @Sendable () -> Timestamp
    private let snapshot: @Sendable () -> DeciderSnapshot<D>?
    private let folding: DecisionFold<D>
    /// All decisions before it are folded.
    private var decidedEnd = Position(0)

    private let outbox: (any Outbox)?
    private let follower: (any DecisionFollower<D>)?
    /// Deliveries that the broker has acknowledged and the state does not know yet.
    private var acknowledged: [Delivery] = []

    /// Nil before `recover`, and after a fold that failed.
    public private(set) var state: D?
    /// It decides and sends by itself; before `resume` it only executes requests.
    public private(set) var isAlive = false

    /// The state was lost and folded again: effects of what was durable meanwhile may not have happened.
    private var owesEffects = false

    /// Attempts before `AppendConflict` is thrown.
    private static var attemptsMax: Int { 100 }
    /// Rounds of decisions that lead to each other; what is left waits for the next step.
    private static var roundsMax: Int { 100 }

    /// - Parameters:
    ///   - writer: shared by all deciders of the log.
    ///   - clock: gives the time that decisions are stamped with; the log raises it where it must.
    ///   - outbox: carries deliveries to devices; nil: nothing is sent (and all is decided all the same).
    ///   - follower: keeps what other threads read of the state.
    ///   - snapshot: returns the state saved in the newest snapshot; nil when there is none.
    public init(
        writer: DecisionWriter, source: any LogSource, clock: @escaping @Sendable () -> Timestamp,
        outbox: (any Outbox)? = nil, follower: (any DecisionFollower<D>)? = nil,
        snapshot: @escaping @Sendable () -> DeciderSnapshot<D>? = { nil }
    ) {
        self.writer = writer
        self.source = source
        self.clock = clock
        self.outbox = outbox
        self.follower = follower
        self.snapshot = snapshot
        folding = DecisionFold(source: source)
    }

    /// Number of events folded; the next position to read.
    public var end: Position { folding.end }

    /// Folds the log: from a snapshot on where there is one, else from its beginning. The first time, and again after a
    /// fold that failed.
    /// - Throws: `LogError`, `UnreadableDecision`.
    @discardableResult
    public func recover() throws -> D {
        if let state { return state }
        let durable = Position(source.durableCount)
        // A snapshot beyond the log's end belongs to a log that was longer once.
        let start = snapshot().flatMap { $0.end <= durable ? $0 : nil }
        var state = start?.state ?? D()
        folding.begin(at: start?.end ?? Position(0))
        try folding.advance(&state, to: durable)
        follower?.recovered(state)
        (self.state, decidedEnd, owesEffects) = (state, durable, isAlive)
        return state
    }

    /// Folds what has become durable.
    /// - Returns: the time to decide at, the earlier of the clock before and after: a step of the log's clock may come
    ///   in between.
    @discardableResult
    public func catchUp() throws -> Timestamp {
        try recover()
        let before = clock(), durable = Position(source.durableCount)
        if durable > end { try advance(to: durable) }
        return min(before, clock())
    }

    private func advance(to durable: Position) throws {
        guard let subject = D.commonSubject else {
            try change { state, folding in try folding.advance(&state, to: durable) }
            decidedEnd = durable
            return
        }
        guard writer.isUnchanged(subject, since: decidedEnd) else {
            state = nil
            try recover()
            return
        }
        try change { state, folding in
            precondition(!state.wantsMessages, "a decider that reads messages cannot pass them over")
            try state.hasTimers ? folding.advanceClock(&state, to: durable) : folding.begin(at: durable)
        }
        decidedEnd = durable
    }

    /// Decides, appends, and answers when the decision is durable. A refusal is an answer, not an error.
    /// - Throws: `AppendError` (nothing was decided, or the log has failed for good), `LogError`, `UnreadableDecision`,
    ///   `AppendConflict` when others decided about the same subject again and again.
    public func execute(_ request: D.Request) throws -> D.Answer {
        try mend()
        return try retryingConflicts {
            let now = try catchUp()
            // No copy of the state may be alive while it changes.
            let outcome = try recover().decide(request, now: now)
            switch outcome {
            case .repeated(let answer): return answer
            case .append(let events):
                let positions = try append(events, at: now)
                return try recover().answer(to: request, events, at: positions)
            }
        }
    }

    // MARK: without a request

    /// Starts to decide and to send by itself. Effects that may not have happened before the last stop happen again.
    /// - Throws: as `recover`.
    public func resume() throws {
        try recover()
        (isAlive, owesEffects) = (true, false)
        perform { $0.pendingEffects() }
    }

    /// The broker has acknowledged these.
    public func note(_ deliveries: [Delivery]) { acknowledged += deliveries }

    /// Reads what has become durable, and makes all decisions that are due.
    /// - Throws: as `execute`.
    public func step() throws {
        try observeAcknowledgements()
        for _ in 0..<Self.roundsMax {
            // They follow from what is durable, so they happen also where the append fails; and before it, because the
            // decision may end what they are about.
            var due: [Effect] = []
            defer { if isAlive { outbox?.perform(due) } }
            let hasDecided = try decide { state, now in
                due += state.takeEffects()
                return state.advance(now)
            }
            if !hasDecided { return }
        }
    }

    /// Makes the last decisions before a stop.
    /// - Throws: as `execute`.
    public func conclude() throws {
        try observeAcknowledgements()
        try decide { state, now in state.conclude(now) }
    }

    /// When a step will find something to decide if nothing happens until then; nil: never.
    public func nextDeadline() -> Timestamp? {
        let now = clock()
        return withState { $0.nextDeadline(after: now) } ?? nil
    }

    /// Decisions that are durable and could not be folded had no effects: these are made up for.
    private func mend() throws {
        if isAlive, state == nil || owesEffects { try resume() }
    }

    private func observeAcknowledgements() throws {
        try mend()
        let now = try catchUp()
        guard !acknowledged.isEmpty else { return }
        withState { $0.acknowledged(acknowledged, at: now) }
        acknowledged = []
    }

    /// Catches up, and appends the events that `body` returns. False when there are none.
    /// - Throws: as `execute`. What `body` has changed in the state stays.
    @discardableResult
    private func decide(_ body: (inout D, Timestamp) -> [D.Event]) throws -> Bool {
        try retryingConflicts {
            let now = try catchUp()
            var events: [D.Event] = []
            try change { state, _ in events = body(&state, now) }
            if !events.isEmpty { try append(events, at: now) }
            return !events.isEmpty
        }
    }

    /// Nil while there is no `state`.
    @discardableResult
    private func withState<R>(_ body: (inout D) -> R) -> R? {
        guard var state = state.take() else { return nil }
        defer { self.state = state }
        return body(&state)
    }

    private func perform(_ effects: (inout D) -> [Effect]) {
        guard isAlive, let effects = withState(effects) else { return }
        outbox?.perform(effects)
    }

    private func retryingConflicts<R>(_ body: () throws -> R) throws -> R {
        for _ in 1..<Self.attemptsMax {
            do { return try body() } catch is AppendConflict {}
        }
        return try body()
    }

    /// Appends decisions and folds them back.
    @discardableResult
    private func append(_ events: [D.Event], at now: Timestamp) throws -> Range<Position> {
        var batch = RecordBatch()
        for event in events { event.append(to: &batch, at: now) }
        let subjects = events.flatMap(\.decision.envelope.subjects) + [D.commonSubject].compactMap { $0 }
        let positions: Range<Position>
        do {
            positions = try writer.append(&batch, about: subjects, ifUnchangedSince: decidedEnd) {
                if let state { follower?.willAppend(events, to: state) }
            } queued: {
                follower?.queued()
            }
        } catch {
            if let state { follower?.settle(events, in: state) }
            throw error
        }
        try change { state, folding in try folding.advance(&state, to: positions.upperBound) }
        decidedEnd = positions.upperBound
        if let state { follower?.settle(events, in: state) }
        perform { $0.effects(of: events, at: positions) }
        return positions
    }

    /// Changes the state in place. Should that fail, the next call folds it again from the newest snapshot on.
    private func change(_ body: (inout D, DecisionFold<D>) throws -> Void) throws {
        guard var state = state.take() else { preconditionFailure("no state: recover first") }
        try body(&state, folding)
        self.state = state
    }
}
