import Decisions
import EventModel
import Jobs
import Synchronization
import Working
@testable import ControlAPI

/// A queue without a log: it answers what a test sets, and shows no jobs.
final class JobStandIn: JobKeeping {
    struct Facts {
        var answer = JobAnswer.done(position: Position(41), isRepeated: false)
        var requests: [JobRequest] = []
    }
    let facts = Mutex(Facts())

    func now() -> Timestamp { CertificateSite.now }
    func execute(_ request: JobRequest) async throws -> JobAnswer {
        facts.withLock { facts in
            facts.requests.append(request)
            return facts.answer
        }
    }
    func lease(_ lease: LeaseRequest, wait: Duration) async throws -> JobAnswer { facts.withLock { $0.answer } }
    func heartbeat(worker: String, _ attempts: [JobAttempt]) async throws -> [JobAttempt] { attempts }
    func workerStatuses() async throws -> [WorkerStatus] { [] }
    func query<R: Sendable>(_ body: @Sendable (JobQueues) throws -> R) async throws -> R { try body(JobQueues()) }
}
