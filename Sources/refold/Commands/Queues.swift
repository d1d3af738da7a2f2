import ArgumentParser
import Foundation

struct QueueVerb: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "queue", abstract: "List, pause and limit the queues of jobs.",
        subcommands: [List.self, Status.self, JobVerb.Stats.self, Pause.self, Resume.self, Limit.self])

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List queues, rate limits, schedules and workers.", discussion: "Example: refold queue list")
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            let answer = try await daemon.asking { try await $0.get("/api/v1/queues").object() }
            if daemon.json { return print(jsonLine(answer)) }
            func section(_ name: String, _ columns: [(String, String)], none: String) {
                print("\n\(name)")
                let rows = (answer[name] as? [[String: Any]] ?? []).map { row in
                    var row = row
                    row["busy"] = (row["running"] as? [Any])?.count
                    return row
                }
                printRows(rows, json: false, columns: columns.map { .init($0.0, $0.1) }, none: none)
            }
            print(JobVerb.text(answer).split(separator: "\n\n")[0])
            section(
                "limits", [("kind", "kind"), ("scope", "scope"), ("rate", "rate"), ("opens", "opens_at")],
                none: "no kind is limited; limit one with `refold queue limit`")
            section(
                "schedules",
                [("name", "name"), ("kind", "kind"), ("cron", "cron"), ("last", "last_at"), ("next", "next_at")],
                none: "no schedules")
            section(
                "workers", [("name", "name"), ("running", "busy"), ("queues", "queues"), ("last seen", "last_seen")],
                none: "no worker has asked for jobs; start one with `refold worker`")
        }
    }

    struct Status: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show one job: the same as `refold job show`.", discussion: "Example: refold queue status 4711")
        @OptionGroup var show: JobVerb.Show

        func run() async throws { try await show.run() }
    }

    struct Pause: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Start no more jobs of a queue. Running ones go on.",
            discussion: "Example: refold queue pause low --note 'CA maintenance until 18:00'")
        @Argument(help: "critical, high, normal or low.") var queue: String
        @Option(help: "Free text that is stored with the pause.") var note: String?
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            let path = "/api/v1/queues/\(DaemonClient.escape(queue))/pause"
            let answer = try await daemon.asking { try await $0.post(path, note.map { ["note": $0] } ?? [:]).object() }
            print(daemon.json ? jsonLine(answer) : "the queue \(queue) is paused")
        }
    }

    struct Resume: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Start jobs of a paused queue again.", discussion: "Example: refold queue resume low")
        @Argument(help: "critical, high, normal or low.") var queue: String
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            let path = "/api/v1/queues/\(DaemonClient.escape(queue))/resume"
            let answer = try await daemon.asking { try await $0.post(path).object() }
            print(daemon.json ? jsonLine(answer) : "the queue \(queue) is resumed")
        }
    }

    struct Limit: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Limit how often jobs of a kind start.",
            discussion: """
                Example: refold queue limit certificate.renew 100/m
                         refold queue limit certificate.renew none
                """)
        @Argument(help: "The kind.") var kind: String
        @Argument(help: "COUNT/UNIT with a unit of s, m, h, d; none: the settings count again.") var rate: String
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            let path = "/api/v1/queues/limits/\(DaemonClient.escape(kind))"
            let body: [String: Any] = ["rate": rate == "none" ? NSNull() : rate]
            let answer = try await daemon.asking { try await $0.put(path, body).object() }
            print(daemon.json ? jsonLine(answer) : "jobs \(kind): \(rate == "none" ? "no operator's limit" : rate)")
        }
    }
}
