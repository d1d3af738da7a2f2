import Deciding
import EventLog
import EventModel

/// The campaigns' decider with its sender, without a thread of its own: executes operators' commands one at a time,
/// makes the decisions that time and devices' reports bring about, and passes commands to the sender.
/// Not thread-safe; owned by `CampaignDecider` in the daemon, and by simulations and what-if queries.
public final class CampaignEngine {
    private let runtime: DeciderRuntime<CampaignState>
    private let clock: @Sendable () -> Timestamp
    private let sender: (any CommandSending)?
    private var acknowledged = Acknowledgements()
    /// It decides and sends; before `resume` it only takes commands.
    public private(set) var isAlive = false

    /// Rounds of decisions that lead to each other; what is left waits for the next look.
    private static let roundsMax = 100

    /// - Parameters:
    ///   - writer: shared by all deciders of the log.
    ///   - clock: gives the time that decisions are stamped with; the log raises it where it must.
    ///   - sender: carries commands to devices; nil: nothing is sent (and all is decided all the same).
    ///   - snapshot: returns the state saved in the newest snapshot; nil when there is none.
    public init(
        writer: DecisionWriter, source: any LogSource, clock: @escaping @Sendable () -> Timestamp,
        sender: (any CommandSending)? = nil,
        snapshot: @escaping @Sendable () -> DeciderSnapshot<CampaignState>? = { nil }
    ) {
        runtime = DeciderRuntime(writer: writer, source: source, clock: clock, snapshot: snapshot)
        (self.clock, self.sender) = (clock, sender)
        runtime.onAppended = { [unowned self] events, positions in
            if isAlive { perform(events, at: positions) }
        }
    }

    /// Nil before `recover`, and after a fold that failed.
    public var state: CampaignState? { runtime.state }
    /// Number of events folded; the next position to read.
    public var end: Position { runtime.end }

    // MARK: operators

    /// Folds the log: see `DeciderRuntime.recover`.
    /// - Throws: `LogError`, `UnreadableDecision`.
    @discardableResult
    public func recover() throws -> CampaignState { try runtime.recover() }

    /// Decides, appends, and answers when the decision is durable. A refusal is an answer, not an error.
    /// - Throws: as `DeciderRuntime.execute`.
    public func execute(_ request: CommandRequest) throws -> CommandAnswer {
        try mend()
        let answer = try runtime.execute(request)
        // Makes the decisions that follow at once. An error is dropped: the next `step` meets and reports it.
        if isAlive { do { try decideAll() } catch {} }
        return answer
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
        guard let sender else { return }
        let commands = runtime.withState { state in
            state.campaignIDs.flatMap { state.unsent($0) + state.withdrawals($0, all: true) }
        }
        if let commands, !commands.isEmpty { sender.send(commands) }
    }

    /// A decision that is durable and could not be folded has had no effects: they are made up for when it is.
    private func mend() throws {
        guard isAlive, runtime.state == nil else { return }
        try resume()
        guard let sender else { return }
        let halted = runtime.withState { state in state.campaigns.filter { $0.value.status != .running }.map(\.key) }
        for id in (halted ?? []).sorted() { sender.withdraw(campaign: id) }
    }

    /// Reads what has become durable, and decides all there is to be decided now.
    public func step() throws {
        try recordAcknowledgements()
        try decideAll()
    }

    /// Writes down what the broker has acknowledged.
    /// - Parameter all: batches that are not complete too, because nobody comes back to them.
    public func recordAcknowledgements(all: Bool = false) throws {
        try mend()
        var left = acknowledged
        try runtime.decide { state, now in
            left = acknowledged
            return left.take(now, state, all: all)
        }
        acknowledged = left
    }

    /// When an incomplete batch of acknowledgements is due to be recorded; nil: none waits.
    public var acknowledgementsDue: Timestamp? { acknowledged.due }

    /// When a look will find something to decide if nothing happens until then; nil: never.
    public func nextWake() -> Timestamp? {
        let now = clock()
        return runtime.withState { $0.nextWake(after: now) } ?? nil
    }

    private func decideAll() throws {
        for _ in 0..<Self.roundsMax {
            let hasDecided = try runtime.decide { state, now in
                let events = state.advance(now)
                withdraw(&state)
                return events
            }
            if !hasDecided { return }
        }
    }

    /// The effects of decisions that are durable and were not void.
    private func perform(_ events: [CampaignEvent], at positions: Range<Position>) {
        guard let sender else { return }
        for event in events {
            switch event {
            case .dispatched(let event):
                if let commands = runtime.withState({ $0.commands(event, within: positions) }) { sender.send(commands) }
            case .statusChanged(let schema, let event):
                switch schema {
                case .campaignPaused, .campaignAborted, .campaignCompleted: sender.withdraw(campaign: event.campaignID)
                case .campaignResumed:
                    if let commands = runtime.withState({ $0.unsent(event.campaignID) }) { sender.send(commands) }
                default: break
                }
            default: break
            }
        }
    }

    /// Retained commands of devices that have ended are taken back.
    private func withdraw(_ state: inout CampaignState) {
        guard let sender, state.hasEndedRetained else { return }
        let commands = state.campaignIDs.flatMap { state.withdrawals($0, all: false) }
        state.forgetEndedRetained()
        if !commands.isEmpty { sender.send(commands) }
    }
}
