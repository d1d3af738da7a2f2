import Deciding
import Decisions
import EventLog
import EventModel
import Issuing
import Jobs
import Logging
import ServiceLifecycle
import Settings
import Synchronization
import Working

/// The decider of jobs, with the daemon's own workers.
struct JobProcessing: Sendable {
    /// Queues as they were at the last look, for health and metrics.
    struct Report: Sendable {
        var at: Timestamp
        var queues: [QueueStatistics]
        var poisoned: Int
    }

    let queues: DeciderService<JobQueues>
    let service: JobService
    let reports = Reports()
    private let runner: JobRunner
    private let policy: JobPolicy
    private let clock: @Sendable () -> Timestamp

    private static let reportSeconds = 10

    init(
        _ settings: Settings, log: FileLog, writer: DecisionWriter, certificates: CertificateService,
        snapshot: @escaping @Sendable () -> DeciderSnapshot<JobQueues>?
    ) {
        let clock: @Sendable () -> Timestamp = { log.now() }
        self.clock = clock
        queues = DeciderService(writer: writer, source: log, clock: clock, snapshot: snapshot)
        service = JobService(queues: queues, clock: clock)
        runner = JobRunner(
            service,
            handlers: [
                CertificateRenewalJob(certificates), BatchRenewalJob(certificates, service, clock: clock),
            ],
            concurrency: Dictionary(uniqueKeysWithValues: JobQueue.allCases.map { ($0, settings.jobWorkers) }))
        policy = JobPolicy(settings)
    }

    /// - Parameter receiving: returns true once the clock is trusted; events of a wrong clock would stay in the log.
    func part(after receiving: Task<Bool, Never>, _ troubles: Troubles, _ logger: Logger) -> DaemonPart {
        DaemonPart(
            "jobs", logger: logger,
            cancellable: {
                let report: @Sendable ((any Error)?) -> Void = { error in
                    guard troubles.report(error, by: JobQueues.storedName), let error else { return }
                    logger.error("cannot decide about jobs; none starts", metadata: ["error": "\(error)"])
                }
                do { try await queues.recover() } catch { report(error) }
                guard await receiving.value else { return }
                await withDiscardingTaskGroup { group in
                    group.addTask { await queues.run(report: report) }
                    group.addTask {
                        await service.run { error in
                            guard troubles.report(error, by: "leases"), let error else { return }
                            logger.error("cannot rescue jobs; retrying in 1 s", metadata: ["error": "\(error)"])
                        }
                    }
                    group.addTask {
                        await runner.run { error in
                            guard troubles.report(error, by: "workers"), let error else { return }
                            logger.error("cannot run jobs; retrying in 2 s", metadata: ["error": "\(error)"])
                        }
                    }
                    group.addTask { await watch() }
                }
            })
    }

    private func watch() async {
        var isPolicySet = false
        while !Task.isCancelled {
            if !isPolicySet {
                isPolicySet = (try? await service.execute(JobRequest(command: .setPolicy(policy)))) != nil
            }
            let now = clock()
            if let (statistics, poisoned) = try? await service.query({ ($0.statistics(now: now), $0.poisonedCount) }) {
                reports.set(Report(at: now, queues: statistics, poisoned: poisoned))
            }
            try? await Task.sleep(for: .seconds(Self.reportSeconds))
        }
    }

    final class Reports: Sendable {
        private let last = Mutex<Report?>(nil)

        /// Nil until the queues were looked at.
        var latest: Report? { last.withLock { $0 } }
        func set(_ report: Report) { last.withLock { $0 = report } }
    }
}

extension JobPolicy {
    init(_ settings: Settings) {
        self.init()
        var renewal = Kind(CertificateRenewalJob.kind)
        renewal.backoffSeconds = 60
        renewal.rate = settings.renewalsPerMinute.map { JobRate(count: Int64($0), seconds: 60) }
        kinds = [renewal]
    }
}
