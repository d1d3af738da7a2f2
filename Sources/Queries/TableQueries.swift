// What the API and the live screen read from the tables. All SQL of reading stands here; rows leave as JSON text that
// PostgreSQL made, with the tables' column names and times in RFC 3339, UTC.

import Postgres
import Threading

/// One connection of its own, on a thread of its own; reconnects at the next question.
public actor TableQueries {
    private let executor = ThreadExecutor(name: "queries")
    public nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }
    private let target: Target
    private var connection: Connection?

    /// Questions must not hang behind a database that does: five seconds.
    public init(databaseURL: String) {
        target = Target(
            databaseURL, applicationName: "refold queries", connectTimeoutSeconds: 3,
            responseTimeoutSeconds: 10)
    }

    public struct Page: Sendable {
        public let rows: [String]
        /// The sort key of the last row, when there may be more behind it.
        public let next: Int64?
    }

    public func device(tenant: String, device: String) throws(PostgresError) -> String? {
        var parameters = Parameters()
        parameters.text(tenant)
        parameters.text(device)
        return try first(
            "select row_to_json(t)::text from refold.device_status t where tenant_id = $1 and device_id = $2",
            parameters)
    }

    public func firmware(tenant: String, id: Int64) throws(PostgresError) -> String? {
        try byID("refold.firmware_versions", tenant: tenant, id: id)
    }

    public func firmware(tenant: String, limit: Int, after: Int64?) throws(PostgresError) -> Page {
        try page("refold.firmware_versions", key: "id", limit: limit, after: after, where: [("tenant_id", tenant)])
    }

    public func campaign(tenant: String, id: Int64) throws(PostgresError) -> String? {
        try byID("refold.ota_campaigns", tenant: tenant, id: id)
    }

    public func campaigns(tenant: String, status: String?, limit: Int, after: Int64?) throws(PostgresError) -> Page {
        try page(
            "refold.ota_campaigns", key: "id", limit: limit, after: after,
            where: [("tenant_id", tenant), ("status", status)])
    }

    public func deadLetters(
        tenant: String?, device: String?, reason: String?, limit: Int, after: Int64?
    ) throws(PostgresError) -> Page {
        try page(
            Self.deadLetterRows, key: "position", limit: limit, after: after,
            where: [("tenant_id", tenant), ("device_id", device), ("reason", reason)])
    }

    public func deadLetters(at position: Int64) throws(PostgresError) -> [String] {
        var parameters = Parameters()
        parameters.int8(position)
        return try all(
            "select row_to_json(t)::text from \(Self.deadLetterRows) t where position = $1 order by projection",
            parameters)
    }

    public struct FleetCounts: Sendable {
        public let online: Int, stale: Int, offline: Int, deadLetters: Int
    }

    public func fleetCounts() throws(PostgresError) -> FleetCounts {
        let sql = """
            select count(*) filter (where status = 'ONLINE'), count(*) filter (where status = 'STALE'),
                   count(*) filter (where status = 'OFFLINE'), (select count(*) from refold.dead_letters)
            from refold.device_status
            """
        let result = try ask(sql, Parameters())
        func count(_ column: Int) -> Int { Int(result.int8(0, column) ?? 0) }
        return FleetCounts(online: count(0), stale: count(1), offline: count(2), deadLetters: count(3))
    }

    /// Dead letters by reason.
    public func deadLetterReasons() throws(PostgresError) -> [(reason: String, count: Int64)] {
        let result = try ask(
            "select reason, count(*) from refold.dead_letters group by reason order by reason", Parameters())
        return (0..<result.rowCount).map { (result.text($0, 0) ?? "", result.int8($0, 1) ?? 0) }
    }

    private static let deadLetterRows = """
        (select position, projection, tenant_id, device_id, topic, reason, details, at, status,
                replace(encode(payload, 'base64'), E'\\n', '') as payload_base64 from refold.dead_letters)
        """

    private func byID(_ table: String, tenant: String, id: Int64) throws(PostgresError) -> String? {
        var parameters = Parameters()
        parameters.text(tenant)
        parameters.int8(id)
        return try first("select row_to_json(t)::text from \(table) t where tenant_id = $1 and id = $2", parameters)
    }

    private func page(
        _ rows: String, key: String, limit: Int, after: Int64?, where conditions: [(column: String, value: String?)]
    ) throws(PostgresError) -> Page {
        var parameters = Parameters()
        parameters.int8(after ?? -1)
        var sql = "select \(key)::int8, row_to_json(t)::text from \(rows) t where \(key) > $1"
        for (column, value) in conditions {
            guard let value else { continue }
            parameters.text(value)
            sql += " and \(column) = $\(parameters.types.count)"
        }
        parameters.int8(Int64(limit) + 1)
        sql += " order by \(key) limit $\(parameters.types.count)"
        let result = try ask(sql, parameters)
        let shown = min(result.rowCount, limit)
        let texts = (0..<shown).map { result.text($0, 1) ?? "{}" }
        return Page(rows: texts, next: result.rowCount > limit ? result.int8(shown - 1, 0) : nil)
    }

    private func first(_ sql: String, _ parameters: Parameters) throws(PostgresError) -> String? {
        try all(sql, parameters).first
    }

    private func all(_ sql: String, _ parameters: Parameters) throws(PostgresError) -> [String] {
        let result = try ask(sql, parameters)
        return (0..<result.rowCount).map { result.text($0, 0) ?? "{}" }
    }

    private func ask(_ sql: String, _ parameters: Parameters) throws(PostgresError) -> QueryResult {
        let open: Connection
        if let connection, connection.isUsable {
            open = connection
        } else {
            open = try Connection(target)
            try open.exec("set time zone 'UTC'; set statement_timeout = '5s'")
            connection = open
        }
        return try open.query(sql, parameters)
    }
}
