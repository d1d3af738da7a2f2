// Threading: threads, and how they wait.
//
//     ThreadExecutor   one thread for an actor that blocks
//     ServiceThread    the thread of a background service: started, stopped, joined
//     Monitor          a value under a lock, with a condition to wait on
//     ReadWriteLock    many readers or one writer
//     Heartbeat        reports a thread that no longer moves
//
// Blocking C (libpq, fdatasync, libmosquitto's loop) must not run on Swift's cooperative pool: it has one thread a
// core, and a blocked one is lost to everybody. An actor that calls such code has an executor of its own.

import CPlatform
import Glibc

/// A thread of its own for one actor, as its serial executor. The thread ends when the executor is released.
public final class ThreadExecutor: SerialExecutor {
    private let queue: JobQueue

    /// `name` is what `ps -L` and `perf` show; the kernel keeps its first 15 bytes.
    public init(name: String) {
        let queue = JobQueue()
        self.queue = queue
        startThread(name: name) {
            while let job = queue.next() {
                job.run()
            }
        }
    }

    deinit { queue.close() }

    /// `body` is called on the enqueuing thread after each job, so that a job that blocks the executor can make room.
    public func onEnqueue(_ body: @escaping @Sendable () -> Void) { queue.onAdd(body) }

    /// Jobs wait for the one that runs.
    public var hasJobs: Bool { !queue.isEmpty }

    /// Blocks the executor's thread for so long, or until a job or `wake`: called by a job, which then suspends to let
    /// the others run. Unlike `Task.sleep`, it costs one wake-up.
    public func rest(milliseconds: Int) { queue.rest(milliseconds: milliseconds) }

    /// Ends the present rest, or the next one.
    public func wake() { queue.wake() }

    public func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        let executor = asUnownedSerialExecutor(), queue = queue
        // The job may release this executor, before `add` returns.
        queue.add { job.runSynchronously(on: executor) }
    }

    public func asUnownedSerialExecutor() -> UnownedSerialExecutor { UnownedSerialExecutor(ordinary: self) }
}

struct Job: Sendable {
    let run: @Sendable () -> Void
}

/// A blocking queue: `add` from any thread, `next` from the one that works.
final class JobQueue: Sendable {
    private struct State: Sendable {
        var jobs: [Job] = []
        var head = 0
        var isClosed = false
        /// The present rest ends, or else the next one.
        var isWoken = false
        var onAdd: (@Sendable () -> Void)?

        var isEmpty: Bool { head == jobs.count }
    }
    private let state = Monitor(State())

    func add(_ run: @escaping @Sendable () -> Void) {
        let onAdd = state.withLock { state in
            state.jobs.append(Job(run: run))
            return state.onAdd
        }
        state.wakeOne()
        onAdd?()
    }

    /// `body` is called after each `add`, by its caller.
    func onAdd(_ body: @escaping @Sendable () -> Void) { state.withLock { $0.onAdd = body } }

    var isEmpty: Bool { state.withLock { $0.isEmpty } }

    /// Blocks until there is a job; nil once closed and empty.
    func next() -> Job? {
        state.wait { state -> Job?? in
            guard !state.isEmpty else { return state.isClosed ? .some(nil) : nil }
            let job = state.jobs[state.head]
            state.head += 1
            if state.isEmpty {
                state.jobs.removeAll(keepingCapacity: true)
                state.head = 0
            }
            return job
        }
    }

    /// Blocks until there is a job, or for so long. Called by the thread that works.
    func rest(milliseconds: Int) {
        _ = state.wait(atMostMilliseconds: milliseconds) { $0.isWoken || !$0.isEmpty ? true : nil }
        state.withLock { $0.isWoken = false }
    }

    func wake() {
        state.withLock { $0.isWoken = true }
        state.wakeOne()
    }

    func close() {
        state.withLock { $0.isClosed = true }
        state.wakeOne()
    }
}

/// Starts a detached thread that runs `body` once. `name` is cut to the kernel's 15 bytes.
///
/// A limit on threads (RLIMIT_NPROC, the `pids` controller of a cgroup) is a condition from outside: it is waited for,
/// and after 10 s the process ends with a message and exit code 1, since its parts cannot run without their threads.
public func startThread(name: String, _ body: @escaping @Sendable () -> Void) {
    for _ in 0..<200 {
        if tryStartThread(name: name, body) { return }
        usleep(50_000)
    }
    endProcess("cannot start the thread \(name): too many threads (limits: ulimit -u, TasksMax)")
}

/// Starts a detached thread; false when the system has no room for one.
public func tryStartThread(name: String, _ body: @escaping @Sendable () -> Void) -> Bool {
    let box = Unmanaged.passRetained(ThreadBody(name: String(name.utf8.prefix(15)) ?? "refold", run: body))
    var thread = pthread_t()
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
    let result = pthread_create(
        &thread, &attributes,
        { argument in
            guard let argument else { return nil }
            let body = Unmanaged<ThreadBody>.fromOpaque(argument).takeRetainedValue()
            refold_set_thread_name(body.name)
            body.run()
            return nil
        }, box.toOpaque())
    pthread_attr_destroy(&attributes)
    if result != 0 { box.release() }
    return result == 0
}

/// Ends the process at once with a message on standard error and exit code 1: for conditions from outside without
/// which nothing can go on. Does not wait for a reader of standard error that does not read.
public func endProcess(_ message: String) -> Never {
    var wanted = pollfd(fd: 2, events: Int16(POLLOUT), revents: 0)
    if poll(&wanted, 1, 100) > 0 {
        let line = "refold: \(message)\n"
        _ = line.utf8CString.withUnsafeBytes { write(2, $0.baseAddress, $0.count - 1) }
    }
    _exit(1)
}

/// Makes the calling thread give way to others: nice(2) is per thread on Linux. `by` more is weaker, 19 at most.
public func lowerPriority(by: Int) { _ = setpriority(.init(PRIO_PROCESS.rawValue), 0, Int32(by)) }

private final class ThreadBody: Sendable {
    let name: String
    let run: @Sendable () -> Void
    init(name: String, run: @escaping @Sendable () -> Void) {
        self.name = name
        self.run = run
    }
}

/// Runs blocking `body` on a thread of its own and suspends the caller meanwhile. For rare calls (DNS, start-up).
public func onOwnThread<T: Sendable>(_ name: String, _ body: @escaping @Sendable () throws -> T) async throws -> T {
    try await withCheckedThrowingContinuation { continuation in
        let isStarted = tryStartThread(name: name) { continuation.resume(with: Result { try body() }) }
        if !isStarted { continuation.resume(throwing: ThreadError(name: name)) }
    }
}

/// The system has no room for another thread.
public struct ThreadError: Error, CustomStringConvertible {
    public let name: String
    public var description: String {
        "cannot start a thread for \(name): too many threads (limits: ulimit -u, TasksMax of the unit)"
    }
}
