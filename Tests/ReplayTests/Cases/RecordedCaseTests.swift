import EventLog
import EventModel
import Foundation
import Postgres
import PostgresStore
import Projecting
import Projections
import TestSupport
import Testing

/// Every recorded case, folded in every way in which this program folds, gives the rows that are recorded with it.
@Suite struct RecordedCaseTests {
    /// `make rewrite-cases`: the rows of today become what is expected. To be read before it is committed.
    static let rewrites = ProcessInfo.processInfo.environment["REFOLD_REWRITE_CASES"] == "1"

    @Test func thereAreCasesAndEachSaysWhy() {
        #expect(RecordedCase.all.count >= 10)
        for recorded in RecordedCase.all { #expect(recorded.why.count > 80, "\(recorded.name) does not say why") }
    }

    @Test(arguments: RecordedCase.all)
    func inOneBlock(_ recorded: RecordedCase) throws {
        let rows = try fold(recorded, commitEvents: .max)
        if Self.rewrites { try recorded.rewrite(rows) }
        expect(rows, recorded)
    }

    @Test(arguments: RecordedCase.all)
    func anEventAtATimeByANewFoldEach(_ recorded: RecordedCase) throws {
        expect(try fold(recorded, commitEvents: 1, restarts: true), recorded)
    }

    @Test(arguments: RecordedCase.all)
    func inSmallBlocksWithoutMemory(_ recorded: RecordedCase) throws {
        expect(try fold(recorded, commitEvents: 3, forgets: true), recorded)
    }

    @Test(arguments: RecordedCase.all, [2, 5])
    func inPartitions(_ recorded: RecordedCase, count: Int) throws {
        let tables = MemoryTables()
        for partition in 0..<count {
            for entry in Catalog.entries {
                try fold(
                    recorded, entry, commitEvents: 4, into: tables, partition: partition,
                    scope: .partition(partition, of: count))
            }
        }
        expect(RowLines.of(tables), recorded)
    }

    /// Through a log on disk, projectors and PostgreSQL, as the daemon does it.
    @Test(arguments: RecordedCase.all)
    func inPostgreSQL(_ recorded: RecordedCase) async throws {
        let server = try PostgresServer.shared.get()
        let target = DatabaseTarget(server.url(database: try server.makeDatabase()))
        _ = try RefoldSchema.migrate(target)
        let folder = try makeTemporaryFolder("case")
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let source = try log(recorded, in: folder)
        defer { (source as? FileLog)?.close() }
        let projectors = Catalog.entries.map { entry in
            Projector(
                entry.descriptor, source: source, makeFold: { entry.makeFold($0) },
                makeStore: { PostgresStore(target) })
        }
        await withTaskGroup(of: Void.self) { group in
            for projector in projectors { group.addTask { await projector.run() } }
            for projector in projectors {
                let last = Position(source.durableCount - 1)
                #expect(await projector.waitUntilApplied(last, timeout: .seconds(30)), "\(projector.status)")
                await projector.stop()
            }
        }
        expect(try RowLines.of(Connection(target)), recorded)
    }

    /// The independent fold in Python must come to the recorded rows too.
    @Test(arguments: RecordedCase.all)
    func byTheNaiveFold(_ recorded: RecordedCase) throws {
        let folder = try makeTemporaryFolder("naive")
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try recorded.events().map { $0.line + "\n" }.joined()
            .write(toFile: folder + "/events.ndjson", atomically: true, encoding: .utf8)
        let rows = try recorded.expectedRows()
        let tables = Dictionary(grouping: rows) { $0.dropFirst(10).prefix { $0 != "\"" } }.map { table, rows in
            "\"\(table)\":[\(rows.joined(separator: ","))]"
        }
        try "{\(tables.joined(separator: ","))}"
            .write(toFile: folder + "/tables.json", atomically: true, encoding: .utf8)
        let script = RecordedCase.root.deletingLastPathComponent().appending(path: "Tests/naive_fold/naive_fold.py")
        let process = Process(), pipe = Pipe()
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = [
            "python3", script.path, "--events", folder + "/events.ndjson", "--tables", folder + "/tables.json",
        ]
        process.standardOutput = pipe
        process.standardError = pipe
        try process.run()
        let output = String(decoding: try pipe.fileHandleForReading.readToEnd() ?? Data(), as: UTF8.self)
        process.waitUntilExit()
        #expect(process.terminationStatus == 0, "\(recorded.name)\n\(output)")
    }

    // MARK: ways of folding

    /// On disk, where the case has every position from the first on; a gap no writer can make.
    private func log(_ recorded: RecordedCase, in folder: String) throws -> any LogSource {
        let events = try recorded.events()
        guard events.last?.position == UInt64(events.count - 1) else { return CaseLog(events, commitEvents: 5) }
        let log = try FileLog.open(directory: folder + "/log")
        for event in events {
            var batch = event.batch
            _ = try log.append(&batch)
        }
        return log
    }

    private func fold(
        _ recorded: RecordedCase, commitEvents: Int, restarts: Bool = false, forgets: Bool = false
    ) throws -> [String] {
        let tables = MemoryTables()
        for entry in Catalog.entries {
            try fold(
                recorded, entry, commitEvents: commitEvents, restarts: restarts, forgets: forgets, into: tables)
        }
        return RowLines.of(tables)
    }

    private func fold(
        _ recorded: RecordedCase, _ entry: Catalog.Entry, commitEvents: Int, restarts: Bool = false,
        forgets: Bool = false, into tables: MemoryTables, partition: Int = 0, scope: FoldScope = .all
    ) throws {
        let source = CaseLog(try recorded.events(), commitEvents: commitEvents), store = MemoryStore(tables)
        let reader = try source.reader(from: Position(0)), block = EventBlock()
        var fold = entry.makeFold(scope), committed: Position?
        while try reader.read(into: block, atLeast: 1) {
            let range = (committed?.next ?? Position(0))..<block.end
            try store.load(fold.prepare(block, in: range), of: entry.descriptor) { fold.load(table: $0, row: $1) }
            fold.fold(block, in: range)
            var rows = [RowBuffer](repeating: RowBuffer(), count: entry.descriptor.tables.count)
            fold.drain(into: &rows)
            let end = Position(block.end.rawValue - 1)
            try store.commit(rows, of: entry.descriptor, partition: partition, from: committed, to: end)
            committed = end
            if restarts { fold = entry.makeFold(scope) }
            if forgets { fold.shrink(toBytes: 0) }
        }
    }

    private func expect(_ rows: [String], _ recorded: RecordedCase, _ location: SourceLocation = #_sourceLocation) {
        let expected = (try? recorded.expectedRows()) ?? []
        guard rows != expected else { return }
        let missing = expected.filter { !rows.contains($0) }, extra = rows.filter { !expected.contains($0) }
        Issue.record(
            """
            \(recorded.name) folds to other rows than are recorded.
            recorded: \(missing.prefix(3).joined(separator: "\n          "))
            folded:   \(extra.prefix(3).joined(separator: "\n          "))
            """, sourceLocation: location)
    }
}
