import ArgumentParser
import EventLog
import EventModel
import Foundation
import Postgres
import PrivateServices
import Projecting
import Projections
import Rebuilding
import Snapshots

/// `refold replay verify`: do the live tables say what the log says?
struct ReplayVerify: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify", abstract: "Fold the log from nothing and compare it with the live tables.",
        discussion: """
            Each table is compared at the position where it stands, by one digest of its rows, and where that differs \
            row by row. The log is folded in several ways that must agree: all at once, the devices in parts, and from \
            the newest snapshot on. Works beside a running daemon; neither the tables nor the log are changed. \
            Exit code 0: no difference; 1: there are some, and the first rows are shown with the events that touched \
            them; 3: the database cannot be reached.
            """)
    @Argument(help: "Only these projections.") var projections: [String] = []
    @OptionGroup var data: DataOption
    @OptionGroup var database: DatabaseOption
    @Option(help: "At most so many rows are shown.") var differences = 20
    @Flag(help: "Print JSON, one object.") var json = false

    func validate() throws {
        guard differences >= 0 else { throw ValidationError("--differences must be 0 or more") }
        for name in projections where Catalog.entry(named: name) == nil {
            throw ValidationError(
                "no projection is named \(name): there are " + Catalog.entries.map(\.name).joined(separator: ", "))
        }
    }

    func run() throws {
        let log = try data.openLog(), target = try database.target(dataFolder: data.folder)
        var options = VerifyOptions()
        options.projections = projections
        options.differencesMax = differences
        let bar = json ? nil : ProgressBar("folding")
        let total = log.durableCount
        options.progress = { share in bar?.show(UInt64(share * Double(total)), of: total, unit: "events") }
        let verifier = ReplayVerifier(
            log: log, database: target,
            snapshots: SnapshotFolder(data.folder + "/snapshots", logID: log.logID),
            scratchFolder: data.folder + "/scratch")
        let report: ReplayVerification
        do {
            report = try verifier.run(options)
        } catch let error as PostgresError {
            throw ExitCode(3, printing: "the tables cannot be compared: \(error)")
        } catch let error as LogError {
            throw error.exit
        }
        bar?.clear()
        if json { print(jsonLine(report.json)) } else { print(report.text) }
        if !report.agrees { throw ExitCode(1) }
    }
}

extension ReplayVerification {
    var text: String {
        var lines: [String] = []
        let rows = tables.map { table -> [String: Any] in
            [
                "projection": table.projection, "table": table.name, "events": table.end.rawValue,
                "rows": table.live.count, "digest": String(table.live.digest.description.prefix(16)),
                "": table.agrees
                    ? "agrees"
                    : "DIFFERS: "
                        + table.folded.filter { $0.value != table.live }
                        .map { "\($0.key.rawValue) \($0.value.count) rows" }.sorted().joined(separator: ", "),
            ]
        }
        lines.append(
            TextTable(columns: ["projection", "table", "events", "rows", "digest", ""].map { .init($0, $0) })
                .text(rows))
        for (projection, reason) in skipped { lines.append("\(projection) was not compared: \(reason)") }
        lines += notes.map { "note: \($0)" }
        for difference in differences { lines.append(difference.text) }
        if differenceCount > differences.count { lines.append("… \(differenceCount) rows differ in all") }
        let base = snapshotEnd.map { ", from the snapshot at \($0)" } ?? ", no snapshot to begin from"
        lines.append(
            (agrees ? "no difference" : "\(differenceCount) rows differ") + " between the live tables and the log ("
                + String(format: "%.1f", seconds) + " s" + base + ")")
        return lines.joined(separator: "\n")
    }

    var json: [String: Any] {
        [
            "agrees": agrees, "seconds": seconds, "snapshot_end": snapshotEnd.map { $0.rawValue as Any } ?? NSNull(),
            "difference_count": differenceCount, "notes": notes,
            "skipped": skipped.map { ["projection": $0.projection, "reason": $0.reason] },
            "tables": tables.map { table -> [String: Any] in
                func rows(_ rows: Rows) -> [String: Any] {
                    ["rows": rows.count, "digest": rows.digest.description]
                }
                return [
                    "projection": table.projection, "table": table.name, "events": table.end.rawValue,
                    "agrees": table.agrees, "live": rows(table.live),
                    "folded": Dictionary(uniqueKeysWithValues: table.folded.map { ($0.key.rawValue, rows($0.value)) }),
                ]
            },
            "differences": differences.map { difference -> [String: Any] in
                [
                    "table": difference.table, "key": jsonText(difference.key.map { ($0.column, $0.value) }),
                    "live": difference.live.map { jsonText($0.fields.map { ($0.name, $0.json) }) } ?? NSNull(),
                    "folded": difference.folded.map { jsonText($0.fields.map { ($0.name, $0.json) }) } ?? NSNull(),
                    "columns": difference.columns.map(\.name), "event_count": difference.eventCount,
                    "last_events": difference.events.map(\.rawValue),
                ]
            },
        ]
    }

    private func jsonText(_ fields: [(String, String)]) -> Any {
        let text = "{" + fields.map { "\"\($0.0)\":\($0.1)" }.joined(separator: ",") + "}"
        return (try? JSONSerialization.jsonObject(with: Data(text.utf8))) ?? text
    }
}

extension ReplayVerification.Difference {
    fileprivate var text: String {
        let name = key.map { "\($0.column) \($0.value)" }.joined(separator: ", ")
        var lines = ["\(table), \(name):"]
        switch (live, folded) {
        case (nil, _): lines.append("  the live table lacks this row")
        case (_, nil): lines.append("  the log gives no such row")
        default:
            let rows = columns.map { ["column": $0.name, "live": $0.live, "folded": $0.folded] as [String: Any] }
            let table = TextTable(columns: ["column", "live", "folded"].map { .init($0, $0) })
            lines += table.text(rows).split(separator: "\n").map { "  \($0)" }
        }
        if eventCount > 0 {
            lines.append(
                "  touched by \(eventCount) events, the last of them "
                    + events.map { "\($0)" }.joined(separator: ", ") + " (refold log cat --from POSITION --limit 1)")
        }
        return lines.joined(separator: "\n")
    }
}
