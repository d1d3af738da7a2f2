import EventModel
import Postgres
import PostgresStore
import Projecting
import Projections

/// The live tables at one moment: all of them, with their checkpoints, in one transaction that sees nothing of what is
/// written meanwhile, and writes nothing.
final class LiveTables {
    struct Checkpoint {
        let version: Int
        /// So many events are in the rows.
        let end: Position
    }

    private let connection: Connection
    /// By projection; none for one that was never folded there.
    let checkpoints: [String: Checkpoint]
    /// Keys whose events are not in the rows, because the rows were refused: how many, and the first, by projection.
    let parked: [(projection: String, count: Int64, first: Int64)]

    init(_ target: DatabaseTarget, interrupt: Interrupt?) throws(PostgresError) {
        connection = try Connection(target, interrupt: interrupt)
        try connection.exec(
            """
            SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET jit = off;
            BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY
            """, name: "look at the tables at one moment")
        let found = try connection.query(
            "SELECT projection, version, position FROM \(RefoldSchema.name).projection_checkpoints WHERE partition = 0",
            name: "read the checkpoints")
        var checkpoints: [String: Checkpoint] = [:]
        for row in 0..<found.rowCount {
            guard let name = found.text(row, 0), let version = found.int4(row, 1), let position = found.int8(row, 2)
            else { continue }
            checkpoints[name] = Checkpoint(version: Int(version), end: Position(stored: position).next)
        }
        self.checkpoints = checkpoints
        let waiting = try connection.query(
            """
            SELECT projection, count(*), min(position) FROM \(RefoldSchema.name).parked_keys GROUP BY 1 ORDER BY 1
            """, name: "read the parked keys")
        parked = (0..<waiting.rowCount).map { row in
            (waiting.text(row, 0) ?? "", waiting.int8(row, 1) ?? 0, waiting.int8(row, 2) ?? 0)
        }
    }

    /// The rows of a table in the order of their keys.
    func rows(of table: StoredTable) throws(PostgresError) -> CopyOut {
        let columns = table.columns.map { "\"\($0.name)\"" }
        return try CopyOut(
            connection,
            """
            COPY (SELECT \(columns.joined(separator: ", ")) FROM \(RefoldSchema.name)."\(table.name)" \
            ORDER BY \(columns.prefix(table.keyCount).joined(separator: ", "))) TO STDOUT (FORMAT binary)
            """, name: "read \(table.name)")
    }

    func close() { try? connection.exec("ROLLBACK") }
}
