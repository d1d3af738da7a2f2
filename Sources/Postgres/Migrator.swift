/// Numbered changes of a schema, each applied once, in order, in a transaction of its own, and recorded with
/// its checksum. Safe against another program that does the same at the same time: an advisory lock lets one
/// go first.
public struct Migrator: Sendable {
    /// One file `NNNN_name.sql`.
    public struct Migration: Sendable, Equatable {
        public let number: Int
        public let name: String
        public let sql: String
        /// Programs that know the migrations up to this number may go on with the schema that this one made: it adds,
        /// and changes nothing that was. By a line `-- suffices: NNNN` of its own. Nil: they may not.
        public var suffices: Int? {
            let line = sql.split(separator: "\n").first { $0.hasPrefix("-- suffices: ") }
            return line.flatMap { Int($0.dropFirst("-- suffices: ".count)) }
        }
    }

    public static let serverVersionMin = 150_000

    private let migrations: [Migration]
    private let schema: String

    /// The first migration must create `schema_migrations(number, name, checksum, applied_at, suffices)` in `schema`, a
    /// plain lower-case identifier.
    public init(_ migrations: [Migration], schema: String) {
        precondition(
            schema.utf8.allSatisfy { $0 == 0x5F || (0x61...0x7A).contains($0) }, "not a plain identifier")
        self.migrations = migrations.sorted { $0.number < $1.number }
        self.schema = schema
        for (index, migration) in self.migrations.enumerated() {
            precondition(
                migration.number == index + 1, "migration \(migration.number) where \(index + 1) is due")
        }
    }

    /// Brings the schema up to date; returns what it applied.
    public func run(on connection: Connection) throws -> [Migration] {
        guard connection.serverVersion >= Self.serverVersionMin else {
            throw MigrationError.serverTooOld(version: connection.serverVersion)
        }
        let encoding = try connection.query("select current_setting('server_encoding')", name: "ask for the encoding")
        guard encoding.text(0, 0) == "UTF8" else { throw MigrationError.notUTF8(encoding.text(0, 0) ?? "unknown") }
        var key = Parameters()
        key.text("\(schema).schema_migrations")
        // Waits for the other program; the lock is the session's, since each migration has a transaction of
        // its own.
        _ = try connection.query(
            "SELECT pg_advisory_lock(hashtextextended($1, 0))", key, name: "lock migrations")
        defer { _ = try? connection.query("SELECT pg_advisory_unlock(hashtextextended($1, 0))", key) }
        let due = try checkApplied(on: connection)
        for migration in due { try apply(migration, on: connection) }
        return due
    }

    /// Compares what was applied with what is known; returns what is due.
    private func checkApplied(on connection: Connection) throws -> [Migration] {
        let known = try connection.query(
            "SELECT to_regclass('\(schema).schema_migrations') IS NOT NULL", name: "find schema")
        guard known.bool(0, 0) == true else { return migrations }
        let applied = try connection.query(
            "SELECT number, name, checksum, suffices FROM \(schema).schema_migrations ORDER BY number",
            name: "read schema version")
        for row in 0..<applied.rowCount {
            let number = Int(applied.int4(row, 0) ?? 0), name = applied.text(row, 1) ?? ""
            // Made by a newer program, that said we may go on with it: after a rollback of what it folded.
            if row >= migrations.count, let known = applied.int4(row, 3), Int(known) <= migrations.count { continue }
            guard row < migrations.count else {
                throw MigrationError.newer(
                    database: Int(applied.int4(applied.rowCount - 1, 0) ?? 0), known: migrations.count)
            }
            let ours = migrations[row]
            guard number == ours.number, name == ours.name,
                applied.text(row, 2) == (try checksum(ours, on: connection))
            else {
                throw MigrationError.altered(number: ours.number, name: ours.name, applied: "\(number)_\(name)")
            }
        }
        return Array(migrations.dropFirst(min(applied.rowCount, migrations.count)))
    }

    private func apply(_ migration: Migration, on connection: Connection) throws {
        let name = "migration \(migration.number)_\(migration.name)"
        let sum = try checksum(migration, on: connection)
        try connection.transaction { () throws(PostgresError) in
            try connection.exec(migration.sql, name: name)
            var row = Parameters()
            row.int4(Int32(migration.number))
            row.text(migration.name)
            row.text(sum)
            if let known = migration.suffices { row.int4(Int32(known)) } else { row.null(TypeID.int4) }
            _ = try connection.query(
                "INSERT INTO \(schema).schema_migrations (number, name, checksum, suffices) VALUES ($1, $2, $3, $4)",
                row,
                name: name)
        }
    }

    private func checksum(_ migration: Migration, on connection: Connection) throws(PostgresError) -> String {
        var sql = Parameters()
        sql.bytea(Array(migration.sql.utf8))
        return try connection.query("SELECT encode(sha256($1), 'hex')", sql, name: "checksum").text(0, 0) ?? ""
    }
}

/// Why the schema was left as it is. The text says what to do.
public enum MigrationError: Error, Sendable, CustomStringConvertible {
    case serverTooOld(version: Int)
    /// It could not hold every text that a device may send.
    case notUTF8(String)
    /// A newer program was here before.
    case newer(database: Int, known: Int)
    /// What was applied is not what this program holds.
    case altered(number: Int, name: String, applied: String)

    public var description: String {
        switch self {
        case .serverTooOld(let version):
            "PostgreSQL \(version / 10_000).\(version % 10_000) is too old: 15 or newer is needed "
                + "(for security_invoker views)"
        case .notUTF8(let encoding):
            "the database's encoding is \(encoding): create one with `encoding 'UTF8' template template0`"
        case .newer(let database, let known):
            "the database's schema is of version \(database), this program knows \(known): start the newer program "
                + "that was used before, or point this one at a database of its own"
        case .altered(let number, let name, let applied):
            "migration \(number)_\(name) differs from \(applied), which this database was given: the program was built "
                + "from altered migrations; use the one that was used before, or a database of its own"
        }
    }
}

extension Migrator.Migration {
    /// Nil when `file` is not named `NNNN_name.sql`.
    public init?(file: String, sql: String) {
        let parts = file.split(separator: "_", maxSplits: 1)
        guard parts.count == 2, parts[0].utf8.count == 4, let number = Int(parts[0]), number > 0,
            parts[1].hasSuffix(".sql")
        else { return nil }
        self.init(number: number, name: String(parts[1].dropLast(4)), sql: sql)
    }
}
