import ArgumentParser
import ControlAPI
import Foundation

struct ProjectionCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "projection", abstract: "List, pause and resume projections.",
        subcommands: [List.self, Pause.self, Resume.self])

    static func table(_ projections: [SystemStatus.Projection]) -> String {
        TextTable(columns: [
            .init("projection", "name"), .init("version", "version"), .init("position", "position"),
            .init("lag events", "lag"), .init("lag s", "seconds"), .init("state", "state"),
            .init("last error", "error"),
        ]).text(
            projections.map { projection in
                var row: [String: Any] = [
                    "name": projection.name, "version": projection.version, "lag": projection.lagEvents,
                    "seconds": String(format: "%.1f", projection.lagSeconds), "state": projection.state,
                ]
                row["position"] = projection.position
                row["error"] = projection.lastError
                return row
            })
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "All projections, with position and lag.")
        @OptionGroup var daemon: DaemonOptions

        private struct Items: Decodable { let items: [SystemStatus.Projection] }

        func run() async throws {
            let answer = try await daemon.asking { try await $0.get("/api/v1/projections") }
            if daemon.json {
                for row in try answer.object()["items"] as? [[String: Any]] ?? [] { print(jsonLine(row)) }
            } else {
                print(ProjectionCommand.table(try JSONDecoder().decode(Items.self, from: answer.body).items))
            }
        }
    }

    struct Pause: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Stop folding; the log goes on.")
        @Argument(help: "The projection's name.") var name: String
        @OptionGroup var daemon: DaemonOptions
        func run() async throws { try await change("pause", name, daemon) }
    }

    struct Resume: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Go on folding from where it stopped.")
        @Argument(help: "The projection's name.") var name: String
        @OptionGroup var daemon: DaemonOptions
        func run() async throws { try await change("resume", name, daemon) }
    }

    private static func change(_ verb: String, _ name: String, _ daemon: DaemonOptions) async throws {
        let answer = try await daemon.asking {
            try await $0.post("/api/v1/projections/\(DaemonClient.escape(name))/\(verb)")
        }
        if daemon.json { return print(jsonLine(try answer.object())) }
        print(table([try JSONDecoder().decode(SystemStatus.Projection.self, from: answer.body)]))
    }
}
