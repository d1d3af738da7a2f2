import Decisions
import Jobs

/// What a kind of job does. It may be called again for the same job, after a crash at any point: its effects must be
/// keyed by the job or by what it is about.
public protocol JobHandler: Sendable {
    var kind: String { get }

    /// Runs on a task of its own; blocking calls belong on a thread. Cancelled when the daemon stops, when an operator
    /// cancels the job, or when it takes longer than its kind allows.
    /// - Throws: whatever makes the attempt fail.
    func run(_ job: LeasedJob) async throws -> AttemptReport.Outcome
}

/// The workers in the daemon: so many of each queue, for the kinds that it has handlers for.
public struct JobRunner: Sendable {
    private let service: JobService
    private let handlers: [String: any JobHandler]
    private let concurrency: [JobQueue: Int]
    private let name: String

    /// - Parameters:
    ///   - concurrency: attempts at a time, by queue.
    ///   - name: prefix of the workers' names.
    public init(
        _ service: JobService, handlers: [any JobHandler], concurrency: [JobQueue: Int], name: String = "daemon"
    ) {
        (self.service, self.concurrency, self.name) = (service, concurrency, name)
        self.handlers = Dictionary(handlers.map { ($0.kind, $0) }) { $1 }
    }

    /// Runs jobs until the task is cancelled; then gives those that have not ended back.
    /// - Parameter report: called with each failure of the queue, and with nil after recovery.
    public func run(report: @escaping @Sendable ((any Error)?) -> Void) async {
        guard !handlers.isEmpty else { return }
        await withDiscardingTaskGroup { group in
            for (queue, count) in concurrency {
                for number in 0..<count {
                    group.addTask { await work("\(name)/\(queue.rawValue)/\(number + 1)", queue, report) }
                }
            }
        }
    }

    private func work(_ worker: String, _ queue: JobQueue, _ report: @Sendable ((any Error)?) -> Void) async {
        let lease = LeaseRequest(worker: worker, queues: [queue], kinds: Set(handlers.keys))
        while !Task.isCancelled {
            do {
                guard case .leased(let jobs) = try await service.lease(lease, wait: .seconds(60)) else { continue }
                for job in jobs { try await run(job, worker) }
                report(nil)
            } catch {
                report(error)
                try? await Task.sleep(for: .seconds(2))
            }
        }
    }

    private func run(_ job: LeasedJob, _ worker: String) async throws {
        guard let outcome = await outcome(of: job, worker) else { return }
        // Not cancelled with the worker: the result is on record before the log closes.
        let report = JobRequest(command: .report([AttemptReport(job.attempt, outcome)], worker: worker))
        _ = try await Task { [service] in try await service.execute(report) }.value
    }

    /// Nil: the attempt was ended meanwhile, by an operator for example.
    private func outcome(of job: LeasedJob, _ worker: String) async -> AttemptReport.Outcome? {
        guard let handler = handlers[job.kind] else {
            return .failed("this daemon has no handler for jobs \(job.kind)", isFinal: false)
        }
        do {
            return try await withThrowingTaskGroup(of: AttemptReport.Outcome?.self) { group in
                group.addTask { try await handler.run(job) }
                group.addTask {
                    try await Task.sleep(for: .seconds(job.timeoutSeconds))
                    return .failed("the attempt did not end within \(job.timeoutSeconds) s", isFinal: false)
                }
                group.addTask {
                    repeat {
                        try await Task.sleep(for: .seconds(2))
                    } while try await service.heartbeat(worker: worker, [job.attempt]).isEmpty
                    return nil
                }
                defer { group.cancelAll() }
                return try await group.next() ?? nil
            }
        } catch {
            return Task.isCancelled ? .released : .failed("\(error)", isFinal: false)
        }
    }
}
