import Decisions
import EventModel
import Testing
@testable import Jobs

/// The decider without a log: decided events are folded at rising positions.
struct TestQueues {
    var state = JobQueues()
    var now = Timestamp(rfc3339: "2026-11-20T08:00:00Z")!
    private(set) var events: [JobEvent] = []
    var position: UInt64 = 0

    mutating func pass(seconds: Double) { now = now.adding(microseconds: Int64(seconds * 1_000_000)) }

    @discardableResult
    mutating func run(_ requests: [JobRequest]) throws -> [JobAnswer] {
        let batch = JobBatch(requests)
        switch state.decide(batch, now: now) {
        case .repeated(let answers): return answers
        case .append(let events):
            let first = position
            fold(events)
            return try state.answer(to: batch, events, at: Position(first)..<Position(position))
        }
    }

    mutating func fold(_ events: [JobEvent]) {
        for event in events {
            state.apply(event, at: Position(position), time: now)
            position += 1
        }
        self.events += events
    }

    @discardableResult
    mutating func run(_ command: JobCommand, tenant: String = "t", key: String? = nil) throws -> JobAnswer {
        try run([JobRequest(tenantID: tenant, actor: "ann", idempotencyKey: key, command: command)])[0]
    }

    @discardableResult
    mutating func queue(_ jobs: NewJob..., tenant: String = "t") throws -> [Int64] {
        guard case .queued(let queued, _, _) = try run(.queue(jobs, cause: nil), tenant: tenant) else { return [] }
        return queued.map(\.id)
    }

    mutating func lease(
        _ count: Int = 1, worker: String = "w", queues: Set<JobQueue> = Set(JobQueue.allCases),
        kinds: Set<String>? = nil, seconds: Int64? = nil
    ) throws -> [LeasedJob] {
        let lease = LeaseRequest(worker: worker, queues: queues, kinds: kinds, count: count, leaseSeconds: seconds)
        guard case .leased(let jobs) = try run(.lease(lease)) else { return [] }
        return jobs
    }

    mutating func leaseOne(worker: String = "w", seconds: Int64? = nil) throws -> LeasedJob {
        try #require(try lease(worker: worker, seconds: seconds).first)
    }

    mutating func report(_ attempt: JobAttempt, _ outcome: AttemptReport.Outcome) throws -> ReportOutcome? {
        guard case .reported(let outcomes) = try run(.report([AttemptReport(attempt, outcome)], worker: "w"))
        else { return nil }
        return outcomes[0]
    }

    mutating func advance() { fold(state.advance(now)) }

    /// The state after a restart.
    func restored() throws -> JobQueues { try JobQueues(stored: state.stored()) }
}

func job(
    _ kind: String = "k", key: String? = nil, queue: JobQueue? = nil, deadline: Timestamp? = nil,
    runAt: Timestamp? = nil, attempts: Int64? = nil, scope: String? = nil
) -> NewJob {
    var job = NewJob(kind, key: key)
    (job.queue, job.deadline, job.runAt, job.attemptsMax, job.scope) = (queue, deadline, runAt, attempts, scope)
    return job
}
