/// A table that a projection owns, described once: SQL is generated from it, rows are encoded in its column order.
public struct Table: Sendable {
    public let name: String
    public let columns: [Column]
    public let write: WriteRule

    public init(_ name: String, write: WriteRule, _ columns: [Column]) {
        self.name = name
        self.columns = columns
        self.write = write
    }

    /// How a row that a fold produced meets the row in the table. Within one drain a key stands at most once.
    public enum WriteRule: Sendable {
        /// The key is new by construction (it contains a position): plain insert.
        case insert
        /// The fold holds the whole row: it replaces what is there.
        case upsert
        /// The row exists already; `.delta` columns are added to it, nothing else is touched. For values that many
        /// keys contribute to (campaign counters): commutative, so partitions and parallel rebuilds are exact.
        case addDeltas
    }

    /// Several keys contribute to a row: parts of the same key are added up before they are written.
    public var isSum: Bool { columns.contains { $0.role == .delta } }
}

public struct Column: Sendable {
    public let name: String
    public let type: ColumnType
    public let role: Role

    public enum Role: Sendable { case key, value, delta }

    public static func key(_ name: String, _ type: ColumnType) -> Column { Column(name: name, type: type, role: .key) }
    public static func value(_ name: String, _ type: ColumnType) -> Column {
        Column(name: name, type: type, role: .value)
    }
    public static func delta(_ name: String) -> Column { Column(name: name, type: .int8, role: .delta) }
}

/// PostgreSQL types, by their SQL names.
public enum ColumnType: String, Sendable { case text, int8, bool, float8, jsonb, bytea, timestamptz }

/// What the machinery needs to know of a projection without folding it.
public struct ProjectionDescriptor: Sendable {
    /// Lower snake case; the key in `projection_checkpoints` and on the command line.
    public let name: String
    /// Raised whenever the meaning of its rows changes: rows of another version are refolded.
    public let version: Int
    /// In the order in which their rows are written.
    public let tables: [Table]
    /// Commits are at least this far apart: for a projection of few rows that change with every message.
    public let minimumCommitInterval: Duration

    public init(name: String, version: Int, tables: [Table], minimumCommitInterval: Duration = .zero) {
        self.name = name
        self.version = version
        self.tables = tables
        self.minimumCommitInterval = minimumCommitInterval
    }
}
