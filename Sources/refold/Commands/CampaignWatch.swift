import ArgumentParser
import Decisions
import EventModel
import Foundation

/// A campaign's progress, redrawn in place on a terminal; a line a change elsewhere, or with --json the row.
struct CampaignWatch {
    let tenant: String
    let id: Int64
    let daemon: DaemonOptions

    static let interval: Duration = .seconds(1)

    func run() async throws {
        let isTerminal = isatty(STDOUT_FILENO) == 1 && !daemon.json
        var last = "", isAway = false, pace = Pace()
        if isTerminal { write("\u{1B}[?25l") }  // without a cursor
        defer { if isTerminal { write("\u{1B}[?25h") } }
        while true {
            do {
                let client = daemon.client
                let row = try await client.get(CampaignCommand.path(tenant, id)).object()
                isAway = false
                pace.add(Progress(row).ended, at: .now)
                if isTerminal {
                    let failures = try await client.get(CampaignCommand.path(tenant, id, "failures")).object()
                    let timeline = try await client.get(
                        CampaignCommand.path(tenant, id, "timeline"), query: [("order", "newest"), ("limit", "6")]
                    ).object()
                    let lines = Self.lines(
                        row, failures: failures["items"] as? [[String: Any]] ?? [],
                        timeline: timeline["items"] as? [[String: Any]] ?? [], devicesPerSecond: pace.perSecond)
                    let drawn = lines.map { $0 + "\u{1B}[K\n" }.joined()
                    write("\u{1B}[H\u{1B}[J".prefix(last.isEmpty ? 6 : 3) + drawn + "\u{1B}[J")
                    last = drawn
                } else {
                    let line = daemon.json ? jsonLine(row) : Progress(row).line
                    if line != last { print(line) }
                    last = line
                }
                switch row["status"] as? String {
                case "COMPLETED": return
                case "ABORTED": throw ExitCode(1)
                default: break
                }
            } catch let error as APIError {
                // A daemon that restarts, or a database that is away, comes back.
                guard error.isAway else { throw error.report(json: daemon.json) }
                if !isAway { printError("no answer at the moment; trying again") }
                isAway = true
            }
            try await Task.sleep(for: Self.interval)
        }
    }

    private func write(_ text: some StringProtocol) {
        printBytes(Array(text.utf8))
    }

    /// How a campaign's devices stand.
    struct Progress {
        let row: [String: Any]

        init(_ row: [String: Any]) { self.row = row }

        func count(_ name: String) -> Int64 { (row[name] as? NSNumber)?.int64Value ?? 0 }
        var total: Int64 { count("total_devices") }
        var ended: Int64 { count("succeeded") + count("failed") + count("skipped") }

        var line: String {
            "\(TextTable.cell(row["status"])): \(ended) of \(total) ended; pending \(count("pending")), in flight "
                + "\(count("in_flight")), succeeded \(count("succeeded")), failed \(count("failed")), skipped "
                + "\(count("skipped"))"
        }
    }

    /// Devices that end a second, over the last half minute.
    struct Pace {
        private var points: [(ended: Int64, at: ContinuousClock.Instant)] = []

        mutating func add(_ ended: Int64, at now: ContinuousClock.Instant) {
            points.append((ended, now))
            while let first = points.first, now - first.at > .seconds(30), points.count > 2 { points.removeFirst() }
        }

        var perSecond: Double {
            guard let first = points.first, let last = points.last, last.at > first.at else { return 0 }
            return Double(last.ended - first.ended) / ((last.at - first.at) / .seconds(1))
        }
    }

    /// Pure: what a terminal shows.
    static func lines(
        _ row: [String: Any], failures: [[String: Any]], timeline: [[String: Any]], devicesPerSecond: Double
    ) -> [String] {
        let progress = Progress(row), total = max(progress.total, 1)
        let plan = row["plan"] as? [String: Any], stages = plan?["stages"] as? [[String: Any]] ?? []
        var title =
            "campaign \(TextTable.cell(row["id"])) \(TextTable.cell(row["name"])): "
            + TextTable.cell(row["status"])
        if let stage = (row["stage"] as? NSNumber)?.intValue, stages.count > 1 {
            title += ", stage \(stage + 1) of \(stages.count)"
            if stage < stages.count { title += " (\(TextTable.cell(stages[stage]["percent"])) %)" }
        }
        let share = Double(progress.ended) / Double(total), width = 50
        func part(_ name: String, _ sign: String) -> String {
            String(
                repeating: sign,
                count: max(
                    0,
                    min(
                        width,
                        Int(
                            saturating: Double(progress.count(name)) / Double(total) * Double(width)))))
        }
        let done = part("succeeded", "█") + part("failed", "▓") + part("skipped", "▒") + part("in_flight", "░")
        let bar = done.padding(toLength: width, withPad: "·", startingAt: 0)
        var pace = String(format: "%.1f devices/s", max(0, devicesPerSecond))
        let open = progress.total - progress.ended
        if devicesPerSecond > 0.01, open > 0, row["status"] as? String == "RUNNING" {
            pace += ", about \(duration(Double(open) / devicesPerSecond)) left at this pace"
        }
        var lines = [
            title, "", "  \(bar) \(Int(saturating: share * 100)) % of \(progress.total)", "",
            "  █ succeeded \(progress.count("succeeded"))   ▓ failed \(progress.count("failed"))   ▒ skipped "
                + "\(progress.count("skipped"))   ░ in flight \(progress.count("in_flight"))   · pending "
                + "\(progress.count("pending"))",
            "  " + pace,
        ]
        if let reason = row["status_reason"] as? String { lines.append("  " + TextTable.cell(reason)) }
        if !failures.isEmpty {
            lines += ["", "  failed of"]
            for failure in failures.prefix(5) {
                lines.append(
                    "    \(TextTable.cell(failure["devices"])) × \(TextTable.cell(failure["failure_kind"])) "
                        + String(TextTable.cell(failure["error"]).prefix(60)))
            }
        }
        if !timeline.isEmpty { lines += ["", "  last decided"] }
        for event in timeline.prefix(6) {
            let devices = (event["devices"] as? NSNumber).map { " " + counted($0.intValue, "device") } ?? ""
            let reason = (event["reason"] as? String).map { ": " + TextTable.cell($0).prefix(80) } ?? ""
            lines.append(
                "    \(TextTable.cell(event["at"]).prefix(19)) \(TextTable.cell(event["event_type"]))\(devices) by "
                    + "\(TextTable.cell(event["actor"]))\(reason)")
        }
        return lines
    }

    static func duration(_ seconds: Double) -> String {
        switch seconds {
        case ..<90: "\(Int(saturating: seconds)) s"
        case ..<5_400: "\(Int(saturating: seconds / 60)) min"
        case ..<172_800: "\(Int(saturating: seconds / 3600)) h"
        default: "\(Int(saturating: seconds / 86_400)) days"
        }
    }
}
