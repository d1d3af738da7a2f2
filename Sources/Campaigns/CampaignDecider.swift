import Decoding
import EventLog
import EventModel
import Threading

/// The thin actor around the rules: takes operators' commands one at a time, follows the log for what devices report,
/// lets the engine decide as time passes, and hands what is to be sent to whoever sends it. Everything it decides is
/// durable before anybody is told, and takes effect by being read back from the log.
/// It works on a thread of its own, because appending and reading block; it never touches PostgreSQL.
public actor CampaignDecider {
    private let writer: any LogWriter
    private let source: any LogSource
    private let clock: @Sendable () -> Timestamp
    private let executor = ThreadExecutor(name: "campaigns")
    private let beginning: @Sendable () -> CampaignBeginning?
    private let sender: (any CommandSending)?
    private let fold: CampaignFold
    private var folded: CampaignState?
    private var acknowledged = Acknowledgements()
    private var isAlive = false

    public nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    /// How long the engine sleeps at most while a campaign is known, and when none is.
    private static let lookMilliseconds: Int64 = 50
    private static let idleMilliseconds: Int64 = 1_000
    /// After a failure.
    private static let pauseMilliseconds: Int64 = 2_000
    /// Rounds of decisions that lead to each other; what is left waits for the next look.
    private static let roundsMax = 100

    /// - Parameters:
    ///   - clock: gives the time that decisions are stamped with; the log raises it where it must.
    ///   - sender: carries commands to devices; nil: nothing is sent (and `run` decides all the same).
    ///   - beginning: a state of before, from a snapshot; nil where there is none.
    public init(
        writer: any LogWriter, source: any LogSource, clock: @escaping @Sendable () -> Timestamp,
        sender: (any CommandSending)? = nil, beginning: @escaping @Sendable () -> CampaignBeginning? = { nil }
    ) {
        self.writer = writer
        self.source = source
        self.clock = clock
        self.sender = sender
        self.beginning = beginning
        fold = CampaignFold(source: source)
    }

    // MARK: operators

    /// The state, refolded the first time it is asked for: from a snapshot on where there is one, else from the whole
    /// log. Called once at start-up, so that the first command need not wait.
    /// - Throws: `LogError`, `CampaignLogError`.
    @discardableResult
    public func recover() throws -> CampaignState {
        if let folded { return folded }
        let durable = Position(source.durableCount)
        // A snapshot beyond the log's end belongs to a log that was longer once.
        let start = beginning().flatMap { $0.end <= durable ? $0 : nil }
        var state = start?.state ?? CampaignState()
        fold.begin(at: start?.end ?? Position(0))
        try fold.advance(&state, to: durable)
        folded = state
        return state
    }

    /// Decides, appends, and answers when the decision is durable. A refusal is an answer, not an error.
    /// - Throws: `AppendError` (nothing was decided, or the log has failed for good), `LogError`, `CampaignLogError`.
    public func execute(_ request: CommandRequest) throws -> CommandAnswer {
        try catchUp()
        let now = clock()
        switch decide(request, folded ?? CampaignState(), now: now) {
        case .repeated(let answer):
            return answer
        case .append(let events):
            let answer = Campaigns.answer(to: events, at: try append(events, at: now))
            // What follows at once from it need not wait for the next look.
            if isAlive { try decideAll() }
            return answer
        }
    }

    /// Folds what has become durable.
    private func catchUp() throws {
        try recover()
        let durable = Position(source.durableCount)
        guard durable > fold.end else { return }
        try change { state, fold in try fold.advance(&state, to: durable) }
    }

    /// Changes the state in place. Should that fail, it is folded again from the beginning: the log is right.
    private func change(_ body: (inout CampaignState, CampaignFold) throws -> Void) throws {
        guard var state = folded.take() else { return }
        try body(&state, fold)
        folded = state
    }

    /// Appends decisions, and folds them back: what counts is what the log holds, its times included.
    @discardableResult
    private func append(_ events: [CampaignEvent], at now: Timestamp) throws -> Range<Position> {
        var batch = RecordBatch()
        for event in events { event.append(to: &batch, at: now) }
        let positions = try writer.append(&batch)
        try change { state, fold in try fold.advance(&state, to: positions.upperBound) }
        if isAlive { perform(events, at: positions) }
        return positions
    }

    // MARK: the engine

    /// Decides and sends until the task is cancelled. `report` is told what failed; it is tried again.
    public func run(report: @escaping @Sendable (any Error) -> Void) async {
        sender?.onAcknowledged { [weak self] commands in
            Task { await self?.note(commands) }
        }
        while !Task.isCancelled {
            var pause = Self.idleMilliseconds
            do {
                if !isAlive { try resume() }
                try step()
                if folded?.wantsReports ?? false { pause = Self.lookMilliseconds }
            } catch {
                report(error)
                pause = Self.pauseMilliseconds
                if case .failed? = error as? AppendError { return }
            }
            // Cancelled: the loop ends.
            try? await Task.sleep(for: .milliseconds(pause))
        }
    }

    private func note(_ commands: [DeviceCommand]) {
        for command in commands where !command.isWithdrawal { acknowledged.add(command) }
    }

    /// Takes up what was decided and not sent before the last stop.
    private func resume() throws {
        try recover()
        isAlive = true
        guard let sender, let state = folded else { return }
        let commands = state.campaignIDs.flatMap { state.unsent($0) + state.withdrawals($0, all: true) }
        if !commands.isEmpty { sender.send(commands) }
    }

    private func step() throws {
        try catchUp()
        let events = acknowledged.take(clock(), folded ?? CampaignState())
        if !events.isEmpty { try append(events, at: clock()) }
        try decideAll()
    }

    private func decideAll() throws {
        for _ in 0..<Self.roundsMax {
            let now = clock()
            var events: [CampaignEvent] = []
            try change { state, _ in events = state.advance(now) }
            withdraw()
            if events.isEmpty { return }
            try append(events, at: now)
        }
    }

    /// The effects of decisions that are durable and were not void.
    private func perform(_ events: [CampaignEvent], at positions: Range<Position>) {
        guard let sender, let state = folded else { return }
        for event in events {
            switch event {
            case .dispatched(let event): sender.send(state.commands(event, within: positions))
            case .statusChanged(let schema, let event):
                switch schema {
                case .campaignPaused, .campaignAborted, .campaignCompleted: sender.withdraw(campaign: event.campaignID)
                case .campaignResumed: sender.send(state.unsent(event.campaignID))
                default: break
                }
            default: break
            }
        }
    }

    /// Retained commands of devices that have ended are taken back.
    private func withdraw() {
        guard let sender, folded?.hasEndedRetained ?? false, var state = folded.take() else { return }
        let commands = state.campaignIDs.flatMap { state.withdrawals($0, all: false) }
        state.forgetEndedRetained()
        folded = state
        if !commands.isEmpty { sender.send(commands) }
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
