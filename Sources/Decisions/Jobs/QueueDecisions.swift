import EventModel

// Queues, rate limits and schedules of jobs, on the record: when a job starts follows from them.

/// At most `count` starts in any period of `seconds`.
public struct JobRate: Codable, Sendable, Equatable, CustomStringConvertible {
    public var count: Int64
    public var seconds: Int64

    public init(count: Int64, seconds: Int64) { (self.count, self.seconds) = (count, seconds) }

    private static let units: [(name: Character, seconds: Int64)] = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)]
    public static let countMax: Int64 = 1_000_000

    /// Reads `100/m`: a whole number, and one of s, m, h, d.
    public init?(_ text: String) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, let count = Int64(parts[0]), (1...Self.countMax).contains(count),
            parts[1].count == 1, let unit = Self.units.first(where: { $0.name == parts[1].first })
        else { return nil }
        self.init(count: count, seconds: unit.seconds)
    }

    public var description: String {
        Self.units.first { $0.seconds == seconds }.map { "\(count)/\($0.name)" } ?? "\(count)/\(seconds)s"
    }
}

/// How jobs are run and repeated. On the record, because decisions follow from it.
public struct JobPolicy: Codable, Sendable, Equatable {
    public struct Kind: Codable, Sendable, Equatable {
        public var kind: String
        /// Where a job names none.
        public var queue = JobQueue.normal
        public var attemptsMax: Int64 = 5
        /// Pause before the second attempt; it doubles with each one.
        public var backoffSeconds: Int64 = 30
        /// An attempt that takes longer has failed, whatever its heartbeats say.
        public var timeoutSeconds: Int64 = 600
        public var rate: JobRate?
        /// The rate is that of each scope, such as an authority; else that of all jobs of the kind.
        public var isRatePerScope = false

        public init(_ kind: String) { self.kind = kind }

        enum CodingKeys: String, CodingKey {
            case kind, queue, attemptsMax = "attempts_max", backoffSeconds = "backoff_seconds"
            case timeoutSeconds = "timeout_seconds", rate, isRatePerScope = "rate_per_scope"
        }
    }

    /// Queues a job again and again, with its name as the job's key: at most one is open.
    public struct Schedule: Codable, Sendable, Equatable {
        public var name: String
        public var kind: String
        /// Five fields, in UTC (crontab(5)); nil: by `intervalSeconds`.
        public var cron: String?
        /// Since 1970, in whole intervals.
        public var intervalSeconds: Int64?

        public init(_ name: String, kind: String, cron: String? = nil, intervalSeconds: Int64? = nil) {
            (self.name, self.kind, self.cron, self.intervalSeconds) = (name, kind, cron, intervalSeconds)
        }

        enum CodingKeys: String, CodingKey { case name, kind, cron, intervalSeconds = "interval_seconds" }
    }

    /// Others have the defaults.
    public var kinds: [Kind] = []
    public var schedules: [Schedule] = []

    public init() {}
}

/// The settings of jobs have changed.
public struct JobPolicySet: Codable, Sendable, Equatable {
    public var policy: JobPolicy
    public var actor: String

    public init(_ policy: JobPolicy, actor: String) { (self.policy, self.actor) = (policy, actor) }
}

/// A queue starts no jobs, or starts them again. Running ones go on.
public struct QueueChanged: Codable, Sendable, Equatable {
    public enum Change: String, Codable, Sendable {
        case paused, resumed
    }

    public var change: Change
    public var queue: JobQueue
    /// For people.
    public var note: String?
    public var tenantID = Envelope.everyTenant
    public var actor: String
    public var idempotencyKey: String?
    public var requestDigest: String?

    public init(_ change: Change, queue: JobQueue, note: String? = nil, actor: String) {
        (self.change, self.queue, self.note, self.actor) = (change, queue, note, actor)
    }

    enum CodingKeys: String, CodingKey {
        case change, queue, note, tenantID = "tenant_id", actor, idempotencyKey = "idempotency_key"
        case requestDigest = "request_sha256"
    }
}

/// A server asked for a pause (`Retry-After`, RFC 9110, section 10.2.3). Jobs of the kind and scope start when it is
/// over; the attempts that met it count as none.
public struct QueueLimited: Codable, Sendable, Equatable {
    public var kind: String
    public var scope: String?
    public var until: Timestamp
    public var reason: String?
    public var jobs: [JobAttempt]
    public var worker: String

    public init(kind: String, scope: String?, until: Timestamp, reason: String?, jobs: [JobAttempt], worker: String) {
        (self.kind, self.scope, self.until, self.reason) = (kind, scope, until, reason)
        (self.jobs, self.worker) = (jobs, worker)
    }
}

/// An operator's rate for a kind, in place of the settings'.
public struct QueueRateSet: Codable, Sendable, Equatable {
    public var kind: String
    /// Nil: the settings count again.
    public var rate: JobRate?
    public var tenantID = Envelope.everyTenant
    public var actor: String
    public var idempotencyKey: String?
    public var requestDigest: String?

    public init(kind: String, rate: JobRate?, actor: String) {
        (self.kind, self.rate, self.actor) = (kind, rate, actor)
    }

    enum CodingKeys: String, CodingKey {
        case kind, rate, tenantID = "tenant_id", actor, idempotencyKey = "idempotency_key"
        case requestDigest = "request_sha256"
    }
}

/// The time of a schedule has come. Its job is `job.queued/1` in the same commit, unless the last one is still open.
public struct ScheduleTicked: Codable, Sendable, Equatable {
    public var name: String
    /// The tick; the last one, where several are due.
    public var due: Timestamp
    /// Ticks before it that passed while no daemon ran.
    public var missed: Int64
    /// The open job that takes its place; nil: a new one was queued.
    public var openJob: Int64?

    public init(_ name: String, due: Timestamp, missed: Int64, openJob: Int64?) {
        (self.name, self.due, self.missed, self.openJob) = (name, due, missed, openJob)
    }

    enum CodingKeys: String, CodingKey { case name, due, missed, openJob = "open_job" }
}

extension JobPolicySet: Decision {
    public static var schemas: [String] { [JobSchema.policySet.rawValue] }
    public var envelope: Envelope { Envelope(tenantID: Envelope.everyTenant, actor: actor, subject: "jobs") }
    public var summary: String {
        "set the policy of \(counted(policy.kinds.count, "kind")) of jobs and "
            + counted(policy.schedules.count, "schedule")
    }
}

extension QueueChanged: CommandedDecision {
    public static var schemas: [String] { [JobSchema.queuePaused.rawValue, JobSchema.queueResumed.rawValue] }
    public var schema: JobSchema { change == .paused ? .queuePaused : .queueResumed }
    public var envelope: Envelope { commandEnvelope(about: "queue:\(queue.rawValue)") }
    public var summary: String { "\(change.rawValue) the queue \(queue.rawValue)\(note.map { ": \($0)" } ?? "")" }
}

extension QueueLimited: Decision {
    public static var schemas: [String] { [JobSchema.queueLimited.rawValue] }
    public var envelope: Envelope {
        Envelope(tenantID: Envelope.everyTenant, actor: worker, subject: "kind:\(kind)")
    }
    public var summary: String {
        "delayed the jobs \(kind)\(scope.map { " of \($0)" } ?? "") until \(until)\(reason.map { ": \($0)" } ?? "")"
    }
}

extension QueueRateSet: CommandedDecision {
    public static var schemas: [String] { [JobSchema.queueRateSet.rawValue] }
    public var envelope: Envelope { commandEnvelope(about: "kind:\(kind)") }
    public var summary: String {
        rate.map { "limited the jobs \(kind) to \($0)" } ?? "removed the operator's limit of the jobs \(kind)"
    }
}

extension ScheduleTicked: Decision {
    public static var schemas: [String] { [JobSchema.scheduleTicked.rawValue] }
    public var envelope: Envelope {
        var envelope = Envelope(
            tenantID: Envelope.everyTenant, actor: EngineActor.name, subject: "schedule:\(name)")
        envelope.isAudited = false
        return envelope
    }
    public var summary: String {
        "reached the time \(due) of the schedule \(name)\(missed > 0 ? ", after \(missed) missed" : "")"
    }
}

/// Everything that the decider of jobs decides, refusals aside.
let jobDecisions: [any Decision.Type] = [
    JobsQueued.self, JobsStarted.self, JobsSucceeded.self, JobFailed.self, JobsCancelled.self, JobsRescued.self,
    JobPoisoned.self, JobLate.self, JobRescheduled.self, JobPolicySet.self, QueueChanged.self, QueueLimited.self,
    QueueRateSet.self, ScheduleTicked.self,
]

extension DecisionCatalog {
    public static let jobs = DecisionCatalog(jobDecisions)
}
