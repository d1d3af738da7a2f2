import Decisions
import EventModel
import Primitives
import Synchronization

/// A job to queue.
public struct NewJob: Sendable, Equatable {
    public var kind: String
    /// Nil: that of its kind.
    public var queue: JobQueue?
    public var key: String?
    public var scope: String?
    public var runAt: Timestamp?
    public var deadline: Timestamp?
    /// Nil: that of its kind.
    public var attemptsMax: Int64?
    /// JSON for the worker.
    public var arguments: String?

    public init(_ kind: String, key: String? = nil) { (self.kind, self.key) = (kind, key) }
}

/// What a worker reports about an attempt.
public struct AttemptReport: Sendable, Equatable {
    public enum Outcome: Sendable, Equatable {
        case succeeded(String?)
        /// `isFinal`: another attempt would fail too.
        case failed(String, isFinal: Bool)
        /// A server asked for a pause: nothing of this kind and scope starts until it is over.
        case limited(seconds: Int64, reason: String?)
        /// The worker stops, and has not done the work.
        case released

        var name: String {
            switch self {
            case .succeeded: "succeeded"
            case .failed: "failed"
            case .limited: "limited"
            case .released: "released"
            }
        }
        var detail: String? {
            switch self {
            case .succeeded(let result): result
            case .failed(let error, _): error
            case .limited(_, let reason): reason
            case .released: nil
            }
        }
    }

    public let attempt: JobAttempt
    public let outcome: Outcome

    public init(_ attempt: JobAttempt, _ outcome: Outcome) { (self.attempt, self.outcome) = (attempt, outcome) }
}

/// Which jobs a worker takes.
public struct LeaseRequest: Sendable, Equatable {
    public var worker: String
    public var queues: Set<JobQueue>
    /// Nil: any kind.
    public var kinds: Set<String>?
    public var count: Int
    /// Nil: the worker is a part of the daemon.
    public var leaseSeconds: Int64?

    public init(
        worker: String, queues: Set<JobQueue> = Set(JobQueue.allCases), kinds: Set<String>? = nil, count: Int = 1,
        leaseSeconds: Int64? = nil
    ) {
        (self.worker, self.queues, self.kinds) = (worker, queues, kinds)
        (self.count, self.leaseSeconds) = (count, leaseSeconds)
    }
}

/// What operators, workers and the services around the queue ask for.
public enum JobCommand: Sendable, Equatable {
    /// All of them, or none. One whose key is taken by an open job is not queued a second time: the open job moves to
    /// the higher queue, and to the earlier time and deadline, of both.
    case queue([NewJob], cause: String?)
    case lease(LeaseRequest)
    case report([AttemptReport], worker: String)
    case rescue([JobAttempt], JobsRescued.Cause)
    /// Attempts that took longer than their kind allows.
    case timeOut([JobAttempt])
    case cancel([Int64], reason: String?)
    /// Runs a waiting job now, or one that has ended without success once more.
    case retry(Int64)
    case move(Int64, JobQueue)
    case pause(JobQueue, note: String?)
    case resume(JobQueue)
    case setRate(kind: String, JobRate?)
    case setPolicy(JobPolicy)

    /// The name on the record (`command.rejected/1`).
    public var name: String {
        switch self {
        case .queue: "job.queue"
        case .lease: "job.lease"
        case .report: "job.report"
        case .rescue: "job.rescue"
        case .timeOut: "job.time_out"
        case .cancel: "job.cancel"
        case .retry: "job.retry"
        case .move: "job.move"
        case .pause: "queue.pause"
        case .resume: "queue.resume"
        case .setRate: "queue.limit"
        case .setPolicy: "job.policy"
        }
    }

    /// The object of the command; empty when it creates it, or has several.
    var subject: String {
        switch self {
        case .cancel(let ids, _): ids.count == 1 ? "job:\(ids[0])" : ""
        case .retry(let id), .move(let id, _): "job:\(id)"
        case .pause(let queue, _), .resume(let queue): "queue:\(queue.rawValue)"
        case .setRate(let kind, _): "kind:\(kind)"
        case .queue, .lease, .report, .rescue, .timeOut, .setPolicy: ""
        }
    }
}

/// A command with its actor, its tenant and its idempotency key.
public struct JobRequest: Sendable {
    /// Whose jobs; `Envelope.everyTenant`: any tenant's.
    public var tenantID: String
    public var actor: String
    public var idempotencyKey: String?
    /// SHA-256 of what the caller sent, in hex.
    public var digest: String?
    public var command: JobCommand

    /// - Parameter sent: the caller's request, where `idempotencyKey` is given.
    public init(
        tenantID: String = Envelope.everyTenant, actor: String = EngineActor.name, idempotencyKey: String? = nil,
        sent: [UInt8] = [], command: JobCommand
    ) {
        (self.tenantID, self.actor, self.command) = (tenantID, actor, command)
        self.idempotencyKey = idempotencyKey
        digest = idempotencyKey.map { _ in SHA256.digest(Array("\(command.name)\n".utf8) + sent).description }
    }
}

/// Commands that are decided together, in one commit.
public final class JobBatch: Sendable {
    public let requests: [JobRequest]
    /// What `decide` answers each one, until the positions of its events are known.
    let drafts = Mutex<[JobDraft.Answer]>([])

    public init(_ requests: [JobRequest]) { self.requests = requests }
}

/// An attempt that a worker is to make.
public struct LeasedJob: Sendable, Equatable {
    public let attempt: JobAttempt
    public let number: Int64
    public let tenantID: String
    public let kind: String
    public let queue: JobQueue
    public let key: String?
    public let scope: String?
    public let deadline: Timestamp?
    public let arguments: String?
    public let timeoutSeconds: Int64
}

public struct QueuedJob: Sendable, Equatable {
    public let id: Int64
    /// False: an open job has the key.
    public let isNew: Bool
}

public enum ReportOutcome: String, Sendable, Equatable {
    case recorded
    /// The same attempt was reported before. Nothing is recorded.
    case repeated
    /// The attempt had been ended before. The result is on record, and changes nothing.
    case late
}

/// The result of a command, returned once its events are durable.
public enum JobAnswer: Sendable, Equatable {
    /// `position`: of the first event; nil when nothing had to be recorded.
    case done(position: Position?, isRepeated: Bool)
    case queued([QueuedJob], position: Position?, isRepeated: Bool)
    case leased([LeasedJob])
    case reported([ReportOutcome])
    case rejected(position: Position, code: JobRefusal.Code, reason: String)
    /// Another command of the batch is about the same jobs: send it again.
    case deferred
}

public struct JobRefusal: Error, Sendable, Equatable {
    public enum Code: String, Sendable {
        case notFound = "not_found", invalidValue = "invalid_value", alreadyExists = "already_exists"
        case illegalTransition = "illegal_transition", keyReused = "idempotency_key_reused"
        case limitReached = "limit_reached"
    }

    public let code: Code
    public let reason: String

    init(_ code: Code, _ reason: String) { (self.code, self.reason) = (code, reason) }
}
