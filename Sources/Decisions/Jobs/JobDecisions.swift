import EventModel

// The life of a job, on the record. A job has attempts, one at a time. The position of an attempt's start is its
// fencing token: a result with another token changes nothing.

/// What was decided about jobs, their queues and schedules (`EventKind.decision`).
public enum JobSchema: String, Sendable, CaseIterable {
    case queued = "job.queued/1"
    case started = "job.started/1"
    case succeeded = "job.succeeded/1"
    case failed = "job.failed/1"
    case cancelled = "job.cancelled/1"
    case rescued = "job.rescued/1"
    case poisoned = "job.poisoned/1"
    case late = "job.late/1"
    case rescheduled = "job.rescheduled/1"
    case policySet = "job.policy/1"
    case queuePaused = "queue.paused/1"
    case queueResumed = "queue.resumed/1"
    case queueLimited = "queue.limited/1"
    case queueRateSet = "queue.rate_set/1"
    case scheduleTicked = "schedule.ticked/1"
}

/// Queues in the order in which their jobs start.
public enum JobQueue: String, Codable, Sendable, CaseIterable, Comparable {
    case critical, high, normal, low

    /// For people; the higher one starts first.
    public var priority: Int {
        switch self {
        case .critical: 10
        case .high: 7
        case .normal: 5
        case .low: 3
        }
    }

    /// True if jobs of `a` start before those of `b`.
    public static func < (a: JobQueue, b: JobQueue) -> Bool { a.priority > b.priority }
}

/// New jobs of one tenant, in one commit.
public struct JobsQueued: Codable, Sendable, Equatable {
    public struct Job: Codable, Sendable, Equatable {
        /// Unique in the log, rising.
        public var id: Int64
        /// What is to be done, such as `certificate.renew`.
        public var kind: String
        public var queue: JobQueue
        /// Unique among the tenant's open jobs of the kind; nil: any number may be open.
        public var key: String?
        /// What rate limits of the kind are separate for, such as the issuing authority.
        public var scope: String?
        /// Not before; nil: now.
        public var runAt: Timestamp?
        /// When the work should be done. Within a queue the nearest one starts first, and retries come closer as it
        /// approaches.
        public var deadline: Timestamp?
        public var attemptsMax: Int64
        /// JSON for the worker.
        public var arguments: String?

        public init(id: Int64, kind: String, queue: JobQueue, attemptsMax: Int64) {
            (self.id, self.kind, self.queue, self.attemptsMax) = (id, kind, queue, attemptsMax)
        }

        enum CodingKeys: String, CodingKey {
            case id, kind, queue, key, scope, runAt = "run_at", deadline, attemptsMax = "attempts_max"
            case arguments = "args"
        }
    }

    public var tenantID: String
    public var jobs: [Job]
    /// Why, such as `schedule:sweep` or `job:7`; nil: the actor asked for it.
    public var cause: String?
    public var actor: String
    public var idempotencyKey: String?
    /// SHA-256 of the command, in hex: the same key with another command is refused.
    public var requestDigest: String?

    public init(tenantID: String, jobs: [Job], actor: String) {
        (self.tenantID, self.jobs, self.actor) = (tenantID, jobs, actor)
    }

    enum CodingKeys: String, CodingKey {
        case tenantID = "tenant_id", jobs, cause, actor, idempotencyKey = "idempotency_key"
        case requestDigest = "request_sha256"
    }
}

/// Attempts of jobs, handed to one worker. The event's position is the fencing token of each.
public struct JobsStarted: Codable, Sendable, Equatable {
    public struct Attempt: Codable, Sendable, Equatable {
        public var id: Int64
        /// 1 is the first one.
        public var attempt: Int64

        public init(id: Int64, attempt: Int64) { (self.id, self.attempt) = (id, attempt) }

        enum CodingKeys: String, CodingKey { case id, attempt = "n" }
    }

    public var worker: String
    /// Nil: the worker is a part of the daemon, and its attempts end with the process.
    public var leaseSeconds: Int64?
    public var jobs: [Attempt]

    public init(worker: String, leaseSeconds: Int64?, jobs: [Attempt]) {
        (self.worker, self.leaseSeconds, self.jobs) = (worker, leaseSeconds, jobs)
    }

    enum CodingKeys: String, CodingKey { case worker, leaseSeconds = "lease_seconds", jobs }
}

/// An attempt of a job, by its fencing token.
public struct JobAttempt: Codable, Sendable, Hashable {
    public var id: Int64
    /// Position of the `job.started/1`.
    public var token: UInt64

    public init(id: Int64, token: UInt64) { (self.id, self.token) = (id, token) }
}

public struct JobsSucceeded: Codable, Sendable, Equatable {
    public struct Result: Codable, Sendable, Equatable {
        public var id: Int64
        public var token: UInt64
        /// For people.
        public var result: String?

        public init(_ attempt: JobAttempt, result: String? = nil) {
            (id, token, self.result) = (attempt.id, attempt.token, result)
        }

        public var attempt: JobAttempt { JobAttempt(id: id, token: token) }
    }

    public var worker: String
    public var jobs: [Result]

    public init(worker: String, jobs: [Result]) { (self.worker, self.jobs) = (worker, jobs) }
}

/// An attempt that failed.
public struct JobFailed: Codable, Sendable, Equatable {
    public var id: Int64
    public var token: UInt64
    public var attempt: Int64
    public var worker: String
    public var error: String
    /// When the next attempt may start; nil: none does.
    public var retryAt: Timestamp?

    public init(_ attempt: JobAttempt, number: Int64, worker: String, error: String, retryAt: Timestamp?) {
        (id, token, self.attempt) = (attempt.id, attempt.token, number)
        (self.worker, self.error, self.retryAt) = (worker, error, retryAt)
    }

    enum CodingKeys: String, CodingKey { case id, token, attempt, worker, error, retryAt = "retry_at" }
}

/// Jobs that no longer run. A running attempt's result is late.
public struct JobsCancelled: Codable, Sendable, Equatable {
    public var tenantID: String
    public var ids: [Int64]
    public var reason: String?
    public var actor: String
    public var idempotencyKey: String?
    public var requestDigest: String?

    public init(tenantID: String, ids: [Int64], actor: String) {
        (self.tenantID, self.ids, self.actor) = (tenantID, ids, actor)
    }

    enum CodingKeys: String, CodingKey {
        case tenantID = "tenant_id", ids, reason, actor, idempotencyKey = "idempotency_key"
        case requestDigest = "request_sha256"
    }
}

/// Attempts that ended without a result: their jobs start again.
public struct JobsRescued: Codable, Sendable, Equatable {
    public enum Cause: String, Codable, Sendable {
        /// The daemon has started again; its own attempts ended with the process before.
        case processEnded = "process_ended"
        /// A remote worker sent no heartbeat within the lease.
        case leaseExpired = "lease_expired"
        /// The worker has stopped in order, and given the job back. Does not count towards poisoning.
        case released
    }

    public var cause: Cause
    public var jobs: [JobAttempt]

    public init(cause: Cause, jobs: [JobAttempt]) { (self.cause, self.jobs) = (cause, jobs) }
}

/// A job whose attempts ended without a result again and again. It starts no more by itself.
public struct JobPoisoned: Codable, Sendable, Equatable {
    public var id: Int64
    public var token: UInt64
    public var cause: JobsRescued.Cause
    /// Attempts that ended without a result, the last one included.
    public var rescues: Int64

    public init(_ attempt: JobAttempt, cause: JobsRescued.Cause, rescues: Int64) {
        (id, token, self.cause, self.rescues) = (attempt.id, attempt.token, cause, rescues)
    }
}

/// A result that came after its attempt had been ended. It changes nothing.
public struct JobLate: Codable, Sendable, Equatable {
    public var id: Int64
    public var token: UInt64
    public var worker: String
    /// `succeeded`, `failed` or `limited`.
    public var outcome: String
    /// Result or error, for people.
    public var detail: String?

    public init(_ attempt: JobAttempt, worker: String, outcome: String, detail: String?) {
        (id, token, self.worker, self.outcome, self.detail) = (attempt.id, attempt.token, worker, outcome, detail)
    }
}

/// A job was moved to another queue or time. One that had ended waits again.
public struct JobRescheduled: Codable, Sendable, Equatable {
    public var id: Int64
    public var tenantID: String
    public var queue: JobQueue?
    public var runAt: Timestamp?
    public var deadline: Timestamp?
    /// It has all of its attempts again, and no rescue counts.
    public var isReset = false
    /// Why, as `JobsQueued.cause`.
    public var cause: String?
    public var actor: String
    public var idempotencyKey: String?
    public var requestDigest: String?

    public init(id: Int64, tenantID: String, actor: String) {
        (self.id, self.tenantID, self.actor) = (id, tenantID, actor)
    }

    enum CodingKeys: String, CodingKey {
        case id, tenantID = "tenant_id", queue, runAt = "run_at", deadline, isReset = "reset", cause, actor
        case idempotencyKey = "idempotency_key", requestDigest = "request_sha256"
    }
}

extension Envelope {
    /// Of a step of jobs, which the jobs' tables show.
    init(jobs ids: [Int64], tenantID: String = Envelope.everyTenant, actor: String = EngineActor.name) {
        self.init(tenantID: tenantID, actor: actor, subject: ids.count == 1 ? "job:\(ids[0])" : "jobs")
        isAudited = false
    }
}

/// `job 7`, `3 jobs`.
private func named(_ ids: [Int64]) -> String { ids.count == 1 ? "job \(ids[0])" : counted(ids.count, "job") }

extension JobsQueued: CommandedDecision {
    public static var schemas: [String] { [JobSchema.queued.rawValue] }
    public var envelope: Envelope {
        var envelope = commandEnvelope(about: jobs.count == 1 ? "job:\(jobs[0].id)" : "jobs")
        envelope.isAudited = actor != EngineActor.name
        return envelope
    }
    public var summary: String {
        let kinds = Set(jobs.map(\.kind)).sorted().prefix(3).joined(separator: ", ")
        return "queued \(named(jobs.map(\.id))) (\(kinds))\(cause.map { " because of \($0)" } ?? "")"
    }
}

extension JobsStarted: Decision {
    public static var schemas: [String] { [JobSchema.started.rawValue] }
    public var envelope: Envelope { Envelope(jobs: jobs.map(\.id), actor: worker) }
    public var summary: String { "started \(named(jobs.map(\.id)))" }
}

extension JobsSucceeded: Decision {
    public static var schemas: [String] { [JobSchema.succeeded.rawValue] }
    public var envelope: Envelope { Envelope(jobs: jobs.map(\.id), actor: worker) }
    public var summary: String { "finished \(named(jobs.map(\.id)))" }
}

extension JobFailed: Decision {
    public static var schemas: [String] { [JobSchema.failed.rawValue] }
    public var envelope: Envelope { Envelope(jobs: [id], actor: worker) }
    public var summary: String {
        "failed attempt \(attempt) of job \(id): \(error)\(retryAt.map { "; the next one from \($0) on" } ?? "")"
    }
}

extension JobsCancelled: CommandedDecision {
    public static var schemas: [String] { [JobSchema.cancelled.rawValue] }
    public var envelope: Envelope { commandEnvelope(about: ids.count == 1 ? "job:\(ids[0])" : "jobs") }
    public var summary: String { "cancelled \(named(ids))\(reason.map { ": \($0)" } ?? "")" }
}

extension JobsRescued.Cause {
    public var sentence: String {
        switch self {
        case .processEnded: "the daemon's process ended"
        case .leaseExpired: "the worker sent no heartbeat within its lease"
        case .released: "the worker gave it back"
        }
    }
}

extension JobsRescued: Decision {
    public static var schemas: [String] { [JobSchema.rescued.rawValue] }
    public var envelope: Envelope { Envelope(jobs: jobs.map(\.id)) }
    public var summary: String { "rescued \(named(jobs.map(\.id))): \(cause.sentence)" }
}

extension JobPoisoned: Decision {
    public static var schemas: [String] { [JobSchema.poisoned.rawValue] }
    public var envelope: Envelope { Envelope(jobs: [id]) }
    public var summary: String {
        "stopped job \(id): \(counted(Int(clamping: rescues), "attempt")) ended without a result, the last one because "
            + cause.sentence
    }
}

extension JobLate: Decision {
    public static var schemas: [String] { [JobSchema.late.rawValue] }
    public var envelope: Envelope { Envelope(jobs: [id], actor: worker) }
    public var summary: String { "reported job \(id) as \(outcome) after its attempt had ended; nothing changed" }
}

extension JobRescheduled: CommandedDecision {
    public static var schemas: [String] { [JobSchema.rescheduled.rawValue] }
    public var envelope: Envelope {
        var envelope = commandEnvelope(about: "job:\(id)")
        envelope.isAudited = actor != EngineActor.name
        return envelope
    }
    public var summary: String {
        let place = queue.map { " to the queue \($0.rawValue)" } ?? "", time = runAt.map { " to \($0)" } ?? ""
        return "\(isReset ? "restarted" : "moved") job \(id)\(place)\(time)"
            + (cause.map { " because of \($0)" } ?? "")
    }
}
