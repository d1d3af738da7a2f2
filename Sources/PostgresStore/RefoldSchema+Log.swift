import EventModel
import Postgres

/// The tables were folded from a log that is not this one: positions in them mean other events.
public enum OtherLogError: Error, CustomStringConvertible {
    case another(theirs: String, ours: String)
    case diverged(ours: String)

    public var description: String {
        let advice =
            "use the log that belongs to them, or give another --database-url, or `drop schema refold "
            + "cascade` there: the tables are then refolded from this log"
        return switch self {
        case .another(let theirs, let ours):
            "the database's tables belong to the log \(theirs), this one is \(ours): \(advice)"
        case .diverged(let ours):
            "a projector position past the log's end: the database's tables were ahead of the log \(ours), which "
                + "must be an older copy: \(advice)"
        }
    }
}

extension RefoldSchema {
    /// Ties the tables to a log the first time, and refuses those of another log, or of a longer one.
    /// - Throws: `OtherLogError`, `PostgresError`.
    public static func bind(_ open: Connection, logID: String, durableCount: UInt64) throws {
        var ours = Parameters()
        ours.text(logID)
        _ = try open.query(
            "insert into refold.log_identity (log_id) values ($1) on conflict do nothing", ours, name: "bind the log")
        let bound = try open.query("select log_id from refold.log_identity", name: "compare the logs").text(0, 0) ?? ""
        if bound != logID { throw OtherLogError.another(theirs: bound, ours: logID) }
        var end = Parameters()
        end.int8(Int64(durableCount))
        let found = try open.query(
            """
            update refold.log_identity set diverged_at = coalesce(diverged_at,
                (select now() where exists (select from refold.projection_checkpoints where position >= $1)))
            returning diverged_at is not null
            """, end, name: "compare the tables with the log")
        if found.bool(0, 0) == true { throw OtherLogError.diverged(ours: logID) }
    }

    /// What the view of presence reads.
    public static func write(_ presence: PresenceThresholds, _ open: Connection) throws(PostgresError) {
        var thresholds = Parameters()
        thresholds.int8(Int64(presence.staleSeconds))
        thresholds.int8(Int64(presence.offlineSeconds))
        _ = try open.query(
            "update refold.presence_thresholds set stale_after_seconds = $1, offline_after_seconds = $2", thresholds,
            name: "write the thresholds of presence")
    }

    /// The last position of each projection that the database will still have after it crashed. Projectors commit
    /// asynchronously: a checkpoint that can be read may be lost. So the checkpoints are read first; then a transaction
    /// is committed synchronously, which flushes the write-ahead log up to its own end and with it everything that was
    /// committed before (PostgreSQL 15, 30.4).
    public static func flushedPositions(_ open: Connection) throws(PostgresError) -> [String: Position] {
        let found = try open.query(
            // Whoever is taken up again needs the log from where it was parked.
            """
            select projection, min(least(c.position, (select min(p.position) - 1 from refold.parked_keys as p
                where p.projection = c.projection and p.partition = c.partition)))
            from refold.projection_checkpoints as c group by projection
            """,
            name: "read the checkpoints")
        _ = try open.query("set synchronous_commit = on", name: "commit synchronously")
        _ = try open.query("update refold.log_identity set log_id = log_id", name: "flush what was committed before")
        var positions: [String: Position] = [:]
        for row in 0..<found.rowCount {
            // Below 0: a key waits from the log's first event on.
            if let name = found.text(row, 0), let position = found.int8(row, 1), position >= 0 {
                positions[name] = Position(stored: position)
            }
        }
        return positions
    }
}
