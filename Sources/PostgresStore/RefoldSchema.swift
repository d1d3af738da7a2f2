import Postgres

/// The files of `schemas/postgres`, compiled in.
public enum RefoldSchema {
    public static let name = "refold"

    /// In order of their numbers. A file with another kind of name is a mistake of whoever built this.
    public static let migrations: [Migrator.Migration] = embeddedMigrations.map { file, sql in
        guard let migration = Migrator.Migration(file: file, sql: sql) else {
            preconditionFailure("schemas/postgres/\(file) is not named NNNN_name.sql")
        }
        return migration
    }

    /// Brings a database up to date; returns the names of what it applied.
    /// - Throws: `PostgresError`, or `MigrationError` when this program must not touch what it found.
    public static func migrate(_ target: DatabaseTarget, notice: @escaping (String) -> Void = { _ in }) throws
        -> [String]
    {
        try migrate(on: try Connection(target, notice: notice))
    }

    /// The same on an open connection.
    public static func migrate(on connection: Connection) throws -> [String] {
        try Migrator(migrations, schema: name).run(on: connection).map(\.name)
    }
}

/// The schemas that hold a projection's tables.
public enum TablePlace: String, Sendable, CaseIterable {
    /// What everybody reads.
    case live = "refold"
    /// What a rebuild folds into.
    case next = "refold_next"
    /// What a rebuild replaced, or a rollback took back.
    case previous = "refold_previous"
}
