import ArgumentParser
import ControlAPI
import Foundation

struct StatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "State of the log, the projections, the brokers and the database.",
        discussion: "Exit code 3 when no daemon answers.")

    @OptionGroup var daemon: DaemonOptions

    func run() async throws {
        let body = try await daemon.asking { try await $0.get("/api/v1/status").body }
        guard !daemon.json else {
            return print(String(decoding: body, as: UTF8.self).trimmingCharacters(in: .newlines))
        }
        print(Self.text(try JSONDecoder().decode(SystemStatus.self, from: body)))
    }

    static func text(_ status: SystemStatus) -> String {
        var lines = [status.state.rawValue]
        lines += status.reasons.map { "  \($0)" }
        let log = status.log
        lines += [
            "",
            "log       \(log.durable) events durable (head \(log.head)), \(log.segments) segments, \(bytes(log.bytes))",
            "database  "
                + (status.database.connected ? "connected" : "not connected: \(status.database.lastError ?? "-")"),
        ]
        if !status.brokers.isEmpty {
            lines += ["", TextTable(columns: [
                .init("broker", "name"), .init("connected", "connected"), .init("session", "session"),
                .init("last error", "error"),
            ]).text(status.brokers.map {
                ["name": $0.name, "connected": $0.connected ? "yes" : "no",
                 "session": $0.sessionPresent ? "resumed" : "new", "error": $0.lastError ?? "-"]
            })]
        }
        if !status.projections.isEmpty { lines += ["", ProjectionCommand.table(status.projections)] }
        return lines.joined(separator: "\n")
    }

    private static func bytes(_ count: UInt64) -> String {
        var value = Double(count), unit = 0
        let units = ["B", "KiB", "MiB", "GiB", "TiB"]
        while value >= 1024, unit < units.count - 1 {
            value /= 1024
            unit += 1
        }
        return unit == 0 ? "\(count) B" : String(format: "%.1f %@", value, units[unit])
    }
}
