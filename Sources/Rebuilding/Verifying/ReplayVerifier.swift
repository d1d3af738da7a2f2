import EventLog
import EventModel
import Postgres
import Projecting
import Projections
import Snapshots

// Replay verify: do the live tables say what the log says? The log is folded from nothing, beside the live tables and
// without touching them, up to the position at which each of them stands; then one digest a table is compared, and
// where two differ, the rows. It is done in several ways (`FoldWay`), because each of them is relied upon somewhere.

public struct VerifyOptions: Sendable {
    public var projections: [String] = []
    public var ways: Set<FoldWay> = Set(FoldWay.allCases)
    /// Rows that are shown.
    public var differencesMax = 20
    public var threads = 2
    /// Called now and then with how much of the work is done, 0 to 1.
    public var progress: @Sendable (Double) -> Void = { _ in }
    /// Asked now and then; true ends it with `CancellationError`.
    public var isCancelled: @Sendable () -> Bool = { false }

    public init() {}
}

public struct ReplayVerifier {
    private let log: ReadOnlyLog
    private let database: DatabaseTarget
    private let interrupt: Interrupt?
    private let snapshots: SnapshotFolder?
    private let scratchFolder: String

    /// - Parameters:
    ///   - interrupt: ends a wait for the database with an error; `VerifyOptions.isCancelled` ends all else.
    ///   - scratchFolder: for rows that do not fit into memory.
    public init(
        log: ReadOnlyLog, database: DatabaseTarget, interrupt: Interrupt? = nil, snapshots: SnapshotFolder?,
        scratchFolder: String
    ) {
        self.log = log
        self.database = database
        self.interrupt = interrupt
        self.snapshots = snapshots
        self.scratchFolder = scratchFolder
    }

    /// - Throws: `PostgresError`, `LogError`, `StoreError`.
    public func run(_ options: VerifyOptions) throws -> ReplayVerification {
        let clock = ContinuousClock(), begin = clock.now
        var report = ReplayVerification()
        let live = try LiveTables(database, interrupt: interrupt)
        defer { live.close() }
        let work = try plan(live, options, &report)
        for (name, count, first) in live.parked where work.contains(where: { $0.entry.name == name }) {
            report.notes.append(
                "\(count) keys of \(name) are parked, the first from position \(first) on: their rows are behind until "
                    + "they are taken up (refold dead-letters parked, retry)")
        }
        for (entry, end) in work {
            for table in entry.descriptor.storedTables {
                report.tables.append(
                    .init(
                        projection: entry.name, name: table.name, end: end,
                        live: try Self.digest(table, of: live.rows(of: table), options), folded: [:]))
            }
        }
        for way in FoldWay.allCases where options.ways.contains(way) && !work.isEmpty {
            try compare(way, work, live, options, &report)
        }
        report.seconds = begin.duration(to: clock.now) / .seconds(1)
        return report
    }

    /// Which projections are compared, and how many events are in their rows.
    private func plan(
        _ live: LiveTables, _ options: VerifyOptions, _ report: inout ReplayVerification
    ) throws -> [(entry: Catalog.Entry, end: Position)] {
        let durableCount = log.durableCount
        return Catalog.entries.compactMap { entry in
            guard options.projections.isEmpty || options.projections.contains(entry.name) else { return nil }
            let checkpoint = live.checkpoints[entry.name]
            if let checkpoint, checkpoint.version != entry.descriptor.version {
                report.skipped.append(
                    (
                        entry.name,
                        "its rows are of version \(checkpoint.version), this program folds version "
                            + "\(entry.descriptor.version)"
                    ))
                return nil
            }
            let end = checkpoint?.end ?? Position(0)
            guard end.rawValue <= durableCount else {
                report.skipped.append(
                    (
                        entry.name,
                        "its checkpoint, \(end.rawValue - 1), is past the log's end (\(durableCount) events)"
                    ))
                return nil
            }
            return (entry, end)
        }
    }

    private func compare(
        _ way: FoldWay, _ work: [(entry: Catalog.Entry, end: Position)], _ live: LiveTables, _ options: VerifyOptions,
        _ report: inout ReplayVerification
    ) throws {
        var base: SnapshotFile?
        if way == .snapshot {
            let first = work.map(\.end).min() ?? Position(0)
            base = try snapshots?.withNewest(
                atOrBefore: first, report: { report.notes.append("\($0)") }, { $0 })
            guard let base else { return }
            report.snapshotEnd = base.end
        }
        let stores = try fold(work, base: base, threads: way == .parallel ? options.threads : 1, way, options)
        var number = 0
        for (index, (entry, _)) in work.enumerated() {
            for table in entry.descriptor.storedTables {
                defer { number += 1 }
                let rows = try Self.digest(table, of: stores[index].cursor(of: table.name), options)
                let before = report.tables[number].agrees
                report.tables[number].folded[way] = rows
                // What one way has shown need not be shown again.
                guard rows != report.tables[number].live, before else { continue }
                let comparison = RowComparison(
                    table: table, live: try live.rows(of: table),
                    folded: try stores[index].cursor(of: table.name))
                try comparison.run(max: options.differencesMax - report.differences.count, into: &report) { row in
                    try touching(row, before: work[index].end)
                }
            }
        }
    }

    private func fold(
        _ work: [(entry: Catalog.Entry, end: Position)], base: SnapshotFile?, threads: Int, _ way: FoldWay,
        _ options: VerifyOptions
    ) throws -> [RowFiles] {
        let stores = work.map { RowFiles($0.entry.descriptor, folder: scratchFolder, base: base) }
        var bulk = BulkOptions()
        bulk.threads = threads
        let last = work.map(\.end).max() ?? Position(0)
        // Most stand at the same position, or a few events apart.
        for end in Set(work.map(\.end)).sorted() {
            let members = work.indices.filter { work[$0].end >= end }
            let fold = try BulkFold(
                source: log, entries: members.map { work[$0].entry }, stores: members.map { stores[$0] }, options: bulk)
            let ways = FoldWay.allCases.filter(options.ways.contains), number = ways.firstIndex(of: way) ?? 0
            fold.onBlock = { [cancel = fold.cancel] folded in
                if options.isCancelled() { cancel() }
                let share = Double(folded.rawValue) / Double(max(last.rawValue, 1))
                options.progress((Double(number) + share) / Double(ways.count))
            }
            guard try fold.run(to: end), !options.isCancelled() else { throw CancellationError() }
        }
        return stores
    }

    private static func digest(
        _ table: StoredTable, of rows: CopyOut, _ options: VerifyOptions
    ) throws -> ReplayVerification.Rows {
        var digest = TableDigest(table)
        while let tuple = try rows.next() {
            try add(tuple, to: &digest, options)
        }
        let count = digest.rowCount
        return .init(count: count, digest: digest.finish())
    }

    private static func digest(
        _ table: StoredTable, of rows: any RowCursor, _ options: VerifyOptions
    ) throws -> ReplayVerification.Rows {
        var digest = TableDigest(table)
        while try rows.next() { try rows.withRow { try add($0, to: &digest, options) } }
        let count = digest.rowCount
        return .init(count: count, digest: digest.finish())
    }

    private static func add(
        _ row: UnsafeRawBufferPointer, to digest: inout TableDigest, _ options: VerifyOptions
    ) throws {
        digest.add(row)
        if digest.rowCount % 4096 == 0, options.isCancelled() { throw CancellationError() }
    }

    /// The events that touched a row: the one that it names, or those of its device. Of a certificate, an authority or
    /// a job those that it names, the first and the last, of a broker the last: decisions have no index by subject.
    private func touching(_ row: NamedRow, before end: Position) throws -> (count: Int, last: [Position]) {
        func position(_ column: String) -> UInt64? { row[column].flatMap { UInt64($0) } }
        // Of an attempt its start; of a late result the result.
        let attempt = position("report").flatMap { $0 > 0 ? $0 : position("token") }
        if let first = position("position") ?? position("added_position") ?? attempt {
            let last = position("last_position") ?? first
            return last == first ? (1, [Position(first)]) : (2, [Position(first), Position(last)])
        }
        guard let tenant = row.text("tenant_id"), let device = row.text("device_id") else {
            return row["last_position"].flatMap { UInt64($0) }.map { (1, [Position($0)]) } ?? (0, [])
        }
        let reader = log.events(.device(tenant: tenant, device: device), in: Position(0)..<end)
        var count = 0, last: [Position] = []
        while try reader.read({ _, position in
            count += 1
            last.append(position)
            if last.count > Self.eventsShown * 2 { last.removeFirst(Self.eventsShown) }
        }) {}
        return (count, last.suffix(Self.eventsShown))
    }

    private static let eventsShown = 10
}
