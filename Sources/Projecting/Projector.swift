import EventLog
import EventModel
import Projections
import Threading

// Projecting: a `Projector` drives one projection's fold over one partition of the log into a store.
//
// Lifecycle: `run()` goes on until `stop()` or until its task is cancelled. It works in passes: read the
// checkpoint, make a new fold, follow the log, commit. Whatever goes wrong ends the pass; the next begins
// from the checkpoint again:
// - store unavailable: after 0.1 to 5 s, doubling, with jitter, for ever;
// - checkpoint moved by somebody else: soon, and it is counted;
// - checkpoint moved back under the rows, by hand: FAILED, see `StoreError.movedBack`;
// - rows refused: at once, and piece by piece, until it is known whose they are. Those keys are parked (see
//   Parking/ParkedKeys.swift), and the rest goes on;
// - tables refused, log damaged, rows of another version, checkpoint past the log's end: FAILED, and every 30 s
//   again.
//
// Invariants: rows and checkpoint move in one transaction; a position is reported as applied only when its
// rows are committed; nothing of a failed pass survives; memory is bounded by `ProjectorOptions`.

/// See the page above. Its thread is its own: a store or a log that blocks it blocks nobody else.
public actor Projector {
    public nonisolated let descriptor: ProjectionDescriptor
    public nonisolated let partition: Int
    private nonisolated let executor: ThreadExecutor
    private nonisolated let control: ProjectorControl
    private nonisolated let source: any LogSource
    private nonisolated let options: ProjectorOptions
    private let makeFold: @Sendable (FoldScope) -> any ProjectionFold
    /// The rows up to there were refused together: the next pass finds out whose they are.
    private var siftUntil: Position?
    private let makeStore: @Sendable () -> any ProjectionStore
    private let note: @Sendable (String) -> Void

    public nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    /// - Parameters:
    ///   - makeFold: a new fold without memory, over the keys of a scope.
    ///   - makeStore: called once, on the projector's thread, to which the store belongs.
    ///   - note: gets one line whenever something worth a log line happens. For any thread.
    public init(
        _ descriptor: ProjectionDescriptor, partition: Int = 0, source: any LogSource,
        options: ProjectorOptions = .init(),
        makeFold: @escaping @Sendable (FoldScope) -> any ProjectionFold,
        makeStore: @escaping @Sendable () -> any ProjectionStore,
        note: @escaping @Sendable (String) -> Void = { _ in }
    ) {
        self.descriptor = descriptor
        self.partition = partition
        self.source = source
        self.options = options
        var clock: (@Sendable () -> Timestamp)?
        if let log = source as? any LogWriter { clock = { log.now() } }
        control = ProjectorControl(clock: clock) { source.wakeWaiters() }
        self.makeFold = makeFold
        self.makeStore = makeStore
        self.note = note
        executor = ThreadExecutor(name: "p-" + descriptor.name)
    }

    /// Projects until `stop()`, or until the task is cancelled. To be called once.
    public func run() async {
        let store = makeStore()
        control.begin(interrupter: store.interrupter)
        await withTaskCancellationHandler {
            await runPasses(store)
        } onCancel: {
            requestStop()
        }
        control.end()
    }

    /// Commits what is folded and ends; returns when `run` has returned. A store that hangs is interrupted.
    public nonisolated func stop() async {
        requestStop()
        await control.waitForEnd()
    }

    /// Commits what is folded, then holds until `resume()`. Takes effect behind the running transaction.
    public nonisolated func pause() { control.requestPause(true) }
    public nonisolated func resume() { control.requestPause(false) }

    /// Ends the pause after a failure: what caused it was mended. Does nothing to a projector that runs.
    public nonisolated func retryNow() { control.requestRetry() }

    /// Makes an idle projector compare its checkpoint with the store's: the store restarted, or its checkpoint changed.
    /// One that is not idle notices with its next commit.
    public nonisolated func confirm() { control.requestConfirmation() }

    /// Folds what waits for these parked keys (nil: for all), and unparks those whose rows are now taken. The projector
    /// goes on when that is done. Nil when it does not run.
    public nonisolated func retryParked(_ keys: Set<FoldKey>? = nil) async -> ParkedRetryResult? {
        await control.retryParkedKeys(keys)
    }

    public nonisolated var status: ProjectorStatus {
        control.status(
            name: descriptor.name, version: descriptor.version, partition: partition,
            durableCount: source.durableCount)
    }

    /// Suspends until `position`'s effect stands in the tables. False when the time is over, or the projector
    /// ended, first.
    public nonisolated func waitUntilApplied(_ position: Position, timeout: Duration) async -> Bool {
        await control.wait(for: position, timeout: timeout)
    }

    private nonisolated func requestStop() {
        control.requestStop()
        let (control, patience) = (control, options.stopPatience)
        Task.detached {
            try? await Task.sleep(for: patience)
            if !control.hasEnded { control.interruptStore() }
        }
    }

    private func runPasses(_ store: any ProjectionStore) async {
        var backoff = RetryBackoff(max: options.backoffMax)
        while !control.stopRequested {
            if let request = control.nextParkedKeyRetry() {
                // Folds a key's whole history: as long as that takes.
                control.heart.rest()
                request.continuation.resume(returning: retry(request.keys, store))
                continue
            }
            if control.pauseRequested {
                control.paused()
                await rest(.milliseconds(50)) { !self.control.hasParkedKeyRetry }
                continue
            }
            control.heart.beat(within: ProjectorControl.callSeconds)
            let transactions = status.transactions
            let problem = runPass(store)
            if status.transactions != transactions { backoff.reset() }
            guard let problem, !control.stopRequested else { continue }
            let delay = report(problem, &backoff)
            // `pause` then `resume` is how a person says "try now".
            await rest(delay) {
                !self.control.pauseRequested && !self.control.takeRetry() && !self.control.hasParkedKeyRetry
            }
        }
    }

    private enum Problem {
        case unavailable(String), moved(String), failed(String)
    }

    /// Nil when it yielded.
    private func runPass(_ store: any ProjectionStore) -> Problem? {
        var folded: String?, end: Position?
        do {
            var pass = try ProjectionPass(
                source: source, descriptor: descriptor, makeFold: makeFold, store: store, partition: partition,
                options: options, control: control)
            defer { (folded, end) = (pass.uncommitted, pass.end) }
            if let until = siftUntil {
                siftUntil = nil
                try isolate(&pass, until)
            }
            try pass.run()
            return nil
        } catch StoreError.unavailable(let text) {
            return .unavailable(text)
        } catch StoreError.checkpointMoved(let text) {
            return .moved(text)
        } catch StoreError.refusedRows(let text) {
            guard store is any ParkingStore, let end else { return .failed(text) }
            siftUntil = end
            return nil
        } catch StoreError.refused(let text) {
            return .failed(folded.map { "\($0): \(text)" } ?? text)
        } catch {
            return .failed("\(error)")
        }
    }

    private func isolate(_ pass: inout ProjectionPass, _ end: Position) throws {
        let before = status.parked
        try pass.isolate(until: end)
        for parked in status.parked where !before.contains(parked) {
            note(
                "projection \(descriptor.name): \(parked.key) is parked from position \(parked.position) on, since its "
                    + "rows were refused: \(parked.reason)")
        }
    }

    private func retry(_ keys: Set<FoldKey>?, _ store: any ProjectionStore) -> ParkedRetryResult {
        guard let store = store as? any ParkingStore else { return ParkedRetryResult() }
        do {
            let result = try ParkedRetry(
                source: source, store: store, descriptor: descriptor, partition: partition, makeFold: makeFold,
                options: options
            ).run(keys) { !control.stopRequested }
            control.parked(try store.parked(of: descriptor, partition: partition))
            if !result.unparked.isEmpty {
                note("projection \(descriptor.name): nothing waits any more for \(result.unparked.count) parked keys")
            }
            return result
        } catch {
            var result = ParkedRetryResult()
            result.error = "\(error)"
            return result
        }
    }

    private func report(_ problem: Problem, _ backoff: inout RetryBackoff) -> Duration {
        let previous = status.lastError
        let text: String, delay: Duration
        switch problem {
        case .unavailable(let why):
            (text, delay) = (why, backoff.next())
            control.waiting(why, conflict: false)
        case .moved(let why):
            (text, delay) = (why, backoff.next())
            control.waiting(why, conflict: true)
        case .failed(let why):
            (text, delay) = (why, options.failedRetry)
            control.failed(why)
        }
        if text != previous { note("projection \(descriptor.name): \(text)") }
        return delay
    }

    /// Rests without holding the thread, in slices, so that a stop need not wait for its end.
    private func rest(_ duration: Duration, while goOn: () -> Bool) async {
        let end = ContinuousClock.now + duration
        while ContinuousClock.now < end, !control.stopRequested, goOn() {
            control.heart.beat(within: ProjectorControl.roundSeconds)
            try? await Task.sleep(for: min(.milliseconds(50), end - ContinuousClock.now))
        }
    }
}

/// Doubling pauses from 0.1 s on, each shortened by up to a half at random, so that many do not come back at
/// once.
struct RetryBackoff {
    private let max: Duration
    private var current = Self.first
    private static let first = Duration.milliseconds(100)

    init(max: Duration) { self.max = max }

    mutating func next() -> Duration {
        let pause = Swift.min(current, max)
        current = Swift.min(current * 2, max)
        return pause * Double.random(in: 0.5...1)
    }

    mutating func reset() { current = Self.first }
}
