// Deciding: the runtime of deciders, which fold the log and append decisions to it.
//
//     DeciderRuntime.execute(request)
//         catch up          fold what has become durable
//         decide            pure; a refusal is an event too
//         append            one commit, if no other decision changed these subjects meanwhile
//         fold back         what counts is what the log holds, its times included
//         effects           only of what is durable, to the outbox
//         answer            from the folded state
//
//     DeciderRuntime.step()
//         the same for decisions caused by deadlines, messages and acknowledgements
//
//     Decider               rule and folded state of one decider; no log, no thread, no clock
//     DeciderEvent          its decisions (`Sources/Decisions`) as one type
//     IdempotencyLedger     part of its state: what was answered under which key
//     DecisionFold          log → state
//     DecisionWriter        conditional append
//     DeciderRuntime        the steps above, one at a time; no thread of its own
//     DeciderService        an actor with a thread, which runs them
//     DeciderSleep          waits until the log grows, a request comes or something is due
//     DecisionFollower      keeps what other threads read of the state, exact by log position
//     Outbox                sends deliveries to devices
//
// Invariants. A state is a fold of the log and of nothing else: a restart folds it again and gets the same. A decision
// is durable before it is answered or acted upon. A record that cannot be read stops the decider, not the process:
// nothing is decided on top of it.
import Decisions
import Decoding
import EventModel

/// The rule and the folded state of one decider.
public protocol Decider: Sendable {
    associatedtype Event: DeciderEvent
    associatedtype Request: Sendable
    associatedtype Answer: Sendable

    /// Under which snapshots keep the state.
    static var storedName: String { get }
    /// Raise it when the fold means something else: snapshots of other versions are not used.
    static var storedVersion: Int { get }

    init()
    /// The state where the log's beginning, before `horizon`, is gone and no snapshot has it; nil: the decider cannot
    /// begin there.
    static func beginningUnknown(before horizon: Position) -> Self?

    /// A subject of every decision of this decider; nil: none. With it, the runtime reads only steps of the log's clock
    /// between its own decisions, because the writer reports decisions of others. `wantsMessages` must be false.
    static var commonSubject: String? { get }

    /// Whether anything waits for a time, so that steps of the log's clock matter.
    var hasTimers: Bool { get }

    /// Whether messages of devices are folded too. May change with each event.
    var wantsMessages: Bool { get }

    /// Folds one decision, also one that the present rule would not make.
    mutating func apply(_ event: Event, at position: Position, time: Timestamp)

    /// Folds one message of a device, while `wantsMessages`.
    mutating func observe(_ message: RecordView, at position: Position, _ decoder: FactDecoder)

    /// The log's clock stepped (`ClockStepped`): what waits for a time waits as long as before.
    mutating func moveTimers(by microseconds: Int64)

    /// The rule. Pure: the same request, state and time give the same outcome.
    func decide(_ request: Request, now: Timestamp) -> Outcome<Event, Answer>

    /// Decisions caused by deadlines, messages and acknowledgements. They are appended and folded, and it is called
    /// again until it returns none, at most 100 times a step. Must not fold: an append may fail.
    mutating func advance(_ now: Timestamp) -> [Event]

    /// When `advance` will have something to decide if nothing happens until then; nil: never.
    mutating func nextDeadline(after now: Timestamp) -> Timestamp?

    /// The last decisions before a stop.
    mutating func conclude(_ now: Timestamp) -> [Event]

    /// The effects of decisions that are durable at `positions`, and folded. A decision that was void has none.
    func effects(of events: [Event], at positions: Range<Position>) -> [Effect]

    /// After a start: the effects of earlier decisions that may not have happened.
    mutating func pendingEffects() -> [Effect]

    /// Returns and clears the effects that folded messages caused.
    mutating func takeEffects() -> [Effect]

    /// The broker has acknowledged these. Not part of the fold: a decision of `advance` records it.
    mutating func acknowledged(_ deliveries: [Delivery], at now: Timestamp)

    /// The caller's answer, once `events` are durable at `positions` and folded.
    /// - Throws: `UnreadableDecision` when the state does not show them.
    func answer(to request: Request, _ events: [Event], at positions: Range<Position>) throws -> Answer

    /// The state in a snapshot: the same bytes for the same state.
    func stored() -> [UInt8]

    /// - Throws: `UnreadableDecision` when they are no state of this version.
    init(stored: [UInt8]) throws
}

extension Decider {
    public static func beginningUnknown(before horizon: Position) -> Self? { nil }
    public static var commonSubject: String? { nil }
    public var hasTimers: Bool { true }
    public var wantsMessages: Bool { false }
    public mutating func observe(_ message: RecordView, at position: Position, _ decoder: FactDecoder) {}
    public mutating func advance(_ now: Timestamp) -> [Event] { [] }
    public mutating func nextDeadline(after now: Timestamp) -> Timestamp? { nil }
    public mutating func conclude(_ now: Timestamp) -> [Event] { [] }
    public func effects(of events: [Event], at positions: Range<Position>) -> [Effect] { [] }
    public mutating func pendingEffects() -> [Effect] { [] }
    public mutating func takeEffects() -> [Effect] { [] }
    public mutating func acknowledged(_ deliveries: [Delivery], at now: Timestamp) {}
}

/// What is to happen after a request.
public enum Outcome<Event: Sendable, Answer: Sendable>: Sendable {
    /// These become one commit: all of them, or none.
    case append([Event])
    /// The same request under the same idempotency key was answered before: nothing is appended.
    case repeated(Answer)
}

extension Outcome: Equatable where Event: Equatable, Answer: Equatable {}

/// A saved state to resume from.
public struct DeciderSnapshot<D: Decider>: Sendable {
    public let state: D
    /// Number of events folded into `state`; the next position to read.
    public let end: Position

    public init(state: D, end: Position) {
        self.state = state
        self.end = end
    }
}
