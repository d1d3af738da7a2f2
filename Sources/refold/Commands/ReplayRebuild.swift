import ArgumentParser
import ControlAPI
import EventLog
import EventModel
import Foundation
import Output
import Postgres
import PostgresStore
import Projections
import Rebuilding
import Snapshots
import Threading

/// `refold replay rebuild` and what belongs to it: by the daemon when it runs, else on the log's files and a database.
struct RebuildOptionsGroup: ParsableArguments {
    @Argument(help: "Projections by name, such as device_status.") var projections: [String] = []
    @Flag(help: "Every projection.") var all = false
    @OptionGroup var database: DatabaseOption
    @OptionGroup var daemon: DaemonOptions

    func validate() throws {
        if all != projections.isEmpty { throw ValidationError("name projections, or say --all") }
        for name in projections where Catalog.entry(named: name) == nil {
            let names = Catalog.entries.map(\.name).joined(separator: ", ")
            throw ValidationError("there is no projection \(name); there are: \(names)")
        }
    }

    var entries: [Catalog.Entry] { all ? Catalog.entries : projections.compactMap { Catalog.entry(named: $0) } }
    var names: [String] { entries.map(\.name) }

    /// The log, when no daemon has it open: then the work is ours. Nil: the daemon's.
    func ownLog() throws -> ReadOnlyLog? {
        guard FileManager.default.fileExists(atPath: daemon.dataFolder + "/log") else { return nil }
        let log = try openLog(daemon.dataFolder)
        return log.isWriterUp ? nil : log
    }

    /// The database, its schema up to date and bound to this log.
    func target(for log: ReadOnlyLog) throws -> DatabaseTarget {
        var target = try database.target(dataFolder: daemon.dataFolder)
        target.applicationName = "refold rebuild"
        do {
            let open = try Connection(target)
            _ = try RefoldSchema.migrate(on: open)
            try RefoldSchema.bind(open, logID: log.logID.description, durableCount: log.durableCount)
        } catch {
            printError("\(error)")
            let isAway = (error as? PostgresError)?.kind == .unavailable
            throw ExitCode(isAway ? 3 : error is OtherLogError || error is MigrationError ? 2 : 1)
        }
        return target
    }
}

extension RebuildError {
    /// Prints why, and gives the exit code.
    fileprivate var exit: ExitCode {
        printError(description)
        if case .unavailable = self { return ExitCode(3) }
        return ExitCode(1)
    }
}

struct ReplayRebuild: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rebuild", abstract: "Fold history again beside the live tables, then exchange the tables.",
        discussion: """
            Ingest and live projection go on meanwhile. When the new tables are level with the live ones, one \
            transaction exchanges them; views and grants stay, and `refold replay rollback` goes back. A rebuild that \
            was cancelled or killed leaves the live tables as they were; the next one goes on where it was. Works with \
            the daemon (which goes on with it when this is interrupted), or without one on --data and --database-url; \
            an empty database gets all its tables back. Exit code 1 when it failed or another one is going on.
            """)
    @Flag(name: .customLong("start-over"), help: "Forget what an unfinished rebuild left behind.") var startOver = false
    @Flag(
        name: .customLong("from-snapshot"),
        help: "Begin with the newest snapshot's rows, as they are. Done anyway where the log's first events are gone.")
    var fromSnapshot = false
    @OptionGroup var options: RebuildOptionsGroup

    func run() async throws {
        guard let log = try options.ownLog() else { return try await byDaemon() }
        var settings = RebuildOptions()
        settings.startsOver = startOver
        if fromSnapshot || log.firstPosition > Position(0) {
            settings.beginning = SnapshotFolder.of(
                dataFolder: options.daemon.dataFolder, logID: log.logID
            ).beginning(of: log)
        }
        let rebuild = Rebuild(options.entries, source: log, target: try options.target(for: log), options: settings)
        let begun = wallClock().description
        let screen = RebuildScreen(json: options.daemon.json)
        let task = Task { try await onOwnThread("rebuild") { try rebuild.run() } }
        while !rebuild.progress.stage.isOver {
            screen.show(RebuildRow(rebuild, trigger: "operator", begun: begun))
            try await Task.sleep(for: .milliseconds(100))
        }
        screen.finish(RebuildRow(rebuild, trigger: "operator", begun: begun))
        if case .failure(let error) = await task.result {
            throw (error as? RebuildError ?? .failed("\(error)")).exit
        }
    }

    private func byDaemon() async throws {
        let client = options.daemon
        var row = try await client.asking {
            try await $0.post(
                "/api/v1/rebuilds",
                [
                    "projections": options.names, "start_over": startOver, "from_snapshot": fromSnapshot,
                ]
            ).rebuild()
        }
        let begun = row.begun, screen = RebuildScreen(json: client.json)
        while !row.isOver {
            screen.show(row)
            try await Task.sleep(for: .milliseconds(250))
            let rows = try await client.asking { try await $0.get("/api/v1/rebuilds").rebuilds() }
            guard let found = rows.first(where: { $0.begun == begun }) else { break }
            row = found
        }
        screen.finish(row)
        if row.stage != "done" { throw ExitCode(1, printing: row.error ?? row.stage) }
    }
}

extension DaemonClient.Answer {
    func rebuild() throws -> RebuildRow { try JSONDecoder().decode(RebuildRow.self, from: body) }
    func rebuilds() throws -> [RebuildRow] {
        struct Items: Decodable { let items: [RebuildRow] }
        return try JSONDecoder().decode(Items.self, from: body).items
    }
}

/// One line that changes on a terminal; a JSON object a second for programs; nothing but the end elsewhere.
private final class RebuildScreen {
    private let json: Bool
    private let isTerminal = isatty(STDERR_FILENO) == 1
    private var nextLine = ContinuousClock.now

    init(json: Bool) { self.json = json }

    func show(_ row: RebuildRow) {
        if json {
            guard ContinuousClock.now >= nextLine else { return }
            nextLine = .now + .seconds(1)
            return Self.printJSON(row)
        }
        guard isTerminal else { return }
        let share = row.end == 0 ? 0 : min(1, Double(row.folded) / Double(row.end)), filled = Int(share * 30)
        let bar = String(repeating: "█", count: filled) + String(repeating: "░", count: 30 - filled)
        let left = row.secondsLeft.map { String(format: ", %.0f s left", $0) } ?? ""
        let waiting = row.waitingFor.map { ", waiting for \(TextTable.cell($0))" } ?? ""
        let text =
            "\r\(row.stage) \(bar) \(Int(share * 100)) % of \(row.end) events, "
            + "\(Int(saturating: row.eventsPerSecond))/s\(left)\(waiting)\u{1B}[K"
        printToStandardError(text)
    }

    func finish(_ row: RebuildRow) {
        if isTerminal, !json { printToStandardError("\r\u{1B}[K") }
        if json { return Self.printJSON(row) }
        guard row.stage == "done" else { return }
        let seconds = String(format: "%.1f", row.elapsedSeconds)
        let blocked = String(format: "%.0f", row.blockedMilliseconds ?? 0)
        print(
            "\(row.projections.joined(separator: ", ")): rebuilt from \(row.folded) events in \(seconds) s, "
                + "\(row.rows) rows; those who write waited \(blocked) ms")
        for remark in row.remarks { printError(remark) }
    }

    static func printJSON(_ row: some Encodable) {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(row) else { return }
        print(terminalSafeJSON(String(decoding: data, as: UTF8.self)))
    }
}

struct ReplayRollback: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rollback", abstract: "Back to the tables that the last rebuild replaced.",
        discussion: """
            One transaction. Within a version the projection catches up from there. Rows of another version stay as \
            they are, and the projection paused, until the program that folded them runs, or somebody rebuilds. Exit \
            code 1 when nothing is kept, or somebody reads the tables for too long; then nothing was changed.
            """)
    @OptionGroup var options: RebuildOptionsGroup

    func run() async throws {
        let row: RollbackRow
        if let log = try options.ownLog() {
            let target = try options.target(for: log), entries = options.entries
            do throws(RebuildError) {
                row = RollbackRow(try Rollback.run(entries, source: log, target: target))
            } catch {
                throw error.exit
            }
        } else {
            let answer = try await options.daemon.asking {
                try await $0.post("/api/v1/rollbacks", ["projections": options.names])
            }
            row = try JSONDecoder().decode(RollbackRow.self, from: answer.body)
        }
        if options.daemon.json { return RebuildScreen.printJSON(row) }
        for item in row.items {
            let state = item.paused ? "paused until the program of that version runs" : "catching up"
            print("\(item.projection): version \(item.version) at position \(item.position), \(state)")
        }
        print(String(format: "those who write waited %.0f ms", row.blockedMilliseconds))
        for remark in row.remarks { printError(remark) }
    }
}

struct ReplayDrop: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "drop", abstract: "Drop the tables kept for a rollback, or left behind by a rebuild.",
        discussion: "Exit code 1 when somebody's view reads them, or a rebuild is going on.")
    @Flag(help: "Those of cancelled or failed rebuilds instead.") var unfinished = false
    @OptionGroup var options: RebuildOptionsGroup

    func run() async throws {
        if let log = try options.ownLog() {
            let target = try options.target(for: log), entries = options.entries
            do throws(RebuildError) {
                try Rollback.drop(entries, in: unfinished ? .next : .previous, target: target)
            } catch {
                throw error.exit
            }
        } else {
            let what = unfinished ? "unfinished" : "previous"
            _ = try await options.daemon.asking {
                try await $0.post("/api/v1/rebuilds/drop-\(what)", ["projections": options.names])
            }
        }
        if options.daemon.json { return print(jsonLine(["items": options.names])) }
        print("dropped: \(options.names.joined(separator: ", "))")
    }
}

struct ReplayRebuilds: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rebuilds", abstract: "The daemon's rebuilds, the newest first; --cancel ends the one going on.")
    @Flag(help: "End the one that is going on. The next goes on where it was.") var cancel = false
    @OptionGroup var daemon: DaemonOptions

    func run() async throws {
        let rows = try await daemon.asking { client in
            if cancel { return [try await client.post("/api/v1/rebuilds/cancel").object()] }
            return try await client.get("/api/v1/rebuilds").object()["items"] as? [[String: Any]] ?? []
        }
        printRows(
            rows, json: daemon.json,
            columns: [
                .init("begun", "begun"), .init("projections", "projections"), .init("stage", "stage"),
                .init("folded", "folded"), .init("of", "end"), .init("events/s", "events_per_second"),
                .init("blocked ms", "blocked_milliseconds"), .init("waiting for", "waiting_for"),
                .init("error", "error"),
            ], none: "no rebuilds since the daemon started")
    }
}
