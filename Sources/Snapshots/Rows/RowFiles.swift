import EventLog
import EventModel
import Projecting
import Projections

// Where one projection's rows are kept while it is folded without a database: in memory up to a bound, then in sorted
// runs on files, over the rows of a snapshot where there is one. The rules of writing are PostgreSQL's
// (`Table.WriteRule`); rows come out in the order of their keys, with the columns of the stored table.
//
// The files are scratch: they have no name any more as soon as they are open, and end with the process.

/// See the page above. One consumer's own, on one thread at a time. After a commit that threw it is to be thrown away.
public final class RowFiles: ProjectionStore {
    public let projection: ProjectionDescriptor
    /// In the order in which the projection names them.
    public let tables: [StoredTable]
    /// So many events are in these rows.
    public private(set) var end: Position
    private let folder: String
    private let fileSystem: any LogFileSystem
    private let memoryBytesMax: Int
    private var stored: [TableFiles]
    private var plans: [WritePlan]
    private var fileNumber = 0
    private var isBroken = false

    /// - Parameters:
    ///   - folder: for the runs; made where there is none.
    ///   - base: the rows to begin with. One that lacks this version of the projection is passed over: then folding
    ///     begins at the log's first event.
    ///   - memoryBytesMax: so much is held in memory before it goes into a file.
    public init(
        _ projection: ProjectionDescriptor, folder: String, base: SnapshotFile? = nil, memoryBytesMax: Int = 64 << 20,
        fileSystem: any LogFileSystem = PosixFileSystem()
    ) {
        self.projection = projection
        self.folder = folder
        self.fileSystem = fileSystem
        self.memoryBytesMax = memoryBytesMax
        tables = projection.storedTables
        let base = base.flatMap { $0.holds(projection) ? $0 : nil }
        end = base?.end ?? Position(0)
        let rows = tables.map { base?.rows(of: $0) }
        stored = zip(tables, rows).map { TableFiles($0, base: $1) }
        let tables = tables
        plans = projection.tables.map { WritePlan($0, tables: tables, of: projection) }
    }

    public var interrupter: @Sendable () -> Void { {} }

    public func checkpoint(of projection: ProjectionDescriptor, partition: Int) throws(StoreError) -> Position? {
        guard projection.version == self.projection.version else {
            throw .otherVersion(projection, found: self.projection.version)
        }
        return end == Position(0) ? nil : Position(end.rawValue - 1)
    }

    public func load(
        _ requests: [LoadRequest], of projection: ProjectionDescriptor, found: (Int, RowReader) -> Void
    ) throws(StoreError) {
        do {
            var key: [UInt8] = [], ranges: [Range<Int>?] = []
            for request in requests {
                let plan = plans[request.table], table = stored[plan.table]
                try request.keys.forEachTuple { tuple in
                    SortKey.make(tuple, table.stored.keyTypes, into: &key)
                    try table.find(key) { row in
                        let row = Tuple(row)
                        row.fields(into: &ranges)
                        found(request.table, row.reader(ranges, order: plan.columns))
                    }
                }
            }
        } catch {
            throw .refused("\(error)")
        }
    }

    public func commit(
        _ rows: [RowBuffer], of projection: ProjectionDescriptor, partition: Int, from old: Position?, to new: Position
    ) throws(StoreError) {
        guard !isBroken else { throw .refused("an earlier commit failed: these row files are to be thrown away") }
        guard projection.version == self.projection.version, end.rawValue == old.map({ $0.rawValue + 1 }) ?? 0 else {
            throw .checkpointMoved("the rows of \(projection.name) hold \(end) events, not what was expected")
        }
        do {
            let sorted = zip(plans, rows).map { RowsInOrder($1, $0) }
            try validate(sorted)
            isBroken = true
            for (plan, rows) in zip(plans, sorted) where !rows.rows.isEmpty { try write(rows, plan) }
            if stored.reduce(0, { $0 + $1.memory.byteCount }) > memoryBytesMax { try flush() }
        } catch {
            throw (error as? StoreError) ?? .refused("\(error)")
        }
        end = new.next
        isBroken = false
    }

    /// The rows of a table in the order of their keys. Nothing may be committed before it was used up.
    public func cursor(of table: String, from key: [UInt8]? = nil) throws -> any RowCursor {
        guard let found = stored.first(where: { $0.stored.name == table }) else {
            preconditionFailure("\(projection.name) has no table \(table)")
        }
        return found.cursor(from: key)
    }

    /// Calls `body` with the row of a key (`SortKey`); false when there is none.
    @discardableResult
    public func find(_ key: [UInt8], in table: String, _ body: (UnsafeRawBufferPointer) throws -> Void) throws -> Bool {
        guard let found = stored.first(where: { $0.stored.name == table }) else { return false }
        return try found.find(key, body)
    }

    // MARK: writing

    /// Throws when a row is refused, before anything is written.
    private func validate(_ all: [RowsInOrder]) throws {
        for (plan, rows) in zip(plans, all) where plan.rule != .upsert {
            let table = stored[plan.table]
            var last: [UInt8]?
            for (key, _) in rows.rows {
                if plan.rule == .insert {
                    guard key != last, try !table.mayHold(key) || !table.find(key, { _ in }) else {
                        throw StoreError.refused("\(table.stored.name) has a row of this key already")
                    }
                } else if try !table.find(key, { _ in }) {
                    // Its row may come in this very commit.
                    let others = zip(plans, all).filter { $0.0.table == plan.table && $0.0.rule == .upsert }
                    guard others.contains(where: { $0.1.contains(key) }) else {
                        throw StoreError.refused("deltas for a row of \(table.stored.name) that does not exist")
                    }
                }
                last = key
            }
        }
    }

    private func write(_ rows: RowsInOrder, _ plan: WritePlan) throws {
        let table = stored[plan.table]
        for (key, row) in rows.rows {
            try rows.buffer.withRow(row) { tuple in
                if plan.isPlain { return table.put(key, tuple, plan) }
                var merged: [UInt8]?
                try table.find(key) { merged = plan.merge(tuple, into: $0) }
                table.put(key, merged ?? plan.merge(tuple, into: nil))
            }
        }
    }

    /// What is in memory goes into a file, as one more run of each table.
    private func flush() throws {
        let file = try makeFile()
        for (section, table) in stored.enumerated() where !table.memory.isEmpty {
            table.runs.append(try file.write(MemoryCursor(table.memory), table.stored, section: UInt32(section)))
            table.memory.removeAll()
        }
        for (section, table) in stored.enumerated() where table.runs.count >= Self.runsMax {
            table.runs = [try file.write(table.runCursor(), table.stored, section: UInt32(section))]
        }
        try file.finish()
        for table in stored { table.forget() }
    }
    private static let runsMax = 8

    private func makeFile() throws -> RunFile {
        try fileSystem.makeDirectory(folder)
        fileNumber += 1
        let path = "\(folder)/\(projection.name)-\(fileNumber).run"
        let file = try fileSystem.open(path, create: true, writable: true)
        try fileSystem.remove(path)
        return RunFile(file: file, path: path)
    }
}

/// A file of runs that is being written.
private struct RunFile {
    let reader: BlockReader
    let writer: BlockWriter

    init(file: any LogFile, path: String) {
        reader = BlockReader(file: file, salt: 0, path: path)
        writer = BlockWriter(file: file, at: 0, salt: 0)
    }

    func write(_ cursor: any RowCursor, _ stored: StoredTable, section: UInt32) throws -> SortedRows {
        let table = TableWriter(writer, section: section)
        while try cursor.next() { try cursor.withRow { try table.append($0, key: cursor.key) } }
        // A later run of the same file may read it.
        let places = try table.finish()
        try writer.flush()
        return SortedRows(table: stored, reader: reader, section: section, places: places)
    }

    func finish() throws { try writer.flush() }
}

/// Cuts rows into blocks.
final class TableWriter {
    /// A block is written when it holds so many bytes.
    static let blockBytes = 64 << 10
    private let writer: BlockWriter
    private let section: UInt32
    private var bytes: [UInt8] = []
    private var rows = 0
    private var firstKey: [UInt8] = []
    private var places: [BlockPlace] = []

    init(_ writer: BlockWriter, section: UInt32) {
        self.writer = writer
        self.section = section
    }

    func append(_ row: UnsafeRawBufferPointer, key: @autoclosure () -> [UInt8]) throws {
        if rows == 0 { firstKey = key() }
        bytes.append(contentsOf: row)
        rows += 1
        if bytes.count >= Self.blockBytes { try end() }
    }

    func finish() throws -> [BlockPlace] {
        if rows > 0 { try end() }
        return places
    }

    private func end() throws {
        places.append(try writer.write(bytes, rows: rows, section: section, firstKey: firstKey))
        bytes.removeAll(keepingCapacity: true)
        rows = 0
    }
}
