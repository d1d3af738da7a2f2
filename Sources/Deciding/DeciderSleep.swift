import EventLog
import Threading

/// Lets a decider's own thread sleep until something concerns it: a job of its actor, the log's growth, a time, or
/// `wake`. Blocks the thread: for one that has an executor of its own.
public final class DeciderSleep: Sendable {
    private struct State {
        var isWoken = false
        var isStopped = false
        /// It waits for the log to grow.
        var isAtLog = false
    }
    private let source: any LogSource
    private let executor: ThreadExecutor
    private let state = Monitor(State())

    /// - Parameter executor: of the actor that sleeps.
    public init(source: any LogSource, executor: ThreadExecutor) {
        (self.source, self.executor) = (source, executor)
        executor.onEnqueue { [weak self] in self?.lookAgain { _ in } }
    }

    /// Ends the present sleep, or the next one.
    public func wake() { lookAgain { $0.isWoken = true } }

    /// Ends every sleep and pause from now on.
    public func stop() { lookAgain { $0.isStopped = true } }

    /// Sleeps for at most so long, until a job, `wake` or `stop`.
    /// - Parameter count: also until the log holds more events than this; nil: ignores the log.
    public func sleep(milliseconds: Int, untilLogHasMoreThan count: UInt64?) {
        if let count {
            state.withLock { $0.isAtLog = true }
            _ = source.waitForDurable(beyond: count, timeoutMilliseconds: milliseconds) {
                executor.hasJobs || state.withLock { $0.isWoken || $0.isStopped }
            }
        } else {
            _ = state.wait(atMostMilliseconds: milliseconds) {
                $0.isWoken || $0.isStopped || executor.hasJobs ? true : nil
            }
        }
        state.withLock { ($0.isWoken, $0.isAtLog) = (false, false) }
    }

    /// As `sleep`, but ignores the log and `wake`, which ends the next sleep.
    public func pause(milliseconds: Int) {
        _ = state.wait(atMostMilliseconds: milliseconds) { $0.isStopped || executor.hasJobs ? true : nil }
    }

    private func lookAgain(_ change: (inout State) -> Void) {
        // Under the lock: a sleeper between its check and its wait would miss it.
        let isAtLog = state.withLock {
            change(&$0)
            return $0.isAtLog
        }
        state.wakeAll()
        if isAtLog { source.wakeWaiters() }
    }
}
