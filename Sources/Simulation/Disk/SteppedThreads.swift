import EventLog
import Synchronization

/// The log's background work, collected: whoever holds this decides when a step is taken, and of what.
/// One thread steps; not for use from several at once.
public final class SteppedThreads: LogThreads {
    private struct State {
        var running: [SteppedThread] = []
    }
    private let state = Mutex(State())

    public init() {}

    public func start(name: String, niceness: Int, _ work: any LogWork) -> any LogThread {
        let thread = SteppedThread(name: name, work: work)
        state.withLock { $0.running.append(thread) }
        return thread
    }

    /// The names of what is not finished, in the order in which it was started.
    public var names: [String] { state.withLock { $0.running.map(\.name) } }

    /// Takes one step of the `index`-th.
    @discardableResult
    public func step(_ index: Int) -> LogWorkStep {
        let thread = state.withLock { $0.running[index] }
        let result = thread.step()
        if result == .finished { state.withLock { $0.running.removeAll { $0 === thread } } }
        return result
    }

    /// Steps everything until nothing has anything to do.
    public func stepUntilIdle() {
        var worked = true
        while worked {
            worked = false
            for index in names.indices.reversed() where step(index) == .worked { worked = true }
        }
    }

    /// Forgets everything: its process is gone.
    public func abandon() { state.withLock { $0.running = [] } }
}

private final class SteppedThread: LogThread {
    let name: String
    private let work: any LogWork
    private let finished = Atomic(false)

    init(name: String, work: any LogWork) {
        self.name = name
        self.work = work
    }

    func step() -> LogWorkStep {
        if finished.load(ordering: .relaxed) { return .finished }
        let result = work.step()
        if result == .finished { finished.store(true, ordering: .relaxed) }
        return result
    }

    func waitUntilFinished() {
        while step() != .finished {}
    }
}
