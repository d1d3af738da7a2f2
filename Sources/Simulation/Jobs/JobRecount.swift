import Decisions
import EventModel
import Jobs

/// The rules about jobs, folded from the record in the simplest way: what the decider must agree with.
struct JobRecount {
    struct Job {
        let id: Int64
        let tenant: String
        let kind: String
        var queue: JobQueue
        let key: String?
        let scope: String?
        /// Microseconds, here and below.
        var runAt: Int64
        var deadline: Int64?
        let attemptsMax: Int64
        var status = JobStatus.waiting
        var token: UInt64?
        var startedAt: Int64 = 0
        var starts: Int64 = 0
        var failures: Int64 = 0
        var rescues: Int64 = 0
        /// Attempts that count as none: released, or met by a server's request for a pause.
        var free: Int64 = 0
        /// Starts before the last retry by an operator.
        var startsBefore: Int64 = 0
    }

    struct Scope: Hashable {
        let kind: String
        let scope: String?
    }

    private(set) var jobs: [Int64: Job] = [:]
    private(set) var nextID: Int64 = 1
    private(set) var policy = JobPolicy()
    private var rates: [String: JobRate] = [:]
    /// Starts under a rate, within the period of the rate of that time.
    private var starts: [Scope: [Int64]] = [:]
    private var pauses: [Scope: Int64] = [:]
    private(set) var paused: Set<JobQueue> = []
    private(set) var ticks: [String: Int64] = [:]
    private var tickedJob: String?
    private var usedKeys: Set<String> = []
    private(set) var startCount = 0
    private(set) var lastStarts: [JobQueue: Int] = [:]
    /// The log's clock has stepped in this commit: its times were decided before the step.
    var hasStepped = false
    /// Attempts of which the worker reported that another one would fail too.
    var finals: Set<JobAttempt> = []

    /// What workers report.
    static let failure = "it failed"

    var open: [Job] { jobs.values.filter { $0.status.isOpen }.sorted { $0.id < $1.id } }
    var isAllEnded: Bool { !jobs.values.contains { $0.status.isOpen } }
    var running: [Job] { jobs.values.filter { $0.status == .running }.sorted { $0.id < $1.id } }

    // MARK: What may start

    func rate(_ kind: String) -> JobRate? { rates[kind] ?? policy.kinds.first { $0.kind == kind }?.rate }

    private func limit(_ job: Job) -> Scope {
        let isPerScope = policy.kinds.first { $0.kind == job.kind }?.isRatePerScope ?? false
        return Scope(kind: job.kind, scope: isPerScope ? job.scope : nil)
    }

    func isRateExhausted(_ job: Job, _ now: Int64) -> Bool {
        guard let rate = rate(job.kind) else { return false }
        return recent(limit(job), rate, now) >= rate.count
    }

    private func recent(_ limit: Scope, _ rate: JobRate, _ now: Int64) -> Int {
        (starts[limit] ?? []).count { $0 > now - rate.seconds * 1_000_000 }
    }

    private func isPaused(_ job: Job, _ now: Int64) -> Bool {
        paused.contains(job.queue)
            || [job.scope, nil].contains { pauses[Scope(kind: job.kind, scope: $0), default: 0] > now }
    }

    func candidates(_ lease: LeaseRequest, now: Int64, except taken: Set<Int64>) -> [Job] {
        jobs.values.filter { job in
            job.status == .waiting && job.runAt <= now && !taken.contains(job.id) && lease.queues.contains(job.queue)
                && lease.kinds?.contains(job.kind) ?? true && !isPaused(job, now) && !isRateExhausted(job, now)
        }
    }

    /// The job that the rules name, and whether it is one of sixteen.
    func first(of candidates: [Job]) -> (id: Int64, isFair: Bool)? {
        guard let highest = candidates.map(\.queue).min() else { return nil }
        var queue = highest
        if (startCount + 1) % 16 == 0 {
            let waiting = Set(candidates.map(\.queue)).sorted(by: >)
            let longest = waiting.map { lastStarts[$0] ?? 0 }.min()
            queue = waiting.first { (lastStarts[$0] ?? 0) == longest } ?? highest
        }
        let job = candidates.filter { $0.queue == queue }.min {
            ($0.deadline ?? .max, $0.id) < ($1.deadline ?? .max, $1.id)
        }
        return job.map { ($0.id, queue != highest) }
    }

    // MARK: Fold

    mutating func move(by microseconds: Int64) {
        for id in Array(jobs.keys) {
            jobs[id]?.runAt += microseconds
            jobs[id]?.startedAt += microseconds
        }
        pauses = pauses.mapValues { $0 + microseconds }
        starts = starts.mapValues { $0.map { $0 + microseconds } }
    }

    /// - Returns: the rule that the event breaks; nil: none.
    mutating func apply(_ event: JobEvent, at position: Position, time: Timestamp) -> String? {
        let now = time.microseconds
        if let name = tickedJob {
            guard case .queued(let event) = event, event.cause == "schedule:\(name)" else {
                return "the tick of \(name) at \(position) queued no job"
            }
            tickedJob = nil
        }
        switch event {
        case .queued(let event): return queue(event, now)
        case .started(let event): return start(event, position, now)
        case .succeeded(let event):
            for result in event.jobs {
                if let problem = end(result.attempt, .succeeded, { _ in }) { return problem }
            }
        case .failed(let event): return fail(event, now)
        case .cancelled(let event):
            for id in event.ids {
                guard let job = jobs[id], job.status.isOpen else { return "job \(id) was cancelled after its end" }
                jobs[id]?.status = .cancelled
                jobs[id]?.token = nil
            }
            return use(event.tenantID, event.idempotencyKey)
        case .rescued(let event):
            for attempt in event.jobs {
                if let problem = rescue(attempt, event.cause, now) { return problem }
            }
        case .poisoned(let event):
            let attempt = JobAttempt(id: event.id, token: event.token)
            if let problem = end(attempt, .poisoned, { $0.rescues += 1 }) { return problem }
            if jobs[event.id]?.rescues != 3 || event.rescues != 3 { return "job \(event.id) was poisoned too early" }
        case .late(let event):
            if jobs[event.id]?.token == event.token { return "the running attempt of job \(event.id) is late" }
        case .rescheduled(let event): return reschedule(event)
        case .policySet(let event):
            policy = event.policy
            for name in Set(ticks.keys).subtracting(policy.schedules.map(\.name)) { ticks[name] = nil }
            for schedule in policy.schedules where ticks[schedule.name] == nil { ticks[schedule.name] = now }
        case .queueChanged(let event):
            guard paused.contains(event.queue) == (event.change == .resumed) else {
                return "queue \(event.queue) \(event.change) twice"
            }
            if event.change == .paused { paused.insert(event.queue) } else { paused.remove(event.queue) }
            return use(event.tenantID, event.idempotencyKey)
        case .queueLimited(let event):
            let scope = Scope(kind: event.kind, scope: event.scope)
            pauses[scope] = max(pauses[scope] ?? 0, event.until.microseconds)
            for attempt in event.jobs {
                if let problem = end(attempt, .waiting, { ($0.runAt, $0.free) = (now, $0.free + 1) }) { return problem }
            }
        case .queueRateSet(let event):
            rates[event.kind] = event.rate
            return use(event.tenantID, event.idempotencyKey)
        case .scheduleTicked(let event): return tick(event, now)
        case .rejected: break
        }
        return nil
    }

    private mutating func queue(_ event: JobsQueued, _ now: Int64) -> String? {
        for new in event.jobs {
            guard new.id >= nextID else { return "the id \(new.id) is used again" }
            nextID = new.id + 1
            if let key = new.key, let other = openJob(event.tenantID, new.kind, key) {
                return "the key \(key) of \(new.kind) is that of the open jobs \(other.id) and \(new.id)"
            }
            jobs[new.id] = Job(
                id: new.id, tenant: event.tenantID, kind: new.kind, queue: new.queue, key: new.key, scope: new.scope,
                runAt: new.runAt?.microseconds ?? now, deadline: new.deadline?.microseconds,
                attemptsMax: new.attemptsMax)
        }
        return use(event.tenantID, event.idempotencyKey)
    }

    func openJob(_ tenant: String, _ kind: String, _ key: String) -> Job? {
        jobs.values.first { $0.status.isOpen && $0.tenant == tenant && $0.kind == kind && $0.key == key }
    }

    private mutating func use(_ tenant: String, _ key: String?) -> String? {
        guard let key else { return nil }
        return usedKeys.insert("\(tenant)/\(key)").inserted ? nil : "the idempotency key \(key) was used twice"
    }

    private mutating func start(_ event: JobsStarted, _ position: Position, _ now: Int64) -> String? {
        for attempt in event.jobs {
            guard var job = jobs[attempt.id], job.status == .waiting, job.token == nil else {
                return "job \(attempt.id) started and was not waiting"
            }
            if job.runAt > now { return "job \(job.id) started before its time" }
            if isPaused(job, now) { return "job \(job.id) started during a pause" }
            if attempt.attempt != job.starts + 1 { return "attempt \(attempt.attempt) follows \(job.starts)" }
            job.starts += 1
            (job.status, job.token, job.startedAt) = (.running, position.rawValue, now)
            jobs[job.id] = job
            startCount += 1
            lastStarts[job.queue] = startCount
            guard let rate = rate(job.kind) else { continue }
            starts[limit(job), default: []].removeAll { $0 <= now - rate.seconds * 1_000_000 }
            starts[limit(job), default: []].append(now)
            if recent(limit(job), rate, now) > rate.count {
                return "job \(job.id) started beyond the rate \(rate) of \(job.kind)"
            }
        }
        return nil
    }

    private mutating func end(_ attempt: JobAttempt, _ status: JobStatus, _ change: (inout Job) -> Void) -> String? {
        guard var job = jobs[attempt.id], job.status == .running, job.token == attempt.token else {
            return "attempt \(attempt.token) of job \(attempt.id) ended and was not the running one"
        }
        (job.status, job.token) = (status, nil)
        change(&job)
        jobs[attempt.id] = job
        let counted = job.failures + job.rescues + job.free + (status == .succeeded ? 1 : 0)
        if job.starts - job.startsBefore != counted { return "job \(job.id) had an attempt without an end" }
        return nil
    }

    private mutating func fail(_ event: JobFailed, _ now: Int64) -> String? {
        let attempt = JobAttempt(id: event.id, token: event.token)
        if let problem = end(attempt, event.retryAt == nil ? .failed : .waiting, { $0.failures += 1 }) {
            return problem
        }
        guard var job = jobs[event.id] else { return nil }
        if event.attempt != job.starts { return "attempt \(event.attempt) of job \(job.id) failed, not \(job.starts)" }
        // An attempt that timed out before its report was recorded is followed by another one.
        let isLast = job.failures >= job.attemptsMax || finals.contains(attempt) && event.error == Self.failure
        guard let retryAt = event.retryAt?.microseconds else {
            return isLast ? nil : "job \(job.id) ended after \(job.failures) of \(job.attemptsMax) attempts"
        }
        if isLast { return "job \(job.id) goes on after attempt \(job.failures) of \(job.attemptsMax)" }
        job.runAt = retryAt
        jobs[job.id] = job
        // The pause doubles, up to 6 h; at most an eighth of what is left; and up to a quarter of it more.
        let base = policy.kinds.first { $0.kind == job.kind }?.backoffSeconds ?? JobPolicy.Kind(job.kind).backoffSeconds
        var most = min(base * (1 << min(job.failures - 1, 16)), 6 * 3_600) * 1_000_000
        if let deadline = job.deadline, deadline > now { most = min(most, max(1_000_000, (deadline - now) / 8)) }
        return hasStepped || retryAt - now <= most + most / 4
            ? nil : "job \(job.id) waits \(retryAt - now) us, more than \(most)"
    }

    private mutating func rescue(_ attempt: JobAttempt, _ cause: JobsRescued.Cause, _ now: Int64) -> String? {
        if let problem = end(
            attempt, .waiting,
            { job in
                job.runAt = now
                if cause == .released { job.free += 1 } else { job.rescues += 1 }
            })
        {
            return problem
        }
        return jobs[attempt.id].map { $0.rescues < 3 } ?? true ? nil : "job \(attempt.id) was rescued a third time"
    }

    private mutating func reschedule(_ event: JobRescheduled) -> String? {
        guard var job = jobs[event.id], job.status != .running, job.status != .succeeded else {
            return "job \(event.id) was moved while it ran, or after its success"
        }
        if !job.status.isOpen, let key = job.key, let other = openJob(job.tenant, job.kind, key) {
            return "job \(job.id) waits again beside \(other.id) with the same key"
        }
        job.queue = event.queue ?? job.queue
        job.runAt = event.runAt?.microseconds ?? job.runAt
        job.deadline = event.deadline?.microseconds ?? job.deadline
        if event.isReset { (job.failures, job.rescues, job.free, job.startsBefore) = (0, 0, 0, job.starts) }
        job.status = .waiting
        jobs[job.id] = job
        return use(event.tenantID, event.idempotencyKey)
    }

    private mutating func tick(_ event: ScheduleTicked, _ now: Int64) -> String? {
        guard let schedule = policy.schedules.first(where: { $0.name == event.name }),
            let seconds = schedule.intervalSeconds, let last = ticks[event.name]
        else { return "\(event.name) is no schedule" }
        let due = event.due.microseconds, interval = seconds * 1_000_000
        guard due % interval == 0, due > last, due <= now || hasStepped else {
            return "\(event.name) has no tick at \(event.due)"
        }
        if due / interval - last / interval - 1 != event.missed { return "\(event.name) missed other ticks" }
        ticks[event.name] = due
        let open = openJob(Envelope.everyTenant, schedule.kind, event.name)
        if open?.id != event.openJob { return "\(event.name) has the open job \(open?.id ?? 0)" }
        if open == nil { tickedJob = event.name }
        return nil
    }
}
