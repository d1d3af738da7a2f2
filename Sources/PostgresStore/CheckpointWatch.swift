import Postgres

/// Reports which projections' checkpoints changed, whoever changed them: one query for all projectors, which need not
/// each ask while they are idle.
public struct CheckpointWatch: Sendable {
    /// Table and transaction (`xmin`) of each projection's rows. Nil before the first reading of a connection.
    private var seen: [String: String]?

    public init() {}

    /// To be called with each new connection: a server that crashed has ended all of them, and may have lost its last
    /// commits, so that what is read next may be what was read before.
    public mutating func restart() { seen = nil }

    /// Names of the projections whose checkpoints changed since the last call; nil: any may have, as this is the first
    /// on this connection.
    public mutating func changes(_ connection: Connection) throws(PostgresError) -> Set<String>? {
        var pipeline = Pipeline()
        // A pipeline is one transaction. Whoever locks the table must not make the database look unreachable.
        pipeline.execute(sql: "SELECT set_config('lock_timeout', '1s', true)")
        pipeline.execute(
            sql: """
                SELECT projection, string_agg(concat_ws(' ', partition, tableoid, xmin), ',' ORDER BY partition)
                FROM \(RefoldSchema.name).projection_checkpoints GROUP BY projection
                """)
        guard let rows = try connection.run(pipeline).last else { return nil }
        var found: [String: String] = [:]
        for row in 0..<rows.rowCount { found[rows.text(row, 0) ?? ""] = rows.text(row, 1) ?? "" }
        defer { seen = found }
        return seen.map { seen in Set(seen.keys).union(found.keys).filter { seen[$0] != found[$0] } }
    }
}
