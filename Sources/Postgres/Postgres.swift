// Postgres: libpq in Swift: connections, parameterised queries, pipelines, COPY and migrations. No domain types.
//
// Lifecycle: `Connection(url)` connects; every call blocks its thread until the server has answered; the
// connection is closed when it is released. A connection that was lost, or left in the middle of an answer,
// says `isUsable == false` and never becomes usable again: open another.
//
// Invariants:
// - libpq is driven without its blocking calls: every wait is a poll(2) on the socket, on the `Interrupt` and
//   on a
//   deadline, so that a server that hangs can hold nobody for ever.
// - Rows come in binary, and are read where libpq keeps them.
// - Passwords never stand in the text of an error.

/// What the server, or the way to it, refused.
public struct PostgresError: Error, Sendable, CustomStringConvertible {
    /// Five characters as of PostgreSQL's documentation, appendix A; nil when no server gave one.
    public let sqlState: String?
    public let message: String
    public let detail: String?
    public let hint: String?
    /// What was being done: a statement's name, `connect`, `copy …`.
    public let statement: String
    public let kind: Kind

    /// What a caller can do about it.
    public enum Kind: Sendable {
        /// The server cannot be reached, went away, or lacks something that may come back: try again later.
        case unavailable
        /// The transaction lost against another one: the same transaction may succeed now.
        case serialization
        /// The data, or the statement, will never be accepted.
        case refused
    }

    public init(
        sqlState: String?, message: String, detail: String? = nil, hint: String? = nil, statement: String,
        kind: Kind
    ) {
        self.sqlState = sqlState
        self.message = message
        self.detail = detail
        self.hint = hint
        self.statement = statement
        self.kind = kind
    }

    public var description: String {
        var text = "\(statement): \(message)"
        if let sqlState { text += " (SQLSTATE \(sqlState))" }
        if let detail { text += "; \(detail)" }
        if let hint { text += "; hint: \(hint)" }
        return text
    }

    /// The session is read-only. It may stay so when the server no longer is: `default_transaction_read_only` of a
    /// role or a database is read when a session begins. Close the connection and open another.
    public var needsNewSession: Bool { sqlState == "25006" }

    /// PostgreSQL 15 documentation, appendix A, "Error Codes".
    public static func kind(ofSQLState state: String) -> Kind {
        switch state.prefix(2) {
        case "40": return .serialization
        // Connection exceptions; insufficient resources; operator intervention (shutdown, cancel, dropped
        // database); system errors (I/O); configuration file errors.
        case "08", "53", "57", "58", "F0": return .unavailable
        default: break
        }
        switch state {
        // A standby after a failover; idle transactions and sessions that the server ended; a lock that was
        // not given.
        case "25006", "25P03", "25P04", "55P03": return .unavailable
        default: return .refused
        }
    }
}

/// Object ids of the built-in types that are used here (`pg_type.dat` of PostgreSQL; they never change).
public enum TypeID {
    public static let unspecified: UInt32 = 0
    public static let bool: UInt32 = 16
    public static let bytea: UInt32 = 17
    public static let int8: UInt32 = 20
    public static let int4: UInt32 = 23
    public static let text: UInt32 = 25
    public static let float8: UInt32 = 701
    public static let timestamptz: UInt32 = 1184
    public static let jsonb: UInt32 = 3802

    /// The type of arrays of `element`; nil for a type not named above.
    public static func array(of element: UInt32) -> UInt32? {
        switch element {
        case bool: 1000
        case bytea: 1001
        case int4: 1007
        case text: 1009
        case int8: 1016
        case float8: 1022
        case timestamptz: 1185
        case jsonb: 3807
        default: nil
        }
    }
}
