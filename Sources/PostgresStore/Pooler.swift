import Postgres

/// Whether a connection pooler stands between us and the server that gives each transaction another session.
///
/// A session in direct reach, or of a pooler in session mode, has one server process for as long as it lives. A pooler
/// in transaction mode gives that process to somebody else between two transactions; prepared statements, settings,
/// temporary tables and advisory locks are then lost, or another client's.
public enum Pooler {
    /// - Throws: `TransactionPoolerError`, `PostgresError`.
    public static func refuseTransactionMode(_ first: Connection, _ target: DatabaseTarget) throws {
        let process = try processID(first)
        // A pooler tells the client a process id of its own making (with the key for cancel requests).
        guard process != first.backendPID else { return }
        let second = try Connection(target)
        try second.exec("BEGIN")
        let others = try processID(second)
        // The first one is idle and connected: in session mode nobody else can have its process.
        if others == process { throw TransactionPoolerError() }
        // While the second one holds a process, the first must still have its own.
        if try processID(first) != process { throw TransactionPoolerError() }
        try second.exec("ROLLBACK")
    }

    private static func processID(_ connection: Connection) throws(PostgresError) -> Int32 {
        try connection.query("SELECT pg_backend_pid()", name: "ask for the server process").int4(0, 0) ?? 0
    }
}

/// The text says what to do.
public struct TransactionPoolerError: Error, CustomStringConvertible {
    public let description =
        "the database URL leads to a connection pooler in transaction mode (PgBouncer: pool_mode = transaction). "
        + "Refold keeps prepared statements, settings and locks in its sessions: name PostgreSQL itself in "
        + "--database-url, or give Refold's database a pool with pool_mode = session"
}
