import EventLog
import EventModel

/// Drives one decider over one log, in steps: without a thread and without a clock of its own. Not thread-safe; owned
/// by an actor in the daemon, and by simulations and what-if queries.
public final class DeciderRuntime<D: Decider> {
    private let writer: DecisionWriter
    private let source: any LogSource
    private let clock: @Sendable () -> Timestamp
    private let snapshot: @Sendable () -> DeciderSnapshot<D>?
    private let folding: DecisionFold<D>
    /// All decisions before it are folded.
    private var decidedEnd = Position(0)

    /// Nil before `recover`, and after a fold that failed.
    public private(set) var state: D?
    /// Called with decisions that are durable and folded: the time for their effects.
    public var onAppended: ([D.Event], Range<Position>) -> Void = { _, _ in }

    /// Attempts before `AppendConflict` is thrown.
    private static var attemptsMax: Int { 100 }

    /// - Parameters:
    ///   - writer: shared by all deciders of the log.
    ///   - clock: gives the time that decisions are stamped with; the log raises it where it must.
    ///   - snapshot: returns the state saved in the newest snapshot; nil when there is none.
    public init(
        writer: DecisionWriter, source: any LogSource, clock: @escaping @Sendable () -> Timestamp,
        snapshot: @escaping @Sendable () -> DeciderSnapshot<D>? = { nil }
    ) {
        self.writer = writer
        self.source = source
        self.clock = clock
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
        (self.state, decidedEnd) = (state, durable)
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
        try retryingConflicts {
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

    /// Catches up, and appends the events that `body` returns. False when there are none.
    /// - Throws: as `execute`. What `body` has changed in the state stays.
    @discardableResult
    public func decide(_ body: (inout D, Timestamp) -> [D.Event]) throws -> Bool {
        try retryingConflicts {
            let now = try catchUp()
            var events: [D.Event] = []
            try change { state, _ in events = body(&state, now) }
            if !events.isEmpty { try append(events, at: now) }
            return !events.isEmpty
        }
    }

    /// Changes in place what is not folded, such as caches. Nil while there is no `state`.
    public func withState<R>(_ body: (inout D) -> R) -> R? {
        guard var state = state.take() else { return nil }
        defer { self.state = state }
        return body(&state)
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
        let positions = try writer.append(&batch, about: subjects, ifUnchangedSince: decidedEnd)
        try change { state, folding in try folding.advance(&state, to: positions.upperBound) }
        decidedEnd = positions.upperBound
        onAppended(events, positions)
        return positions
    }

    /// Changes the state in place. Should that fail, the next call folds it again from the newest snapshot on.
    private func change(_ body: (inout D, DecisionFold<D>) throws -> Void) throws {
        guard var state = state.take() else { preconditionFailure("no state: recover first") }
        try body(&state, folding)
        self.state = state
    }
}
