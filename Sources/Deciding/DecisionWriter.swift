import EventLog
import EventModel
import Synchronization

/// There is a newer decision about the subject than the state has: nothing was appended. Catch up, and decide again.
public struct AppendConflict: Error, Sendable, CustomStringConvertible {
    public let subject: String
    public var description: String { "another decision about \(subject) came first; nothing was appended" }
}

/// Appends decisions on the condition that their subjects have not changed since they were read. One for each log,
/// shared by all of its deciders: it knows what this process has appended, and no other process appends. Check and
/// append are one step: the lock is held until the batch is durable.
public final class DecisionWriter: Sendable {
    fileprivate struct State {
        /// End of the last decision about each subject.
        var ends: [String: Position] = [:]
        /// Upper bound of the ends that were evicted.
        var floor = Position(0)
    }

    /// Beyond so many subjects the older half is evicted. Until it has caught up, a decider takes an evicted subject
    /// for changed.
    private let subjectsMax: Int

    private let log: any LogWriter
    private let state = Mutex(State())

    public init(_ log: any LogWriter, subjectsMax: Int = 65_536) { (self.log, self.subjectsMax) = (log, subjectsMax) }

    /// True if no decision about `subject` was appended at or behind `end`.
    func isUnchanged(_ subject: String, since end: Position) -> Bool {
        state.withLock { ($0.ends[subject] ?? $0.floor) <= end }
    }

    /// Blocks the calling thread until the batch is durable. One append at a time.
    /// - Parameters:
    ///   - end: number of events folded into the state that the decisions were made from.
    ///   - willQueue: called before the batch gets its place in the log, once no conflict is found.
    ///   - queued: called once after `willQueue`: the batch has its place, or will get none.
    /// - Throws: `AppendConflict` (nothing was appended), `AppendError`.
    func append(
        _ batch: inout RecordBatch, about subjects: [String], ifUnchangedSince end: Position,
        willQueue: () -> Void = {}, queued: () -> Void = {}
    ) throws -> Range<Position> {
        try state.withLock { state in
            for subject in subjects where (state.ends[subject] ?? state.floor) > end {
                throw AppendConflict(subject: subject)
            }
            willQueue()
            let positions = try log.append(&batch, queued: queued)
            for subject in subjects { state.ends[subject] = positions.upperBound }
            if state.ends.count > subjectsMax { state.evictOlderHalf() }
            return positions
        }
    }
}

extension DecisionWriter.State {
    fileprivate mutating func evictOlderHalf() {
        let median = ends.values.sorted()[ends.count / 2]
        floor = max(floor, median)
        ends = ends.filter { $0.value > median }
    }
}
