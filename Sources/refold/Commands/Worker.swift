import ArgumentParser
import Foundation
import PrivateServices
import Synchronization
import Threading

struct WorkerVerb: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "worker", abstract: "Run jobs by a command, on this or another machine.",
        discussion: """
            The command is run by /bin/sh -c for each job, with the job as JSON on standard input. Exit code 0: the \
            job succeeded, and standard output (at most 64 KiB) is its result. 75 (EX_TEMPFAIL), or the end by a \
            signal: the attempt failed, and another one follows. Any other: the job failed. On SIGTERM the worker \
            leases no more jobs, waits for the running ones, and gives back those that do not end in time.

            Example: refold worker --queues critical,high --concurrency 8 --kinds report.monthly --exec ./report.sh
            """)
    @Option(help: "Queues, by commas. Default: all.") var queues: String?
    @Option(help: "Kinds that the command can do, by commas. Default: all.") var kinds: String?
    @Option(help: "Jobs at a time, 1 to 64.") var concurrency = 1
    @Option(help: "The command.") var exec: String
    @Option(help: "The worker's name. Default: HOST-PID.") var name: String?
    @Option(name: .customLong("lease-seconds"), help: "Another worker gets a job after so long without a heartbeat.")
    var leaseSeconds = 30
    @Option(name: .customLong("drain-seconds"), help: "How long running jobs may go on after SIGTERM.")
    var drainSeconds = 30
    @OptionGroup var daemon: DaemonOptions

    func validate() throws {
        guard (1...64).contains(concurrency) else { throw ValidationError("--concurrency must be 1 to 64") }
        guard (3...3_600).contains(leaseSeconds) else { throw ValidationError("--lease-seconds must be 3 to 3600") }
        guard (0...86_400).contains(drainSeconds) else { throw ValidationError("--drain-seconds must be 0 to 86400") }
    }

    func run() async throws {
        let signals = Signals()
        let worker = RemoteWorker(
            client: daemon.client, command: exec,
            name: name ?? "\(ProcessInfo.processInfo.hostName)-\(getpid())", queues: Self.list(queues),
            kinds: Self.list(kinds), leaseSeconds: leaseSeconds)
        let working = Task { try await worker.run(concurrency: concurrency) }
        let draining = Task {
            await signals.wait()
            working.cancel()
            try await Task.sleep(for: .seconds(drainSeconds))
            worker.giveBack()
        }
        defer { draining.cancel() }
        do {
            try await working.value
        } catch let error as APIError {
            throw error.report(json: daemon.json)
        }
    }

    /// Nil: nothing is named.
    private static func list(_ text: String?) -> [String]? {
        let names = text?.split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) } ?? []
        return names.isEmpty ? nil : names
    }
}

/// A worker over HTTP: leases jobs, runs a command for each, and reports.
struct RemoteWorker: Sendable {
    let client: DaemonClient
    let command: String
    let name: String
    let queues: [String]?
    let kinds: [String]?
    let leaseSeconds: Int
    private let isGivingBack = Flag()

    private static let pollSeconds = 20, outputBytesMax = 65_536
    /// EX_TEMPFAIL of sysexits.h.
    private static let temporaryFailure: Int32 = 75

    init(
        client: DaemonClient, command: String, name: String, queues: [String]?, kinds: [String]?, leaseSeconds: Int
    ) {
        (self.client, self.command, self.name) = (client, command, name)
        (self.queues, self.kinds, self.leaseSeconds) = (queues, kinds, leaseSeconds)
    }

    /// Set once.
    private final class Flag: Sendable {
        private let value = Mutex(false)
        var isSet: Bool { value.withLock { $0 } }
        func set() { value.withLock { $0 = true } }
    }

    private struct Job: Sendable {
        let id: Int64
        let token: UInt64
        let kind: String
        let timeoutSeconds: Int
        let json: [UInt8]

        init?(_ row: [String: Any]) {
            guard let id = row["id"] as? NSNumber, let token = row["token"] as? NSNumber,
                let kind = row["kind"] as? String, let timeout = row["timeout_seconds"] as? NSNumber
            else { return nil }
            (self.id, self.token, self.kind) = (id.int64Value, token.uint64Value, kind)
            timeoutSeconds = timeout.intValue
            json = Array(jsonLine(row).utf8)
        }
    }

    /// Works until the task is cancelled, and the running jobs have ended.
    /// - Throws: `APIError`, when the daemon refuses this worker.
    func run(concurrency: Int) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<concurrency { group.addTask { try await work() } }
            try await group.waitForAll()
        }
    }

    /// Ends the commands that run, and gives their jobs back.
    func giveBack() { isGivingBack.set() }

    private func work() async throws {
        var isAway = false
        while !Task.isCancelled {
            do {
                for job in try await lease() {
                    // Not cancelled with the worker: a running job may end.
                    await Task { await run(job) }.value
                }
                isAway = false
            } catch let error as APIError {
                guard !Task.isCancelled else { return }
                guard error.isAway else { throw error }
                if !isAway { printError("no answer from the daemon; trying again every 2 s") }
                isAway = true
                try? await Task.sleep(for: .seconds(2))
            }
        }
    }

    private func lease() async throws -> [Job] {
        var body: [String: Any] = ["worker": name, "lease_seconds": leaseSeconds, "wait_seconds": Self.pollSeconds]
        body["queues"] = queues
        body["kinds"] = kinds
        let answer = try await client.post("/api/v1/jobs/lease", body).object()
        return (answer["items"] as? [[String: Any]] ?? []).compactMap(Job.init)
    }

    private func run(_ job: Job) async {
        let isLost = Flag()
        let heartbeats = Task {
            while true {
                try await Task.sleep(for: .seconds(Double(leaseSeconds) / 3))
                do {
                    _ = try await client.post(
                        "/api/v1/jobs/\(job.id)/heartbeat", ["worker": name, "token": job.token])
                } catch APIError.problem(let problem, _) where problem.status == 409 {
                    return isLost.set()
                } catch is APIError {}
            }
        }
        let outcome = await execute(job) { isLost.isSet || isGivingBack.isSet }
        heartbeats.cancel()
        guard !isLost.isSet else {
            return printError("job \(job.id) (\(job.kind)) was ended by the daemon; its command was stopped")
        }
        await report(job, outcome)
    }

    /// The fields of the result.
    private func execute(_ job: Job, isStopped: @escaping @Sendable () -> Bool) async -> [String: any Sendable] {
        let shell = ShellCommand(command, timeoutSeconds: job.timeoutSeconds)
        let ended: Result<[UInt8], ShellCommand.Failure> = await withCheckedContinuation { continuation in
            startThread(name: "job") {
                let result = Result<[UInt8], ShellCommand.Failure> { () throws(ShellCommand.Failure) in
                    try shell.run(input: job.json, outputBytesMax: Self.outputBytesMax, isStopped: isStopped)
                }
                continuation.resume(returning: result)
            }
        }
        switch ended {
        case .success(let output):
            let text = String(decoding: output, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
            return text.isEmpty ? ["outcome": "succeeded"] : ["outcome": "succeeded", "result": text]
        case .failure(let failure):
            if failure.exitCode == nil, isGivingBack.isSet { return ["outcome": "released"] }
            let isFinal = failure.exitCode.map { $0 != Self.temporaryFailure } ?? false
            return ["outcome": "failed", "error": failure.description, "final": isFinal]
        }
    }

    /// A result may be sent again: the daemon records it once.
    private func report(_ job: Job, _ outcome: [String: any Sendable]) async {
        var body: [String: Any] = outcome
        (body["worker"], body["token"]) = (name, job.token)
        let what = "job \(job.id) (\(job.kind)) \(outcome["outcome"] ?? "")"
        while true {
            do {
                let answer = try await client.post("/api/v1/jobs/\(job.id)/result", body).object()
                let status = answer["status"] as? String
                let reason = (outcome["error"] as? String).map { ": " + TextTable.cell($0) } ?? ""
                return print("\(what)\(status == "late" ? " too late" : "")\(reason)")
            } catch let error as APIError where error.isAway && !isGivingBack.isSet {
                try? await Task.sleep(for: .seconds(1))
            } catch {
                return printError("\(what), but the result could not be reported: \(error)")
            }
        }
    }
}
