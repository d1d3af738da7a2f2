import EventLog
import EventModel
import Threading

/// The thin actor around `decide`: one command at a time, each durable before it is answered.
/// It works on a thread of its own, because appending and reading block; it never touches PostgreSQL.
public actor CampaignDecider {
    private let writer: any LogWriter
    private let source: any LogSource
    private let clock: @Sendable () -> Timestamp
    private let executor = ThreadExecutor(name: "campaigns")
    private let block = EventBlock()
    private let beginning: @Sendable () -> CampaignBeginning?
    private var folded: CampaignState?

    public nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    /// - Parameters:
    ///   - clock: gives the time that decisions are stamped with; the log raises it where it must.
    ///   - beginning: a state of before, from a snapshot; nil where there is none.
    public init(
        writer: any LogWriter, source: any LogSource, clock: @escaping @Sendable () -> Timestamp,
        beginning: @escaping @Sendable () -> CampaignBeginning? = { nil }
    ) {
        self.writer = writer
        self.source = source
        self.clock = clock
        self.beginning = beginning
    }

    /// The state, refolded the first time it is asked for: from a snapshot on where there is one, else from the whole
    /// log. Device messages are passed over undecoded. Called once at start-up, so that the first command need not
    /// wait.
    /// - Throws: `LogError`, `CampaignLogError`.
    @discardableResult
    public func recover() throws -> CampaignState {
        if let folded { return folded }
        let durable = Position(source.durableCount)
        // A snapshot beyond the log's end belongs to a log that was longer once.
        let start = beginning().flatMap { $0.end <= durable ? $0 : nil }
        var state = start?.state ?? CampaignState()
        try state.fold((start?.end ?? Position(0))..<durable, of: source, block)
        folded = state
        return state
    }

    /// Decides, appends, and answers when the decision is durable. A refusal is an answer, not an error.
    /// - Throws: `AppendError` (nothing was decided, or the log has failed for good), `LogError`, `CampaignLogError`.
    public func execute(_ request: CommandRequest) throws -> CommandAnswer {
        var state = try recover()
        let now = clock()
        switch decide(request, state, now: now) {
        case .repeated(let answer):
            return answer
        case .append(let events):
            var batch = RecordBatch()
            for event in events { event.append(to: &batch, at: now) }
            let positions = try writer.append(&batch)
            // What counts is what the log holds, its times included: it is read back, not remembered. Should that
            // fail, the state is refolded at the next command, since the decision stands.
            folded = nil
            try state.fold(positions, of: source, block)
            folded = state
            return answer(to: events, at: positions)
        }
    }
}

/// A state of before, to go on from.
public struct CampaignBeginning: Sendable {
    public let state: CampaignState
    /// So many events are folded in it.
    public let end: Position

    public init(state: CampaignState, end: Position) {
        self.state = state
        self.end = end
    }
}

extension CampaignState {
    /// Folds the decisions in `positions`, which must be durable.
    /// - Throws: `LogError`, `CampaignLogError`.
    public mutating func fold(_ positions: Range<Position>, of source: any LogSource) throws {
        try fold(positions, of: source, EventBlock())
    }

    mutating func fold(_ positions: Range<Position>, of source: any LogSource, _ block: EventBlock) throws {
        guard !positions.isEmpty else { return }
        let reader = try source.decisionReader(from: positions.lowerBound)
        while reader.position < positions.upperBound, try reader.read(into: block, atLeast: 1 << 20) {
            try block.forEach { record, position in
                guard positions.contains(position), let event = try CampaignEvent(record, at: position) else { return }
                apply(event, at: position, time: record.receivedAt)
            }
        }
        guard reader.position >= positions.upperBound else {
            throw LogError(
                .outOfRange, "the log ends at \(reader.position), before its durable end \(positions.upperBound)")
        }
    }
}
