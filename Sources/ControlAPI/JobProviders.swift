import Decisions
import EventModel
import Jobs
import Working

/// Passes commands about jobs to the queue. A rejected command is an answer, not an error.
public protocol JobKeeping: Sendable {
    /// The log's time.
    func now() -> Timestamp
    /// Returns when the decision is durable.
    func execute(_ request: JobRequest) async throws -> JobAnswer
    /// - Parameter wait: where no job can start, wait so long until one can.
    func lease(_ lease: LeaseRequest, wait: Duration) async throws -> JobAnswer
    /// - Returns: the attempts that the worker no longer has.
    func heartbeat(worker: String, _ attempts: [JobAttempt]) async throws -> [JobAttempt]
    func workerStatuses() async throws -> [WorkerStatus]
    func query<R: Sendable>(_ body: @Sendable (JobQueues) throws -> R) async throws -> R
}

extension JobService: JobKeeping {}
