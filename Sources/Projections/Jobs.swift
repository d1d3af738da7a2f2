import Decisions
import Decoding
import EventModel

/// `jobs`: jobs, their attempts and late results, queues, schedules, and sums of jobs.
///
/// The first `job.queued` with an id makes the job's row. Only the token of the running attempt ends it, as in the
/// decider; any other decision about a job that is no step from where it is changes no row. A late result has a row of
/// its own beside its attempt's. A tick of a schedule that no policy had changes no row.
///
/// Each job, queue and schedule is a key of its own: an event about many jobs has a part for each.
final class JobFold: ProjectionFold {
    private let scope: FoldScope
    private let decoder: FactDecoder
    private var jobs = KeyedTable<JobState>()
    private var queues = KeyedTable<JobQueueState>()
    private var schedules = KeyedTable<JobScheduleState>()
    /// Changed attempts, each once.
    private var attempts: [JobAttemptRow] = []
    /// Of the last row of each job in `attempts`.
    private var attemptIndexes: [Int64: Int] = [:]
    private var policies = RowBuffer()
    private var sums = JobSums()
    private var keyBytes: [UInt8] = []
    /// The decisions of the block that was prepared: decoding them twice would take most of the time.
    private var prepared: (base: Position, count: Int, range: Range<Position>, decisions: [Decided])?

    private struct Decided {
        let decision: any Decision
        let position: Position
        let at: Timestamp
        /// Of `job.policy`, as recorded.
        let policy: [UInt8]?
    }

    init(_ scope: FoldScope, _ decoder: FactDecoder) {
        self.scope = scope
        self.decoder = decoder
    }

    var descriptor: ProjectionDescriptor { JobTables.descriptor }
    var dirtyRowCount: Int {
        jobs.dirty.count + queues.dirty.count + schedules.dirty.count + attempts.count + policies.rowCount
            + sums.rowCount
    }
    var pendingByteCount: Int {
        jobs.dirtyByteCount + queues.dirtyByteCount + schedules.dirtyByteCount + policies.bytes.count
            + attempts.count * MemoryLayout<JobAttemptRow>.stride + sums.rowCount * 256
    }
    var stateByteCount: Int { jobs.byteCount + queues.byteCount + schedules.byteCount }

    // MARK: Decisions and their keys

    /// By the first letters of the schema: the decisions of other deciders need not be decoded.
    private static func mayBeOurs(_ record: RecordView) -> Bool {
        record.topic.starts(with: "job.".utf8) || record.topic.starts(with: "queue.".utf8)
            || record.topic.starts(with: "schedule.".utf8)
    }

    private static func forEachJob(of decision: any Decision, _ body: (Int64) -> Void) {
        switch decision {
        case let event as JobsQueued: for job in event.jobs { body(job.id) }
        case let event as JobsStarted: for job in event.jobs { body(job.id) }
        case let event as JobsSucceeded: for job in event.jobs { body(job.id) }
        case let event as JobFailed: body(event.id)
        case let event as JobsCancelled: for id in event.ids { body(id) }
        case let event as JobsRescued: for job in event.jobs { body(job.id) }
        case let event as JobPoisoned: body(event.id)
        case let event as JobLate: body(event.id)
        case let event as JobRescheduled: body(event.id)
        case let event as QueueLimited: for job in event.jobs { body(job.id) }
        default: break
        }
    }

    private static func queues(of decision: any Decision) -> [JobQueue] {
        switch decision {
        case let event as JobsQueued: JobQueue.allCases.filter { queue in event.jobs.contains { $0.queue == queue } }
        case let event as JobRescheduled: event.queue.map { [$0] } ?? []
        case let event as QueueChanged: [event.queue]
        default: []
        }
    }

    private static func schedules(of decision: any Decision) -> [String] {
        switch decision {
        case let event as JobsQueued: scheduled(event).map { [$0.name] } ?? []
        case let event as JobPolicySet: event.policy.schedules.map(\.name)
        case let event as ScheduleTicked: [event.name]
        default: []
        }
    }

    /// The schedule whose tick queued a job, and the job: the decider gives it the schedule's name as its key.
    private static func scheduled(_ event: JobsQueued) -> (name: String, job: Int64)? {
        guard let job = event.jobs.first, let key = job.key, event.cause == "schedule:\(key)",
            event.tenantID == Envelope.everyTenant
        else { return nil }
        return (key, job.id)
    }

    private static let policyKey = "job-policy"

    func keys(of record: RecordView) -> [FoldKey] {
        guard record.kind == .decision, Self.mayBeOurs(record),
            let decision = decoder.decodeInternal(record).decision
        else { return [] }
        var keys: [FoldKey] = [], ids: Set<Int64> = []
        Self.forEachJob(of: decision) { if ids.insert($0).inserted { keys.append(FoldKey("job/\($0)")) } }
        keys += Self.queues(of: decision).map { FoldKey("queue/\($0.rawValue)") }
        keys += Set(Self.schedules(of: decision)).sorted().map { FoldKey("schedule/\($0)") }
        if decision is JobPolicySet { keys.append(FoldKey(Self.policyKey)) }
        return keys
    }

    private func includes(_ kind: String, _ id: @autoclosure () -> String, _ position: Position) -> Bool {
        scope.isAll || scope.includes("\(kind)/\(id())", at: position)
    }

    private func decisions(_ block: EventBlock, in range: Range<Position>) -> [Decided] {
        let scan = decoder.scan(block)
        var found: [Decided] = []
        for index in 0..<scan.marks.count where scan.marks[index].kind == .decision {
            let position = block.base.advanced(by: index)
            guard range.contains(position) else { continue }
            let record = block.record(atOffset: Int(scan.offsets[index]))
            guard Self.mayBeOurs(record), let decision = decoder.decodeInternal(record).decision else { continue }
            let policy = decision is JobPolicySet ? jsonMember("policy", of: record.payload).map { Array($0) } : nil
            found.append(Decided(decision: decision, position: position, at: record.receivedAt, policy: policy))
        }
        return found
    }

    // MARK: Rows that must be known

    func prepare(_ block: EventBlock, in range: Range<Position>) -> [LoadRequest] {
        let isStart = scope.startsEmpty(at: range.lowerBound)
        jobs.beginRound(isStart: isStart)
        queues.beginRound(isStart: isStart)
        schedules.beginRound(isStart: isStart)
        let decisions = decisions(block, in: range)
        for decided in decisions {
            Self.forEachJob(of: decided.decision) { id in
                if includes("job", String(id), decided.position) { _ = touch(id) }
            }
            for queue in Self.queues(of: decided.decision) where includes("queue", queue.rawValue, decided.position) {
                _ = touch(queue)
            }
            for name in Self.schedules(of: decided.decision) where includes("schedule", name, decided.position) {
                _ = touch(schedule: name)
            }
        }
        prepared = (block.base, block.count, range, decisions)
        let requests = [
            jobs.takeUnknown(table: JobTables.jobs), queues.takeUnknown(table: JobTables.queues),
            schedules.takeUnknown(table: JobTables.schedules),
        ]
        return requests.compactMap { $0 }
    }

    private func touch(_ job: Int64) -> UInt32 { withUnsafeBytes(of: job.bigEndian) { jobs.touch($0) } }

    private func touch(_ queue: JobQueue) -> UInt32 {
        var name = queue.rawValue
        return name.withUTF8 { queues.touch(UnsafeRawBufferPointer($0)) }
    }

    private func touch(schedule name: String) -> UInt32 {
        var name = name
        return name.withUTF8 { schedules.touch(UnsafeRawBufferPointer($0)) }
    }

    func load(table: Int, row: RowReader) {
        switch table {
        case JobTables.jobs: jobs.load(row)
        case JobTables.queues: queues.load(row)
        default: schedules.load(row)
        }
    }

    // MARK: Fold

    func fold(_ block: EventBlock, in range: Range<Position>) {
        defer {
            prepared = nil
            precondition(
                !jobs.hasUnknown && !queues.hasUnknown && !schedules.hasUnknown,
                "a block is prepared before it is folded")
        }
        let isPrepared = prepared.map { $0.base == block.base && $0.count == block.count && $0.range == range } ?? false
        for decided in isPrepared ? prepared?.decisions ?? [] : decisions(block, in: range) {
            applyToJobs(decided)
            applyToQueues(decided)
            applyToSchedules(decided)
        }
    }

    private func applyToJobs(_ decided: Decided) {
        let at = decided.at
        switch decided.decision {
        case let event as JobsQueued:
            for job in event.jobs {
                change(job.id, decided, count: \.queued) { state, arena in
                    state.queue(job, of: event, at, decided.position, in: &arena)
                }
            }
        case let event as JobsStarted: for job in event.jobs { start(job, event, decided) }
        case let event as JobsSucceeded:
            for job in event.jobs {
                end(job.attempt, .succeeded, job.result, nextAt: nil, decided, count: \.succeeded) { state, arena in
                    state.finish(.succeeded, at, error: nil, in: &arena)
                    arena.put(job.result, in: &state.result)
                }
            }
        case let event as JobFailed:
            let attempt = JobAttempt(id: event.id, token: event.token)
            end(attempt, .failed, event.error, nextAt: event.retryAt, decided, count: \.failed) { state, arena in
                state.failures = state.failures.saturatingAdding(1)
                if let retryAt = event.retryAt {
                    state.wait(until: retryAt)
                    arena.put(event.error, in: &state.error)
                } else {
                    state.finish(.failed, at, error: event.error, in: &arena)
                }
            }
        case let event as JobsCancelled: for id in event.ids { cancel(id, event.reason, decided) }
        case let event as JobsRescued:
            let isReleased = event.cause == .released
            for job in event.jobs {
                end(
                    job, isReleased ? .released : .rescued, event.cause.rawValue, nextAt: at, decided,
                    count: isReleased ? nil : \.rescued
                ) { state, _ in
                    if !isReleased { state.rescues = state.rescues.saturatingAdding(1) }
                    state.wait(until: at)
                }
            }
        case let event as JobPoisoned:
            let attempt = JobAttempt(id: event.id, token: event.token), cause = event.cause.rawValue
            end(attempt, .poisoned, cause, nextAt: nil, decided, count: \.rescued) { state, arena in
                state.rescues = event.rescues
                state.finish(.poisoned, at, error: cause, in: &arena)
            }
        case let event as JobLate: reportLate(event, decided)
        case let event as JobRescheduled: change(event.id, decided) { state, _ in state.reschedule(event) }
        case let event as QueueLimited:
            for job in event.jobs {
                end(job, .limited, event.reason, nextAt: event.until, decided, count: \.limited) { state, _ in
                    state.wait(until: at)
                }
            }
        default: break
        }
    }

    /// Changes a job's row and its sums. `body` says whether the row changed; so does the result.
    @discardableResult
    private func change(
        _ id: Int64, _ decided: Decided, count event: WritableKeyPath<JobHoursRow.Deltas, Int64>? = nil,
        _ body: (inout JobState, inout ByteArena) -> Bool
    ) -> Bool {
        guard includes("job", String(id), decided.position) else { return false }
        let row = touch(id), before = jobs.states[Int(row)]
        guard jobs.update(row, body) else { return false }
        let group = group(ofJob: row), after = jobs.states[Int(row)]
        if before.isKnown { sums.add(-1, group, before.queue, before.status) }
        sums.add(1, group, after.queue, after.status)
        if let event { sums.add(group, after.queue, at: decided.at, event) }
        jobs.states[Int(row)].lastPosition = decided.position
        jobs.markDirty(row)
        return true
    }

    private func group(ofJob row: UInt32) -> UInt32 {
        if let group = jobs.states[Int(row)].group { return group }
        let state = jobs.states[Int(row)]
        let group = sums.number(of: .init(tenant: text(state.tenant) ?? "", kind: text(state.kind) ?? ""))
        jobs.states[Int(row)].group = group
        return group
    }

    private func text(_ ref: ByteRef) -> String? {
        jobs.arena.optional(ref).map { String(decoding: $0, as: UTF8.self) }
    }

    private func start(_ job: JobsStarted.Attempt, _ event: JobsStarted, _ decided: Decided) {
        let isStarted = change(job.id, decided, count: \.started) { state, arena in
            guard state.isKnown, state.status == .waiting else { return false }
            state.status = .running
            (state.attempt, state.token) = (job.attempt, decided.position)
            (state.leaseSeconds, state.startedAt) = (event.leaseSeconds, OptionalTime(decided.at))
            arena.put(event.worker, in: &state.worker)
            return true
        }
        if isStarted { write(attemptOf(job.id)) }
    }

    /// Ends the running attempt, if it has the token.
    private func end(
        _ attempt: JobAttempt, _ outcome: JobAttemptRow.Outcome, _ detail: String?, nextAt: Timestamp?,
        _ decided: Decided, count event: WritableKeyPath<JobHoursRow.Deltas, Int64>?,
        _ body: (inout JobState, inout ByteArena) -> Void
    ) {
        let isEnded = change(attempt.id, decided, count: event) { state, arena in
            guard state.status == .running, state.token == Position(attempt.token) else { return false }
            body(&state, &arena)
            return true
        }
        guard isEnded else { return }
        var row = attemptOf(attempt.id)
        (row.outcome, row.detail) = (outcome, detail)
        (row.endedAt, row.nextAt) = (OptionalTime(decided.at), OptionalTime(nextAt))
        write(row)
    }

    private func cancel(_ id: Int64, _ reason: String?, _ decided: Decided) {
        var wasRunning = false
        let isCancelled = change(id, decided) { state, arena in
            guard state.isKnown, state.status.isOpen else { return false }
            wasRunning = state.status == .running
            state.finish(.cancelled, decided.at, error: reason, in: &arena)
            return true
        }
        guard isCancelled, wasRunning else { return }
        var row = attemptOf(id)
        (row.outcome, row.detail, row.endedAt) = (.cancelled, reason, OptionalTime(decided.at))
        write(row)
    }

    private func reportLate(_ event: JobLate, _ decided: Decided) {
        guard includes("job", String(event.id), decided.position) else { return }
        let id = touch(event.id), state = jobs.states[Int(id)]
        var row = JobAttemptRow()
        (row.job, row.token, row.report) = (event.id, Position(event.token), decided.position)
        (row.tenant, row.worker) = (text(state.tenant) ?? Envelope.everyTenant, event.worker)
        (row.endedAt, row.outcome) = (OptionalTime(decided.at), .late)
        (row.reported, row.detail) = (event.outcome, event.detail)
        attempts.append(row)
        if state.isKnown { sums.add(group(ofJob: id), state.queue, at: decided.at, \.late) }
    }

    /// The last attempt of a job, without an outcome.
    private func attemptOf(_ id: Int64) -> JobAttemptRow {
        let state = jobs.states[Int(touch(id))]
        var row = JobAttemptRow()
        (row.job, row.token, row.attempt) = (id, state.token ?? Position(0), state.attempt)
        (row.tenant, row.worker) = (text(state.tenant) ?? "", text(state.worker) ?? "")
        (row.leaseSeconds, row.startedAt) = (state.leaseSeconds, state.startedAt)
        return row
    }

    private func write(_ row: JobAttemptRow) {
        if let index = attemptIndexes[row.job], attempts[index].token == row.token {
            attempts[index] = row
        } else {
            attemptIndexes[row.job] = attempts.count
            attempts.append(row)
        }
    }

    private func applyToQueues(_ decided: Decided) {
        for queue in Self.queues(of: decided.decision) where includes("queue", queue.rawValue, decided.position) {
            let row = touch(queue), change = decided.decision as? QueueChanged
            let isChanged = queues.update(row) { state, _ in
                guard change != nil || !state.isKnown else { return false }
                (state.isKnown, state.priority, state.lastPosition) = (true, Int64(queue.priority), decided.position)
                let pause = change?.change == .paused ? change : nil
                state.pausedAt = OptionalTime(pause == nil ? nil : decided.at)
                (state.pausedBy, state.note) = (pause?.actor, pause?.note)
                return true
            }
            if isChanged { queues.markDirty(row) }
        }
    }

    private func applyToSchedules(_ decided: Decided) {
        if let event = decided.decision as? JobPolicySet, scope.includes(Self.policyKey, at: decided.position) {
            policies.append(
                JobPolicyRow(
                    position: decided.position, at: OptionalTime(decided.at), actor: event.actor,
                    policy: decided.policy ?? Array("{}".utf8)))
        }
        for name in Self.schedules(of: decided.decision) where includes("schedule", name, decided.position) {
            let row = touch(schedule: name)
            let isChanged = schedules.update(row) { state, _ in
                switch decided.decision {
                case let event as JobPolicySet: return state.apply(event.policy, name, decided.position)
                case let event as ScheduleTicked: return state.apply(event)
                case let event as JobsQueued:
                    guard state.isKnown, let job = Self.scheduled(event)?.job else { return false }
                    state.lastJob = job
                    return true
                default: return false
                }
            }
            guard isChanged else { continue }
            schedules.states[Int(row)].lastPosition = decided.position
            schedules.markDirty(row)
        }
    }

    // MARK: Rows out

    func drain(into rows: inout [RowBuffer]) {
        jobs.drain(into: &rows[JobTables.jobs])
        for row in attempts { rows[JobTables.attempts].append(row) }
        attempts.removeAll(keepingCapacity: true)
        attemptIndexes.removeAll(keepingCapacity: true)
        queues.drain(into: &rows[JobTables.queues])
        schedules.drain(into: &rows[JobTables.schedules])
        rows[JobTables.policies].append(policies)
        policies.removeAll()
        sums.drain(into: &rows)
    }

    func shrink(toBytes byteCount: Int) {
        prepared = nil
        jobs.shrink(toBytes: byteCount - byteCount / 8)
        queues.shrink(toBytes: byteCount / 16)
        schedules.shrink(toBytes: byteCount / 16)
    }
}

extension JobState {
    /// Says whether the row changed: the first one with an id stands.
    fileprivate mutating func queue(
        _ job: JobsQueued.Job, of event: JobsQueued, _ at: Timestamp, _ position: Position, in arena: inout ByteArena
    ) -> Bool {
        guard !isKnown else { return false }
        isKnown = true
        arena.put(event.tenantID, in: &tenant)
        arena.put(job.kind, in: &kind)
        arena.put(job.key, in: &key)
        arena.put(job.scope, in: &scope)
        arena.put(event.cause, in: &cause)
        arena.put(event.actor, in: &queuedBy)
        queue = job.queue
        (runAt, deadline) = (job.runAt ?? at, OptionalTime(job.deadline))
        attemptsMax = job.attemptsMax
        (queuedAt, self.position) = (OptionalTime(at), position)
        return true
    }

    fileprivate mutating func wait(until time: Timestamp) { (status, runAt) = (.waiting, time) }

    fileprivate mutating func finish(
        _ status: Status, _ at: Timestamp, error: String?, in arena: inout ByteArena
    ) {
        (self.status, endedAt) = (status, OptionalTime(at))
        arena.put(error, in: &self.error)
    }

    /// Says whether the row changed.
    fileprivate mutating func reschedule(_ event: JobRescheduled) -> Bool {
        guard isKnown, status != .running, status != .succeeded else { return false }
        queue = event.queue ?? queue
        if let time = event.deadline { deadline = OptionalTime(time) }
        if event.isReset { (failures, rescues) = (0, 0) }
        wait(until: event.runAt ?? endedAt.value ?? runAt)
        endedAt = OptionalTime()
        return true
    }
}

extension JobScheduleState {
    /// Says whether the row changed.
    fileprivate mutating func apply(_ policy: JobPolicy, _ name: String, _ position: Position) -> Bool {
        // As the decider, of two with one name the first; it refuses such policies.
        guard let schedule = policy.schedules.first(where: { $0.name == name }) else { return false }
        (isKnown, policyPosition) = (true, position)
        (kind, cron, intervalSeconds) = (schedule.kind, schedule.cron, schedule.intervalSeconds)
        return true
    }

    /// Says whether the row changed.
    fileprivate mutating func apply(_ event: ScheduleTicked) -> Bool {
        guard isKnown else { return false }
        lastDue = OptionalTime(event.due)
        (ticks, missed) = (ticks.saturatingAdding(1), missed.saturatingAdding(event.missed))
        lastJob = event.openJob ?? lastJob
        return true
    }
}

extension ByteArena {
    /// Nil: there is none.
    fileprivate mutating func put(_ text: String?, in ref: inout ByteRef) {
        if let text { put(text, in: &ref) } else { free(&ref) }
    }
}
