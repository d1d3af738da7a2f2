import EventModel
import Postgres
import Projecting
import Projections

// Exchanging the tables of projections: begin (empty tables in refold_next), finish (indexes, policies, grants), then
// the exchange itself, in one transaction; and the same backwards. The SQL is in schemas/postgres/0008_rebuild.sql.
//
// Readers see the old rows or the new ones, never both:
// - within a transaction, because the tables are locked until its end by whoever read them once;
// - a snapshot that is older than the new rows would see none of them (catalogs are not read by snapshot), so the
//   exchange waits until there is none.
// Writers are held up from the moment when their checkpoints are locked, and only after every reader is out.

/// One connection for one rebuild or rollback, and the lock that keeps others from doing the same. Used by one thread.
public final class TableExchange {
    private let connection: Connection
    /// Set by `markComplete`.
    private var completeSince: String?

    /// - Throws: `PostgresError`, `TransactionPoolerError`.
    public init(_ target: DatabaseTarget, interrupt: Interrupt? = nil) throws {
        var target = target
        target.responseTimeoutSeconds = 12 * 3600  // an index over much takes what it takes
        connection = try Connection(target, interrupt: interrupt)
        try Pooler.refuseTransactionMode(connection, target)
        try connection.exec(
            """
            SET client_min_messages = warning; SET jit = off; SET lock_timeout = '10s'; SET statement_timeout = 0;
            SET idle_in_transaction_session_timeout = '60s'
            """, name: "set up the session")
        try? connection.exec("SET client_connection_check_interval = '1s'")
    }

    /// Whether we may: one rebuild, rollback or drop at a time in a database. Held until the connection is closed,
    /// which the server notices by itself when its other end dies; that takes it a moment, which is waited for.
    public func lock() throws(PostgresError) -> Bool {
        for attempt in 0..<20 {
            if attempt > 0 { try connection.exec("SELECT pg_sleep(0.05)") }
            let found = try connection.query(
                "SELECT pg_try_advisory_lock(hashtextextended('refold.rebuild', 0))", name: "lock out other rebuilds")
            if found.bool(0, 0) == true { return true }
        }
        return false
    }

    // MARK: What there is

    public struct Kept: Sendable, Equatable {
        public let projection: String
        public let version: Int
        /// The last position whose rows are there; nil when none are.
        public let position: Position?
        /// For unfinished ones: who folds.
        public let program: String
    }

    /// Rebuilds that were begun and neither finished nor dropped.
    public func unfinished() throws(PostgresError) -> [Kept] {
        try kept(
            """
            SELECT r.projection, r.version, c.position, r.program FROM refold.rebuilds AS r
            LEFT JOIN refold_next.projection_checkpoints AS c USING (projection) ORDER BY 1
            """)
    }

    /// What a rollback would go back to.
    public func previous() throws(PostgresError) -> [Kept] {
        try kept(
            "SELECT projection, version, position, '' FROM refold_previous.projection_checkpoints ORDER BY projection")
    }

    /// The live checkpoints.
    public func live() throws(PostgresError) -> [Kept] {
        try kept("SELECT projection, version, position, '' FROM refold.projection_checkpoints ORDER BY projection")
    }

    /// How the live rows of a projection stand to this program.
    public enum Condition: Sendable, Equatable {
        /// A projector goes on with them.
        case current
        /// There are none yet.
        case empty
        /// They are of another version, or the views still show another version's.
        case otherVersion
        /// They were rolled back to; the text says so.
        case held(String)
    }

    public func condition(of projection: ProjectionDescriptor) throws(PostgresError) -> Condition {
        var parameters = Parameters()
        parameters.text(projection.name)
        parameters.textArray(Self.tables([projection]))
        let found = try connection.query(
            """
            SELECT c.version, c.held_version, c.held_reason, EXISTS (
                SELECT FROM refold.own_views('refold', $2) AS v
                JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass
                JOIN pg_rewrite AS r ON r.oid = d.objid AND r.ev_class = v.oid
                JOIN refold.family('refold', $2) AS t ON t.oid = d.refobjid WHERE t.relname <> ALL ($2))
            FROM (SELECT $1) AS p (projection) LEFT JOIN refold.projection_checkpoints AS c USING (projection)
            """, parameters, name: "compare the versions of \(projection.name)")
        let showsOthers = found.bool(0, 3) == true
        guard let version = found.int4(0, 0).map(Int.init) else { return showsOthers ? .otherVersion : .empty }
        if version == projection.version, !showsOthers { return .current }
        if let held = found.int4(0, 1), Int(held) == projection.version { return .held(found.text(0, 2) ?? "held") }
        return version == projection.version && showsOthers ? .current : .otherVersion
    }

    private func kept(_ sql: String) throws(PostgresError) -> [Kept] {
        let found = try connection.query(sql, name: "read what is kept")
        return (0..<found.rowCount).map { row in
            Kept(
                projection: found.text(row, 0) ?? "", version: Int(found.int4(row, 1) ?? 0),
                position: found.int8(row, 2).map { Position(stored: $0) }, program: found.text(row, 3) ?? "")
        }
    }

    // MARK: Before the exchange

    /// Empty tables in `.next`, in place of what was there.
    public func begin(_ projection: ProjectionDescriptor, program: String) throws(PostgresError) {
        var parameters = Parameters()
        parameters.text(projection.name)
        parameters.int4(Int32(projection.version))
        parameters.textArray(Self.tables([projection]))
        parameters.text(program)
        _ = try connection.query(
            "SELECT refold.begin_rebuild($1, $2, $3, $4)", parameters, name: "make tables for \(projection.name)")
    }

    /// From now on this program may go on with what is in `.next`.
    public func adopt(_ projection: ProjectionDescriptor, program: String) throws(PostgresError) {
        var parameters = Parameters()
        parameters.text(projection.name)
        parameters.text(program)
        _ = try connection.query(
            "UPDATE refold.rebuilds SET program = $2 WHERE projection = $1", parameters, name: "adopt tables")
    }

    /// What the live tables have besides rows; afterwards statistics, so that the first question is answered well.
    public func finish(_ projection: ProjectionDescriptor) throws(PostgresError) {
        var parameters = Parameters()
        parameters.text(projection.name)
        _ = try connection.query(
            "SELECT refold.finish_rebuild($1)", parameters, name: "indexes and grants for \(projection.name)")
        for table in Self.tables([projection]) {
            try connection.exec("ANALYZE refold_next.\"\(table)\"", name: "analyze \(table)")
        }
    }

    /// The tables in `.next` hold every row from now on: snapshots from before are not to see them.
    public func markComplete() throws(PostgresError) {
        completeSince = try connection.query("SELECT pg_current_xact_id()::xid::text", name: "mark").text(0, 0)
    }

    /// Drops what there is in `.next` or `.previous`.
    public func discard(_ projections: [ProjectionDescriptor], in place: TablePlace) throws(PostgresError) {
        var parameters = Self.parameters(projections)
        parameters.text(place.rawValue)
        _ = try connection.query(
            "SELECT refold.discard($1, $2, $3)", parameters, name: "drop the tables in \(place.rawValue)")
    }

    // MARK: The exchange

    public enum Outcome: Sendable {
        /// How long those who write could not, at most; and what could not be taken along, in words.
        case done(blocked: Duration, remarks: [String])
        /// Nothing was changed; who was in the way, where that can be told.
        case inTheWay(String)
    }

    /// One attempt. The tables in `incoming` become the live ones, those go to `outgoing`, where there must be none.
    /// - Parameters:
    ///   - patience: how long to wait for who reads the views. New readers wait behind us for as long.
    ///   - budget: how long those who write may be held up: what takes longer is given up.
    ///   - heldBecause: see `refold.exchange` in the migration.
    ///   - catchUp: called with the highest live position once it cannot move any more; brings the incoming tables
    ///     there, on connections of its own.
    public func exchange(
        _ projections: [ProjectionDescriptor], incoming: TablePlace, outgoing: TablePlace, patience: Duration,
        budget: Duration, heldBecause: String? = nil, catchUp: (Position) throws -> Void = { _ in }
    ) throws -> Outcome {
        if let reader = try oldSnapshot() { return .inTheWay(reader) }
        do {
            // What the others wrote asynchronously is on disk before, so that the commit need not wait for it.
            let flush = "SET synchronous_commit = on; UPDATE refold.log_identity SET log_id = log_id"
            try connection.exec(flush)
            let outcome = try attempt(projections, incoming, outgoing, patience, budget, heldBecause, catchUp)
            try connection.exec(flush)
            return outcome
        } catch let error as PostgresError where ["55P03", "40P01", "57014"].contains(error.sqlState) {
            try? connection.exec("ROLLBACK")
            return .inTheWay(try blocker(projections) ?? "the machine is busy, or a lock is held (\(error.message))")
        } catch {
            if connection.isUsable { try? connection.exec("ROLLBACK") }
            throw error
        }
    }

    private func attempt(
        _ projections: [ProjectionDescriptor], _ incoming: TablePlace, _ outgoing: TablePlace, _ patience: Duration,
        _ budget: Duration, _ heldBecause: String?, _ catchUp: (Position) throws -> Void
    ) throws -> Outcome {
        let milliseconds = max(1, Int(patience / .milliseconds(1)))
        try connection.exec("BEGIN; SET LOCAL lock_timeout = '\(milliseconds)ms'")
        var tables = Parameters()
        tables.textArray(Self.tables(projections))
        _ = try connection.query("SELECT refold.close_views($1)", tables, name: "wait for readers")
        // From here on those who write are held up.
        try connection.exec("SET LOCAL lock_timeout = '20ms'")
        let (began, position) = try lockCheckpoints(projections)
        if let position { try catchUp(position) }
        let left = Int((budget - (ContinuousClock.now - began)) / .milliseconds(1))
        try connection.exec("SET LOCAL statement_timeout = '\(max(left, 1))ms'")
        var parameters = Self.parameters(projections)
        parameters.text(incoming.rawValue)
        parameters.text(outgoing.rawValue)
        if let heldBecause { parameters.text(heldBecause) } else { parameters.null(TypeID.text) }
        let remarks = try connection.query(
            "SELECT unnest(refold.exchange($1, $2, $3, $4, $5))", parameters, name: "exchange the tables")
        // Asynchronous: nobody waits for the disk meanwhile. All that is behind it in the write-ahead log comes or goes
        // with it, so nobody can lose it alone; it is flushed before anybody is told.
        try connection.exec("SET LOCAL synchronous_commit = off; COMMIT")
        let blocked = ContinuousClock.now - began
        return .done(blocked: blocked, remarks: (0..<remarks.rowCount).compactMap { remarks.text($0, 0) })
    }

    /// All of them at one moment: whoever is in the middle of a commit is not waited for with others held.
    private func lockCheckpoints(
        _ projections: [ProjectionDescriptor]
    ) throws(PostgresError) -> (ContinuousClock.Instant, Position?) {
        var names = Parameters()
        names.textArray(projections.map(\.name))
        let count = try connection.query(
            "SELECT count(*) FROM refold.projection_checkpoints WHERE projection = ANY ($1)", names,
            name: "count the checkpoints"
        ).int8(0, 0)
        try connection.exec("SAVEPOINT unlocked")
        for attempt in 1...400 {
            let began = ContinuousClock.now
            let found = try connection.query(
                """
                SELECT position FROM refold.projection_checkpoints WHERE projection = ANY ($1) FOR UPDATE SKIP LOCKED
                """, names, name: "lock the checkpoints")
            if found.rowCount == count ?? 0 {
                return (began, (0..<found.rowCount).compactMap { found.int8($0, 0) }.max().map { Position(stored: $0) })
            }
            try connection.exec("ROLLBACK TO SAVEPOINT unlocked; SELECT pg_sleep(\(attempt < 20 ? 0.001 : 0.005))")
        }
        throw PostgresError(
            sqlState: "55P03", message: "a projection's transaction takes long", statement: "lock the checkpoints",
            kind: .unavailable)
    }

    // MARK: Who is in the way

    /// A snapshot that would not see the incoming rows. What we may not look at (PostgreSQL 15, 28.2.3: other users'
    /// sessions, without pg_read_all_stats) does not count.
    private func oldSnapshot() throws(PostgresError) -> String? {
        guard let completeSince else { return nil }
        var since = Parameters()
        since.text(completeSince)
        return try who("backend_xmin IS NOT NULL AND age(backend_xmin) > age($1::text::xid)", since)
    }

    private func blocker(_ projections: [ProjectionDescriptor]) throws(PostgresError) -> String? {
        var tables = Parameters()
        tables.textArray(Self.tables(projections))
        return try who(
            """
            pid IN (SELECT l.pid FROM pg_locks AS l WHERE l.granted AND (
                l.relation IN (SELECT c.oid FROM refold.family('refold', $1) AS c)
                OR l.relation IN (SELECT c.oid FROM refold.own_views('refold', $1) AS c)))
            AND application_name NOT LIKE 'refold %'
            """, tables)
    }

    private func who(_ condition: String, _ parameters: Parameters) throws(PostgresError) -> String? {
        let found = try connection.query(
            """
            SELECT format('process %s of %s (%s), in a transaction for %s s: %s', pid, usename,
                coalesce(nullif(application_name, ''), 'no name'), round(extract(epoch FROM now() - xact_start), 1),
                left(regexp_replace(query, '\\s+', ' ', 'g'), 120))
            FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND \(condition)
            ORDER BY xact_start LIMIT 1
            """, parameters, name: "ask who is in the way")
        return found.rowCount == 0 ? nil : found.text(0, 0)
    }

    /// The tables of projections, each once.
    static func tables(_ projections: [ProjectionDescriptor]) -> [String] {
        projections.flatMap(\.tables).map(\.name).reduce(into: []) { names, name in
            if !names.contains(name) { names.append(name) }
        }
    }

    private static func parameters(_ projections: [ProjectionDescriptor]) -> Parameters {
        var parameters = Parameters()
        parameters.textArray(projections.map(\.name))
        parameters.textArray(tables(projections))
        return parameters
    }
}
