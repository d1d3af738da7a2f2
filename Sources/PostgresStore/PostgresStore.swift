// PostgresStore: projections' rows and checkpoints in PostgreSQL.
//
//     RefoldSchema      migrations, and the schemas of live, next and previous tables
//     PostgresStore     one projector's rows: load, commit with the checkpoint, park keys
//     TableExchange     swaps rebuilt tables with the live ones, and back
//
// Invariants. Rows and checkpoint move in one transaction, by compare-and-set on the checkpoint, so each event counts
// once whatever is killed. A statement that wrote fewer rows than it should is an error.

import EventModel
import Postgres
import Projecting
import Projections

/// Rows and checkpoints in PostgreSQL. The connection is opened by the first call that needs one, and again
/// after it was lost; the server must be reached directly or through a pooler in session mode (prepared
/// statements, temporary tables); `Pooler` tells.
///
/// A commit is one transaction: first the checkpoint's compare-and-set, which takes its row lock, then one
/// statement a table. Few rows go as binary arrays in one pipeline, which is one round trip; many go by
/// binary COPY into a temporary table that is merged (measured: arrays win up to about 1,000 rows, COPY
/// beyond).
///
/// When other tables take the place of those that were read (a rebuild, a rollback), their checkpoint has another
/// generation: the next `checkpoint` or `commit` throws `.checkpointMoved`, even if the position is the same.
public final class PostgresStore: ProjectionStore {
    private let target: DatabaseTarget
    private let prepare: @Sendable (Connection) throws -> Void
    private let interrupt = Interrupt()
    private var session: Session?
    let place: TablePlace
    private var isFilling: Bool
    /// Of each projection and partition whose checkpoint was read.
    private var generations: [String: Int64] = [:]
    /// The checkpoints of this session, as last read or committed.
    private var lastSeen: [String: (position: Int64, file: Int64?)] = [:]

    /// Beyond this many rows, or bytes, a table's rows go by COPY.
    static let arrayRowsMax = 1000
    static let arrayBytesMax = 1 << 20

    /// - Parameters:
    ///   - filling: the tables are those that `TableExchange.begin` made and nobody reads yet: many rows whose keys are
    ///     new go straight into them.
    ///   - prepare: called with each new connection before its first use; migrations may run here.
    public init(
        _ target: DatabaseTarget, place: TablePlace = .live, filling: Bool = false,
        prepare: @escaping @Sendable (Connection) throws -> Void = { _ in }
    ) {
        precondition(!filling || place == .next, "only the tables of a rebuild are filled")
        self.target = target
        self.place = place
        isFilling = filling
        self.prepare = prepare
    }

    /// The tables have row-level security from now on, and all their rows up to here.
    public func endFilling() { isFilling = false }

    public var interrupter: @Sendable () -> Void {
        let interrupt = interrupt
        return { interrupt.signal() }
    }

    public func checkpoint(of projection: ProjectionDescriptor, partition: Int) throws(StoreError) -> Position? {
        let id = "\(projection.name)/\(partition)", known = generations[id]
        return try withSession { (session) throws(PostgresError) -> Result<Position?, StoreError> in
            var key = Parameters()
            key.text(projection.name)
            key.int4(Int32(partition))
            let found = try session.connection.query(
                """
                SELECT version, position, generation, held_version, held_reason, \
                    pg_relation_filenode(tableoid)::int8 \
                FROM \(self.place.rawValue).projection_checkpoints WHERE projection = $1 AND partition = $2
                """, key, name: "read the checkpoint of \(projection.name)")
            guard found.rowCount == 1, let version = found.int4(0, 0), let position = found.int8(0, 1) else {
                self.lastSeen[id] = nil
                return .success(nil)
            }
            guard Int(version) == projection.version else {
                let isHeld = found.int4(0, 3).map(Int.init) == projection.version
                return .failure(
                    isHeld
                        ? .refused(found.text(0, 4) ?? "held") : .otherVersion(projection, found: Int(version)))
            }
            let generation = found.int8(0, 2)
            if let known, generation != known {
                self.generations[id] = nil
                self.lastSeen[id] = nil
                return .failure(.checkpointMoved("other tables stand in the place of these: going on with them"))
            }
            self.generations[id] = generation
            let file = found.int8(0, 5)
            if let last = self.lastSeen[id], position < last.position, last.file == nil || file == last.file {
                return .failure(.movedBack(projection, from: last.position, to: position))
            }
            self.lastSeen[id] = (position: position, file: file)
            return .success(Position(stored: position))
        }.get()
    }

    public func load(
        _ requests: [LoadRequest], of projection: ProjectionDescriptor, found: (Int, RowReader) -> Void
    ) throws(StoreError) {
        let requests = requests.filter { !$0.keys.isEmpty }
        guard !requests.isEmpty else { return }
        let results = try withSession { (session) throws(PostgresError) in
            var pipeline = Pipeline()
            for request in requests {
                let sql = session.sql(projection, request.table)
                let name = "load_\(sql.name)"
                try session.prepareOnce(name, sql.load, types: sql.keyTypes)
                pipeline.execute(
                    name,
                    ArrayParameters.make(request.keys, columns: sql.table.columns.filter { $0.role == .key }))
            }
            return try session.connection.run(pipeline)
        }
        for (request, result) in zip(requests, results) {
            for row in 0..<result.rowCount { found(request.table, RowReader { result.bytes(row, $0) }) }
        }
    }

    public func commit(
        _ rows: [RowBuffer], of projection: ProjectionDescriptor, partition: Int, from old: Position?,
        to new: Position
    ) throws(StoreError) {
        try transact(rows, of: projection, partition: partition, from: old, to: new)
    }

    /// What else than a plain commit is done.
    enum Variant {
        case plain
        /// Parks and unparks keys too.
        case parking(ParkingChange)
        /// And everything is undone.
        case rehearsal
    }

    func transact(
        _ rows: [RowBuffer], of projection: ProjectionDescriptor, partition: Int, from old: Position?,
        to new: Position, _ variant: Variant = .plain
    ) throws(StoreError) {
        precondition(rows.count == projection.tables.count, "one row buffer a table")
        var checkpoint = Parameters()
        checkpoint.text(projection.name)
        checkpoint.int4(Int32(partition))
        checkpoint.int4(Int32(projection.version))
        let id = "\(projection.name)/\(partition)"
        checkpoint.int8(old == nil ? nil : generations[id])
        checkpoint.int8(old.map { Int64($0.rawValue) })
        checkpoint.int8(Int64(new.rawValue))
        let moved: Int64? = try withSession { (session) throws(PostgresError) in
            try session.prepareOnce(
                Self.moveCheckpoint, "SELECT \(self.place.rawValue).move_checkpoint($1, $2, $3, $4, $5, $6)",
                types: checkpoint.types)
            let large = rows.indices.filter {
                rows[$0].rowCount > Self.arrayRowsMax || rows[$0].bytes.count > Self.arrayBytesMax
            }
            if large.isEmpty, case .plain = variant {
                return try self.commitArrays(rows, projection, checkpoint, session)
            }
            return try self.commitCopies(
                rows, large, projection, checkpoint, isFirst: old == nil, session,
                ending: self.ending(variant, of: projection, partition: partition))
        }
        if case .rehearsal = variant { return }
        generations[id] = moved
        let file = old == nil ? nil : lastSeen[id]?.file
        lastSeen[id] = (position: Int64(new.rawValue), file: file)
    }

    private static let moveCheckpoint = "move_checkpoint"

    /// The whole transaction in one round trip: a pipeline is one. Returns the checkpoint's generation.
    private func commitArrays(
        _ rows: [RowBuffer], _ projection: ProjectionDescriptor, _ checkpoint: Parameters, _ session: Session
    ) throws(PostgresError) -> Int64? {
        var pipeline = Pipeline()
        for index in rows.indices where !rows[index].isEmpty {
            try prepareMerge(session.sql(projection, index), session)
        }
        pipeline.execute(Self.moveCheckpoint, checkpoint)
        for index in rows.indices where !rows[index].isEmpty {
            addMerge(rows[index], session.sql(projection, index), to: &pipeline)
        }
        return try session.connection.run(pipeline).first?.int8(0, 0)
    }

    private func commitCopies(
        _ rows: [RowBuffer], _ large: [Int], _ projection: ProjectionDescriptor, _ checkpoint: Parameters,
        isFirst: Bool, _ session: Session, ending: Ending
    ) throws(PostgresError) -> Int64? {
        let connection = session.connection
        /// Every key is new: none stands there before the first commit, and an insert's never does.
        func goesStraight(_ index: Int) -> Bool {
            switch projection.tables[index].write {
            case .insert: isFilling
            case .upsert: isFilling && isFirst
            case .addDeltas: false
            }
        }
        for index in large where !goesStraight(index) && session.mayStage {
            try session.stageOnce(session.sql(projection, index))
        }
        // Without temporary tables all goes as arrays: slower, and nothing else.
        let large = session.mayStage ? large : large.filter(goesStraight)
        for index in rows.indices where !rows[index].isEmpty && !large.contains(index) {
            try prepareMerge(session.sql(projection, index), session)
        }
        do throws(PostgresError) {
            var pipeline = Pipeline()
            pipeline.execute(sql: "BEGIN")
            pipeline.execute(Self.moveCheckpoint, checkpoint)
            let moved = try connection.run(pipeline).last?.int8(0, 0)
            for index in large {
                let sql = session.sql(projection, index)
                let name = "copy to \(sql.table.name)"
                let count = try connection.copyIn(
                    goesStraight(index) ? sql.copyToTable : sql.copyToStage,
                    chunks: [Self.copyHeader, rows[index].bytes, Self.copyTrailer], name: name)
                if count != rows[index].rowCount {
                    throw Self.swallowed(sql.table.name, expected: rows[index].rowCount, found: count, name)
                }
            }
            pipeline = Pipeline()
            for index in rows.indices where !rows[index].isEmpty {
                let sql = session.sql(projection, index)
                if large.contains(index) {
                    if !goesStraight(index) { pipeline.execute("stage_\(sql.name)", Parameters()) }
                } else {
                    addMerge(rows[index], sql, to: &pipeline)
                }
            }
            ending.add(&pipeline)
            let answers = try connection.run(pipeline)
            // A change among the parked keys gives another generation, in the last statement but one.
            return ending.changesGeneration ? answers.dropLast().last?.int8(0, 0) : moved
        } catch {
            if connection.isUsable { try? connection.exec("ROLLBACK") }
            throw error
        }
    }

    private func prepareMerge(_ sql: TableSQL, _ session: Session) throws(PostgresError) {
        try session.prepareOnce("merge_\(sql.name)", sql.mergeArrays, types: sql.columnTypes)
    }

    private func addMerge(_ rows: RowBuffer, _ sql: TableSQL, to pipeline: inout Pipeline) {
        pipeline.execute("merge_\(sql.name)", ArrayParameters.make(rows, columns: sql.table.columns))
    }

    /// PostgreSQL 15 documentation, COPY, "Binary Format": signature, flags, length of a header extension; −1
    /// at the end.
    private static let copyHeader: [UInt8] =
        Array("PGCOPY\n".utf8) + [0xFF, 0x0D, 0x0A, 0] + [0, 0, 0, 0] + [0, 0, 0, 0]
    private static let copyTrailer: [UInt8] = [0xFF, 0xFF]

    // MARK: Sessions and errors

    func withSession<R>(_ body: (Session) throws(PostgresError) -> R) throws(StoreError) -> R {
        do {
            let session = try session ?? open()
            self.session = session
            defer { if !session.connection.isUsable { self.session = nil } }
            return try body(session)
        } catch let error as PostgresError {
            if error.needsNewSession { session = nil }
            throw Self.storeError(error)
        } catch let error as MigrationError {
            throw .refused("\(error)")
        } catch {
            throw .unavailable("\(error)")
        }
    }

    private func open() throws -> Session {
        let connection = try Connection(target, interrupt: interrupt)
        try prepare(connection)
        // A server that crashed meanwhile may have lost the last commits, rows and checkpoint together.
        lastSeen = [:]
        return try Session(connection, place)
    }

    static func storeError(_ error: PostgresError) -> StoreError {
        if error.sqlState == "RF001" { return .checkpointMoved(error.message) }
        if let text = missingRows(error) { return .refused(text) }
        return switch error.kind {
        case .unavailable, .serialization: .unavailable("\(error)")
        case .refused: isAboutRows(error) ? .refusedRows("\(error)") : .refused("\(error)")
        }
    }
}

/// A connection and what was prepared on it.
final class Session {
    let connection: Connection
    private var prepared: Set<String> = []
    private let place: TablePlace
    private var tables: [String: TableSQL] = [:]

    init(_ connection: Connection, _ place: TablePlace) throws(PostgresError) {
        self.connection = connection
        self.place = place
        // Rows and checkpoint fall back together, so a commit need not wait for the disk. Plans must not
        // depend on when the table was last analyzed: keys are looked up by index, always. The timeouts turn
        // a lock that somebody keeps into an error that people see, and free our locks when this process is
        // frozen.
        try connection.exec(
            """
            SET statement_timeout = '120s'; SET synchronous_commit = off; SET jit = off;
            SET client_min_messages = warning;
            SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
            SET lock_timeout = '30s'; SET idle_in_transaction_session_timeout = '60s'
            """, name: "set up the session")
        // Ends the statement of a client that hung up. Not every system that PostgreSQL runs on can do it.
        try? connection.exec("SET client_connection_check_interval = '1s'")
    }

    func sql(_ projection: ProjectionDescriptor, _ index: Int) -> TableSQL {
        let name = "\(projection.name)_\(projection.version)_\(index)"
        if let known = tables[name] { return known }
        let sql = TableSQL(table: projection.tables[index], place: place, name: name)
        tables[name] = sql
        return sql
    }

    func prepareOnce(_ name: String, _ sql: String, types: [UInt32]) throws(PostgresError) {
        guard !prepared.contains(name) else { return }
        try connection.prepare(name, sql, types: types)
        prepared.insert(name)
    }

    /// False once the server has refused a temporary table: the right TEMPORARY is missing.
    private(set) var mayStage = true

    func stageOnce(_ sql: TableSQL) throws(PostgresError) {
        guard !prepared.contains("stage_\(sql.name)") else { return }
        do {
            try connection.exec(sql.createStage, name: "stage for \(sql.table.name)")
        } catch  where error.sqlState == "42501" {
            mayStage = false
            return
        }
        try prepareOnce("stage_\(sql.name)", sql.mergeStage, types: [])
    }
}
