import Decisions
import Decoding
import EventModel

// The rows of the jobs projection. The rules are in Jobs.swift.

enum JobTables {
    static let jobs = 0, attempts = 1, queues = 2, schedules = 3, policies = 4, counts = 5, hours = 6

    static let descriptor = ProjectionDescriptor(
        name: "jobs", version: 1,
        tables: [
            JobState.table, JobAttemptRow.table, JobQueueState.table, JobScheduleState.table, JobPolicyRow.table,
            JobCountsRow.table, JobHoursRow.table,
        ])
}

extension JobQueue: Field {}

/// In memory the id in eight bytes.
struct JobKey: RowKey {
    var id: Int64 = 0

    init() {}
    init(_ bytes: Bytes) { id = Int64(bigEndian: bytes.loadUnaligned(as: Int64.self)) }
    func append(to key: inout [UInt8]) { withUnsafeBytes(of: id.bigEndian) { key.append(contentsOf: $0) } }
}

struct JobState: RowState {
    static let table = Table("jobs_v1", write: .upsert, Self.self)

    enum Status: String, Field {
        case waiting = "WAITING"
        case running = "RUNNING"
        case succeeded = "SUCCEEDED"
        case failed = "FAILED"
        case cancelled = "CANCELLED"
        case poisoned = "POISONED"

        var isOpen: Bool { self == .waiting || self == .running }
    }

    /// `job.queued` was seen.
    var isKnown = false
    var status = Status.waiting
    var queue = JobQueue.normal
    /// Number of its tenant and kind in `JobSums`; nil: not looked up yet.
    var group: UInt32?
    var tenant = ByteRef(), kind = ByteRef(), key = ByteRef(), scope = ByteRef()
    var worker = ByteRef(), error = ByteRef(), result = ByteRef(), cause = ByteRef(), queuedBy = ByteRef()
    var runAt = Timestamp(microseconds: 0), deadline = OptionalTime()
    var attempt: Int64 = 0, attemptsMax: Int64 = 0, failures: Int64 = 0, rescues: Int64 = 0
    var leaseSeconds: Int64?
    /// Of the last attempt, which runs if the status says so.
    var token: Position?
    var queuedAt = OptionalTime(), startedAt = OptionalTime(), endedAt = OptionalTime()
    var position = Position(0), lastPosition = Position(0)

    mutating func columns(_ row: inout some RowVisitor, _ key: inout JobKey, _ arena: inout ByteArena) {
        row.key("id", &key.id)
        row.text("tenant_id", &tenant, &arena)
        row.text("kind", &kind, &arena)
        row.value("queue", &queue)
        row.text("key", &self.key, &arena)
        row.text("scope", &scope, &arena)
        row.value("status", &status)
        row.value("run_at", &runAt)
        row.value("deadline", &deadline)
        row.value("attempt", &attempt)
        row.value("attempts_max", &attemptsMax)
        row.value("failures", &failures)
        row.value("rescues", &rescues)
        row.value("lease_seconds", &leaseSeconds)
        row.text("worker", &worker, &arena)
        row.value("token", &token)
        row.text("error", &error, &arena)
        row.text("result", &result, &arena)
        row.text("cause", &cause, &arena)
        row.text("queued_by", &queuedBy, &arena)
        row.value("queued_at", &queuedAt)
        row.value("started_at", &startedAt)
        row.value("ended_at", &endedAt)
        row.value("position", &position)
        row.value("last_position", &lastPosition)
    }

    mutating func didLoad(_ key: JobKey) { isKnown = true }
}

/// An attempt, or a late result. Written whole at each step, from the job's state: no row needs to be loaded.
struct JobAttemptRow: TableRow {
    static let table = Table("job_attempts_v1", write: .upsert, Self.self)

    enum Outcome: String, Field {
        case succeeded = "SUCCEEDED"
        case failed = "FAILED"
        case rescued = "RESCUED"
        case released = "RELEASED"
        case poisoned = "POISONED"
        case cancelled = "CANCELLED"
        case limited = "LIMITED"
        case late = "LATE"
    }

    var job: Int64 = 0, token = Position(0)
    /// 0: the attempt. Of a late result: its position.
    var report = Position(0)
    var tenant = "", attempt: Int64?, worker = "", leaseSeconds: Int64?
    var startedAt = OptionalTime(), endedAt = OptionalTime()
    var outcome: Outcome?, reported: String?, detail: String?, nextAt = OptionalTime()

    mutating func columns(_ row: inout some RowVisitor) {
        row.key("job_id", &job)
        row.key("token", &token)
        row.key("report", &report)
        row.value("tenant_id", &tenant)
        row.value("attempt", &attempt)
        row.value("worker", &worker)
        row.value("lease_seconds", &leaseSeconds)
        row.value("started_at", &startedAt)
        row.value("ended_at", &endedAt)
        row.value("outcome", &outcome)
        row.value("reported", &reported)
        row.value("detail", &detail)
        row.value("next_at", &nextAt)
    }
}

struct JobQueueState: RowState {
    static let table = Table("job_queues_v1", write: .upsert, Self.self)

    var isKnown = false
    var tenant = Envelope.everyTenant, priority: Int64 = 0
    var pausedAt = OptionalTime(), pausedBy: String?, note: String?
    var lastPosition = Position(0)

    mutating func columns(_ row: inout some RowVisitor, _ key: inout Bytes, _ arena: inout ByteArena) {
        row.key("name", &key)
        row.value("tenant_id", &tenant)
        row.value("priority", &priority)
        row.value("paused_at", &pausedAt)
        row.value("paused_by", &pausedBy)
        row.value("note", &note)
        row.value("last_position", &lastPosition)
    }

    mutating func didLoad(_ key: Bytes) { isKnown = true }
}

struct JobScheduleState: RowState {
    static let table = Table("job_schedules_v1", write: .upsert, Self.self)

    /// A policy had it.
    var isKnown = false
    var tenant = Envelope.everyTenant, kind = "", cron: String?, intervalSeconds: Int64?
    var lastDue = OptionalTime(), ticks: Int64 = 0, missed: Int64 = 0, lastJob: Int64?
    var policyPosition = Position(0), lastPosition = Position(0)

    mutating func columns(_ row: inout some RowVisitor, _ key: inout Bytes, _ arena: inout ByteArena) {
        row.key("name", &key)
        row.value("tenant_id", &tenant)
        row.value("kind", &kind)
        row.value("cron", &cron)
        row.value("interval_seconds", &intervalSeconds)
        row.value("last_due", &lastDue)
        row.value("ticks", &ticks)
        row.value("missed", &missed)
        row.value("last_job", &lastJob)
        row.value("policy_position", &policyPosition)
        row.value("last_position", &lastPosition)
    }

    mutating func didLoad(_ key: Bytes) { isKnown = true }
}

struct JobPolicyRow: TableRow {
    static let table = Table("job_policies_v1", write: .insert, Self.self)

    var position = Position(0), tenant = Envelope.everyTenant, at = OptionalTime(), actor = "", policy: [UInt8] = []

    mutating func columns(_ row: inout some RowVisitor) {
        row.key("position", &position)
        row.value("tenant_id", &tenant)
        row.value("at", &at)
        row.value("actor", &actor)
        row.jsonb("policy", &policy)
    }
}
