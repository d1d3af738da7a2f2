// Jobs, their queues and their workers. A seed decides what happens next and what fails.
//
// Real here: the decider `JobQueues` through `DeciderRuntime` (rules, events, fold, snapshots). Models stand for the
// log's medium, the workers, the table of leases and the loop around the decider.
//
// What fails: the process (kill -9 between any two steps, before and after any append), the log (full), the wall clock
// (set forward and back), and workers: they die, hang, are slow, report twice, late, or with another attempt's token.
//
// Invariants, of each event by an independent recount (`JobRecount`):
// - A job has one running attempt at most, and only that attempt's token ends it: one success is recorded, once.
// - A job ends within its attempts and three rescues, and retries within its backoff.
// - The job that starts is the one that the rules name: highest queue, or one in 16 the one that waits longest; in it
//   the nearest deadline. A lease leaves no job that could start.
// - Nothing starts before its time, in a paused queue, during a server's pause, or beyond a rate in any period.
// - A tenant has one open job of a kind and key; an idempotency key is used once.
// - Each tick of a schedule is on record once, as a tick or as a missed one.
// - The state agrees with the recount, and the state from any snapshot is the state from position 0.
// - At rest every job has ended, and every job that was answered is on the record.
import Deciding
import Decisions
import EventLog
import EventModel
import Jobs
import Primitives

public final class JobWorld {
    struct Violation: Error, CustomStringConvertible {
        let description: String
    }

    /// Of a history, where nothing else is asked for.
    public static let stepsStandard = 150

    let options: JobWorldOptions
    var random: SeededRandom
    let clock: SettableClock
    let log: DecisionLog
    var runtime: DeciderRuntime<JobQueues>?
    var recount = JobRecount()
    var summary = JobWorldSummary()
    var workers: [JobWorker] = []
    /// Until when attempts may run, by the steady clock; lost with the process.
    var leases: [JobAttempt: JobLease] = [:]
    var isCalm = false
    /// Commands whose answer the client did not get.
    var unanswered: [JobRequest] = []
    var keys = 0
    let faultRate: Double

    private var isLogFull = false
    /// The process dies in this append, and whether it is durable.
    private var death: Bool?
    private var snapshots: [(state: [UInt8], end: Position)] = []
    private var violation: String?
    private var trace = TraceHash()
    private var lines: [String] = []
    private let setsClock: Bool
    /// The leases of the commit that is under way, and jobs that its events are about.
    private var commitLeases: [LeaseRequest] = []
    private var commitJobs: Set<Int64> = []
    private var commitTime = Timestamp(seconds: 0)

    public init(_ options: JobWorldOptions) {
        self.options = options
        // The generator's states lie on one orbit: seeds must not be steps of it.
        var seeds = SeededRandom(seed: options.seed)
        random = seeds.fork()
        faultRate = random.pick([0, 0.1, 0.3, 0.6])
        setsClock = random.chance(0.4)
        clock = SettableClock(Timestamp(seconds: 1_790_000_000))
        var rules = GuardedClock.Rules()
        rules.holdMicros = random.pick([30, 600]) * 1_000_000
        log = DecisionLog(clock: GuardedClock(clock, rules: rules))
        for index in 0..<(2 + random.below(4)) { workers.append(JobWorker(index, &random)) }
    }

    public func run() -> JobVerdict {
        log.refuses = { [unowned self] in
            if isLogFull { summary.failedAppends += 1 }
            return isLogFull
        }
        log.dies = { [unowned self] in death.take() }
        log.watch = { [unowned self] in watch($0, $1) }
        do {
            func live() throws {
                for _ in 0..<options.steps { try step() }
                try comeToRest()
            }
            if let plant = options.activePlant { try plant.planted(live) } else { try live() }
        } catch {
            if violation == nil { violation = "\(error)" }
        }
        summary.histories = 1
        return JobVerdict(
            seed: options.seed, violation: violation, traceHash: trace.value, summary: summary, lines: lines)
    }

    func note(_ text: @autoclosure () -> String) {
        if options.isRecording { lines.append("\(clock.time) \(text())") }
    }

    func require(_ condition: Bool, _ text: @autoclosure () -> String) throws {
        if let violation { throw Violation(description: violation) }
        if !condition { throw Violation(description: text()) }
    }

    func pass(seconds: Double) { clock.time = clock.time.adding(microseconds: Int64(seconds * 1e6)) }

    // MARK: The record

    /// Every record as it becomes durable.
    private func watch(_ record: RecordView, _ position: Position) {
        trace.mix(record.topicString)
        trace.mix(UInt64(bitPattern: record.receivedAt.microseconds))
        note("\(position) \(record.topicString) \(String(decoding: record.payload.prefix(300), as: UTF8.self))")
        do {
            if record.kind == .system, record.topicString == LogSchema.clockStepped.rawValue {
                recount.move(by: try record.decoded(ClockStepped.self).movesTimersBy)
                recount.hasStepped = true
            }
            guard record.kind == .decision, let event = try JobEvent(record, at: position) else { return }
            var problem: String?
            if case .started(let started) = event { problem = checkOrder(started) }
            if problem == nil { problem = recount.apply(event, at: position, time: record.receivedAt) }
            count(event)
            if violation == nil, let problem { violation = "\(position): \(problem)" }
        } catch {
            violation = violation ?? "\(error)"
        }
    }

    private func count(_ event: JobEvent) {
        switch event {
        case .queued(let event):
            summary.queued += event.jobs.count
            commitJobs.formUnion(event.jobs.map(\.id))
        case .started(let event): summary.started += event.jobs.count
        case .succeeded(let event):
            summary.succeeded += event.jobs.count
            commitJobs.formUnion(event.jobs.map(\.id))
        case .failed(let event):
            summary.failed += 1
            commitJobs.insert(event.id)
        case .cancelled(let event):
            summary.cancelled += event.ids.count
            commitJobs.formUnion(event.ids)
        case .rescued(let event):
            summary.rescued += event.jobs.count
            commitJobs.formUnion(event.jobs.map(\.id))
        case .poisoned: summary.poisoned += 1
        case .late: summary.late += 1
        case .rescheduled(let event):
            summary.rescheduled += 1
            commitJobs.insert(event.id)
        case .queueLimited(let event):
            summary.limited += 1
            commitJobs.formUnion(event.jobs.map(\.id))
        case .scheduleTicked(let event):
            summary.ticks += 1
            summary.missedTicks += Int(event.missed)
        case .policySet, .queueChanged, .queueRateSet, .rejected: break
        }
    }

    /// The jobs of a start are those that the rules name, in their order.
    private func checkOrder(_ event: JobsStarted) -> String? {
        guard let place = commitLeases.firstIndex(where: { $0.worker == event.worker }) else {
            return "\(event.worker) got jobs and asked for none"
        }
        let lease = commitLeases.remove(at: place)
        guard event.jobs.count <= lease.count, event.leaseSeconds == lease.leaseSeconds else {
            return "\(event.worker) got another lease than it asked for"
        }
        // Its order was decided before the clock's step, its times are those behind it.
        guard !recount.hasStepped else { return nil }
        var ahead = recount
        for job in event.jobs {
            let candidates = ahead.candidates(lease, now: commitTime.microseconds, except: commitJobs)
            guard let first = ahead.first(of: candidates) else { return "job \(job.id) could not start" }
            if first.id != job.id { return "job \(job.id) started before job \(first.id)" }
            if first.isFair { summary.fairStarts += 1 }
            let one = JobsStarted(worker: event.worker, leaseSeconds: event.leaseSeconds, jobs: [job])
            if let problem = ahead.apply(.started(one), at: Position(0), time: commitTime) { return problem }
        }
        return nil
    }

    // MARK: Scheduler

    private func step() throws {
        pass(seconds: random.pick([0, 0.01, 0.01, 0.5, 1, 1, 3, 5, 20, 60, 60, 600, random.chance(0.1) ? 9_000 : 20]))
        let action = random.below(100)
        trace.mix(action)
        if runtime == nil {
            if random.chance(0.3) { try start() }
            return
        }
        switch action {
        case ..<60: try work()
        case ..<80: try operate()
        case ..<90: try tick()
        case ..<94: takeSnapshot()
        default: if random.chance(faultRate) { fail() } else { mend() }
        }
        if random.chance(0.3) { try check() }
    }

    private func fail() {
        switch random.below(6) {
        case 0, 1: stop("kill -9")
        case 2, 3: death = random.chance(0.5)
        case 4: isLogFull = true
        default:
            guard setsClock else { return }
            summary.clockSteps += 1
            let size = random.pick([2, 30, 200, 7_300, 86_400] as [Int64]) * (random.chance(0.5) ? 1 : -1)
            clock.ahead += size * 1_000_000
            note("the clock is set by \(size) s")
            _ = log.now()
        }
    }

    private func mend() {
        isLogFull = false
        if random.chance(0.5) { clock.ahead = 0 }
    }

    /// Schedules, and what leases end, as the loops around the decider do.
    func tick() throws {
        try guarded { try runtime?.step() }
        try endOverdue()
    }

    // MARK: Process

    private func start() throws {
        note("the daemon starts")
        let recent = snapshots.suffix(2).map { Optional($0) }
        let snapshot =
            !recent.isEmpty && random.chance(0.6)
            ? try random.pick(recent).map { DeciderSnapshot(state: try JobQueues(stored: $0), end: $1) } : nil
        let log = log
        let runtime = DeciderRuntime<JobQueues>(
            writer: DecisionWriter(log), source: log, clock: { log.now() }, snapshot: { snapshot })
        let state = try runtime.recover()
        if snapshot != nil || random.chance(0.2) { try compareWithRefold(state, runtime.end) }
        self.runtime = runtime
        try runtime.resume()
        try takeOver()
    }

    private func stop(_ reason: String) {
        note(reason)
        summary.kills += 1
        (runtime, death) = (nil, nil)
        leases = [:]
        // The workers in the daemon end with it.
        for index in workers.indices where !workers[index].isRemote { workers[index].tasks = [] }
    }

    private func takeSnapshot() {
        guard let runtime, let state = runtime.state else { return }
        summary.snapshots += 1
        snapshots.append((state.stored(), runtime.end))
    }

    private func compareWithRefold(_ state: JobQueues, _ end: Position) throws {
        summary.refolds += 1
        var fresh = JobQueues()
        try fresh.fold(Position(0)..<end, of: log)
        let bytes = state.stored()
        try require(fresh.stored() == bytes, "another state by the whole log")
        try require(
            try JobQueues(stored: bytes).stored() == bytes, "a snapshot gives another state than it was taken of")
    }

    /// Runs what appends. False: it could not be recorded, or the process died of it.
    @discardableResult
    private func guarded(_ body: () throws -> Void) throws -> Bool {
        (commitJobs, commitTime, recount.hasStepped) = ([], log.now(), false)
        defer { commitLeases = [] }
        do {
            try body()
            try require(true, "")
            return true
        } catch AppendError.full {
            return false
        } catch AppendError.failed {
            stop("killed in an append")
            return false
        }
    }

    /// As `JobService`: commands that came together in one commit, those that are deferred in the next one.
    /// - Returns: an answer for each; nil: it got none.
    func execute(_ requests: [JobRequest]) throws -> [JobAnswer?] {
        var answers: [JobAnswer?] = requests.map { _ in nil }, left = Array(requests.indices)
        while !left.isEmpty, let runtime {
            for case .lease(let lease) in left.map({ requests[$0].command }) { commitLeases.append(lease) }
            var round: [JobAnswer] = []
            let isDone = try guarded { round = try runtime.execute(JobBatch(left.map { requests[$0] })) }
            guard isDone else { break }
            for (index, answer) in zip(left, round) where answer != .deferred {
                answers[index] = answer
                if case .rejected = answer { summary.refused += 1 }
            }
            let deferred = zip(left, round).filter { $0.1 == .deferred }.map { $0.0 }
            summary.deferred += deferred.count
            try require(deferred.count < left.count, "a batch was deferred as a whole")
            left = deferred
        }
        return answers
    }

    // MARK: Checks

    /// The state agrees with the recount.
    private func check() throws {
        try require(true, "")
        guard let runtime else { return }
        try runtime.catchUp()
        let state = try runtime.recover()
        for job in recount.jobs.values {
            let found = state.job(job.id)
            try require((found == nil) == (job.status == .succeeded), "job \(job.id) is \(job.status.name)")
            guard let found else { continue }
            try require(
                found.status == job.status && found.queue == job.queue && found.running?.token == job.token
                    && found.starts == Int(job.starts) && found.failures == Int(job.failures)
                    && found.rescues == Int(job.rescues) && found.deadline?.microseconds == job.deadline
                    && (!job.status.isOpen || found.runAt.microseconds == job.runAt),
                "job \(job.id) is \(found), by the recount \(job)")
        }
        let open = recount.open
        for statistics in state.statistics(now: log.now()) {
            let jobs = open.filter { $0.queue == statistics.queue }
            try require(
                statistics.running == jobs.count { $0.status == .running }
                    && statistics.waiting == jobs.count { $0.status == .waiting },
                "the queue \(statistics.queue) has other jobs: \(statistics)")
        }
        try require(
            state.ticks.mapValues(\.microseconds) == recount.ticks && Set(state.pausedQueues.keys) == recount.paused,
            "other ticks or pauses")
    }

    private func comeToRest() throws {
        mend()
        (isCalm, clock.ahead, death) = (true, 0, nil)
        // The log's clock comes back with the first append after the hold.
        _ = log.now()
        pass(seconds: 1_200)
        if runtime == nil { try start() }
        try endSchedules()
        for round in 0..<2_000 {
            if recount.isAllEnded { break }
            try workCalmly()
            try endOverdue()
            // Backoff, rates and pauses open again.
            if round % 2 == 1 { pass(seconds: random.pick([1, 30, 600, 7_200])) }
        }
        try require(recount.isAllEnded, "jobs that never end: \(recount.open.prefix(3))")
        try check()
        guard let runtime else { return }
        try compareWithRefold(try runtime.recover(), runtime.end)
    }
}
