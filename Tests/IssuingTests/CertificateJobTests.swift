import Certificates
import Deciding
import Decisions
import EventModel
import Jobs
import TestSupport
import Testing
import Working
@testable import Issuing

/// Jobs about certificates, run by the daemon's own workers.
@Suite struct CertificateJobTests {
    private func running<R>(
        _ site: Site, workers: Int = 2, _ body: (JobService) async throws -> R
    ) async throws -> R {
        let clock: @Sendable () -> Timestamp = { site.folder.now }
        let queues = DeciderService<JobQueues>(writer: DecisionWriter(site.log), source: site.log, clock: clock)
        let service = JobService(queues: queues, clock: clock)
        let runner = JobRunner(
            service,
            handlers: [
                CertificateRenewalJob(site.certificates), BatchRenewalJob(site.certificates, service, clock: clock),
            ], concurrency: [.critical: workers, .normal: workers, .low: workers])
        return try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { await service.run { _ in } }
            group.addTask { await runner.run { _ in } }
            defer { group.cancelAll() }
            return try await body(service)
        }
    }

    private func queue(_ service: JobService, _ job: NewJob) async throws -> Int64 {
        let answer = try await service.execute(
            JobRequest(tenantID: "acme", actor: "op", command: .queue([job], cause: nil)))
        guard case .queued(let jobs, _, _) = answer, let id = jobs.first?.id else { throw SystemError("\(answer)") }
        return id
    }

    private func hasEnded(_ service: JobService, _ id: Int64) async throws -> Bool {
        try await eventually { try await service.query { $0.job(id)?.status.isOpen ?? false } == false }
    }

    @Test func aBatchRenewsWhatExpiresSoonAndEachDeviceOnce() async throws {
        try await Site.run { site in
            try await site.authority()
            for (device, days) in [("soon", 5), ("later", 20), ("much-later", 80)] as [(String, Int64)] {
                try await site.issue(device) { $0.validitySeconds = days * 86_400 }
            }
            try await running(site) { service in
                for round in 0..<2 {
                    let id = try await queue(service, BatchRenewalJob.job(expiringDays: 30))
                    #expect(try await hasEnded(service, id))
                    #expect(try await service.query { $0.job(id) } == nil, "round \(round)")
                    #expect(
                        try await eventually {
                            try await site.registry.query {
                                $0.renewal(tenantID: "acme", deviceID: "soon") != nil
                                    && $0.renewal(tenantID: "acme", deviceID: "later") != nil
                            }
                        })
                }
                let renewals = try await site.registry.query { registry in
                    ["soon", "later", "much-later"].map { registry.renewal(tenantID: "acme", deviceID: $0)?.attempt }
                }
                #expect(renewals == [1, 1, nil])
            }
        }
    }

    @Test func anAttemptThatIsRunAgainAsksOnce() async throws {
        try await Site.run { site in
            try await site.authority()
            try await site.issue("d1")
            let handler = CertificateRenewalJob(site.certificates)
            try await running(site, workers: 0) { service in
                let id = try await queue(service, CertificateRenewalJob.job(deviceID: "d1"))
                for _ in 0..<2 {
                    let lease = LeaseRequest(worker: "w", leaseSeconds: 60)
                    guard case .leased(let jobs) = try await service.lease(lease, wait: .seconds(20)),
                        case .succeeded = try await handler.run(try #require(jobs.first))
                    else { return #expect(Bool(false)) }
                    #expect(jobs[0].attempt.id == id)
                    // The worker is killed before it reports.
                    let rescue = JobCommand.rescue([jobs[0].attempt], .leaseExpired)
                    _ = try await service.execute(JobRequest(command: rescue))
                }
                let attempt = try await site.registry.query { $0.renewal(tenantID: "acme", deviceID: "d1")?.attempt }
                #expect(attempt == 1)
            }
        }
    }

    @Test(
        arguments: [
            #"{"device_id":"unknown"}"#, "x", nil,
        ] as [String?])
    func whatCannotBeRenewedFailsAtOnce(_ arguments: String?) async throws {
        try await Site.run { site in
            try await running(site) { service in
                var job = NewJob(CertificateRenewalJob.kind)
                job.arguments = arguments
                job.queue = .low
                let id = try await queue(service, job)
                #expect(try await hasEnded(service, id))
                let ended = try #require(try await service.query { $0.job(id) })
                #expect(ended.status == .failed && ended.failures == 1)
            }
        }
    }

    @Test(
        arguments: [(0, JobQueue.critical), (7, .critical), (8, .high), (15, .high), (16, .normal), (31, .low)]
            as [(Int64, JobQueue)])
    func theNearerTheExpiryTheHigherTheQueue(_ days: Int64, _ queue: JobQueue) {
        #expect(BatchRenewalJob.queue(secondsLeft: days * 86_400) == queue)
    }
}
