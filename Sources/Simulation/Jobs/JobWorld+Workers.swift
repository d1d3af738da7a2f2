import Decisions
import EventModel
import Jobs
import Primitives

/// Until when an attempt may run. Microseconds of the steady clock.
struct JobLease {
    let worker: String
    let length: Int64?
    var end: Int64
    let timeOut: Int64
}

/// A worker, in the daemon or remote, and what it is about to do with its attempts.
struct JobWorker {
    enum Fate {
        case succeeds, fails(isFinal: Bool), isLimited, releases
        /// It works on, without and with heartbeats, until the attempt is ended.
        case hangs, hangsAlive
        /// It reports its success twice, and once more with the token of another attempt.
        case lies
    }

    struct Task {
        let job: LeasedJob
        let fate: Fate
        /// By the steady clock.
        let endsAt: Int64
    }

    let lease: LeaseRequest
    var isRemote: Bool { lease.leaseSeconds != nil }
    var name: String { lease.worker }
    var tasks: [Task] = []
    /// Attempts that it has reported.
    var reported: [JobAttempt] = []

    init(_ index: Int, _ random: inout SeededRandom) {
        var lease = LeaseRequest(worker: "w\(index)")
        lease.count = random.pick([1, 1, 3, 20])
        if random.chance(0.5) { lease.leaseSeconds = random.pick([10, 30, 300]) }
        // The first one takes everything.
        if index > 0, random.chance(0.4) { lease.queues = Set(JobQueue.allCases.filter { _ in random.chance(0.6) }) }
        if index > 0, random.chance(0.3) { lease.kinds = Set(JobWorld.kinds.filter { _ in random.chance(0.6) }) }
        self.lease = lease
    }
}

extension JobWorld {
    private var steady: Int64 { clock.steadyMicroseconds() }

    // MARK: Workers

    /// A worker takes jobs, sends heartbeats, or reports.
    func work() throws {
        let index = random.below(workers.count)
        heartbeat(index)
        let due = workers[index].tasks.indices.filter { workers[index].tasks[$0].endsAt <= steady }
        if !due.isEmpty, random.chance(0.7) { try report(index, due) } else { try lease(index) }
        // A result that was sent before, and one that takes another attempt's token.
        guard random.chance(0.15), let old = workers[index].reported.last else { return }
        var attempts = [old]
        if let other = recount.running.last, let token = other.token, random.chance(0.5) {
            // Jobs that were started together have the same token.
            attempts = [JobAttempt(id: other.id, token: old.token == token ? token &- 1 : old.token)]
        }
        let reports = attempts.map { AttemptReport($0, .succeeded("again")) }
        let answer = try execute([JobRequest(command: .report(reports, worker: workers[index].name))])[0]
        if case .reported(let outcomes) = answer {
            try require(!outcomes.contains(.recorded), "\(attempts) were recorded once more")
        }
    }

    /// All workers do what they have and what they get, at once.
    func workCalmly() throws {
        for index in workers.indices {
            try lease(index)
            let all = Array(workers[index].tasks.indices)
            if !all.isEmpty { try report(index, all) }
        }
    }

    private func lease(_ index: Int) throws {
        var requests = [JobRequest(command: .lease(workers[index].lease))]
        var takers = [index]
        // What comes together is decided together.
        if !isCalm, random.chance(0.3) {
            requests.insert(operation(), at: random.below(2))
            let other = random.below(workers.count)
            if other != index {
                requests.append(JobRequest(command: .lease(workers[other].lease)))
                takers.append(other)
            }
        }
        let answers = try execute(requests)
        try settle(requests, answers)
        for (request, answer) in zip(requests, answers) {
            guard case .lease(let lease) = request.command, case .leased(let jobs) = answer,
                let taker = takers.first(where: { workers[$0].name == lease.worker })
            else { continue }
            for job in jobs { take(job, taker) }
            guard requests.count == 1, jobs.count < lease.count else { continue }
            let now = log.now().microseconds
            let left = recount.candidates(lease, now: now, except: [])
            try require(left.isEmpty, "\(lease.worker) got \(jobs.count) jobs; job \(left.first?.id ?? 0) could start")
            if recount.open.contains(where: { $0.status == .waiting && recount.isRateExhausted($0, now) }) {
                summary.rateLimited += 1
            }
        }
    }

    private func take(_ job: LeasedJob, _ index: Int) {
        let lease = workers[index].lease.leaseSeconds.map { $0 * 1_000_000 }
        leases[job.attempt] = JobLease(
            worker: workers[index].name, length: lease, end: lease.map { steady + $0 } ?? .max,
            timeOut: steady + job.timeoutSeconds * 1_000_000)
        // The answer is lost on its way to a remote worker.
        if !isCalm, workers[index].isRemote, random.chance(0.05) { return }
        var fate = JobWorker.Fate.succeeds
        if !isCalm {
            switch random.below(100) {
            case ..<45: break
            case ..<62: fate = .fails(isFinal: random.chance(0.1))
            case ..<68: fate = .isLimited
            case ..<74: fate = .releases
            case ..<84: fate = .hangs
            case ..<90: fate = .hangsAlive
            default: fate = .lies
            }
        }
        let seconds = random.pick([0, 0, 1, 5, 20, 200] as [Int64])
        workers[index].tasks.append(.init(job: job, fate: fate, endsAt: steady + seconds * 1_000_000))
    }

    private func heartbeat(_ index: Int) {
        for task in workers[index].tasks {
            if case .hangs = task.fate { continue }
            guard random.chance(0.8), let length = leases[task.job.attempt]?.length else { continue }
            leases[task.job.attempt]?.end = steady + length
        }
    }

    private func report(_ index: Int, _ due: [Int]) throws {
        var reports: [AttemptReport] = []
        for task in due.map({ workers[index].tasks[$0] }) {
            let attempt = task.job.attempt, outcome: AttemptReport.Outcome
            switch task.fate {
            // It answers when the attempt has been ended for long.
            case .hangs, .hangsAlive:
                guard recount.jobs[attempt.id]?.token != attempt.token || isCalm else { continue }
                outcome = .succeeded("late")
            case .succeeds, .lies: outcome = .succeeded(nil)
            case .fails(let isFinal):
                outcome = .failed(JobRecount.failure, isFinal: isFinal)
                if isFinal { recount.finals.insert(attempt) }
            case .isLimited: outcome = .limited(seconds: random.pick([-5, 1, 30, 600]), reason: "Retry-After")
            case .releases: outcome = .released
            }
            reports.append(AttemptReport(attempt, outcome))
            if case .lies = task.fate { reports.append(AttemptReport(attempt, outcome)) }
        }
        let request = JobRequest(command: .report(reports, worker: workers[index].name))
        guard let answer = try execute([request])[0] else { return }
        guard case .reported(let outcomes) = answer, outcomes.count == reports.count else {
            return try require(false, "reports were answered \(answer)")
        }
        let attempts = Set(reports.map(\.attempt))
        workers[index].tasks.removeAll { attempts.contains($0.job.attempt) }
        workers[index].reported += attempts.sorted { ($0.id, $0.token) < ($1.id, $1.token) }
        for attempt in attempts { leases[attempt] = nil }
    }

    // MARK: Leases, as `JobService` has them

    func takeOver() throws {
        let attempts = recount.running.compactMap { job in job.token.map { JobAttempt(id: job.id, token: $0) } }
        guard let running = try runtime?.recover().running else { return }
        let ours = attempts.filter { running[$0.id]?.leaseSeconds == nil }
        if !ours.isEmpty { _ = try execute([JobRequest(command: .rescue(ours, .processEnded))]) }
        for attempt in attempts where running[attempt.id]?.leaseSeconds != nil {
            let length = (running[attempt.id]?.leaseSeconds ?? 0) * 1_000_000
            leases[attempt] = JobLease(
                worker: running[attempt.id]?.worker ?? "", length: length, end: steady + length,
                timeOut: steady + 600_000_000)
        }
        // The rescue could not be recorded: it is tried again with the leases.
        for attempt in ours where leases[attempt] == nil {
            leases[attempt] = JobLease(worker: "", length: nil, end: steady, timeOut: .max)
        }
    }

    func endOverdue() throws {
        let due = leases.filter { min($0.value.end, $0.value.timeOut) <= steady }
        let timedOut = due.filter { $0.value.timeOut <= steady }.keys.sorted { $0.id < $1.id }
        let expired = due.filter { $0.value.timeOut > steady }.keys.sorted { $0.id < $1.id }
        if !expired.isEmpty, try execute([JobRequest(command: .rescue(expired, .leaseExpired))])[0] != nil {
            for attempt in expired { leases[attempt] = nil }
        }
        if !timedOut.isEmpty, try execute([JobRequest(command: .timeOut(timedOut))])[0] != nil {
            summary.timedOut += timedOut.count
            for attempt in timedOut { leases[attempt] = nil }
        }
    }

    // MARK: Operators

    static let kinds = ["renew", "check", "report"]
    private static let tenants = ["t1", "t2", "t3"]

    /// Commands of operators and of the daemon, also such that are refused.
    func operate() throws {
        var requests = (0..<random.pick([1, 1, 2, 4])).map { _ in operation() }
        if random.chance(0.2), let last = unanswered.popLast() { requests.append(last) }
        try settle(requests, try execute(requests))
    }

    private func settle(_ requests: [JobRequest], _ answers: [JobAnswer?]) throws {
        for (request, answer) in zip(requests, answers) {
            switch answer {
            case .queued(let queued, _, let isRepeated):
                for job in queued where recount.jobs[job.id] == nil {
                    try require(false, "job \(job.id) was answered and is not on the record")
                }
                if isRepeated { summary.repeated += 1 }
            case .done(_, isRepeated: true): summary.repeated += 1
            default: break
            }
            // Without an answer, or because it was lost on its way, the client asks again.
            if request.idempotencyKey != nil, answer == nil || random.chance(0.1) { unanswered.append(request) }
        }
    }

    private func operation() -> JobRequest {
        var request = JobRequest(tenantID: random.pick(Self.tenants), actor: "ann", command: command())
        if random.chance(0.3) {
            keys += 1
            request = JobRequest(
                tenantID: request.tenantID, actor: "ann", idempotencyKey: "key\(keys)", sent: [],
                command: request.command)
        }
        return request
    }

    private func command() -> JobCommand {
        let known = max(1, Int(recount.nextID)), kind = random.pick(Self.kinds)
        func id() -> Int64 { Int64(max(1, known - random.below(12))) }
        switch random.below(100) {
        case ..<58: return .queue((0..<random.pick([1, 2, 6])).map { _ in newJob() }, cause: nil)
        case ..<66: return .cancel([id()] + (random.chance(0.2) ? [id()] : []), reason: nil)
        case ..<74: return .retry(id())
        case ..<80: return .move(id(), random.pick(JobQueue.allCases))
        case ..<85: return .pause(random.pick(JobQueue.allCases), note: nil)
        case ..<93: return .resume(random.pick(JobQueue.allCases))
        case ..<96:
            return .setRate(
                kind: kind, random.chance(0.3) ? nil : JobRate(count: 1 + Int64(random.below(5)), seconds: 60))
        default: return .setPolicy(policy())
        }
    }

    private func newJob() -> NewJob {
        var job = NewJob(random.pick(Self.kinds), key: random.chance(0.4) ? "k\(random.below(6))" : nil)
        if random.chance(0.7) { job.queue = random.pick(JobQueue.allCases) }
        if random.chance(0.3) { job.scope = "ca\(random.below(2))" }
        let now = log.now()
        if random.chance(0.3) { job.runAt = now.adding(microseconds: Int64(random.below(600)) * 1_000_000) }
        if random.chance(0.5) { job.deadline = now.adding(microseconds: Int64(random.below(90_000)) * 1_000_000) }
        if random.chance(0.3) { job.attemptsMax = Int64(1 + random.below(4)) }
        return job
    }

    private func policy() -> JobPolicy {
        var policy = JobPolicy()
        policy.kinds = Self.kinds.map { name in
            var kind = JobPolicy.Kind(name)
            (kind.attemptsMax, kind.backoffSeconds) = (Int64(1 + random.below(5)), random.pick([0, 1, 30]))
            kind.timeoutSeconds = random.pick([60, 600])
            if random.chance(0.6) {
                kind.rate = JobRate(count: Int64(1 + random.below(8)), seconds: random.pick([1, 60]))
            }
            kind.isRatePerScope = random.chance(0.4)
            return kind
        }
        for (name, kind) in [("sweep", "check"), ("audit", "report")] where random.chance(0.7) {
            policy.schedules.append(.init(name, kind: kind, intervalSeconds: random.pick([60, 600, 14_400])))
        }
        return policy
    }

    /// Nothing new comes, and nothing is paused.
    func endSchedules() throws {
        var policy = recount.policy
        policy.schedules = []
        let resumes = recount.paused.sorted().map { JobCommand.resume($0) }
        for command in [.setPolicy(policy)] + resumes {
            let answer = try execute([JobRequest(command: command)])[0]
            if case .done = answer { continue }
            try require(false, "\(command) was answered \(answer.map { "\($0)" } ?? "not at all")")
        }
    }
}
