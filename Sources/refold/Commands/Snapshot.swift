import ArgumentParser
import ControlAPI
import EventLog
import EventModel
import Foundation
import Snapshots

/// `refold snapshot`: the rows of every projection at a position, in a file beside the log.
struct SnapshotCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "snapshot", abstract: "Rows of every projection and the deciders' folds at one position.",
        discussion: """
            A rebuild, a decider's start and a look into the past begin at the newest snapshot before them instead of \
            the log's first event, and what retention removes for good is removed only when a snapshot has it. The \
            daemon makes them by itself (snapshot.log_bytes).
            """,
        subcommands: [Create.self, List.self, Verify.self])

    /// The folder of the data folder's log.
    fileprivate static func folder(_ dataFolder: String, _ log: ReadOnlyLog) -> SnapshotFolder {
        .of(dataFolder: dataFolder, logID: log.logID)
    }

    fileprivate static let columns: [TextTable.Column] = [
        .init("snapshot", "file"), .init("events", "end"), .init("last event", "last_time"), .init("rows", "rows"),
        .init("bytes", "bytes"), .init("created", "created"), .init("recorded", "recorded"), .init("error", "error"),
    ]

    struct Create: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Make one of all that is durable now.",
            discussion: """
                By the daemon when it runs, else on the files. Its digest goes into the log (snapshot.created/1). Exit \
                code 1 when one is being made already, or the log cannot be folded whole.
                """)
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            let log = try openLog(daemon.dataFolder)
            var row: [String: Any]
            if log.isWriterUp {
                row = try await daemon.asking {
                    try await $0.post("/api/v1/snapshots", timeout: .seconds(12 * 3600))
                }.object()
            } else {
                row = try reporting { try onFiles(log) }.map { SnapshotCommand.row(.whole($0.file)) } ?? [:]
            }
            row["recorded"] = true
            printRows([row], json: daemon.json, columns: SnapshotCommand.columns, none: "")
        }

        private func onFiles(_ readable: ReadOnlyLog) throws -> MadeSnapshot? {
            let log = try FileLog.open(directory: readable.directory)
            defer { log.close() }
            var maker = SnapshotMaker(
                log: log, logID: log.logID, folder: SnapshotCommand.folder(daemon.dataFolder, readable))
            maker.note = { printError("a damaged snapshot is passed over: \($0)") }
            let made = try maker.make()
            if var batch = made.event?.batch(at: log.now()) { _ = try log.append(&batch) }
            _ = try maker.folder.prune(horizon: log.horizon)
            return made
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "All of them, oldest first.",
            discussion: "Works on the files, daemon up or down. Exit code 1 when one of them cannot be used.")
        @OptionGroup var data: DataOption
        @Flag(help: "Print JSON, one object a line.") var json = false

        func run() async throws {
            let log = try data.openLog()
            let recorded = try SnapshotCommand.recorded(log)
            var rows: [[String: Any]] = []
            try reporting {
                try SnapshotCommand.folder(data.folder, log).forEach { item in
                    var row = SnapshotCommand.row(item)
                    row["recorded"] = recorded[row["file"] as? String ?? ""] != nil
                    rows.append(row)
                }
            }
            printRows(rows, json: json, columns: SnapshotCommand.columns, none: "there are no snapshots")
            if rows.contains(where: { $0["error"] != nil }) { throw ExitCode(1) }
        }
    }

    struct Verify: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Read snapshots whole, and hold their digests against the log's.",
            discussion: """
                Every block, the order of the rows, every digest, and the SHA-256 of the file against the event that \
                recorded it. --deep folds the log from its first event and compares every table. Works on the files, \
                daemon up or down. Exit code 1 when something is wrong.
                """)
        @Argument(help: "The number of events in the snapshot; all of them without it.") var end: UInt64?
        @Flag(help: "Fold the log again, and compare.") var deep = false
        @OptionGroup var data: DataOption
        @Flag(help: "Print JSON, one object a line.") var json = false

        func run() async throws {
            let log = try data.openLog(), folder = SnapshotCommand.folder(data.folder, log)
            let items = try reporting { try folder.items() }.filter { end == nil || $0.end.rawValue == end }
            if items.isEmpty, let end {
                printError("there is no snapshot of \(end) events; refold snapshot list shows those that there are")
                throw ExitCode(2)
            }
            let recorded = try SnapshotCommand.recorded(log)
            var verifier: SnapshotVerifier?
            if deep {
                verifier = try reporting {
                    try SnapshotVerifier(SnapshotMaker(log: log, logID: log.logID, folder: folder))
                }
            }
            var isSound = true
            for item in items {
                var row = SnapshotCommand.row(item)
                var problems = (row["error"] as? String).map { [$0] } ?? []
                if case .whole(let file) = item {
                    problems = try check(file, recorded[row["file"] as? String ?? ""], folder)
                    if problems.isEmpty, let verifier {
                        for finding in try reporting({ try verifier.compare(file) }) {
                            guard finding.isDifference else {
                                printError("\(finding.name) was not compared: it is of another version")
                                continue
                            }
                            problems.append("\(finding.name) is not what the log folds to")
                        }
                    }
                }
                row["recorded"] = recorded[row["file"] as? String ?? ""] != nil
                row["error"] = problems.isEmpty ? nil : problems.joined(separator: "; ")
                isSound = isSound && problems.isEmpty
                if json {
                    print(jsonLine(row))
                } else {
                    print("\(row["file"] ?? ""): \(problems.isEmpty ? "whole" : problems.joined(separator: "; "))")
                }
            }
            if items.isEmpty, !json { print("there are no snapshots") }
            if !isSound { throw ExitCode(1) }
        }

        private func check(
            _ file: SnapshotFile, _ event: SnapshotCreated?, _ folder: SnapshotFolder
        ) throws -> [String] {
            if let damage = folder.damage(of: file) { return [damage.description] }
            guard let event else { return [] }
            guard try file.digest().description != event.sha256 else { return [] }
            return ["its SHA-256 is not the one in the log: it was made, or changed, by somebody else"]
        }
    }

    /// What the log says of snapshots, by file name.
    fileprivate static func recorded(_ log: ReadOnlyLog) throws -> [String: SnapshotCreated] {
        var found: [String: SnapshotCreated] = [:]
        let range = log.firstPosition..<Position(log.durableCount)
        let reader = log.events(.schema(LogSchema.snapshotCreated.rawValue), in: range)
        try reporting {
            while try reader.read({ record, _ in
                guard record.kind == .system else { return }
                let event = try? record.decoded(SnapshotCreated.self)
                if let event { found[event.file] = event }
            }) {}
        }
        return found
    }

    fileprivate static func row(_ item: SnapshotFolder.Item) -> [String: Any] {
        let row = SnapshotRow(item)
        var object: [String: Any] = ["file": row.file, "end": row.end]
        object["bytes"] = row.bytes
        object["created"] = row.created
        object["last_time"] = row.lastTime
        object["rows"] = row.rows
        object["error"] = row.error
        return object
    }
}

/// Runs `body`, and turns what the log or a snapshot says into a line and an exit code.
func reporting<T>(_ body: () throws -> T) throws -> T {
    do {
        return try body()
    } catch {
        if let error = error as? LogError { throw error.exit }
        guard let error = error as? SnapshotError else { throw error }
        throw ExitCode(error.code == .damaged ? 1 : 2, printing: error.description)
    }
}

/// The log of a data folder, to read.
func openLog(_ dataFolder: String) throws -> ReadOnlyLog {
    try reporting { try ReadOnlyLog(directory: dataFolder + "/log") }
}
