import Decisions
import EventLog
import EventModel
import Primitives
import Synchronization
import Threading

/// A decider that runs: an actor with a thread of its own, because appending and reading block. It executes requests
/// one at a time, and decides what time, devices' messages and acknowledgements bring about.
public actor DeciderService<D: Decider> {
    private let runtime: DeciderRuntime<D>
    private let outbox: (any Outbox)?
    private let clock: @Sendable () -> Timestamp
    private let onChange: @Sendable (D?) -> Void
    private let executor = ThreadExecutor(name: D.storedName)
    private let sleep: DeciderSleep
    /// Acknowledgements received since the last step.
    private let acknowledged = Mailbox<Delivery>()

    public nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    /// Least time between two rounds: what arrives together is decided together.
    private static var roundMicros: Int64 { 50_000 }
    /// Limits the backlog that a request must fold first, and the delay after a suspend: the monotonic clock stops.
    private static var sleepMillisecondsMax: Int { 5_000 }
    /// Of a decider without deadlines whose requests need not fold others' events (`Decider.commonSubject`).
    private static var idleMillisecondsMax: Int { 3_600_000 }
    /// After a failure.
    private static var pauseMicros: Int64 { 2_000_000 }

    /// - Parameters:
    ///   - writer: shared by all deciders of the log.
    ///   - clock: gives the time that decisions are stamped with; the log raises it where it must.
    ///   - outbox: carries deliveries to devices; nil: nothing is sent (and all is decided all the same).
    ///   - follower: keeps what other threads read of the state; called on the decider's thread.
    ///   - snapshot: returns the state saved in the newest snapshot; nil when there is none.
    ///   - onChange: called when the state may have changed; with nil when it was lost, because the log cannot be read.
    ///     A copy that it keeps makes the next change copy what both share.
    public init(
        writer: DecisionWriter, source: any LogSource, clock: @escaping @Sendable () -> Timestamp,
        outbox: (any Outbox)? = nil, follower: (any DecisionFollower<D>)? = nil,
        snapshot: @escaping @Sendable () -> DeciderSnapshot<D>? = { nil },
        onChange: @escaping @Sendable (D?) -> Void = { _ in }
    ) {
        runtime = DeciderRuntime(
            writer: writer, source: source, clock: clock, outbox: outbox, follower: follower, snapshot: snapshot)
        (self.outbox, self.clock, self.onChange) = (outbox, clock, onChange)
        sleep = DeciderSleep(source: source, executor: executor)
    }

    /// The state, refolded the first time it is asked for: from a snapshot on where there is one, else from the log's
    /// beginning.
    /// - Throws: `LogError`, `UnreadableDecision`.
    @discardableResult
    public func recover() throws -> D {
        defer { onChange(runtime.state) }
        return try runtime.recover()
    }

    /// Decides, appends, and answers when the decision is durable. What follows from it is decided by `run`.
    /// - Throws: as `DeciderRuntime.execute`.
    public func execute(_ request: D.Request) throws -> D.Answer {
        // What is durable counts, also where the answer fails.
        defer { onChange(runtime.state) }
        return try runtime.execute(request)
    }

    /// Reads from the state as of now.
    /// - Throws: what `body` throws; as `recover`.
    public func query<R: Sendable>(_ body: @Sendable (D) throws -> R) throws -> R {
        try runtime.catchUp()
        return try body(runtime.recover())
    }

    /// Decides and sends until the task is cancelled. Sleeps while neither the log grows nor anything is due.
    /// - Parameter report: called with each failure, and with nil after recovery. It retries every 2 s, and returns
    ///   when the log has failed for good.
    public func run(report: @escaping @Sendable ((any Error)?) -> Void) async {
        outbox?.onAcknowledged { [acknowledged, sleep] deliveries in
            acknowledged.put(deliveries)
            sleep.wake()
        }
        await withTaskCancellationHandler {
            await decide(report)
        } onCancel: { [sleep] in
            sleep.stop()
        }
        guard runtime.isAlive else { return }
        do {
            runtime.note(acknowledged.take())
            try runtime.conclude()
        } catch {
            // They are sent once more after the next start, with the same ids.
            report(error)
        }
    }

    private func decide(_ report: ((any Error)?) -> Void) async {
        var hasFailed = false
        while !Task.isCancelled {
            let began = SystemTime.monotonicMicroseconds()
            do {
                defer { onChange(runtime.state) }
                if !runtime.isAlive { try runtime.resume() }
                runtime.note(acknowledged.take())
                try runtime.step()
            } catch {
                report(error)
                hasFailed = true
                if case .failed? = error as? AppendError { return }
                await pause(untilMicros: began + Self.pauseMicros)
                continue
            }
            if hasFailed { report(nil) }
            hasFailed = false
            let wantsMessages = runtime.state?.wantsMessages ?? false
            sleep.sleep(
                milliseconds: millisecondsToNextDecision(),
                untilLogHasMoreThan: wantsMessages ? runtime.end.rawValue : nil)
            await Task.yield()
            await pause(untilMicros: began + Self.roundMicros)
        }
    }

    private func millisecondsToNextDecision() -> Int {
        guard let due = runtime.nextDeadline() else {
            return D.commonSubject == nil ? Self.sleepMillisecondsMax : Self.idleMillisecondsMax
        }
        let left = due.microseconds.saturatingSubtracting(clock().microseconds)
        return Int(clamping: max(0, min(left / 1_000 + 1, Int64(Self.sleepMillisecondsMax))))
    }

    /// Requests are executed meanwhile.
    private func pause(untilMicros end: Int64) async {
        while !Task.isCancelled {
            let left = end - SystemTime.monotonicMicroseconds()
            guard left > 0 else { return }
            sleep.pause(milliseconds: Int(left / 1_000) + 1)
            await Task.yield()
        }
    }
}

/// Queue with many producers and one consumer.
private final class Mailbox<Element: Sendable>: Sendable {
    private let waiting = Mutex<[Element]>([])

    func put(_ elements: [Element]) { waiting.withLock { $0 += elements } }

    func take() -> [Element] {
        waiting.withLock { waiting in
            defer { waiting = [] }
            return waiting
        }
    }
}
