// Queries: what the API and the live screen read from the tables. All SQL of reading is here; rows leave as JSON text
// that PostgreSQL made, with the tables' column names and times in RFC 3339, UTC.
//
// Whoever asks for a tenant reads in a transaction as the role refold_app with the tenant in `app.tenant_id`, so that
// row-level security holds, and names the tenant in the query besides. Where the database's administrator does not let
// us be refold_app, the query's own condition is all there is; `isIsolated` says so.

import Postgres
import Synchronization
import Threading

/// One connection of its own, on a thread of its own; reconnects at the next question.
public actor TableQueries {
    private let executor = ThreadExecutor(name: "queries")
    public nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }
    private let target: DatabaseTarget
    private var connection: Connection?
    private nonisolated let interrupter = Interrupt()
    /// The number of the read that has the connection; 0 for none.
    private nonisolated let lease = Mutex<(current: UInt64, last: UInt64)>((0, 0))
    /// Row-level security holds for what is asked for a tenant. Known once something was asked.
    public private(set) var isIsolated = true

    /// Questions must not hang behind a database that does: five seconds.
    public init(databaseURL: String) {
        target = DatabaseTarget(
            databaseURL, applicationName: "refold queries", connectTimeoutSeconds: 3,
            responseTimeoutSeconds: 10)
    }

    public struct KeyedPage<Key: Sendable>: Sendable {
        public let rows: [String]
        /// The sort key of the last row, when there may be more behind it.
        public let next: Key?
    }

    public typealias Page = KeyedPage<Int64>
    /// In the order of device ids.
    public typealias TextPage = KeyedPage<String>

    /// Which rows of a sequence: `limit` of those beyond `after`, towards the newer or the older.
    public struct Slice: Sendable {
        public var limit: Int
        public var after: Int64?
        public var newestFirst: Bool

        public init(limit: Int, after: Int64? = nil, newestFirst: Bool = false) {
            self.limit = limit
            self.after = after
            self.newestFirst = newestFirst
        }
    }

    // MARK: parts of questions

    /// A condition and its value; left out when the value is nil.
    struct Condition {
        var sql: String
        var value: String?

        /// `sql` has `?` where the value goes.
        init(_ sql: String, _ value: String?) { (self.sql, self.value) = (sql, value) }
    }

    /// The end of the ids that begin like `prefix`: ids are of characters below DEL. A range, since LIKE may not look
    /// at rows before row-level security has.
    static func end(ofPrefix prefix: String) -> String { prefix + "\u{7F}" }

    static func conditions(search: String?) -> [Condition] {
        [Condition("device_id >= ?", search), Condition("device_id < ?", search.map(end))]
    }

    func byID(_ rows: String, tenant: String, id: Int64) throws(PostgresError) -> String? {
        var parameters = Parameters()
        parameters.text(tenant)
        parameters.int8(id)
        return try all(
            "select row_to_json(t)::text from \(rows) t where tenant_id = $1 and id = $2", parameters, tenant: tenant
        ).first
    }

    func page(
        _ rows: String, key: String, _ slice: Slice, tenant: String?, where conditions: [Condition]
    ) throws(PostgresError) -> Page {
        var parameters = Parameters()
        parameters.int8(slice.after ?? (slice.newestFirst ? .max : -1))
        var sql = "select \(key)::int8, row_to_json(t)::text from \(rows) t"
        sql += " where \(key) \(slice.newestFirst ? "<" : ">") $1"
        sql += Self.and([Condition("tenant_id = ?", tenant)] + conditions, &parameters)
        parameters.int8(Int64(slice.limit) + 1)
        sql += " order by \(key) \(slice.newestFirst ? "desc" : "asc") limit $\(parameters.types.count)"
        let result = try ask(sql, parameters, tenant: tenant)
        let shown = min(result.rowCount, slice.limit)
        let texts = (0..<shown).map { result.text($0, 1) ?? "{}" }
        return Page(rows: texts, next: result.rowCount > slice.limit ? result.int8(shown - 1, 0) : nil)
    }

    /// `fixed`: a condition on an integer, which finds the rows.
    func textPage(
        _ rows: String, tenant: String, fixed: (column: String, value: Int64)? = nil, limit: Int, after: String?,
        where conditions: [Condition]
    ) throws(PostgresError) -> TextPage {
        var parameters = Parameters()
        parameters.text(after ?? "")
        var sql = "select device_id, row_to_json(t)::text from \(rows) t where device_id > $1"
        if let fixed {
            parameters.int8(fixed.value)
            sql += " and \(fixed.column) = $2"
        }
        sql += Self.and([Condition("tenant_id = ?", tenant)] + conditions, &parameters)
        parameters.int8(Int64(limit) + 1)
        sql += " order by device_id limit $\(parameters.types.count)"
        let result = try ask(sql, parameters, tenant: tenant)
        let shown = min(result.rowCount, limit)
        let texts = (0..<shown).map { result.text($0, 1) ?? "{}" }
        return TextPage(rows: texts, next: result.rowCount > limit ? result.text(shown - 1, 0) : nil)
    }

    static func and(_ conditions: [Condition], _ parameters: inout Parameters) -> String {
        var sql = ""
        for condition in conditions {
            guard let value = condition.value else { continue }
            parameters.text(value)
            sql += " and " + condition.sql.replacing("?", with: "$\(parameters.types.count)")
        }
        return sql
    }

    func all(_ sql: String, _ parameters: Parameters, tenant: String?) throws(PostgresError) -> [String] {
        let result = try ask(sql, parameters, tenant: tenant)
        return (0..<result.rowCount).map { result.text($0, 0) ?? "{}" }
    }

    // MARK: leases

    /// A read begins; its number.
    nonisolated func begin() -> UInt64 {
        lease.withLock { lease in
            lease.last += 1
            lease.current = lease.last
            interrupter.reset()
            return lease.last
        }
    }

    nonisolated func end(_ number: UInt64) { lease.withLock { if $0.current == number { $0.current = 0 } } }

    /// Ends what the read waits for, unless it has ended. The server notices the lost connection and ends the
    /// statement.
    nonisolated func interrupt(_ number: UInt64) {
        lease.withLock { if $0.current == number { interrupter.signal() } }
    }

    // MARK: asking

    /// `tenant`: nil asks for all of them, as the tables' owner.
    func ask(_ sql: String, _ parameters: Parameters, tenant: String?) throws(PostgresError) -> QueryResult {
        let connection = try open()
        guard let tenant else { return try connection.query(sql, parameters) }
        var whose = Parameters()
        whose.text(isIsolated ? "refold_app" : "none")
        whose.text(tenant)
        var pipeline = Pipeline()
        pipeline.execute(sql: "BEGIN READ ONLY")
        pipeline.execute(sql: "SELECT set_config('role', $1, true), set_config('app.tenant_id', $2, true)", whose)
        pipeline.execute(sql: sql, parameters)
        pipeline.execute(sql: "COMMIT")
        do {
            return try connection.run(pipeline)[2]
        } catch {
            if connection.isUsable { try? connection.exec("ROLLBACK") }
            throw error
        }
    }

    private func open() throws(PostgresError) -> Connection {
        if let connection, connection.isUsable { return connection }
        let open = try Connection(target, interrupt: interrupter)
        try open.exec("set time zone 'UTC'; set statement_timeout = '5s'; set jit = off")
        // Ends the statement of a client that hung up. Not every system that PostgreSQL runs on can do it.
        try? open.exec("set client_connection_check_interval = '500ms'")
        let role = try open.query(
            "select coalesce(pg_has_role(current_user, to_regrole('refold_app'), 'MEMBER'), false)")
        isIsolated = role.bool(0, 0) == true
        connection = open
        return open
    }
}
