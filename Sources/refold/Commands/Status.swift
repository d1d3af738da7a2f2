import ArgumentParser
import ControlAPI
import Foundation

struct StatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "State of the log, the projections, the brokers and the database.",
        discussion: "Exit code 0 when healthy, 1 when degraded or held, 3 when no daemon answers.")

    @OptionGroup var daemon: DaemonOptions

    func run() async throws {
        let body = try await daemon.asking { try await $0.get("/api/v1/status").body }
        let status = try JSONDecoder().decode(SystemStatus.self, from: body)
        if daemon.json {
            printJSON(String(decoding: body, as: UTF8.self).trimmingCharacters(in: .newlines))
        } else {
            print(Self.text(status))
        }
        if status.state != .healthy { throw ExitCode(1) }
    }

    private static func kept(_ keeping: SystemStatus.Keeping) -> String {
        var text = "position \(keeping.firstPosition)"
        if keeping.horizon < keeping.firstPosition { text += ", in the archive from \(keeping.horizon)" }
        if let archive = keeping.archive {
            text += "; archived below \(archive.through), \(archive.waiting) segments wait"
        }
        if let reason = keeping.retentionBlockedBy { text += "; not removed: \(reason)" }
        return text
    }

    private static func disk(_ keeping: SystemStatus.Keeping) -> String {
        guard let free = keeping.diskFreeBytes else { return "free space is not known" }
        guard let seconds = keeping.diskFullSeconds else { return "\(byteCountText(free)) free" }
        let hours = seconds / 3600
        let when =
            hours < 1
            ? String(format: "%.0f min", seconds / 60)
            : hours < 72
                ? String(format: "%.0f h", hours) : String(format: "%.0f days", hours / 24)
        return "\(byteCountText(free)) free, full in \(when) at the present rate"
    }

    static func text(_ status: SystemStatus) -> String {
        var lines = [status.state.rawValue]
        for problem in status.problems {
            lines.append("  \(problem.text)" + (problem.since.map { " (since \($0))" } ?? ""))
        }
        let log = status.log
        if log.keeping.lostEvents > 0 {
            lines.append("  \(log.keeping.lostEvents) events of the log were damaged and given up: refold log info")
        }
        lines += [
            "",
            "log       \(log.durable) events durable (head \(log.head)), \(log.segments) segments, "
                + byteCountText(log.bytes),
            "kept from \(Self.kept(log.keeping))",
            "disk      \(Self.disk(log.keeping))",
            "database  "
                + (status.database.connected ? "connected" : "not connected: \(status.database.lastError ?? "-")"),
        ]
        if !status.brokers.isEmpty {
            lines += [
                "",
                TextTable(columns: [
                    .init("broker", "name"), .init("client id", "client"), .init("connection", "connection"),
                    .init("session", "session"), .init("last error", "error"),
                ]).text(
                    status.brokers.map {
                        [
                            "name": $0.name, "client": $0.clientID,
                            "connection": $0.subscribed ? "subscribed" : $0.connected ? "connected" : "none",
                            "session": $0.sessionPresent ? "resumed" : "new", "error": $0.lastError ?? "-",
                        ]
                    }),
            ]
            for broker in status.brokers {
                guard let count = broker.withoutCertificate, count > 0 else { continue }
                lines.append("\(broker.name): \(count) messages of devices without a live certificate")
            }
        }
        if !status.projections.isEmpty { lines += ["", ProjectionCommand.table(status.projections)] }
        return lines.joined(separator: "\n")
    }
}
