import Deciding
import Decisions
import EventLog
import EventModel
import Foundation
import Jobs
import Primitives
import Synchronization
import TestSupport
import Testing
@testable import Working

/// The queue on a real log, over restarts.
@Suite struct JobServiceTests {
    /// One life of a daemon.
    private func run<R>(
        _ folder: String, handlers: [any JobHandler] = [], concurrency: Int = 2,
        _ body: (JobService) async throws -> R
    ) async throws -> R {
        var options = FileLogOptions()
        options.isKeeping = false
        let log = try FileLog.open(directory: folder + "/log", options: options)
        defer { log.close() }
        let queues = DeciderService<JobQueues>(writer: DecisionWriter(log), source: log, clock: { log.now() })
        let service = JobService(queues: queues, clock: { log.now() })
        let runner = JobRunner(
            service, handlers: handlers,
            concurrency: Dictionary(uniqueKeysWithValues: JobQueue.allCases.map { ($0, concurrency) }))
        return try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { await queues.run { _ in } }
            group.addTask { await service.run { _ in } }
            group.addTask { await runner.run { _ in } }
            defer { group.cancelAll() }
            return try await body(service)
        }
    }

    private func withFolder<R>(_ body: (String) async throws -> R) async throws -> R {
        let folder = try makeTemporaryFolder("working")
        defer { try? FileManager.default.removeItem(atPath: folder) }
        return try await body(folder)
    }

    private func queue(_ service: JobService, _ jobs: NewJob...) async throws -> [Int64] {
        let answer = try await service.execute(
            JobRequest(tenantID: "t", actor: "ann", command: .queue(jobs, cause: nil)))
        guard case .queued(let queued, _, _) = answer else { throw SystemError("\(answer)") }
        return queued.map(\.id)
    }

    private func lease(
        _ service: JobService, _ worker: String = "remote", count: Int = 1, seconds: Int64? = 30,
        wait: Duration = .zero
    ) async throws -> [LeasedJob] {
        let lease = LeaseRequest(worker: worker, count: count, leaseSeconds: seconds)
        guard case .leased(let jobs) = try await service.lease(lease, wait: wait) else { return [] }
        return jobs
    }

    private func report(
        _ service: JobService, _ attempt: JobAttempt, _ outcome: AttemptReport.Outcome = .succeeded(nil)
    ) async throws -> ReportOutcome? {
        let answer = try await service.execute(
            JobRequest(command: .report([AttemptReport(attempt, outcome)], worker: "remote")))
        guard case .reported(let outcomes) = answer else { return nil }
        return outcomes.first
    }

    @Test func commandsThatComeTogetherAreOneCommit() async throws {
        try await withFolder { folder in
            try await run(folder) { service in
                let ids = try await withThrowingTaskGroup(of: [Int64].self) { group in
                    for _ in 0..<200 { group.addTask { try await queue(service, NewJob("k")) } }
                    return try await group.reduce(into: []) { $0 += $1 }
                }
                #expect(Set(ids).count == 200)
                let jobs = try await withThrowingTaskGroup(of: [LeasedJob].self) { group in
                    for number in 0..<40 { group.addTask { try await lease(service, "w\(number)", count: 6) } }
                    return try await group.reduce(into: []) { $0 += $1 }
                }
                #expect(jobs.count == 200 && Set(jobs.map(\.attempt.id)).count == 200)
                let outcomes = try await withThrowingTaskGroup(of: ReportOutcome?.self) { group in
                    for job in jobs { group.addTask { try await report(service, job.attempt) } }
                    return try await group.reduce(into: []) { $0.append($1) }
                }
                #expect(outcomes.allSatisfy { $0 == .recorded })
            }
        }
    }

    @Test func aLeaseWaitsForAJob() async throws {
        try await withFolder { folder in
            try await run(folder) { service in
                async let leased = lease(service, wait: .seconds(20))
                #expect(try await eventually { try await service.workerStatuses().count == 1 })
                let id = try await queue(service, NewJob("k"))
                #expect(try await leased.map(\.attempt.id) == id)
                // One whose time is to come.
                async let delayed = lease(service, wait: .seconds(20))
                var job = NewJob("k")
                job.runAt = Timestamp(microseconds: SystemTime.wallMicroseconds() + 300_000)
                let next = try await queue(service, job)
                #expect(try await delayed.map(\.attempt.id) == next)
                #expect(SystemTime.wallMicroseconds() >= job.runAt!.microseconds)
                #expect(try await lease(service, wait: .milliseconds(10)).isEmpty)
            }
        }
    }

    @Test func aWorkerThatFallsSilentLosesItsJob() async throws {
        try await withFolder { folder in
            try await run(folder) { service in
                _ = try await queue(service, NewJob("k"), NewJob("k"))
                let silent = try await lease(service, "silent", seconds: 1)[0]
                let alive = try await lease(service, "alive", seconds: 2)[0]
                let again = try await lease(service, "other", wait: .seconds(20))[0]
                #expect(again.attempt.id == silent.attempt.id && again.attempt.token != silent.attempt.token)
                #expect(try await service.heartbeat(worker: "silent", [silent.attempt]) == [silent.attempt])
                #expect(try await service.heartbeat(worker: "other", [alive.attempt]) == [alive.attempt])
                #expect(try await report(service, silent.attempt) == .late)
                #expect(try await report(service, again.attempt) == .recorded)
                for _ in 0..<4 {
                    #expect(try await service.heartbeat(worker: "alive", [alive.attempt]).isEmpty)
                    try await Task.sleep(for: .milliseconds(700))
                }
                #expect(try await report(service, alive.attempt) == .recorded)
            }
        }
    }

    @Test func aRestartRescuesOurOwnAttemptsAtOnceAndOthersAfterTheirLeases() async throws {
        try await withFolder { folder in
            let (own, remote) = try await run(folder) { service in
                _ = try await queue(service, NewJob("k"), NewJob("k"))
                #expect(try await eventually { try await !lease(service, "daemon", seconds: nil).isEmpty })
                let own = try await service.query { $0.running.first { $0.value.leaseSeconds == nil } }
                return (own, try await lease(service, "remote", seconds: 3)[0])
            }
            try await run(folder) { service in
                let began = ContinuousClock.now
                let rescued = try await lease(service, "daemon", seconds: nil, wait: .seconds(20))
                #expect(rescued.map(\.attempt.id) == own.map { [$0.key] })
                #expect(ContinuousClock.now - began < .seconds(3))
                #expect(rescued[0].attempt.token != own?.value.token && rescued[0].number == 2)
                // The remote worker has worked on meanwhile.
                #expect(try await service.heartbeat(worker: "remote", [remote.attempt]).isEmpty)
                #expect(try await report(service, remote.attempt) == .recorded)
            }
        }
    }

    private struct Handler: JobHandler {
        let kind: String
        let body: @Sendable (LeasedJob) async throws -> AttemptReport.Outcome
        func run(_ job: LeasedJob) async throws -> AttemptReport.Outcome { try await body(job) }
    }

    private func status(_ service: JobService, _ id: Int64) async throws -> JobStatus? {
        try await service.query { $0.job(id)?.status }
    }

    @Test func theDaemonRunsItsKinds() async throws {
        let ran = Mutex<[Int64]>([])
        let handlers = [
            Handler(kind: "good") { job in
                ran.withLock { $0.append(job.attempt.id) }
                return .succeeded(nil)
            },
            Handler(kind: "bad") { _ in throw SystemError("no route to host") },
        ]
        try await withFolder { folder in
            try await run(folder, handlers: handlers) { service in
                var bad = NewJob("bad")
                bad.attemptsMax = 1
                let ids = try await queue(service, NewJob("good"), bad, NewJob("other"))
                #expect(try await eventually { try await status(service, ids[1]) == .failed })
                #expect(try await eventually { try await status(service, ids[0]) == nil })
                #expect(ran.withLock { $0 } == [ids[0]])
                #expect(try await status(service, ids[2]) == .waiting)
            }
        }
    }

    @Test func anAttemptEndsWithItsKindsTimeOut() async throws {
        let handlers = [
            Handler(kind: "slow") { _ in
                try await Task.sleep(for: .seconds(60))
                return .succeeded(nil)
            }
        ]
        var policy = JobPolicy(), kind = JobPolicy.Kind("slow")
        (kind.timeoutSeconds, kind.attemptsMax) = (1, 1)
        policy.kinds = [kind]
        try await withFolder { [policy] folder in
            try await run(folder, handlers: handlers) { service in
                _ = try await service.execute(JobRequest(command: .setPolicy(policy)))
                let ids = try await queue(service, NewJob("slow"))
                #expect(try await eventually { try await status(service, ids[0]) == .failed })
            }
            // A remote one that goes on sending heartbeats, too.
            try await run(folder) { service in
                let ids = try await queue(service, NewJob("slow"))
                let job = try await lease(service)[0]
                #expect(
                    try await eventually {
                        _ = try await service.heartbeat(worker: "remote", [job.attempt])
                        return try await status(service, ids[0]) == .failed
                    })
                #expect(try await report(service, job.attempt) == .late)
            }
        }
    }

    @Test func anOrderlyStopGivesJobsBack() async throws {
        let began = Mutex(0)
        let handlers = [
            Handler(kind: "slow") { _ in
                began.withLock { $0 += 1 }
                try await Task.sleep(for: .seconds(60))
                return .succeeded(nil)
            }
        ]
        try await withFolder { folder in
            var ids: [Int64] = []
            for life in 1...4 {
                try await run(folder, handlers: handlers) { service in
                    if life == 1 { ids = try await queue(service, NewJob("slow")) }
                    #expect(await eventually { began.withLock { $0 } == life })
                }
            }
            try await run(folder) { service in
                let job = try await service.query { [ids] in $0.job(ids[0]) }
                #expect(job?.status == .waiting && job?.rescues == 0 && job?.starts == 4)
            }
        }
    }

    @Test func aCancelledJobStops() async throws {
        let isCancelled = Mutex(false), began = Mutex(false)
        let handlers = [
            Handler(kind: "slow") { _ in
                began.withLock { $0 = true }
                do { try await Task.sleep(for: .seconds(60)) } catch { isCancelled.withLock { $0 = true } }
                return .succeeded(nil)
            }
        ]
        try await withFolder { folder in
            try await run(folder, handlers: handlers) { service in
                let ids = try await queue(service, NewJob("slow"))
                #expect(await eventually { began.withLock { $0 } })
                _ = try await service.execute(
                    JobRequest(tenantID: "t", actor: "ann", command: .cancel(ids, reason: nil)))
                #expect(await eventually { isCancelled.withLock { $0 } })
                #expect(try await status(service, ids[0]) == .cancelled)
            }
        }
    }
}
