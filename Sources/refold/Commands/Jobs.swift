import ArgumentParser
import Foundation

struct JobVerb: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "job", abstract: "List, queue, retry, cancel and watch jobs.",
        subcommands: [
            List.self, Show.self, Queue.self, Retry.self, Cancel.self, Move.self, Stats.self, Watch.self,
        ])

    static func path(_ tenant: String, _ id: Int64? = nil, _ verb: String? = nil) -> String {
        (["/api/v1/tenants", DaemonClient.escape(tenant), "jobs"] + [id.map(String.init), verb].compactMap { $0 })
            .joined(separator: "/")
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List a tenant's open jobs, and those that ended without success.",
            discussion: "Example: refold job list --tenant acme --status FAILED")
        @Option(help: "The tenant.") var tenant: String
        @Option(help: "critical, high, normal or low.") var queue: String?
        @Option(help: "Those of one kind.") var kind: String?
        @Option(help: "WAITING, RUNNING, FAILED, CANCELLED or POISONED.") var status: String?
        @Option(help: "Maximum number of jobs.") var limit: Int?
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            let rows = try await daemon.asking {
                try await $0.pages(
                    JobVerb.path(tenant), [("queue", queue), ("kind", kind), ("status", status?.uppercased())],
                    limit: limit)
            }
            printRows(
                daemon.json ? rows : rows.map(JobVerb.row), json: daemon.json,
                columns: [
                    .init("id", "id"), .init("kind", "kind"), .init("key", "key"), .init("queue", "queue"),
                    .init("status", "status"), .init("failures", "failures"), .init("worker", "worker"),
                    .init("not before", "run_at"), .init("waits because", "why"),
                ], none: "no such jobs")
        }
    }

    /// A row with what is nested in it.
    private static func row(_ job: [String: Any]) -> [String: Any] {
        var row = job
        row["worker"] = (job["running"] as? [String: Any])?["worker"]
        row["why"] = (job["delay"] as? [String: Any])?["reason"]
        return row
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show one job, and why it waits.", discussion: "Example: refold job show 4711")
        @Argument(help: "The job's id.") var id: Int64
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            let job = try await daemon.asking { try await $0.get("/api/queue/jobs/\(id)").object() }
            if daemon.json { return print(jsonLine(job)) }
            var row = JobVerb.row(job)
            for key in ["running", "delay"] { row[key] = nil }
            for (key, value) in job["running"] as? [String: Any] ?? [:] where row[key] == nil { row[key] = value }
            row["until"] = (job["delay"] as? [String: Any])?["until"]
            print(TextTable.record(row, order: ["id", "tenant", "kind", "key", "queue", "status", "why", "until"]))
        }
    }

    struct Queue: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Queue a job.",
            discussion: """
                A job with the key of an open job of the same kind is not queued a second time: the open job takes the \
                higher queue, and the earlier time and deadline.

                Example: refold job queue report.monthly --tenant acme --key 2026-11 --arguments '{"pages":3}'
                """)
        @Argument(help: "What is to be done, such as report.monthly.") var kind: String
        @Option(help: "critical, high, normal or low. Default: that of the kind.") var queue: String?
        @Option(help: "Unique among the tenant's open jobs of the kind.") var key: String?
        @Option(help: "What rate limits of the kind are separate for, such as a server.") var scope: String?
        @Option(name: .customLong("run-at"), help: "Not before this time (RFC 3339).") var runAt: String?
        @Option(help: "When the work should be done (RFC 3339).") var deadline: String?
        @Option(name: .customLong("attempts-max"), help: "Attempts that may fail. Default: that of the kind.")
        var attemptsMax: Int?
        @Option(help: "JSON for the worker.") var arguments: String?
        @OptionGroup var write: WriteOptions
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            var body: [String: Any] = ["kind": kind]
            (body["queue"], body["key"], body["scope"]) = (queue, key, scope)
            (body["run_at"], body["deadline"], body["attempts_max"]) = (runAt, deadline, attemptsMax)
            if let arguments {
                guard
                    let value = try? JSONSerialization.jsonObject(
                        with: Data(arguments.utf8), options: .fragmentsAllowed)
                else { throw ExitCode(2, printing: "--arguments is not JSON: \(arguments)") }
                body["arguments"] = value
            }
            let answer = try await daemon.asking {
                try await $0.post(JobVerb.path(write.tenant), body, key: write.idempotencyKey).object()
            }
            if daemon.json { return print(jsonLine(answer)) }
            for item in answer["items"] as? [[String: Any]] ?? [] {
                let isNew = item["new"] as? Bool == true
                print("job \(TextTable.cell(item["id"])) \(isNew ? "queued" : "was queued before")")
            }
        }
    }

    struct Retry: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Run a waiting job now, or one that ended without success once more.",
            discussion: "Example: refold job retry 4711 --tenant acme")
        @OptionGroup var change: Change

        func run() async throws { try await change.run("retry", [:]) }
    }

    struct Cancel: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Cancel an open job. The result of a running attempt changes nothing.",
            discussion: "Example: refold job cancel 4711 --tenant acme --reason 'device was scrapped'")
        @Option(help: "Free text that is stored with the cancellation.") var reason: String?
        @OptionGroup var change: Change

        func run() async throws { try await change.run("cancel", reason.map { ["reason": $0] } ?? [:]) }
    }

    struct Move: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Move a waiting job to another queue.",
            discussion: "Example: refold job move 4711 --tenant acme --queue critical")
        @Option(help: "critical, high, normal or low.") var queue: String
        @OptionGroup var change: Change

        func run() async throws { try await change.run("move", ["queue": queue]) }
    }

    struct Change: ParsableArguments {
        @Argument(help: "The job's id.") var id: Int64
        @OptionGroup var write: WriteOptions
        @OptionGroup var daemon: DaemonOptions

        func run(_ verb: String, _ body: [String: Any]) async throws {
            let answer = try await daemon.asking {
                try await $0.post(JobVerb.path(write.tenant, id, verb), body, key: write.idempotencyKey).object()
            }
            if daemon.json { return print(jsonLine(answer)) }
            print("job \(id) is \(TextTable.cell(answer["status"])); position \(TextTable.cell(answer["position"]))")
        }
    }

    struct Stats: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Count jobs by queue.", discussion: "Example: refold job stats --json")
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            let totals = try await daemon.asking { try await $0.get("/api/queue/statistics").object() }
            print(daemon.json ? jsonLine(totals) : JobVerb.text(totals))
        }
    }

    struct Watch: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show the queues every second until interrupted.", discussion: "Example: refold job watch")
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            let isTerminal = isatty(STDOUT_FILENO) == 1 && !daemon.json
            var last = "", isAway = false
            while true {
                do {
                    var totals = try await daemon.client.get("/api/queue/statistics").object()
                    totals["at"] = nil
                    isAway = false
                    let text = daemon.json ? jsonLine(totals) : JobVerb.text(totals)
                    if isTerminal { printBytes(Array("\u{1B}[H\u{1B}[J".utf8)) }
                    if isTerminal || text != last { print(text) }
                    last = text
                } catch let error as APIError {
                    // A daemon that restarts comes back.
                    guard error.isAway else { throw error.report(json: daemon.json) }
                    if !isAway { printError("no answer at the moment; trying again") }
                    isAway = true
                }
                try await Task.sleep(for: .seconds(1))
            }
        }
    }

    /// A table of the queues and a line of totals.
    static func text(_ totals: [String: Any]) -> String {
        let columns: [TextTable.Column] = [
            .init("queue", "name"), .init("waiting", "waiting"), .init("ready", "ready"), .init("running", "running"),
            .init("completed 24 h", "completed_24h"), .init("failed 24 h", "failed_24h"), .init("oldest", "oldest_at"),
            .init("paused by", "paused_by"),
        ]
        let rows = (totals["queues"] as? [[String: Any]] ?? []).map { queue in
            var row = queue
            row["paused_by"] = (queue["paused"] as? [String: Any])?["actor"]
            return row
        }
        return TextTable(columns: columns).text(rows)
            + "\n\nqueued \(TextTable.cell(totals["queued"])), running \(TextTable.cell(totals["running"])), poisoned "
            + "\(TextTable.cell(totals["poisoned"]))"
    }
}
