import Decoding
import EventLog
import EventModel

/// Reads the log into a decider's state: decisions always, messages only while the state wants them. Belongs to one
/// thread.
final class DecisionFold<D: Decider> {
    private let source: any LogSource
    private let block = EventBlock()
    private lazy var decoder = FactDecoder()
    private var reader: (reader: any LogReader, readsAll: Bool)?
    /// Number of events folded; the next position to read.
    private(set) var end = Position(0)

    init(source: any LogSource) { self.source = source }

    func begin(at position: Position) {
        end = position
        reader = nil
    }

    /// Folds up to `target`, which must be durable.
    /// - Throws: `LogError`, `UnreadableDecision`. Begin again then: the state may be half changed.
    func advance(_ state: inout D, to target: Position) throws {
        while end < target {
            let open = try reader(readingAll: state.wantsMessages)
            guard try open.read(into: block, atLeast: 1 << 18) else {
                // Nothing but what may be passed over lies between.
                if !state.wantsMessages, open.position >= target { break }
                throw LogError(.outOfRange, "the log ends at \(open.position), before its durable end \(target)")
            }
            let end = self.end
            try block.forEach { record, position in
                guard position >= end, position < target else { return }
                try apply(record, position, to: &state)
            }
            self.end = min(max(end, block.end), target)
        }
        end = max(end, target)
    }

    /// Folds the steps of the log's clock up to `target`, for whoever has folded every decision before it.
    func advanceClock(_ state: inout D, to target: Position) throws {
        guard target > end else { return }
        try source.forEachEvent(of: .clockStepped, in: end..<target) { record, position in
            state.moveTimers(by: try Self.clockStep(record, position))
        }
        begin(at: target)
    }

    private func reader(readingAll: Bool) throws -> any LogReader {
        if let open = reader, open.readsAll == readingAll, open.reader.position == end { return open.reader }
        let open = readingAll ? try source.reader(from: end) : try source.decisionReader(from: end)
        reader = (open, readingAll)
        return open
    }

    private func apply(_ record: RecordView, _ position: Position, to state: inout D) throws {
        switch record.kind {
        case .decision:
            if let event = try D.Event(record, at: position) {
                state.apply(event, at: position, time: record.receivedAt)
            }
        case .message:
            guard state.wantsMessages else { return }
            state.observe(record, at: position, decoder)
        case .system:
            guard record.topicString == LogSchema.clockStepped.rawValue else { return }
            state.moveTimers(by: try Self.clockStep(record, position))
        case .connection, .rejection: break
        }
    }

    /// Throws where it cannot be read: passed over, it would leave the timers where they are.
    private static func clockStep(_ record: RecordView, _ position: Position) throws(UnreadableDecision) -> Int64 {
        try UnreadableDecision.reading(LogSchema.clockStepped.rawValue, at: position) {
            try record.decoded(ClockStepped.self).movesTimersBy
        }
    }
}

extension Decider {
    /// Folds the events in `positions`, which must be durable.
    /// - Throws: `LogError`, `UnreadableDecision`.
    public mutating func fold(_ positions: Range<Position>, of source: any LogSource) throws {
        let fold = DecisionFold<Self>(source: source)
        fold.begin(at: positions.lowerBound)
        try fold.advance(&self, to: positions.upperBound)
    }
}
