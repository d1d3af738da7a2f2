import Health
import Postgres

extension DatabaseKeeper {
    /// What the database lets us do, asked every two seconds.
    struct Examination: Sendable, Equatable {
        var hasSchema = false
        /// The schema is there, or may be made.
        var mayHaveSchema = true
        var isReadOnly = false
        var missingGrants: [String] = []
        var connectionShortage: String?
    }

    /// - Throws: `PostgresError`.
    static func examine(_ open: Connection, connectionsNeeded: Int) throws(PostgresError) -> Examination {
        let found = try open.query(
            """
            select to_regclass('refold.schema_migrations') is not null, current_setting('transaction_read_only') = 'on',
                has_database_privilege(current_database(), 'TEMPORARY'),
                has_database_privilege(current_database(), 'CREATE'), to_regnamespace('refold') is not null,
                quote_ident(current_database()), quote_ident(current_user), rolsuper, rolconnlimit, datconnlimit,
                current_setting('max_connections')::int4 - current_setting('superuser_reserved_connections')::int4
            from pg_roles, pg_database where rolname = current_user and datname = current_database()
            """, name: "examine the database")
        guard found.rowCount == 1 else { return Examination() }
        func flag(_ column: Int32) -> Bool { found.bool(0, Int(column)) == true }
        var examination = Examination(hasSchema: flag(0), isReadOnly: flag(1))
        let database = found.text(0, 5) ?? "", role = found.text(0, 6) ?? ""
        // Rebuilds make temporary views; large batches go faster through temporary tables.
        if !flag(2) { examination.missingGrants.append("GRANT TEMPORARY ON DATABASE \(database) TO \(role)") }
        if !flag(3), !flag(4) {
            examination.mayHaveSchema = false
            examination.missingGrants.append("GRANT CREATE ON DATABASE \(database) TO \(role)")
        }
        // Limits of roles and databases do not hold for superusers (PostgreSQL 15, CREATE ROLE, "CONNECTION LIMIT").
        let isSuperuser = flag(7)
        let limits = [
            (isSuperuser ? -1 : found.int4(0, 8) ?? -1, "the role \(role)", "ALTER ROLE \(role) CONNECTION LIMIT"),
            (isSuperuser ? -1 : found.int4(0, 9) ?? -1, "the database \(database)",
                "ALTER DATABASE \(database) CONNECTION LIMIT"),
            (found.int4(0, 10) ?? -1, "the server", "ALTER SYSTEM SET max_connections ="),
        ]
        let short = limits.filter { $0.0 >= 0 && Int($0.0) < connectionsNeeded }.min { $0.0 < $1.0 }
        examination.connectionShortage = short.map { limit, owner, remedy in
            "\(owner) allows \(limit) connections, Refold holds up to \(connectionsNeeded): "
                + "\(remedy) \(connectionsNeeded)"
        }
        return examination
    }
}

extension DatabaseKeeper.State {
    var facts: HealthFacts.Database {
        var facts = HealthFacts.Database()
        facts.isConnected = connected
        facts.isRefused = refused
        facts.isReadOnly = examination.isReadOnly
        facts.missingGrants = examination.missingGrants
        facts.connectionShortage = examination.connectionShortage
        facts.lastError = lastError
        return facts
    }
}
