import Threading

// The seam for whatever the log does beside its callers: in production a thread each, in the simulation steps that a
// seeded scheduler takes one by one.

/// Where the log's background work runs.
public protocol LogThreads: Sendable {
    /// Takes `work`'s steps, one after the other, until one says `.finished`. `niceness`: 0 for as important as
    /// everything else, 10 for what may wait (nice(2), of that thread alone).
    func start(name: String, niceness: Int, _ work: any LogWork) -> any LogThread
}

/// Work in steps. Between two steps nothing of it is half done: other work may go on.
public protocol LogWork: AnyObject, Sendable {
    /// Does a bounded piece of work. May wait for the disk, and for nothing else.
    func step() -> LogWorkStep
    /// Blocks until `step` may find something to do. A simulation never calls it.
    func wait()
}

public enum LogWorkStep: Sendable {
    /// There may be more.
    case worked
    /// There is nothing to do for now.
    case idle
    /// There never will be: no more steps.
    case finished
}

/// Work that was started.
public protocol LogThread: AnyObject, Sendable {
    /// Blocks until a step said `.finished`; a simulation takes the steps there and then. The work must have been told
    /// to end.
    func waitUntilFinished()
}

/// Real threads.
public struct SystemThreads: LogThreads {
    public init() {}

    public func start(name: String, niceness: Int, _ work: any LogWork) -> any LogThread {
        let thread = StartedThread()
        startThread(name: name) {
            if niceness > 0 { lowerPriority(by: niceness) }
            while true {
                switch work.step() {
                case .worked: continue
                case .idle: work.wait()
                case .finished: return thread.finish()
                }
            }
        }
        return thread
    }
}

private final class StartedThread: LogThread {
    private let finished = Monitor(false)

    func finish() {
        finished.withLock { $0 = true }
        finished.wakeAll()
    }

    func waitUntilFinished() { finished.wait { $0 ? () : nil } }
}
