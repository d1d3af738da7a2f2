import ArgumentParser
import Deciding
import Decisions
import EventLog
import EventModel
import Foundation
import Jobs
import Working

/// Jobs queued, started and succeeded, durably; and what a long queue costs.
struct JobsBench: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "jobs", abstract: "Run jobs that do nothing, durably, and measure a long queue.")
    @Option(help: "Jobs in all.") var jobs = 100_000
    @Option(help: "Jobs in a command.") var batch = 500
    @Option(help: "Workers at a time.") var workers = 2
    @Option(help: "Jobs in the long queue.") var waiting = 1_000_000
    @Option(help: "Single jobs whose start is timed.") var singles = 2_000

    func run() async throws {
        let folder = "/var/tmp/refold-bench-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let log = try FileLog.open(directory: folder + "/log")
        defer { log.close() }
        let queues = DeciderService<JobQueues>(writer: DecisionWriter(log), source: log, clock: { log.now() })
        let service = JobService(queues: queues, clock: { log.now() })
        let rescue = Task { await service.run { _ in } }
        defer { rescue.cancel() }
        var figures = ["jobs_per_second": try await throughput(service)]
        figures["start_p99_ms"] = try await latency(service)
        let before = Self.residentMegabytes()
        try await fill(service)
        figures["queued_megabytes"] = Self.residentMegabytes() - before
        figures["statistics_ms"] = try await Self.milliseconds {
            _ = try await service.query { $0.statistics(now: log.now()) }
        }
        figures["page_ms"] = try await Self.milliseconds {
            _ = try await service.query { $0.jobs(after: 0, limit: 100) { $0.queue == .low }.count }
        }
        figures["lease_ms"] = try await Self.milliseconds {
            _ = try await service.lease(LeaseRequest(worker: "w", count: 100, leaseSeconds: 60))
        }
        print(String(decoding: try JSONEncoder().encode(figures), as: UTF8.self))
    }

    private func queue(_ service: JobService, _ jobs: [NewJob]) async throws {
        guard
            case .queued = try await service.execute(
                JobRequest(tenantID: "acme", actor: "bench", command: .queue(jobs, cause: nil)))
        else { throw ValidationError("not queued") }
    }

    /// From the first command to the last result on disk.
    private func throughput(_ service: JobService) async throws -> Double {
        let clock = ContinuousClock(), begin = clock.now
        try await withThrowingTaskGroup { group in
            for worker in 0..<workers {
                group.addTask {
                    let share = jobs / workers
                    for first in stride(from: 0, to: share, by: batch) {
                        let new = (first..<min(first + batch, share)).map {
                            NewJob("bench.nothing", key: "\(worker)/\($0)")
                        }
                        try await queue(service, new)
                        let lease = LeaseRequest(worker: "w\(worker)", count: new.count, leaseSeconds: 60)
                        guard case .leased(let leased) = try await service.lease(lease, wait: .seconds(10)) else {
                            throw ValidationError("not leased")
                        }
                        let reports = leased.map { AttemptReport($0.attempt, .succeeded(nil)) }
                        _ = try await service.execute(
                            JobRequest(command: .report(reports, worker: "w\(worker)")))
                    }
                }
            }
            try await group.waitForAll()
        }
        guard try await service.query({ $0.waitingCounts.values.reduce(0, +) + $0.running.count }) == 0 else {
            throw ValidationError("jobs are left")
        }
        return Double(jobs) / (begin.duration(to: clock.now) / .seconds(1))
    }

    /// From the command that queues a job to the worker that has it, one at a time.
    private func latency(_ service: JobService) async throws -> Double {
        var times: [Double] = []
        for _ in 0..<singles {
            let lease = LeaseRequest(worker: "w", leaseSeconds: 60)
            async let leased = service.lease(lease, wait: .seconds(10))
            await Task.yield()
            let clock = ContinuousClock(), begin = clock.now
            try await queue(service, [NewJob("bench.nothing")])
            guard case .leased(let jobs) = try await leased, let job = jobs.first else {
                throw ValidationError("not leased")
            }
            times.append(begin.duration(to: clock.now) / .milliseconds(1))
            let report = AttemptReport(job.attempt, .succeeded(nil))
            _ = try await service.execute(JobRequest(command: .report([report], worker: "w")))
        }
        return times.sorted()[min(times.count - 1, times.count * 99 / 100)]
    }

    private func fill(_ service: JobService) async throws {
        for first in stride(from: 0, to: waiting, by: 1_000) {
            let new = (first..<min(first + 1_000, waiting)).map { number in
                var job = NewJob("bench.nothing", key: "device-\(number)")
                job.queue = JobQueue.allCases[number % 4]
                job.deadline = Timestamp(seconds: 2_000_000_000 - Int64(number))
                job.arguments = #"{"device_id":"device-\#(number)"}"#
                return job
            }
            try await queue(service, new)
        }
    }

    private static func milliseconds(_ body: () async throws -> Void) async throws -> Double {
        var times: [Double] = []
        for _ in 0..<9 {
            let clock = ContinuousClock(), begin = clock.now
            try await body()
            times.append(begin.duration(to: clock.now) / .milliseconds(1))
        }
        return times.sorted()[times.count / 2]
    }

    private static func residentMegabytes() -> Double {
        let status = (try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)) ?? ""
        let line = status.split(separator: "\n").first { $0.hasPrefix("VmRSS:") } ?? ""
        return (Double(line.split(separator: " ").dropFirst().first ?? "") ?? 0) / 1_024
    }
}
