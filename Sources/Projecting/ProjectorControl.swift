import EventLog
import EventModel
import Glibc
import Primitives
import Projections
import Synchronization
import Threading

/// Where a projector's thread and everybody else meet: commands in one direction, facts in the other.
/// Everything is under one mutex that is held for a few instructions.
final class ProjectorControl: Sendable {
    private let clock: (@Sendable () -> Timestamp)?
    private let wake: @Sendable () -> Void

    /// - Parameters:
    ///   - clock: the log's time; nil: the wall clock.
    ///   - wake: called after a request, to end a projector's wait for the log.
    init(clock: (@Sendable () -> Timestamp)? = nil, wake: @escaping @Sendable () -> Void = {}) {
        (self.clock, self.wake) = (clock, wake)
    }

    private struct Waiter {
        var position: Position
        var continuation: CheckedContinuation<Bool, Never>
    }

    /// A request, and who waits for its result.
    struct ParkedKeyRetry {
        /// Nil: all.
        var keys: Set<FoldKey>?
        var continuation: CheckedContinuation<ParkedRetryResult?, Never>
    }

    private struct State {
        var phase = Phase.waiting
        var pauseRequested = false
        var stopRequested = false
        /// Something was repaired: whoever rests after a failure tries again.
        var retryRequested = false
        var confirmRequested = false
        /// Parked keys that somebody wants taken up again, the first first.
        var parkedKeyRetries: [ParkedKeyRetry] = []
        var parked: [ParkedKey] = []
        var begun = false
        var begunAt: Timestamp?
        var ended = false
        var interrupter: (@Sendable () -> Void)?
        var visible: Position?
        var lastReceivedAt: Timestamp?
        var caughtUpAt: Timestamp?
        var rate = RateMeter()
        var lastError: String?
        /// Since when every attempt has failed.
        var failingSince: ContinuousClock.Instant?
        var transactions: UInt64 = 0
        var rowsWritten: UInt64 = 0
        var conflicts: UInt64 = 0
        var applySeconds = Histogram(
            bounds: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5])
        var waiters: [UInt64: Waiter] = [:]
        var nextWaiter: UInt64 = 0
        var endWaiters: [CheckedContinuation<Void, Never>] = []
    }

    enum Phase { case waiting, going, paused, failed }

    private let state = Mutex(State())
    /// Whether the projector's thread still moves. Folding and waiting take moments.
    let heart = Heartbeat()
    /// A call of the store or of the log: they have limits of their own (statements 120 s, a silent server 150 s, an
    /// archived segment that is brought back), and a call may take several of those.
    static let callSeconds = 600
    static let roundSeconds = 60

    // MARK: Commands

    var stopRequested: Bool { state.withLock { $0.stopRequested } }
    var pauseRequested: Bool { state.withLock { $0.pauseRequested } }
    var shouldYield: Bool {
        state.withLock { $0.stopRequested || $0.pauseRequested || !$0.parkedKeyRetries.isEmpty }
    }
    var hasEnded: Bool { state.withLock { $0.ended } }

    func requestPause(_ on: Bool) {
        state.withLock { $0.pauseRequested = on }
        wake()
    }
    func requestRetry() { state.withLock { $0.retryRequested = true } }
    /// Whether somebody asked since the last time.
    func takeRetry() -> Bool {
        state.withLock { state in
            defer { state.retryRequested = false }
            return state.retryRequested
        }
    }
    func requestConfirmation() {
        state.withLock { $0.confirmRequested = true }
        wake()
    }
    var shouldConfirm: Bool { state.withLock { $0.confirmRequested } }
    /// Whether a confirmation was requested since the last call.
    func takeConfirmation() -> Bool {
        state.withLock { state in
            defer { state.confirmRequested = false }
            return state.confirmRequested
        }
    }
    /// Suspends until the keys were taken up, as far as that goes; nil when the projector does not run.
    func retryParkedKeys(_ keys: Set<FoldKey>?) async -> ParkedRetryResult? {
        await withCheckedContinuation { continuation in
            let isRunning = state.withLock { state in
                guard state.begun, !state.ended else { return false }
                state.parkedKeyRetries.append(ParkedKeyRetry(keys: keys, continuation: continuation))
                return true
            }
            if isRunning { wake() } else { continuation.resume(returning: nil) }
        }
    }
    func nextParkedKeyRetry() -> ParkedKeyRetry? {
        state.withLock { $0.parkedKeyRetries.isEmpty ? nil : $0.parkedKeyRetries.removeFirst() }
    }
    var hasParkedKeyRetry: Bool { state.withLock { !$0.parkedKeyRetries.isEmpty } }
    func requestStop() {
        state.withLock { $0.stopRequested = true }
        wake()
    }
    func interruptStore() { state.withLock { $0.interrupter }?() }

    /// Returns when `run` has ended, or at once when it was never begun.
    func waitForEnd() async {
        await withCheckedContinuation { continuation in
            let already = state.withLock { state in
                if !state.begun || state.ended { return true }
                state.endWaiters.append(continuation)
                return false
            }
            if already { continuation.resume() }
        }
    }

    // MARK: Facts

    func begin(interrupter: @escaping @Sendable () -> Void) {
        let now = now()
        state.withLock {
            precondition(!$0.begun, "a projector runs once")
            $0.begun = true
            $0.begunAt = now
            $0.interrupter = interrupter
        }
    }

    func end() {
        heart.rest()
        let (ends, waiters, parkedKeyRetries) = state.withLock { state in
            state.ended = true
            state.interrupter = nil
            defer {
                state.endWaiters = []
                state.waiters = [:]
                state.parkedKeyRetries = []
            }
            return (state.endWaiters, Array(state.waiters.values), state.parkedKeyRetries)
        }
        for waiter in ends { waiter.resume() }
        for waiter in waiters { waiter.continuation.resume(returning: false) }
        for request in parkedKeyRetries { request.continuation.resume(returning: nil) }
    }

    /// These keys' events wait.
    func parked(_ keys: [ParkedKey]) { state.withLock { $0.parked = keys } }

    func paused() {
        state.withLock {
            $0.phase = .paused
            $0.lastError = nil
            $0.failingSince = nil
        }
    }

    func waiting(_ error: String, conflict: Bool) {
        state.withLock {
            $0.phase = .waiting
            $0.lastError = error
            $0.failingSince = $0.failingSince ?? .now
            if conflict { $0.conflicts += 1 }
        }
    }

    func failed(_ error: String) {
        state.withLock {
            $0.phase = .failed
            $0.lastError = error
            $0.failingSince = $0.failingSince ?? .now
        }
    }

    /// A pass began at a checkpoint.
    func begins(after position: Position?) { setVisible(position, receivedAt: nil, going: false) }

    func folded(_ count: Int) {
        let second = now().microseconds / 1_000_000
        state.withLock { $0.rate.add(count, at: second) }
    }

    /// Everything up to `position` is in the tables.
    func visible(_ position: Position?, receivedAt: Timestamp?) {
        setVisible(position, receivedAt: receivedAt, going: true)
    }

    func committed(rows: Int, took: Duration) {
        state.withLock {
            $0.transactions += 1
            $0.rowsWritten += UInt64(rows)
            $0.applySeconds.record(took / .seconds(1))
        }
    }

    /// Nothing durable is missing from the tables.
    func caughtUp() {
        let now = now()
        state.withLock {
            $0.caughtUpAt = now
            $0.phase = .going
            $0.lastError = nil
            $0.failingSince = nil
        }
    }

    private func setVisible(_ position: Position?, receivedAt: Timestamp?, going: Bool) {
        let reached = state.withLock { state in
            if going {
                state.phase = .going
                state.lastError = nil
                state.failingSince = nil
            }
            state.visible = position
            if let receivedAt { state.lastReceivedAt = receivedAt }
            guard let position, !state.waiters.isEmpty else { return [Waiter]() }
            let reached = state.waiters.filter { $0.value.position <= position }
            for id in reached.keys { state.waiters[id] = nil }
            return Array(reached.values)
        }
        for waiter in reached { waiter.continuation.resume(returning: true) }
    }

    // MARK: Questions

    /// Suspends until `position` is in the tables; false when the time is over or the projector ends first.
    func wait(for position: Position, timeout: Duration) async -> Bool {
        let id = state.withLock { state in
            defer { state.nextWaiter += 1 }
            return state.nextWaiter
        }
        let timer = Task {
            try? await Task.sleep(for: timeout)
            state.withLock { $0.waiters.removeValue(forKey: id) }?.continuation.resume(returning: false)
        }
        defer { timer.cancel() }
        return await withCheckedContinuation { continuation in
            let answer: Bool? = state.withLock { state in
                if let visible = state.visible, visible >= position { return true }
                if state.ended || timeout <= .zero { return false }
                state.waiters[id] = Waiter(position: position, continuation: continuation)
                return nil
            }
            if let answer { continuation.resume(returning: answer) }
        }
    }

    func status(name: String, version: Int, partition: Int, durableCount: UInt64) -> ProjectorStatus {
        let now = now()
        return state.withLock { state in
            let applied = state.visible.map { $0.rawValue + 1 } ?? 0
            let lag = durableCount > applied ? durableCount - applied : 0
            let since = [state.lastReceivedAt, state.caughtUpAt].compactMap { $0 }.max() ?? state.begunAt
            let seconds = since.map { max(0, now.secondsSinceEpoch - $0.secondsSinceEpoch) } ?? 0
            let phase: ProjectorStatus.State =
                switch state.phase {
                case .waiting: .waiting
                case .paused: .paused
                case .failed: .failed
                case .going: lag == 0 || seconds < 2 ? .running : .catchingUp
                }
            return ProjectorStatus(
                name: name, version: version, partition: partition, state: phase, position: state.visible,
                lagEvents: lag, lagSeconds: lag == 0 ? 0 : seconds,
                eventsPerSecond: state.rate.perSecond(at: now.microseconds / 1_000_000),
                lastError: state.lastError, parked: state.parked,
                transactions: state.transactions, rowsWritten: state.rowsWritten,
                checkpointConflicts: state.conflicts, applySeconds: state.applySeconds,
                failingSeconds: state.failingSince.map { (.now - $0) / .seconds(1) },
                overdueSeconds: heart.overdueSeconds)
        }
    }

    /// For what people see, never for rows: lag is measured by the clock that stamps what lags.
    private func now() -> Timestamp {
        if let clock { return clock() }
        return Timestamp(microseconds: SystemTime.wallMicroseconds())
    }
}
