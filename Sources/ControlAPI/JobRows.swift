import Decisions
import EventModel
import Jobs
import Working

// The JSON of answers about jobs, as schemas/openapi.yaml names it.

struct JobRow: Encodable, Sendable {
    struct Running: Encodable, Sendable {
        let token: UInt64
        let attempt: Int64
        let worker: String
        let startedAt: String
        let leaseSeconds: Int64?

        enum CodingKeys: String, CodingKey {
            case token, attempt, worker, startedAt = "started_at", leaseSeconds = "lease_seconds"
        }
    }

    /// Why a waiting job does not start.
    struct Delay: Encodable, Sendable {
        let reason: String
        let until: String?

        init(_ delay: JobDelay, kind: String, queue: JobQueue) {
            switch delay {
            case .none:
                (reason, until) = ("it waits for a worker that takes \(kind) from the queue \(queue.rawValue)", nil)
            case .until(let time, let reason): (self.reason, until) = (reason, time.description)
            case .paused(let actor, let note):
                reason = "\(actor) paused the queue \(queue.rawValue)\(note.map { ": \($0)" } ?? "")"
                until = nil
            }
        }
    }

    let id: Int64
    let tenant: String
    let kind: String
    let queue: String
    let key: String?
    let scope: String?
    let status: String
    let attempts: Int
    let failures: Int
    let attemptsMax: Int
    let rescues: Int
    let queuedAt: String
    let runAt: String?
    let endedAt: String?
    let deadline: String?
    let arguments: JSONValue?
    /// Of the event that queued it.
    let position: UInt64
    let running: Running?
    let delay: Delay?

    enum CodingKeys: String, CodingKey {
        case id, tenant, kind, queue, key, scope, status, attempts, failures, attemptsMax = "attempts_max", rescues
        case queuedAt = "queued_at", runAt = "run_at", endedAt = "ended_at", deadline, arguments, position, running
        case delay
    }

    init(_ job: JobSummary, _ delay: JobDelay?) {
        (id, tenant, kind, queue) = (job.id, job.tenantID, job.kind, job.queue.rawValue)
        (key, scope, status) = (job.key, job.scope, job.status.name)
        (attempts, failures, attemptsMax, rescues) = (job.starts, job.failures, job.attemptsMax, job.rescues)
        (queuedAt, deadline) = (job.queuedAt.description, job.deadline?.description)
        runAt = job.status.isOpen ? job.runAt.description : nil
        endedAt = job.status.isOpen ? nil : job.runAt.description
        // What was queued inside the daemon is JSON too; other text is shown as a string.
        arguments = job.arguments.map { JSONValue(text: $0) ?? .string($0) }
        position = job.position.rawValue
        running = job.running.map { run in
            Running(
                token: run.token, attempt: run.number, worker: run.worker,
                startedAt: Timestamp(microseconds: run.startedAt).description, leaseSeconds: run.leaseSeconds)
        }
        self.delay = delay.map { Delay($0, kind: job.kind, queue: job.queue) }
    }
}

struct JobPage: Encodable, Sendable {
    let items: [JobRow]
    @Nullable var next: Int64?
}

struct QueuedJobs: Encodable, Sendable {
    struct Item: Encodable, Sendable {
        let id: Int64
        let new: Bool
    }
    let items: [Item]
    @Nullable var position: UInt64?
}

/// A job for a worker.
struct LeasedRow: Encodable, Sendable {
    let id: Int64
    let token: UInt64
    let attempt: Int64
    let tenant: String
    let kind: String
    let queue: String
    let key: String?
    let scope: String?
    let deadline: String?
    let arguments: JSONValue?
    let timeoutSeconds: Int64

    enum CodingKeys: String, CodingKey {
        case id, token, attempt, tenant, kind, queue, key, scope, deadline, arguments
        case timeoutSeconds = "timeout_seconds"
    }

    init(_ job: LeasedJob) {
        (id, token, attempt) = (job.attempt.id, job.attempt.token, job.number)
        (tenant, kind, queue) = (job.tenantID, job.kind, job.queue.rawValue)
        (key, scope, deadline) = (job.key, job.scope, job.deadline?.description)
        arguments = job.arguments.map { JSONValue(text: $0) ?? .string($0) }
        timeoutSeconds = job.timeoutSeconds
    }
}

struct ReportedRow: Encodable, Sendable {
    let id: Int64
    let status: String
}

struct QueueRow: Encodable, Sendable {
    struct Pause: Encodable, Sendable {
        let at: String
        let actor: String
        let note: String?
    }

    let name: String
    let priority: Int
    let waiting: Int
    let ready: Int
    let running: Int
    let oldestAt: String?
    let completed24h: Int
    let failed24h: Int
    let paused: Pause?

    enum CodingKeys: String, CodingKey {
        case name, priority, waiting, ready, running, oldestAt = "oldest_at", completed24h = "completed_24h"
        case failed24h = "failed_24h", paused
    }

    init(_ queue: QueueStatistics) {
        (name, priority) = (queue.queue.rawValue, queue.queue.priority)
        (waiting, ready, running) = (queue.waiting, queue.ready, queue.running)
        oldestAt = queue.oldest?.description
        (completed24h, failed24h) = (queue.lastDay.succeeded, queue.lastDay.failed)
        paused = queue.pause.map { Pause(at: $0.at.description, actor: $0.actor, note: $0.note) }
    }
}

struct LimitRow: Encodable, Sendable {
    let kind: String
    let scope: String?
    let rate: String?
    let opensAt: String?

    enum CodingKeys: String, CodingKey { case kind, scope, rate, opensAt = "opens_at" }

    init(_ limit: JobLimit) {
        (kind, scope, rate) = (limit.kind, limit.scope, limit.rate?.description)
        opensAt = limit.opensAt?.description
    }
}

struct ScheduleRow: Encodable, Sendable {
    let name: String
    let kind: String
    let cron: String?
    let intervalSeconds: Int64?
    let lastAt: String?
    let nextAt: String?

    enum CodingKeys: String, CodingKey {
        case name, kind, cron, intervalSeconds = "interval_seconds", lastAt = "last_at", nextAt = "next_at"
    }
}

struct WorkerRow: Encodable, Sendable {
    struct Job: Encodable, Sendable {
        let id: Int64
        let kind: String
        let attempt: Int64?
    }

    let name: String
    let remote: Bool
    let queues: [String]
    let kinds: [String]?
    let lastSeen: String
    let running: [Job]

    enum CodingKeys: String, CodingKey { case name, remote, queues, kinds, lastSeen = "last_seen", running }

    init(_ worker: WorkerStatus) {
        (name, remote) = (worker.name, worker.isRemote)
        (queues, kinds) = (worker.queues.sorted().map(\.rawValue), worker.kinds?.sorted())
        lastSeen = worker.lastSeen.description
        running = worker.running.map { Job(id: $0.id, kind: $0.kind, attempt: $0.running?.number) }
    }
}

/// Queues, limits, schedules and workers at one moment.
struct QueuesAnswer: Encodable, Sendable {
    let at: String
    let queues: [QueueRow]
    let limits: [LimitRow]
    let schedules: [ScheduleRow]
    let workers: [WorkerRow]
}

/// All queues together.
struct QueueTotals: Encodable, Sendable {
    let at: String
    let queued: Int
    let ready: Int
    let running: Int
    let completed24h: Int
    let failed24h: Int
    let poisoned: Int
    let oldestAt: String?
    let queues: [QueueRow]

    enum CodingKeys: String, CodingKey {
        case at, queued, ready, running, completed24h = "completed_24h", failed24h = "failed_24h", poisoned
        case oldestAt = "oldest_at", queues
    }

    init(_ queues: [QueueStatistics], poisoned: Int, at now: Timestamp) {
        at = now.description
        queued = queues.reduce(0) { $0 + $1.waiting }
        ready = queues.reduce(0) { $0 + $1.ready }
        running = queues.reduce(0) { $0 + $1.running }
        completed24h = queues.reduce(0) { $0 + $1.lastDay.succeeded }
        failed24h = queues.reduce(0) { $0 + $1.lastDay.failed }
        self.poisoned = poisoned
        oldestAt = queues.compactMap(\.oldest).min()?.description
        self.queues = queues.map(QueueRow.init)
    }
}
