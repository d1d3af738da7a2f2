// The log's clock: steady time plus an offset that the wall clock has earned.
//
// A wall clock steps: NTP corrects it, an operator mistypes a date, a virtual machine resumes. What was stamped by a
// wrong clock stays in the log for ever, and timers that ran on it give devices up. So a step is not believed at once.
// While it is *held*, time goes on steadily as before. When the wall clock returns, nothing was harmed. When it stays,
// the writer *adopts* it: it records `log.clock_stepped/1`, and received-at follows the wall clock from that event on.
// Timers are moved by the step when they fold that event.
//
// The offset changes only when the writer has made the event durable, so a fold that has not seen the event is not
// asked about the time behind it (`CommitLoop.publish`).

import EventModel
import Synchronization

/// What the log's clock does with the wall clock now.
public struct ClockStatus: Sendable, Equatable {
    public enum State: Sendable, Equatable {
        /// The log follows the wall clock.
        case following
        /// The wall clock stepped and is not believed yet.
        case held
        /// The wall clock is behind the log's last event since the log was opened: nothing should be recorded yet.
        case waiting
    }
    public var state: State
    /// By how much the wall clock is ahead of the log's; negative: behind. 0 while it is followed.
    public var stepMicroseconds: Int64
    /// After how much more time the step is adopted if it stays; nil: never by itself.
    public var holdMicroseconds: Int64?
}

public final class GuardedClock: LogClock {
    public struct Rules: Sendable {
        /// Smaller changes (a leap second) are followed at once.
        public var slackMicros: Int64 = 1_000_000
        /// How long a step must stay before it is adopted, when no time service vouches for the wall clock.
        public var holdMicros: Int64 = 600_000_000
        /// The same when one does.
        public var holdSynchronisedMicros: Int64 = 30_000_000
        /// A log that is opened waits for a wall clock that is further behind its end.
        public var behindMicrosMax: Int64 = 300_000_000

        public init() {}
    }

    /// What the writer has to record ahead of a group.
    package struct Plan {
        /// Notices in their order; the last one may adopt.
        package var records: [(at: Timestamp, event: ClockStepped)] = []
        /// Offset of the wall clock, once this is durable; nil: the log goes on as before.
        fileprivate var offset: Int64?
        /// Received-at goes back to this: the group begins an era, and a segment.
        package var era: Timestamp?
        fileprivate var noticeCount = 0
        /// The clock is set back: what it has stamped later than this is lowered to it.
        package var ceiling: Timestamp?
        package var stepsBack: Bool { ceiling != nil }

        package init() {}
    }

    private struct Step {
        var offset: Int64
        var since: Int64
        var isAccepted = false
    }

    private struct State {
        /// Trusted time less steady time.
        var offset: Int64
        var step: Step?
        var isWaiting = false
        /// Steps that were noticed or returned and are not recorded yet.
        var notices: [(at: Timestamp, event: ClockStepped)] = []
    }

    /// The wall clock.
    public let source: any LogClock
    private let rules: Rules
    private let state: Mutex<State>
    /// Steady time and log time that age is measured from: see `ageReference`.
    private let opened: (steady: Int64, time: Int64)
    /// The log's last event when it was opened.
    private let lastTime: Timestamp?
    /// A wall clock before this is wrong for certain.
    private let earliest: Timestamp
    /// A clock that flutters fills no log.
    private static let noticesMax = 16

    /// - Parameters:
    ///   - lastTime: received-at of the log's last event; nil when it has none.
    ///   - earliest: a time that has passed for certain, such as the log's beginning.
    ///   - kept: offset to the steady clock that was trusted before in this boot; nil: none.
    ///   - accepts: the operator vouches for the wall clock (`--accept-clock`).
    public init(
        _ source: any LogClock, lastTime: Timestamp? = nil, earliest: Timestamp? = nil, kept: Int64? = nil,
        accepts: Bool = false, rules: Rules = Rules()
    ) {
        self.source = source
        self.rules = rules
        self.lastTime = lastTime
        self.earliest = earliest ?? Timestamp(microseconds: .min)
        let reading = Self.read(source)
        // From a file.
        var state = State(offset: kept.map { Int64(storedMicroseconds: $0) } ?? reading.offset)
        if let last = lastTime?.microseconds {
            if reading.steady + state.offset < last - rules.behindMicrosMax { state.offset = last - reading.steady }
            state.isWaiting = !accepts && reading.steady + reading.offset < last - rules.behindMicrosMax
        }
        if abs(reading.offset - state.offset) > rules.slackMicros {
            state.step = Step(offset: reading.offset, since: reading.steady, isAccepted: accepts)
        }
        opened = (reading.steady, lastTime?.microseconds ?? (reading.steady + state.offset))
        self.state = Mutex(state)
        if state.step != nil, !accepts {
            self.state.withLock { note(from: $0.offset, to: reading.offset, reading, &$0) }
        }
    }

    /// Trusted time less steady time, in microseconds.
    package var offset: Int64 { state.withLock { $0.offset } }

    /// Trusted time.
    public func now() -> Timestamp {
        let reading = Self.read(source)
        return state.withLock { state in
            observe(reading, &state)
            return Timestamp(microseconds: reading.steady + state.offset)
        }
    }

    /// So long after a step back a batch may still come that the clock before it has stamped.
    package static let lateMicros: Int64 = 60_000_000

    public func steadyMicroseconds() -> Int64 { source.steadyMicroseconds() }
    public var isSynchronised: Bool { source.isSynchronised }
    public var bootID: String? { source.bootID }

    /// What the clock does now. Changes nothing: it ends no wait, and notices no step on behalf of the writer.
    public var status: ClockStatus {
        let reading = Self.read(source)
        var copy = state.withLock { $0 }
        observe(reading, &copy)
        return describe(copy, reading, source.isSynchronised)
    }

    /// Polls both clocks on behalf of whoever waits for the wall clock, and ends the wait when the wall clock has
    /// stayed behind the log for as long as the rules ask: from then on the writer takes what comes, and adopts the
    /// step with it.
    public func poll() -> ClockStatus {
        let reading = Self.read(source), isSynchronised = source.isSynchronised
        return state.withLock { state in
            observe(reading, &state)
            if state.isWaiting, describe(state, reading, isSynchronised).holdMicroseconds == 0 {
                state.isWaiting = false
            }
            return describe(state, reading, isSynchronised)
        }
    }

    private func describe(_ state: State, _ reading: Reading, _ isSynchronised: Bool) -> ClockStatus {
        guard let step = state.step else {
            return ClockStatus(state: .following, stepMicroseconds: 0, holdMicroseconds: nil)
        }
        return ClockStatus(
            state: state.isWaiting ? .waiting : .held, stepMicroseconds: step.offset - state.offset,
            holdMicroseconds: holdMicros(isSynchronised, step, state).map {
                max(0, $0 - (reading.steady - step.since))
            })
    }

    /// The time that the age of events is measured by before anything is deleted for it. Without a time service it
    /// grows only as fast as steady time since the log was opened: a clock that is far ahead deletes nothing.
    public func ageReference() -> Timestamp {
        let now = now()
        if source.isSynchronised { return now }
        let elapsed = source.steadyMicroseconds() - opened.steady
        return min(now, Timestamp(microseconds: opened.time + elapsed))
    }

    // MARK: The writer

    /// What is to be recorded ahead of a group that begins behind an event of `floor`. Changes nothing.
    package func plan(behind floor: Timestamp) -> Plan {
        let reading = Self.read(source), isSynchronised = source.isSynchronised
        return state.withLock { state in
            observe(reading, &state)
            let now = Timestamp(microseconds: reading.steady + state.offset)
            var plan = Plan()
            (plan.records, plan.noticeCount) = (state.notices, state.notices.count)
            guard let step = state.step, !state.isWaiting, let hold = holdMicros(isSynchronised, step, state),
                reading.steady - step.since >= hold
            else { return plan }
            let after = Timestamp(microseconds: reading.steady + step.offset)
            var event = ClockStepped(before: now, after: after)
            event.adopted = true
            if after < floor {
                event.era = true
                if !LogFault.isPlanted(.receivedAtPinned) { plan.era = after }
            }
            if step.offset < state.offset {
                // Notices bear times of the clock that is given up.
                plan.records = []
                plan.ceiling = after
            }
            plan.records.append((after, event))
            plan.offset = step.offset
            return plan
        }
    }

    /// The plan's records are durable.
    package func settle(_ plan: Plan) {
        guard plan.noticeCount > 0 || plan.offset != nil else { return }
        state.withLock { state in
            state.notices.removeFirst(min(plan.noticeCount, state.notices.count))
            guard let offset = plan.offset else { return }
            state.offset = offset
            state.step = nil
        }
    }

    private func holdMicros(_ isSynchronised: Bool, _ step: Step, _ state: State) -> Int64? {
        if step.isAccepted || LogFault.isPlanted(.clockBelieved) { return 0 }
        if isSynchronised { return rules.holdSynchronisedMicros }
        // A clock that begins at 1970 does not become right by waiting.
        let wall = step.since + step.offset
        return state.isWaiting && wall < earliest.microseconds ? nil : rules.holdMicros
    }

    // MARK: Observing

    private struct Reading {
        let steady: Int64
        /// Wall time less steady time.
        let offset: Int64
    }

    /// Both clocks at one moment: a thread that is suspended between the two calls has seen no step.
    private static func read(_ source: any LogClock) -> Reading {
        var before = source.steadyMicroseconds()
        for _ in 0..<8 {
            let wall = source.now().microseconds, after = source.steadyMicroseconds()
            if after - before <= 10_000 { return Reading(steady: after, offset: wall - after) }
            before = after
        }
        return Reading(steady: before, offset: source.now().microseconds - before)
    }

    private func observe(_ reading: Reading, _ state: inout State) {
        let difference = reading.offset - state.offset, wall = reading.steady + reading.offset
        if state.isWaiting {
            // Behind its last event the log knows no better than the wall clock.
            guard let last = lastTime?.microseconds, wall < last - rules.behindMicrosMax else {
                state.offset = reading.offset
                (state.step, state.isWaiting, state.notices) = (nil, false, [])
                return
            }
            state.step = stepping(state.step, reading)
            return
        }
        if abs(difference) <= rules.slackMicros {
            state.offset = reading.offset
            guard let step = state.step else { return }
            state.step = nil
            note(from: step.offset, to: reading.offset, reading, &state)
            return
        }
        let before = state.step
        let step = stepping(before, reading)
        state.step = step
        if before?.since != step.since {
            note(from: before?.offset ?? state.offset, to: reading.offset, reading, &state)
        }
    }

    /// The same step as before, or a new one.
    private func stepping(_ before: Step?, _ reading: Reading) -> Step {
        guard var step = before, abs(step.offset - reading.offset) <= rules.slackMicros else {
            return Step(offset: reading.offset, since: reading.steady)
        }
        step.offset = reading.offset
        return step
    }

    private func note(from: Int64, to: Int64, _ reading: Reading, _ state: inout State) {
        guard state.notices.count < Self.noticesMax else { return }
        var event = ClockStepped(
            before: Timestamp(microseconds: reading.steady + from), after: Timestamp(microseconds: reading.steady + to))
        event.adopted = false
        state.notices.append((Timestamp(microseconds: reading.steady + state.offset), event))
    }
}
