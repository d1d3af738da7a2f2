import EventLog
import EventModel

/// The campaign rules with their log and their sender, without a thread of their own: executes operators' commands one
/// at a time, reads device reports from the log, makes timed decisions, and passes commands to the sender.
/// A decision is durable before it is answered or sent, and takes effect when it is read back from the log.
/// Not thread-safe; owned by `CampaignDecider` in the daemon, and by simulations and what-if queries.
public final class CampaignEngine {
    private let writer: any LogWriter
    private let source: any LogSource
    private let clock: @Sendable () -> Timestamp
    private let beginning: @Sendable () -> CampaignBeginning?
    private let sender: (any CommandSending)?
    private let fold: CampaignFold
    /// Nil before `recover`.
    public private(set) var state: CampaignState?
    private var acknowledged = Acknowledgements()
    /// It decides and sends; before `resume` it only takes commands.
    public private(set) var isAlive = false

    /// Rounds of decisions that lead to each other; what is left waits for the next look.
    private static let roundsMax = 100

    /// - Parameters:
    ///   - clock: gives the time that decisions are stamped with; the log raises it where it must.
    ///   - sender: carries commands to devices; nil: nothing is sent (and all is decided all the same).
    ///   - beginning: returns the state saved in the newest snapshot; nil when there is none.
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

    /// So many events are folded.
    public var end: Position { fold.end }

    // MARK: operators

    /// Folds the log: from a snapshot on where there is one, else from its beginning. The first time only.
    /// - Throws: `LogError`, `CampaignLogError`.
    @discardableResult
    public func recover() throws -> CampaignState {
        if let state { return state }
        let durable = Position(source.durableCount)
        // A snapshot beyond the log's end belongs to a log that was longer once.
        let start = beginning().flatMap { $0.end <= durable ? $0 : nil }
        var state = start?.state ?? CampaignState()
        fold.begin(at: start?.end ?? Position(0))
        try fold.advance(&state, to: durable)
        self.state = state
        return state
    }

    /// Decides, appends, and answers when the decision is durable. A refusal is an answer, not an error.
    /// - Throws: `AppendError` (nothing was decided, or the log has failed for good), `LogError`, `CampaignLogError`.
    public func execute(_ request: CommandRequest) throws -> CommandAnswer {
        let now = try catchUp()
        switch decide(request, state ?? CampaignState(), now: now) {
        case .repeated(let answer):
            return answer
        case .append(let events):
            let answer = Campaigns.answer(to: events, at: try append(events, at: now))
            // What follows at once from it need not wait for the next look; what fails there fails again at that one.
            if isAlive { do { try decideAll() } catch {} }
            return answer
        }
    }

    /// Folds what has become durable. Returns a time that is no later than the state's: the log's clock may step
    /// meanwhile, and timers move when its event is folded.
    @discardableResult
    private func catchUp() throws -> Timestamp {
        try recover()
        let before = clock(), durable = Position(source.durableCount)
        if durable > fold.end { try change { state, fold in try fold.advance(&state, to: durable) } }
        return min(before, clock())
    }

    /// Changes the state in place. Should that fail, it is folded again from the beginning: the log is right.
    private func change(_ body: (inout CampaignState, CampaignFold) throws -> Void) throws {
        guard var state = state.take() else { return }
        try body(&state, fold)
        self.state = state
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

    // MARK: as time passes

    /// The broker has acknowledged these commands.
    public func note(_ commands: [DeviceCommand]) {
        for command in commands where !command.isWithdrawal { acknowledged.add(command) }
    }

    /// Starts deciding and sending. First resends the commands that were decided but not sent before the last stop.
    public func resume() throws {
        try recover()
        isAlive = true
        guard let sender, let state else { return }
        let commands = state.campaignIDs.flatMap { state.unsent($0) + state.withdrawals($0, all: true) }
        if !commands.isEmpty { sender.send(commands) }
    }

    /// Reads what has become durable, and decides all there is to be decided now.
    public func step() throws {
        try recordAcknowledgements()
        try decideAll()
    }

    /// Writes down what the broker has acknowledged.
    /// - Parameter all: batches that are not complete too, because nobody comes back to them.
    public func recordAcknowledgements(all: Bool = false) throws {
        let now = try catchUp()
        let before = acknowledged, events = acknowledged.take(now, state ?? CampaignState(), all: all)
        do {
            if !events.isEmpty { try append(events, at: now) }
        } catch {
            acknowledged = before
            throw error
        }
    }

    /// When a look will find something to decide if nothing happens until then; nil: never.
    public func nextWake() -> Timestamp? {
        guard var state = state.take() else { return nil }
        defer { self.state = state }
        return state.nextWake(after: clock())
    }

    private func decideAll() throws {
        for _ in 0..<Self.roundsMax {
            let now = try catchUp()
            var events: [CampaignEvent] = []
            try change { state, _ in events = state.advance(now) }
            withdraw()
            if events.isEmpty { return }
            try append(events, at: now)
        }
    }

    /// The effects of decisions that are durable and were not void.
    private func perform(_ events: [CampaignEvent], at positions: Range<Position>) {
        guard let sender, let state else { return }
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
        guard let sender, state?.hasEndedRetained ?? false, var state = state.take() else { return }
        let commands = state.campaignIDs.flatMap { state.withdrawals($0, all: false) }
        state.forgetEndedRetained()
        self.state = state
        if !commands.isEmpty { sender.send(commands) }
    }
}
