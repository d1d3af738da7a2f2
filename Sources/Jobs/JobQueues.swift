// Jobs: work on a durable queue, decided.
//
//     JobQueues        the state: a fold of decisions; answers queries
//     Decide           commands → decisions; JobPicker chooses what starts
//     JobStore         jobs by id and key
//     JobGroup         waiting jobs of one queue, kind and scope, in two heaps (JobHeap)
//     RateWindow       starts of the last period
//     CronExpression   times of schedules
//     StoredJobs       the state in snapshots
//
// Invariants. A job has at most one running attempt, and only that attempt's token ends it. A tenant has at most one
// open job of a kind and key. An attempt starts only if its queue is not paused and its limits have room.
import Deciding
import Decisions
import DequeModule
import EventModel
import Primitives

/// The fold of the decisions about jobs, in log order. Pure: time is the events'.
public struct JobQueues: Decider {
    /// What is answered again under an idempotency key.
    struct KeyedAnswer: Sendable, Equatable {
        let position: UInt64
        let ids: [Int64]
    }
    typealias Ledger = IdempotencyLedger<KeyedAnswer>

    var store = JobStore()
    var tenants = NameTable(), kinds = NameTable(), scopes = NameTable()
    var groups: [JobGroup] = []
    private var groupNumbers: [JobGroup.Key: Int] = [:]
    /// No delayed job is due before it.
    private var nextDue = Int64.max
    public internal(set) var running: [Int64: RunningAttempt] = [:]
    public internal(set) var nextID: Int64 = 1

    public internal(set) var policy = JobPolicy()
    var kindPolicies: [String: JobPolicy.Kind] = [:]
    /// Operators' rates, by kind.
    public internal(set) var rates: [String: JobRate] = [:]
    var windows: [JobLimitKey: RateWindow] = [:]
    /// Until when jobs are delayed because a server asked for it. Microseconds since 1970.
    var pauses: [JobLimitKey: Int64] = [:]
    public internal(set) var pausedQueues: [JobQueue: QueuePause] = [:]
    /// Last tick of each schedule, and when it was first known.
    public internal(set) var ticks: [String: Timestamp] = [:]

    /// Starts so far, and the number of the last one of each queue: who starves.
    var startCount: UInt64 = 0
    var lastStarts: [JobQueue: UInt64] = [:]

    /// Attempts that ended by a result: the same result again is no late one. Oldest first.
    var results: Deque<JobAttempt> = []
    /// `AttemptReport.Outcome.name` of each of them.
    var outcomes: [JobAttempt: String] = [:]
    static let resultsMax = 20_000

    /// Jobs that ended without success, oldest first: operators can have them run again.
    var ended: Deque<(at: Int64, id: Int64)> = []
    static let endedMax = 100_000
    static let endedMicroseconds: Int64 = 30 * 86_400 * 1_000_000
    /// Attempts that end without a result before a job counts as poisoned.
    public static let rescuesMax = 3

    var answers = Ledger(countMax: 100_000, tenantCountMax: 10_000)
    public internal(set) var hours = HourlyCounts()
    /// Waiting jobs of each queue.
    public internal(set) var waitingCounts: [JobQueue: Int] = [:]

    public struct QueuePause: Sendable, Equatable, Codable {
        public let at: Timestamp
        public let actor: String
        public let note: String?
    }

    public init() {}

    /// A log from before there were jobs. Where jobs were lost nevertheless, no id is used twice: one event queues at
    /// most `jobsPerCommandMax` of them.
    public static func beginningUnknown(before horizon: Position) -> JobQueues? {
        var queues = JobQueues()
        let events = Int64(clamping: horizon.rawValue)
        let (ids, isOver) = events.multipliedReportingOverflow(by: Int64(jobsPerCommandMax))
        queues.nextID = isOver ? .max : ids.saturatingAdding(1)
        return queues
    }

    // MARK: Fold

    public mutating func apply(_ event: JobEvent, at position: Position, time: Timestamp) {
        let now = time.microseconds
        answers.expire(before: time)
        evictEnded(now)
        promoteDue(now)
        switch event {
        case .queued(let event): apply(event, position, time)
        case .started(let event): apply(event, position, now)
        case .succeeded(let event):
            for result in event.jobs where end(result.attempt, .succeeded, now) {
                remember(result.attempt, "succeeded")
            }
        case .failed(let event): apply(event, now)
        case .cancelled(let event):
            for id in event.ids { cancel(id, now) }
            remember(event, event.ids, position, time)
        case .rescued(let event): for attempt in event.jobs { rescue(attempt, event.cause, now) }
        case .poisoned(let event):
            if let slot = end(attempt: JobAttempt(id: event.id, token: event.token)) {
                store.update(slot) { $0.rescues = UInt8(clamping: event.rescues) }
                finish(slot, .poisoned, now)
            }
        case .late: break
        case .rescheduled(let event): apply(event, position, time)
        case .policySet(let event): apply(event.policy, time)
        case .queueChanged(let event):
            pausedQueues[event.queue] =
                event.change == .paused ? QueuePause(at: time, actor: event.actor, note: event.note) : nil
            remember(event, [], position, time)
        case .queueLimited(let event): apply(event, now)
        case .queueRateSet(let event):
            rates[event.kind] = event.rate?.withinLimits
            remember(event, [], position, time)
        case .scheduleTicked(let event):
            if event.openJob == nil || !JobsFault.isPlanted(.forgetsTicks) { ticks[event.name] = event.due }
        case .rejected: break
        }
    }

    private mutating func apply(_ event: JobsQueued, _ position: Position, _ time: Timestamp) {
        let tenant = tenants.add(event.tenantID)
        for job in event.jobs where store.find(job.id) == nil {
            let record = JobStore.Record(
                id: job.id, tenant: tenant, kind: UInt16(truncatingIfNeeded: kinds.add(job.kind)),
                scope: job.scope.map { scopes.add($0) } ?? NameTable.none, queue: job.queue,
                key: Array((job.key ?? "").utf8), arguments: job.arguments.map { Array($0.utf8) },
                runAt: job.runAt.map { Int64(storedMicroseconds: $0.microseconds) } ?? time.microseconds,
                deadline: job.deadline.map { Int64(storedMicroseconds: $0.microseconds) } ?? JobStore.Record.noDeadline,
                attemptsMax: UInt16(clamping: max(1, job.attemptsMax)), queuedAt: time.microseconds,
                position: position)
            enter(store.add(record), time.microseconds)
            // An id that cannot be raised comes from no decider of ours.
            nextID = max(nextID, job.id == .max ? job.id : job.id + 1)
        }
        remember(event, event.jobs.map(\.id), position, time)
    }

    private mutating func apply(_ event: JobsStarted, _ position: Position, _ now: Int64) {
        for job in event.jobs {
            guard let slot = store.find(job.id), store[slot].status == .waiting else { continue }
            leave(slot)
            store.setStatus(slot, .running)
            store.update(slot) { $0.starts = UInt16(clamping: job.attempt) }
            running[job.id] = RunningAttempt(
                token: position.rawValue, number: job.attempt, worker: event.worker, leaseSeconds: event.leaseSeconds,
                startedAt: now)
            startCount &+= 1
            lastStarts[store[slot].queue] = startCount
            if let (key, rate) = rate(store[slot].kind, store[slot].scope) {
                windows[key, default: RateWindow()].add(1, at: now, rate)
            }
        }
    }

    private mutating func apply(_ event: JobFailed, _ now: Int64) {
        let attempt = JobAttempt(id: event.id, token: event.token)
        guard let slot = end(attempt: attempt) else { return }
        remember(attempt, "failed")
        hours.add(now, store[slot].queue, failed: 1)
        store.update(slot) { $0.failures = UInt16(clamping: Int($0.failures) + 1) }
        guard let retryAt = event.retryAt else { return finish(slot, .failed, now) }
        wait(slot, at: Int64(storedMicroseconds: retryAt.microseconds), now)
    }

    private mutating func apply(_ event: QueueLimited, _ now: Int64) {
        if let kind = kinds.number(event.kind) {
            let scope = event.scope.map { scopes.add($0) } ?? NameTable.none
            let key = JobLimitKey(kind: UInt16(truncatingIfNeeded: kind), scope: scope)
            pauses = pauses.filter { $0.value > now }
            pauses[key] = max(pauses[key] ?? 0, Int64(storedMicroseconds: event.until.microseconds))
        }
        for attempt in event.jobs {
            guard let slot = end(attempt: attempt) else { continue }
            remember(attempt, "limited")
            wait(slot, at: now, now)
        }
    }

    private mutating func apply(_ event: JobRescheduled, _ position: Position, _ time: Timestamp) {
        let now = time.microseconds
        defer { remember(event, [event.id], position, time) }
        guard let slot = store.find(event.id), store[slot].status != .running else { return }
        if store[slot].status == .waiting { leave(slot) }
        store.update(slot) { record in
            record.queue = event.queue ?? record.queue
            if let deadline = event.deadline { record.deadline = Int64(storedMicroseconds: deadline.microseconds) }
            if event.isReset { (record.failures, record.rescues) = (0, 0) }
        }
        wait(slot, at: event.runAt.map { Int64(storedMicroseconds: $0.microseconds) } ?? store[slot].runAt, now)
    }

    private mutating func apply(_ policy: JobPolicy, _ time: Timestamp) {
        self.policy = policy
        setKindPolicies()
        let names = Set(policy.schedules.map(\.name))
        ticks = ticks.filter { names.contains($0.key) }
        for name in names where ticks[name] == nil { ticks[name] = time }
    }

    mutating func setKindPolicies() {
        kindPolicies = Dictionary(policy.kinds.map { ($0.kind, $0.withinLimits) }) { $1 }
    }

    public mutating func moveTimers(by microseconds: Int64) {
        func move(_ time: Int64) -> Int64 { Timestamp(microseconds: time).moved(by: microseconds).microseconds }
        answers.move(by: microseconds)
        for slot in store.slots { store.update(slot) { $0.runAt = move($0.runAt) } }
        for number in groups.indices { groups[number].delayed.reorder(move) }
        nextDue = nextDue == .max ? .max : move(nextDue)
        running = running.mapValues { run in
            var run = run
            run.startedAt = move(run.startedAt)
            return run
        }
        for key in Array(windows.keys) { windows[key]?.move(by: move) }
        pauses = pauses.mapValues(move)
        ended = Deque(ended.map { (move($0.at), $0.id) })
    }

    // MARK: Steps of a job

    /// Puts a waiting job where it waits.
    mutating func enter(_ slot: JobStore.Slot, _ now: Int64) {
        let record = store[slot]
        let number = groupNumber(.init(queue: record.queue, kind: record.kind, scope: record.scope))
        let isReady = record.runAt <= now
        store.update(slot) { $0.isReady = isReady }
        let entry = JobHeap.Entry(
            order: isReady ? JobsFault.isPlanted(.ignoresDeadlines) ? 0 : record.deadline : record.runAt, id: record.id,
            slot: slot, version: record.version)
        if isReady {
            groups[number].ready.insert(entry)
        } else {
            groups[number].delayed.insert(entry)
            nextDue = min(nextDue, record.runAt)
        }
        waitingCounts[record.queue, default: 0] += 1
    }

    /// Takes a waiting job from where it waits.
    private mutating func leave(_ slot: JobStore.Slot) {
        let record = store[slot]
        let number = groupNumber(.init(queue: record.queue, kind: record.kind, scope: record.scope))
        store.update(slot) { ($0.version, $0.isReady) = ($0.version &+ 1, false) }
        if record.isReady {
            groups[number].ready.left(store)
        } else {
            groups[number].delayed.left(store)
        }
        waitingCounts[record.queue, default: 1] -= 1
    }

    private mutating func wait(_ slot: JobStore.Slot, at runAt: Int64, _ now: Int64) {
        store.setStatus(slot, .waiting)
        store.update(slot) { $0.runAt = runAt }
        enter(slot, now)
    }

    /// Ends the attempt if it is the running one.
    private mutating func end(attempt: JobAttempt) -> JobStore.Slot? {
        guard running[attempt.id]?.token == attempt.token else { return nil }
        running[attempt.id] = nil
        return store.find(attempt.id)
    }

    private mutating func end(_ attempt: JobAttempt, _ status: JobStatus, _ now: Int64) -> Bool {
        guard let slot = end(attempt: attempt) else { return false }
        hours.add(now, store[slot].queue, succeeded: 1)
        finish(slot, status, now)
        return true
    }

    private mutating func finish(_ slot: JobStore.Slot, _ status: JobStatus, _ now: Int64) {
        guard status != .succeeded else { return store.remove(slot) }
        store.setStatus(slot, status)
        store.update(slot) { $0.runAt = now }
        ended.append((now, store[slot].id))
    }

    private mutating func cancel(_ id: Int64, _ now: Int64) {
        guard let slot = store.find(id), store[slot].status.isOpen else { return }
        if store[slot].status == .waiting { leave(slot) }
        running[id] = nil
        finish(slot, .cancelled, now)
    }

    private mutating func rescue(_ attempt: JobAttempt, _ cause: JobsRescued.Cause, _ now: Int64) {
        guard let slot = end(attempt: attempt) else { return }
        if cause == .released {
            remember(attempt, "released")
        } else {
            store.update(slot) { $0.rescues = UInt8(clamping: Int($0.rescues) + 1) }
        }
        wait(slot, at: now, now)
    }

    /// Jobs whose time has come wait for a worker only.
    private mutating func promoteDue(_ now: Int64) {
        guard nextDue <= now else { return }
        nextDue = .max
        for number in groups.indices {
            while let first = groups[number].delayed.first, first.order <= now {
                groups[number].delayed.removeFirst(store)
                let record = store[first.slot]
                store.update(first.slot) { $0.isReady = true }
                groups[number].ready.insert(
                    .init(order: record.deadline, id: record.id, slot: first.slot, version: record.version))
            }
            if let order = groups[number].delayed.firstOrder { nextDue = min(nextDue, order) }
        }
    }

    private mutating func groupNumber(_ key: JobGroup.Key) -> Int {
        if let number = groupNumbers[key] { return number }
        groupNumbers[key] = groups.count
        groups.append(JobGroup(key))
        return groups.count - 1
    }

    private mutating func remember(_ attempt: JobAttempt, _ outcome: String) {
        guard outcomes.updateValue(outcome, forKey: attempt) == nil else { return }
        results.append(attempt)
        if results.count > Self.resultsMax { outcomes[results.removeFirst()] = nil }
    }

    private mutating func remember(
        _ event: some CommandedDecision, _ ids: [Int64], _ position: Position, _ at: Timestamp
    ) {
        guard let key = event.idempotencyKey else { return }
        answers.remember(
            .init(tenantID: event.tenantID, key: key),
            .init(digest: event.requestDigest, at: at, answer: KeyedAnswer(position: position.rawValue, ids: ids)))
    }

    private mutating func evictEnded(_ now: Int64) {
        while let first = ended.first,
            ended.count > Self.endedMax || now.saturatingSubtracting(first.at) > Self.endedMicroseconds
        {
            ended.removeFirst()
            // One that runs again, or has ended once more, is in the list again or in no list.
            guard let slot = store.find(first.id), !store[slot].status.isOpen, store[slot].runAt == first.at
            else { continue }
            store.remove(slot)
        }
    }

    // MARK: Limits

    func kindPolicy(_ kind: String) -> JobPolicy.Kind { kindPolicies[kind] ?? JobPolicy.Kind(kind) }

    /// The rate limit of a kind and scope, and what it counts.
    func rate(_ kind: UInt16, _ scope: UInt32) -> (key: JobLimitKey, rate: JobRate)? {
        let name = kinds[UInt32(kind)], policy = kindPolicy(name)
        guard let rate = rates[name] ?? policy.rate else { return nil }
        return (JobLimitKey(kind: kind, scope: policy.isRatePerScope ? scope : NameTable.none), rate)
    }

    /// Until when a server asked for a pause of a kind and scope; nil: no pause at `now`.
    func pausedUntil(_ kind: UInt16, _ scope: UInt32, _ now: Int64) -> Int64? {
        let until = max(
            pauses[JobLimitKey(kind: kind, scope: scope)] ?? 0,
            pauses[JobLimitKey(kind: kind, scope: NameTable.none)] ?? 0)
        return until > now ? until : nil
    }
}

extension JobRate {
    /// Numbers in the log may come from a damaged or foreign file.
    var withinLimits: JobRate {
        JobRate(count: max(1, min(count, Self.countMax)), seconds: max(1, min(seconds, 31 * 86_400)))
    }
}

extension JobPolicy.Kind {
    var withinLimits: JobPolicy.Kind {
        var kind = self
        kind.attemptsMax = max(1, min(attemptsMax, 1_000))
        kind.backoffSeconds = max(0, min(backoffSeconds, 86_400))
        kind.timeoutSeconds = max(1, min(timeoutSeconds, 7 * 86_400))
        kind.rate = rate?.withinLimits
        return kind
    }
}

/// Results of the last day, by hour and queue.
public struct HourlyCounts: Sendable, Equatable {
    public struct Count: Sendable, Equatable {
        public var succeeded = 0
        public var failed = 0
    }

    struct Key: Hashable, Sendable {
        let hour: Int64
        let queue: JobQueue
    }

    var counts: [Key: Count] = [:]
    private static let hoursKept: Int64 = 25

    mutating func add(_ now: Int64, _ queue: JobQueue, succeeded: Int = 0, failed: Int = 0) {
        let key = Key(hour: Self.hour(now), queue: queue)
        if counts[key] == nil { counts = counts.filter { $0.key.hour > key.hour - Self.hoursKept } }
        counts[key, default: Count()].succeeded += succeeded
        counts[key, default: Count()].failed += failed
    }

    /// Of the last 24 hours, in whole hours. Failed attempts count, not failed jobs.
    public func lastDay(of queue: JobQueue, now: Timestamp) -> Count {
        let hour = Self.hour(now.microseconds)
        return counts.reduce(into: Count()) { sum, entry in
            guard entry.key.queue == queue, entry.key.hour > hour - 24 else { return }
            sum.succeeded += entry.value.succeeded
            sum.failed += entry.value.failed
        }
    }

    private static func hour(_ microseconds: Int64) -> Int64 { microseconds / 3_600_000_000 }
}
