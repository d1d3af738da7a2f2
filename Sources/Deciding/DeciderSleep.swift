import EventLog
import Threading

/// Lets a decider's own thread sleep until something concerns it: a job of its actor, the log's growth, a time, or
/// `wake`. Blocks the thread: for one that has an executor of its own.
public final class DeciderSleep: Sendable {
    private let source: any LogSource
    private let executor: ThreadExecutor
    private let isWoken = Monitor(false)

    /// - Parameter executor: of the actor that sleeps.
    public init(source: any LogSource, executor: ThreadExecutor) {
        (self.source, self.executor) = (source, executor)
        executor.onEnqueue { [weak self] in self?.lookAgain() }
    }

    /// Ends the present sleep, or the next one.
    public func wake() {
        isWoken.withLock { $0 = true }
        lookAgain()
    }

    /// - Parameter count: the log has grown when it holds more events; nil: whatever the log does.
    public func sleep(milliseconds: Int, untilLogHasMoreThan count: UInt64?) {
        if let count {
            _ = source.waitForDurable(beyond: count, timeoutMilliseconds: milliseconds) {
                executor.hasJobs || isWoken.withLock { $0 }
            }
        } else {
            _ = isWoken.wait(atMostMilliseconds: milliseconds) { $0 || executor.hasJobs ? true : nil }
        }
        isWoken.withLock { $0 = false }
    }

    /// Rests for so long, or until a job of its actor waits; leaves what `wake` said to the next sleep.
    public func pause(milliseconds: Int) {
        _ = isWoken.wait(atMostMilliseconds: milliseconds) { _ in executor.hasJobs ? true : nil }
    }

    private func lookAgain() {
        // Under the lock: who has looked and does not wait yet would miss it.
        isWoken.withLock { _ in }
        isWoken.wakeAll()
        source.wakeWaiters()
    }
}
