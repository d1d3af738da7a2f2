// Blocking C (libpq, fdatasync, libmosquitto's loop) must not run on Swift's cooperative pool: it has one thread a
// core, and a blocked one is lost to everybody. An actor that calls such code gives itself one of these executors.

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif
import CPlatform

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

    public func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        let executor = asUnownedSerialExecutor()
        queue.add { job.runSynchronously(on: executor) }
    }

    public func asUnownedSerialExecutor() -> UnownedSerialExecutor { UnownedSerialExecutor(ordinary: self) }
}

struct Job: Sendable {
    let run: @Sendable () -> Void
}

/// A blocking queue: `add` from any thread, `next` from the one that works.
/// `@unchecked Sendable`: every access to `jobs` and `closed` is under the mutex that the condition variable needs.
final class JobQueue: @unchecked Sendable {
    private var mutex = pthread_mutex_t()
    private var condition = pthread_cond_t()
    private var jobs: [Job] = []
    private var head = 0
    private var closed = false

    init() {
        precondition(pthread_mutex_init(&mutex, nil) == 0 && pthread_cond_init(&condition, nil) == 0)
    }

    deinit {
        pthread_cond_destroy(&condition)
        pthread_mutex_destroy(&mutex)
    }

    func add(_ run: @escaping @Sendable () -> Void) {
        pthread_mutex_lock(&mutex)
        jobs.append(Job(run: run))
        pthread_mutex_unlock(&mutex)
        pthread_cond_signal(&condition)
    }

    /// Blocks until there is a job; nil once closed and empty.
    func next() -> Job? {
        pthread_mutex_lock(&mutex)
        defer { pthread_mutex_unlock(&mutex) }
        while head == jobs.count {
            if closed { return nil }
            pthread_cond_wait(&condition, &mutex)
        }
        let job = jobs[head]
        head += 1
        if head == jobs.count {
            jobs.removeAll(keepingCapacity: true)
            head = 0
        }
        return job
    }

    func close() {
        pthread_mutex_lock(&mutex)
        closed = true
        pthread_mutex_unlock(&mutex)
        pthread_cond_signal(&condition)
    }
}

/// Starts a detached thread that runs `body` once. `name` is cut to the kernel's 15 bytes.
public func startThread(name: String, _ body: @escaping @Sendable () -> Void) {
    let box = Unmanaged.passRetained(ThreadBody(name: String(name.utf8.prefix(15)) ?? "refold", run: body))
    var thread = pthread_t()
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
    let result = pthread_create(&thread, &attributes, { argument in
        let body = Unmanaged<ThreadBody>.fromOpaque(argument!).takeRetainedValue()
        refold_set_thread_name(body.name)
        body.run()
        return nil
    }, box.toOpaque())
    pthread_attr_destroy(&attributes)
    precondition(result == 0, "cannot start the thread \(name): \(String(cString: strerror(result)))")
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
        startThread(name: name) { continuation.resume(with: Result { try body() }) }
    }
}
