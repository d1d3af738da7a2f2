// Working: the queue's commands from operators and workers, and the workers that are a part of the daemon.
//
//     JobService     merges commands into commits; leases, long polls, rescue
//     LeaseTable     until when attempts may run
//     JobRunner      workers in the daemon: leases, runs handlers, reports
//     JobHandler     what a kind of job does
//
// Invariants. A worker gets a job when its start is durable. A lease's end is no fact of the log: the rescue that
// follows is.
import Deciding
import Decisions
import EventModel
import Jobs
import Primitives

/// A worker that was heard of.
public struct WorkerStatus: Sendable, Equatable {
    public let name: String
    public let isRemote: Bool
    public let queues: Set<JobQueue>
    /// Nil: any.
    public let kinds: Set<String>?
    public let lastSeen: Timestamp
    public let running: [JobSummary]
}

/// Takes commands from many tasks and decides what came together in one commit.
public actor JobService {
    private let queues: DeciderService<JobQueues>
    private let clock: @Sendable () -> Timestamp
    private var inbox: [Entry] = []
    private var isPumping = false
    private var polls: [Poll] = []
    private var nextPoll = 0
    private var leases = LeaseTable()
    private var workers: [String: (lease: LeaseRequest, at: Timestamp)] = [:]
    private var timer: Task<Void, Never>?
    /// The attempts of the process before are rescued: from here on attempts without a lease are this process's.
    private var isReady = false
    /// When the next lease ends, and what sleeps until then.
    private var dueAt = Int64.max
    private var dueSleep: Task<Void, Never>?

    private struct Entry {
        let request: JobRequest
        let continuation: CheckedContinuation<JobAnswer, any Error>
    }

    /// A lease that waits for jobs.
    private struct Poll {
        let number: Int
        let lease: LeaseRequest
        /// A time before the decision that nothing could start.
        let since: Timestamp
        let continuation: CheckedContinuation<Void, Never>
    }

    /// Commands in one commit.
    private static let batchMax = 256
    private static let workersMax = 1_000

    /// - Parameter clock: the log's.
    public init(queues: DeciderService<JobQueues>, clock: @escaping @Sendable () -> Timestamp) {
        (self.queues, self.clock) = (queues, clock)
    }

    /// The log's time.
    public nonisolated func now() -> Timestamp { clock() }

    // MARK: Commands

    /// Decides, and answers when the decision is durable.
    /// - Throws: as `DeciderRuntime.execute`.
    public func execute(_ request: JobRequest) async throws -> JobAnswer {
        try await withCheckedThrowingContinuation { continuation in
            inbox.append(Entry(request: request, continuation: continuation))
            guard !isPumping else { return }
            isPumping = true
            Task { await self.pump() }
        }
    }

    public func query<R: Sendable>(_ body: @Sendable (JobQueues) throws -> R) async throws -> R {
        try await queues.query(body)
    }

    private func pump() async {
        while !inbox.isEmpty {
            let entries = Array(inbox.prefix(Self.batchMax))
            inbox.removeFirst(entries.count)
            do {
                let answers = try await queues.execute(JobBatch(entries.map(\.request)))
                var deferred: [Entry] = []
                for (entry, answer) in zip(entries, answers) {
                    if answer == .deferred { deferred.append(entry) } else { deliver(answer, to: entry) }
                }
                inbox = deferred + inbox
            } catch {
                for entry in entries { entry.continuation.resume(throwing: error) }
            }
        }
        isPumping = false
        setTimer()
    }

    private func deliver(_ answer: JobAnswer, to entry: Entry) {
        switch (entry.request.command, answer) {
        case (.lease(let lease), .leased(let jobs)):
            let now = SystemTime.monotonicMicroseconds()
            var due = Int64.max
            for job in jobs {
                due = min(
                    due,
                    leases.add(
                        job.attempt, worker: lease.worker, leaseSeconds: lease.leaseSeconds,
                        timeoutSeconds: job.timeoutSeconds, now: now))
            }
            if due < dueAt { dueSleep?.cancel() }
        case (.report(let reports, _), .reported):
            for report in reports { leases.remove(report.attempt) }
            wakePolls()
        case (.lease, _): break
        default: wakePolls()
        }
        entry.continuation.resume(returning: answer)
    }

    // MARK: Workers

    /// Starts jobs for a worker.
    /// - Parameter wait: where none can start, so long until one can; then none.
    /// - Returns: the answer to the lease: `.leased`, or why it was refused.
    /// - Throws: as `execute`.
    public func lease(_ lease: LeaseRequest, wait: Duration = .zero) async throws -> JobAnswer {
        note(lease)
        let end = ContinuousClock.now + wait
        while true {
            let changes = changeCount, since = clock()
            let answer =
                isReady || lease.leaseSeconds != nil
                ? try await execute(JobRequest(command: .lease(lease))) : .leased([])
            guard case .leased(let jobs) = answer, jobs.isEmpty, ContinuousClock.now < end, !Task.isCancelled
            else { return answer }
            if changes == changeCount { await poll(lease, since: since, until: end) }
            note(lease)
        }
    }

    /// Extends leases.
    /// - Returns: the attempts that the worker no longer has: it should stop them.
    public func heartbeat(worker: String, _ attempts: [JobAttempt]) async throws -> [JobAttempt] {
        if let known = workers[worker] { workers[worker] = (known.lease, clock()) }
        let now = SystemTime.monotonicMicroseconds()
        // Before `takeOver` the table is empty; the state has every attempt.
        let lost = !isReady ? [] : Set(leases.heartbeat(attempts, worker: worker, now: now))
        // A cancelled attempt has a lease until it is over.
        let running = try await query { state in
            attempts.filter { state.running[$0.id]?.token == $0.token && state.running[$0.id]?.worker == worker }
        }
        return attempts.filter { lost.contains($0) || !running.contains($0) }
    }

    public func workerStatuses() async throws -> [WorkerStatus] {
        let running = try await query { state in
            state.running.keys.sorted().compactMap { state.job($0) }
        }
        return workers.values.map { lease, at in
            WorkerStatus(
                name: lease.worker, isRemote: lease.leaseSeconds != nil, queues: lease.queues, kinds: lease.kinds,
                lastSeen: at, running: running.filter { $0.running?.worker == lease.worker })
        }.sorted { $0.name < $1.name }
    }

    private func note(_ lease: LeaseRequest) {
        if workers[lease.worker] == nil, workers.count >= Self.workersMax,
            let oldest = workers.min(by: { $0.value.at < $1.value.at })
        {
            workers[oldest.key] = nil
        }
        workers[lease.worker] = (lease, clock())
    }

    // MARK: Long polls

    /// Counts what may let a job start.
    private var changeCount = 0

    private func poll(_ lease: LeaseRequest, since: Timestamp, until end: ContinuousClock.Instant) async {
        let number = nextPoll
        nextPoll += 1
        let timeOut = Task {
            try? await Task.sleep(until: end, clock: .continuous)
            self.endPoll(number)
        }
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                if Task.isCancelled { return continuation.resume() }
                polls.append(Poll(number: number, lease: lease, since: since, continuation: continuation))
                setTimer()
            }
        } onCancel: {
            Task { await self.endPoll(number) }
        }
        timeOut.cancel()
    }

    private func endPoll(_ number: Int) {
        guard let index = polls.firstIndex(where: { $0.number == number }) else { return }
        polls.remove(at: index).continuation.resume()
    }

    private func wakePolls() {
        changeCount += 1
        let waiting = polls
        polls = []
        for poll in waiting { poll.continuation.resume() }
    }

    // MARK: Time

    /// Rescues the attempts of the process before, then those whose leases end, until the task is cancelled.
    /// - Parameter report: called with each failure, and with nil after recovery.
    public func run(report: @escaping @Sendable ((any Error)?) -> Void) async {
        while !Task.isCancelled {
            var hasFailed = false
            do {
                if !isReady { try await takeOver() }
                try await endOverdue()
                report(nil)
            } catch {
                report(error)
                hasFailed = true
            }
            await sleepUntilDue(hasFailed: hasFailed)
        }
        timer?.cancel()
        wakePolls()
    }

    private static let retryMicroseconds: Int64 = 1_000_000, sleepMicrosecondsMax: Int64 = 3_600_000_000

    private func sleepUntilDue(hasFailed: Bool) async {
        let now = SystemTime.monotonicMicroseconds()
        dueAt = hasFailed ? now + Self.retryMicroseconds : leases.nextDue ?? .max
        let pause = min(max(0, dueAt.saturatingSubtracting(now)), Self.sleepMicrosecondsMax)
        let sleep: Task<Void, Never> = Task { try? await Task.sleep(for: .microseconds(pause)) }
        dueSleep = sleep
        await withTaskCancellationHandler {
            await sleep.value
        } onCancel: {
            sleep.cancel()
        }
    }

    private func takeOver() async throws {
        let now = clock()
        let running = try await query { state in
            state.running.map { id, run in
                (JobAttempt(id: id, token: run.token), run, state.timeoutSeconds(of: id))
            }
        }
        let ours = running.filter { $0.1.leaseSeconds == nil }.map(\.0).sorted { $0.id < $1.id }
        for chunk in ours.chunks(of: jobsPerCommandMax) {
            _ = try await execute(JobRequest(command: .rescue(chunk, .processEnded)))
        }
        let monotonic = SystemTime.monotonicMicroseconds()
        for (attempt, run, timeout) in running where run.leaseSeconds != nil {
            _ = leases.add(
                attempt, worker: run.worker, leaseSeconds: run.leaseSeconds, timeoutSeconds: timeout,
                ranFor: now.microseconds.saturatingSubtracting(run.startedAt), now: monotonic)
        }
        isReady = true
        wakePolls()
    }

    private func endOverdue() async throws {
        let due = leases.due(now: SystemTime.monotonicMicroseconds())
        for chunk in due.expired.chunks(of: jobsPerCommandMax) {
            _ = try await execute(JobRequest(command: .rescue(chunk, .leaseExpired)))
            for attempt in chunk { leases.remove(attempt) }
        }
        for chunk in due.timedOut.chunks(of: jobsPerCommandMax) {
            _ = try await execute(JobRequest(command: .timeOut(chunk)))
            for attempt in chunk { leases.remove(attempt) }
        }
    }

    /// Wakes the polls when a delayed job is due or a limit opens.
    private func setTimer() {
        timer?.cancel()
        // What has become due since the oldest poll was decided counts too: it would wake nothing else.
        guard let since = polls.lazy.map(\.since).min() else { return }
        let clock = clock
        timer = Task {
            guard let next = try? await self.query({ $0.nextStart(after: since) }) else { return }
            let left = next.microseconds.saturatingSubtracting(clock().microseconds)
            try? await Task.sleep(for: .microseconds(max(1_000, left)))
            if !Task.isCancelled { self.wakePolls() }
        }
    }
}

extension Array {
    fileprivate func chunks(of count: Int) -> [[Element]] {
        stride(from: 0, to: self.count, by: count).map { Array(self[$0..<Swift.min($0 + count, self.count)]) }
    }
}
