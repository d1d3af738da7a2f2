import Deciding
import Decisions
import EventModel
import Primitives

/// Jobs in one command, and attempts in one lease.
public let jobsPerCommandMax = 1_000
/// Open jobs that the queue takes.
public let openJobsMax = 2_000_000
/// Kinds, and scopes, that were ever used.
private let kindsMax: Int = 1_000, scopesMax: Int = 100_000
private let textBytesMax: Int = 2_000

extension JobQueues {
    public func decide(_ batch: JobBatch, now: Timestamp) -> Outcome<JobEvent, [JobAnswer]> {
        var draft = JobDraft(self, now: now)
        let answers = batch.requests.map { draft.answer($0) }
        batch.drafts.withLock { $0 = answers }
        guard draft.events.isEmpty else { return .append(draft.events) }
        return .repeated(answers.map { $0.answer(at: nil) })
    }

    public func answer(
        to batch: JobBatch, _ events: [JobEvent], at positions: Range<Position>
    ) throws(UnreadableDecision) -> [JobAnswer] {
        batch.drafts.withLock { $0 }.map { $0.answer(at: positions.lowerBound) }
    }

    /// Ticks of schedules. What starts is decided by workers' requests.
    public mutating func advance(_ now: Timestamp) -> [JobEvent] {
        var draft = JobDraft(self, now: now)
        draft.tick()
        return draft.events
    }

    public mutating func nextDeadline(after now: Timestamp) -> Timestamp? {
        policy.schedules.compactMap { schedule in
            ticks[schedule.name].flatMap { JobSchedule(schedule)?.next(after: $0) }
        }.min()
    }
}

/// The decisions about a batch of commands, made from one state. A command about a job that an earlier one of the batch
/// has changed is deferred.
struct JobDraft {
    /// An answer before the position of its events is known.
    struct Answer: Sendable {
        var answer: JobAnswer
        /// Number of the first event in the batch; nil: none.
        var event: Int?

        func answer(at first: Position?) -> JobAnswer {
            guard let first, let event else { return answer }
            let position = Position(first.rawValue + UInt64(event))
            switch answer {
            case .done(_, let isRepeated): return .done(position: position, isRepeated: isRepeated)
            case .queued(let jobs, _, let isRepeated):
                return .queued(jobs, position: position, isRepeated: isRepeated)
            case .leased(let jobs): return .leased(jobs.map { $0.started(at: position) })
            case .rejected(_, let code, let reason): return .rejected(position: position, code: code, reason: reason)
            case .reported, .deferred: return answer
            }
        }
    }

    let state: JobQueues
    let now: Timestamp
    private(set) var events: [JobEvent] = []
    private var nextID: Int64
    private var openCount: Int
    /// Jobs that an earlier command has changed, and keys that it has taken.
    private var touched: Set<Int64> = []
    private var newKeys: Set<String> = []
    private var commandKeys: Set<String> = []
    /// Kinds and scopes that the state does not know yet.
    private var newKinds: Set<String> = [], newScopes: Set<String> = []
    /// Pauses, rates or the policy differ from the state's: nothing starts, and nobody changes them, before they are
    /// folded.
    private var areLimitsChanged = false
    private var picker: JobPicker?

    init(_ state: JobQueues, now: Timestamp) {
        (self.state, self.now, nextID) = (state, now, state.nextID)
        openCount = state.waitingCounts.values.reduce(0, +) + state.running.count
    }

    mutating func answer(_ request: JobRequest) -> Answer {
        let first = events.count
        do throws(JobRefusal) {
            if let key = request.idempotencyKey {
                if let entry = state.answers.entry(for: .init(tenantID: request.tenantID, key: key), now: now) {
                    guard entry.digest == request.digest else {
                        throw JobRefusal(.keyReused, idempotencyKeyReused)
                    }
                    return Answer(answer: repeated(request.command, entry.answer))
                }
                guard commandKeys.insert("\(request.tenantID)/\(key)").inserted else {
                    return Answer(answer: .deferred)
                }
            }
            let answer = try decide(request)
            return Answer(answer: answer, event: events.count > first ? first : nil)
        } catch {
            events.removeLast(events.count - first)
            var event = CommandRejected(
                command: request.command.name, subject: request.command.subject, tenantID: request.tenantID,
                actor: request.actor, reason: error.reason)
            event.code = error.code.rawValue
            events.append(.rejected(event))
            return Answer(
                answer: .rejected(position: Position(0), code: error.code, reason: error.reason), event: first)
        }
    }

    private func repeated(_ command: JobCommand, _ answer: JobQueues.KeyedAnswer) -> JobAnswer {
        let position = Position(answer.position)
        guard case .queue = command else { return .done(position: position, isRepeated: true) }
        return .queued(answer.ids.map { QueuedJob(id: $0, isNew: false) }, position: position, isRepeated: true)
    }

    private mutating func decide(_ request: JobRequest) throws(JobRefusal) -> JobAnswer {
        switch request.command {
        case .queue(let jobs, let cause): return try queue(jobs, cause, request)
        case .lease(let lease):
            let isDeferred = areLimitsChanged && !JobsFault.isPlanted(.startsBesideAPause)
            return isDeferred ? .deferred : .leased(try start(lease))
        case .report(let reports, let worker): return report(reports, worker)
        case .rescue(let attempts, let cause): rescue(attempts, cause)
        case .timeOut(let attempts): timeOut(attempts)
        case .cancel(let named, let reason):
            // A list with a job twice cancels it once.
            let ids = Array(Set(named)).sorted()
            guard !ids.isEmpty, ids.count <= jobsPerCommandMax else {
                throw JobRefusal(.invalidValue, "a command cancels 1 to \(jobsPerCommandMax) jobs, not \(ids.count)")
            }
            let slots = try ids.map { id throws(JobRefusal) in try job(id, of: request) }
            guard !ids.contains(where: touched.contains) else { return .deferred }
            for slot in slots where !state.store[slot].status.isOpen {
                throw JobRefusal(.illegalTransition, "job \(state.store[slot].id) has ended already")
            }
            touched.formUnion(ids)
            var event = JobsCancelled(tenantID: request.tenantID, ids: ids, actor: request.actor)
            event.reason = reason.map(shortened)
            (event.idempotencyKey, event.requestDigest) = (request.idempotencyKey, request.digest)
            events.append(.cancelled(event))
        case .retry(let id): return try retry(id, request)
        case .move(let id, let queue):
            let slot = try job(id, of: request)
            guard state.store[slot].status == .waiting else {
                throw JobRefusal(.illegalTransition, "job \(id) is \(state.store[slot].status.name), not WAITING")
            }
            guard touched.insert(id).inserted else { return .deferred }
            var event = JobRescheduled(id: id, tenantID: state.tenants[state.store[slot].tenant], actor: request.actor)
            event.queue = queue
            (event.idempotencyKey, event.requestDigest) = (request.idempotencyKey, request.digest)
            events.append(.rescheduled(event))
        case .pause, .resume, .setRate, .setPolicy: return try changeLimits(request)
        }
        return .done(position: nil, isRepeated: false)
    }

    private mutating func changeLimits(_ request: JobRequest) throws(JobRefusal) -> JobAnswer {
        guard !areLimitsChanged else { return .deferred }
        switch request.command {
        case .pause(let queue, let note): try change(queue, .paused, note, request)
        case .resume(let queue): try change(queue, .resumed, nil, request)
        case .setRate(let kind, let rate):
            try JobLimits.check(kind: kind)
            if let rate, rate != rate.withinLimits {
                throw JobRefusal(.invalidValue, "a rate has 1 to \(JobRate.countMax) starts in 1 s to 31 d")
            }
            var event = QueueRateSet(kind: kind, rate: rate, actor: request.actor)
            event.tenantID = request.tenantID
            (event.idempotencyKey, event.requestDigest) = (request.idempotencyKey, request.digest)
            events.append(.queueRateSet(event))
        case .setPolicy(let policy):
            try JobLimits.check(policy)
            if policy != state.policy { events.append(.policySet(JobPolicySet(policy, actor: request.actor))) }
        default: break
        }
        areLimitsChanged = true
        return .done(position: nil, isRepeated: false)
    }

    private func job(_ id: Int64, of request: JobRequest) throws(JobRefusal) -> JobStore.Slot {
        guard let slot = state.store.find(id),
            request.tenantID == Envelope.everyTenant
                || state.tenants[state.store[slot].tenant] == request.tenantID
        else {
            throw JobRefusal(.notFound, "there is no job \(id), or it ended more than 30 days ago or succeeded")
        }
        return slot
    }

    // MARK: Queue

    private mutating func queue(
        _ jobs: [NewJob], _ cause: String?, _ request: JobRequest
    ) throws(JobRefusal) -> JobAnswer {
        guard !jobs.isEmpty, jobs.count <= jobsPerCommandMax else {
            throw JobRefusal(.invalidValue, "a command queues 1 to \(jobsPerCommandMax) jobs, not \(jobs.count)")
        }
        guard openCount + jobs.count <= openJobsMax else {
            throw JobRefusal(.limitReached, "\(openCount) jobs are open; at most \(openJobsMax) can be")
        }
        try checkNames(jobs)
        var keys: Set<String> = []
        let open = try jobs.map { job throws(JobRefusal) -> JobStore.Slot? in
            guard let key = job.key else { return nil }
            guard keys.insert(Self.name(request.tenantID, job.kind, key)).inserted else {
                throw JobRefusal(.invalidValue, "two jobs \(job.kind) of the command have the key \(key)")
            }
            return openJob(request.tenantID, job.kind, key)
        }
        // Nothing has changed yet: a deferred command leaves no part of it behind.
        guard newKeys.isDisjoint(with: keys) || JobsFault.isPlanted(.queuesAKeyTwice),
            !open.contains(where: { $0.map { touched.contains(state.store[$0].id) } ?? false })
        else { return .deferred }
        newKeys.formUnion(keys)
        var queued: [QueuedJob] = [], new: [JobsQueued.Job] = []
        for (job, slot) in zip(jobs, open) {
            guard let slot else {
                queued.append(add(job, &new))
                continue
            }
            queued.append(QueuedJob(id: state.store[slot].id, isNew: false))
            promote(slot, job, cause, request)
        }
        if !new.isEmpty {
            var event = JobsQueued(tenantID: request.tenantID, jobs: new, actor: request.actor)
            event.cause = cause
            (event.idempotencyKey, event.requestDigest) = (request.idempotencyKey, request.digest)
            events.append(.queued(event))
        }
        return .queued(queued, position: nil, isRepeated: false)
    }

    /// The number of kinds and scopes is limited over all commands of the batch.
    private mutating func checkNames(_ jobs: [NewJob]) throws(JobRefusal) {
        var kinds: Set<String> = [], scopes: Set<String> = []
        for job in jobs {
            try JobLimits.check(job)
            if state.kinds.number(job.kind) == nil { kinds.insert(job.kind) }
            if let scope = job.scope, state.scopes.number(scope) == nil { scopes.insert(scope) }
        }
        guard kinds.isEmpty || state.kinds.names.count + newKinds.union(kinds).count <= kindsMax else {
            throw JobRefusal(.limitReached, "a job has a new kind; there can be \(kindsMax) kinds")
        }
        guard scopes.isEmpty || state.scopes.names.count + newScopes.union(scopes).count <= scopesMax else {
            throw JobRefusal(.limitReached, "a job has a new scope; there can be \(scopesMax) scopes")
        }
        newKinds.formUnion(kinds)
        newScopes.formUnion(scopes)
    }

    private static func name(_ tenantID: String, _ kind: String, _ key: String) -> String {
        "\(tenantID)/\(kind)/\(key)"
    }

    private func openJob(_ tenantID: String, _ kind: String, _ key: String) -> JobStore.Slot? {
        guard let tenant = state.tenants.number(tenantID), let kind = state.kinds.number(kind) else { return nil }
        return state.store.open(tenant: tenant, kind: UInt16(truncatingIfNeeded: kind), key: Array(key.utf8))
    }

    private mutating func add(_ job: NewJob, _ new: inout [JobsQueued.Job]) -> QueuedJob {
        let policy = state.kindPolicy(job.kind)
        var event = JobsQueued.Job(
            id: nextID, kind: job.kind, queue: job.queue ?? policy.queue,
            attemptsMax: job.attemptsMax ?? policy.attemptsMax)
        (event.key, event.scope, event.arguments) = (job.key, job.scope, job.arguments)
        (event.runAt, event.deadline) = (job.runAt, job.deadline)
        new.append(event)
        nextID = nextID.saturatingAdding(1)
        openCount += 1
        return QueuedJob(id: event.id, isNew: true)
    }

    /// The open job takes the higher queue, the earlier time and the earlier deadline.
    private mutating func promote(_ slot: JobStore.Slot, _ job: NewJob, _ cause: String?, _ request: JobRequest) {
        let record = state.store[slot]
        guard record.status == .waiting else { return }
        var event = JobRescheduled(id: record.id, tenantID: request.tenantID, actor: request.actor)
        if let queue = job.queue, queue < record.queue { event.queue = queue }
        // A retry waits for its backoff.
        if record.failures == 0, let runAt = job.runAt ?? (record.runAt > now.microseconds ? now : nil),
            runAt.microseconds < record.runAt
        {
            event.runAt = runAt
        }
        if let deadline = job.deadline, deadline.microseconds < record.deadline { event.deadline = deadline }
        guard event.queue != nil || event.runAt != nil || event.deadline != nil else { return }
        touched.insert(record.id)
        event.cause = cause
        events.append(.rescheduled(event))
    }

    private mutating func retry(_ id: Int64, _ request: JobRequest) throws(JobRefusal) -> JobAnswer {
        let slot = try job(id, of: request), record = state.store[slot]
        guard record.status != .running else { throw JobRefusal(.illegalTransition, "job \(id) runs already") }
        guard !touched.contains(id) else { return .deferred }
        if !record.status.isOpen, !record.key.isEmpty,
            let open = state.store.open(tenant: record.tenant, kind: record.kind, key: Array(record.key))
        {
            throw JobRefusal(
                .alreadyExists, "job \(state.store[open].id) with the same key is open; retry that one, or wait for it")
        }
        let tenantID = state.tenants[record.tenant]
        if !record.status.isOpen, !record.key.isEmpty {
            let key = String(decoding: record.key, as: UTF8.self)
            guard newKeys.insert(Self.name(tenantID, state.kinds[UInt32(record.kind)], key)).inserted else {
                return .deferred
            }
        }
        touched.insert(id)
        var event = JobRescheduled(id: id, tenantID: tenantID, actor: request.actor)
        event.runAt = now
        event.isReset = !record.status.isOpen
        (event.idempotencyKey, event.requestDigest) = (request.idempotencyKey, request.digest)
        events.append(.rescheduled(event))
        return .done(position: nil, isRepeated: false)
    }

    private mutating func change(
        _ queue: JobQueue, _ change: QueueChanged.Change, _ note: String?, _ request: JobRequest
    ) throws(JobRefusal) {
        guard (state.pausedQueues[queue] == nil) == (change == .paused) else {
            let text = change == .paused ? "paused already" : "not paused"
            throw JobRefusal(.illegalTransition, "the queue \(queue.rawValue) is \(text)")
        }
        var event = QueueChanged(change, queue: queue, note: note.map(shortened), actor: request.actor)
        event.tenantID = request.tenantID
        (event.idempotencyKey, event.requestDigest) = (request.idempotencyKey, request.digest)
        events.append(.queueChanged(event))
    }

    // MARK: Attempts

    private mutating func start(_ lease: LeaseRequest) throws(JobRefusal) -> [LeasedJob] {
        try JobLimits.check(lease)
        var picker = self.picker ?? JobPicker(state, now: now)
        self.picker = nil
        var jobs: [LeasedJob] = []
        while jobs.count < lease.count, let slot = picker.next(lease, isTaken: touched.contains) {
            touched.insert(state.store[slot].id)
            jobs.append(state.leased(slot))
        }
        self.picker = picker
        if !jobs.isEmpty {
            events.append(
                .started(
                    JobsStarted(
                        worker: lease.worker, leaseSeconds: lease.leaseSeconds,
                        jobs: jobs.map { .init(id: $0.attempt.id, attempt: $0.number) })))
        }
        return jobs
    }

    private mutating func report(_ reports: [AttemptReport], _ worker: String) -> JobAnswer {
        guard !reports.contains(where: { touched.contains($0.attempt.id) }) else { return .deferred }
        var succeeded: [JobsSucceeded.Result] = [], released: [JobAttempt] = [], outcomes: [ReportOutcome] = []
        for report in reports {
            let attempt = report.attempt
            guard let slot = state.store.find(attempt.id), let run = state.running[attempt.id],
                run.token == attempt.token || JobsFault.isPlanted(.ignoresTokens), !touched.contains(attempt.id)
            else {
                let isRepeated = state.outcomes[attempt] == report.outcome.name || touched.contains(attempt.id)
                outcomes.append(isRepeated ? .repeated : .late)
                if !isRepeated {
                    events.append(
                        .late(
                            JobLate(
                                attempt, worker: worker, outcome: report.outcome.name,
                                detail: report.outcome.detail.map(shortened))))
                }
                continue
            }
            touched.insert(attempt.id)
            outcomes.append(.recorded)
            let running = JobAttempt(id: attempt.id, token: run.token)
            switch report.outcome {
            case .succeeded(let result):
                succeeded.append(.init(running, result: result.map(shortened)))
            case .failed(let error, let isFinal):
                fail(slot, run, running, shortened(error), isFinal: isFinal)
            case .limited(let seconds, let reason):
                limit(slot, running, seconds, reason, worker)
            case .released: released.append(running)
            }
        }
        if !released.isEmpty { events.append(.rescued(JobsRescued(cause: .released, jobs: released))) }
        if !succeeded.isEmpty { events.append(.succeeded(JobsSucceeded(worker: worker, jobs: succeeded))) }
        return .reported(outcomes)
    }

    private mutating func fail(
        _ slot: JobStore.Slot, _ run: RunningAttempt, _ attempt: JobAttempt, _ error: String, isFinal: Bool
    ) {
        let record = state.store[slot], failures = Int64(record.failures) + 1
        var retryAt: Timestamp?
        if !isFinal, failures < record.attemptsMax {
            let pause = JobBackoff.microseconds(
                id: record.id, failures: failures,
                base: state.kindPolicy(state.kinds[UInt32(record.kind)]).backoffSeconds,
                left: record.deadline == JobStore.Record.noDeadline
                    ? nil : record.deadline.saturatingSubtracting(now.microseconds))
            retryAt = now.moved(by: pause)
        }
        events.append(
            .failed(JobFailed(attempt, number: run.number, worker: run.worker, error: error, retryAt: retryAt)))
    }

    private mutating func limit(
        _ slot: JobStore.Slot, _ attempt: JobAttempt, _ seconds: Int64, _ reason: String?, _ worker: String
    ) {
        let record = state.store[slot]
        areLimitsChanged = true
        events.append(
            .queueLimited(
                QueueLimited(
                    kind: state.kinds[UInt32(record.kind)],
                    scope: record.scope == NameTable.none ? nil : state.scopes[record.scope],
                    until: now.moved(by: max(1, min(seconds, JobLimits.pauseSecondsMax)) * 1_000_000),
                    reason: reason.map(shortened), jobs: [attempt], worker: worker)))
    }

    private mutating func rescue(_ attempts: [JobAttempt], _ cause: JobsRescued.Cause) {
        var rescued: [JobAttempt] = []
        for attempt in attempts where !touched.contains(attempt.id) {
            guard state.running[attempt.id]?.token == attempt.token, let slot = state.store.find(attempt.id)
            else { continue }
            touched.insert(attempt.id)
            let rescues = Int(state.store[slot].rescues) + 1
            if rescues >= JobQueues.rescuesMax, !JobsFault.isPlanted(.neverPoisons) {
                events.append(.poisoned(JobPoisoned(attempt, cause: cause, rescues: Int64(rescues))))
            } else {
                rescued.append(attempt)
            }
        }
        if !rescued.isEmpty { events.append(.rescued(JobsRescued(cause: cause, jobs: rescued))) }
    }

    private mutating func timeOut(_ attempts: [JobAttempt]) {
        for attempt in attempts where !touched.contains(attempt.id) {
            guard let run = state.running[attempt.id], run.token == attempt.token,
                let slot = state.store.find(attempt.id)
            else { continue }
            touched.insert(attempt.id)
            let seconds = state.kindPolicy(state.kinds[UInt32(state.store[slot].kind)]).timeoutSeconds
            fail(slot, run, attempt, "the attempt did not end within \(seconds) s", isFinal: false)
        }
    }

    // MARK: Schedules

    mutating func tick() {
        for schedule in state.policy.schedules {
            guard let last = state.ticks[schedule.name], let times = JobSchedule(schedule),
                let (due, missed) = times.lastTick(after: last, until: now)
            else { continue }
            let open = openJob(Envelope.everyTenant, schedule.kind, schedule.name).map { state.store[$0].id }
            events.append(.scheduleTicked(ScheduleTicked(schedule.name, due: due, missed: missed, openJob: open)))
            guard open == nil else { continue }
            var new: [JobsQueued.Job] = []
            _ = add(NewJob(schedule.kind, key: schedule.name), &new)
            var event = JobsQueued(tenantID: Envelope.everyTenant, jobs: new, actor: EngineActor.name)
            event.cause = "schedule:\(schedule.name)"
            events.append(.queued(event))
        }
    }
}

private func shortened(_ text: String) -> String {
    guard text.utf8.count > textBytesMax else { return text }
    return String(decoding: text.utf8.prefix(textBytesMax), as: UTF8.self) + "…"
}

extension LeasedJob {
    fileprivate func started(at position: Position) -> LeasedJob {
        LeasedJob(
            attempt: JobAttempt(id: attempt.id, token: position.rawValue), number: number, tenantID: tenantID,
            kind: kind, queue: queue, key: key, scope: scope, deadline: deadline, arguments: arguments,
            timeoutSeconds: timeoutSeconds)
    }
}

extension JobQueues {
    /// The next attempt of a job; its token follows when the start has a position.
    fileprivate func leased(_ slot: JobStore.Slot) -> LeasedJob {
        let record = store[slot], kind = kinds[UInt32(record.kind)]
        return LeasedJob(
            attempt: JobAttempt(id: record.id, token: 0), number: Int64(record.starts) + 1,
            tenantID: tenants[record.tenant], kind: kind, queue: record.queue,
            key: record.key.isEmpty ? nil : String(decoding: record.key, as: UTF8.self),
            scope: record.scope == NameTable.none ? nil : scopes[record.scope],
            deadline: record.deadline == JobStore.Record.noDeadline ? nil : Timestamp(microseconds: record.deadline),
            arguments: record.arguments.map { String(decoding: $0, as: UTF8.self) },
            timeoutSeconds: kindPolicy(kind).timeoutSeconds)
    }
}

/// Checks what comes from outside.
enum JobLimits {
    static let keyBytesMax: Int = 256, argumentBytesMax: Int = 16_384
    static let pauseSecondsMax: Int64 = 86_400, leaseSecondsMax: Int64 = 3_600
    private static let nameBytesMax: Int = 64

    static func check(kind: String) throws(JobRefusal) {
        let isName =
            !kind.isEmpty && kind.utf8.count <= nameBytesMax
            && kind.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
                default: byte == UInt8(ascii: ".") || byte == UInt8(ascii: "_") || byte == UInt8(ascii: "-")
                }
            }
        guard isName else {
            throw JobRefusal(.invalidValue, "a kind has 1 to \(nameBytesMax) of a-z 0-9 . _ -, such as report.daily")
        }
    }

    static func check(_ job: NewJob) throws(JobRefusal) {
        try check(kind: job.kind)
        if let key = job.key {
            guard !key.isEmpty, key.utf8.count <= keyBytesMax else {
                throw JobRefusal(.invalidValue, "a key has 1 to \(keyBytesMax) bytes, not \(key.utf8.count)")
            }
        }
        if let scope = job.scope {
            guard !scope.isEmpty, scope.utf8.count <= keyBytesMax else {
                throw JobRefusal(.invalidValue, "a scope has 1 to \(keyBytesMax) bytes, not \(scope.utf8.count)")
            }
        }
        if let arguments = job.arguments, arguments.utf8.count > argumentBytesMax {
            throw JobRefusal(
                .invalidValue, "arguments have at most \(argumentBytesMax) bytes, not \(arguments.utf8.count)")
        }
        if let attempts = job.attemptsMax, !(1...1_000).contains(attempts) {
            throw JobRefusal(.invalidValue, "a job has 1 to 1000 attempts, not \(attempts)")
        }
    }

    static func check(_ lease: LeaseRequest) throws(JobRefusal) {
        guard !lease.worker.isEmpty, lease.worker.utf8.count <= keyBytesMax else {
            throw JobRefusal(.invalidValue, "a worker's name has 1 to \(keyBytesMax) bytes")
        }
        guard (1...jobsPerCommandMax).contains(lease.count) else {
            throw JobRefusal(.invalidValue, "a lease takes 1 to \(jobsPerCommandMax) jobs, not \(lease.count)")
        }
        if let seconds = lease.leaseSeconds, !(1...leaseSecondsMax).contains(seconds) {
            throw JobRefusal(.invalidValue, "a lease lasts 1 to \(leaseSecondsMax) s, not \(seconds)")
        }
    }

    static func check(_ policy: JobPolicy) throws(JobRefusal) {
        for kind in policy.kinds {
            try check(kind: kind.kind)
            guard kind == kind.withinLimits else {
                throw JobRefusal(
                    .invalidValue,
                    "the kind \(kind.kind) has a number beyond its limits: 1 to 1000 attempts, 0 s to 1 d of backoff, "
                        + "1 s to 7 d for an attempt, rates of 1 to \(JobRate.countMax) in 1 s to 31 d")
            }
        }
        for schedule in policy.schedules {
            try check(kind: schedule.kind)
            // The name is the key of its job.
            guard !schedule.name.isEmpty, schedule.name.utf8.count <= keyBytesMax else {
                throw JobRefusal(.invalidValue, "a schedule's name has 1 to \(keyBytesMax) bytes")
            }
            guard JobSchedule(schedule) != nil else {
                throw JobRefusal(
                    .invalidValue,
                    "the schedule \(schedule.name) needs an interval of 60 s to 31 d, or five cron fields that have "
                        + "a next time")
            }
        }
        guard Set(policy.schedules.map(\.name)).count == policy.schedules.count,
            Set(policy.kinds.map(\.kind)).count == policy.kinds.count
        else { throw JobRefusal(.invalidValue, "a kind or a schedule is named twice") }
    }
}
