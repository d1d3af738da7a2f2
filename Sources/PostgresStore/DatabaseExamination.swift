import Postgres

/// What the database lets us do.
public struct DatabaseExamination: Sendable, Equatable {
    public private(set) var hasSchema = false
    /// The schema is there, or may be made.
    public private(set) var mayHaveSchema = true
    public private(set) var isReadOnly = false
    /// Statements that give the rights that are missing.
    public var missingGrants: [String] = []
    public private(set) var connectionShortage: String?

    /// One that found nothing wrong, and no schema.
    public init() {}

    /// - Throws: `PostgresError`.
    public init(_ open: Connection, connectionsNeeded: Int) throws(PostgresError) {
        let found = try open.query(
            """
            select exists (select from pg_class where relnamespace = to_regnamespace('refold')
                    and relname = 'schema_migrations'),
                current_setting('transaction_read_only') = 'on',
                has_database_privilege(current_database(), 'TEMPORARY'),
                has_database_privilege(current_database(), 'CREATE'), to_regnamespace('refold') is not null,
                quote_ident(current_database()), quote_ident(current_user), rolsuper, rolconnlimit, datconnlimit,
                current_setting('max_connections')::int4 - current_setting('superuser_reserved_connections')::int4,
                coalesce(has_schema_privilege(to_regnamespace('refold')::oid, 'USAGE')
                    and has_schema_privilege(to_regnamespace('refold')::oid, 'CREATE'), true),
                (select string_agg('refold.' || quote_ident(t.relname), ', ') from (
                    select relname from pg_class
                    where relnamespace = to_regnamespace('refold') and relkind in ('r', 'p')
                        and (relname ~ '_v[0-9]+$' or relname in ('projection_checkpoints', 'parked_keys'))
                        and not (has_table_privilege(oid, 'SELECT') and has_table_privilege(oid, 'INSERT')
                            and has_table_privilege(oid, 'UPDATE'))
                    order by relname) as t)
            from pg_roles, pg_database where rolname = current_user and datname = current_database()
            """, name: "examine the database")
        guard found.rowCount == 1 else { return }
        func flag(_ column: Int32) -> Bool { found.bool(0, Int(column)) == true }
        (hasSchema, isReadOnly) = (flag(0), flag(1))
        let database = found.text(0, 5) ?? "", role = found.text(0, 6) ?? ""
        // Rebuilds make temporary views; large batches go faster through temporary tables.
        if !flag(2) { missingGrants.append("GRANT TEMPORARY ON DATABASE \(database) TO \(role)") }
        if !flag(3), !flag(4) {
            mayHaveSchema = false
            missingGrants.append("GRANT CREATE ON DATABASE \(database) TO \(role)")
        }
        // A right that was revoked after the schema was made.
        if !flag(11) {
            mayHaveSchema = false
            missingGrants.append("GRANT USAGE, CREATE ON SCHEMA refold TO \(role)")
        }
        if let tables = found.text(0, 12) { missingGrants.append("GRANT ALL ON \(tables) TO \(role)") }
        // Limits of roles and databases do not hold for superusers (PostgreSQL 15, CREATE ROLE, "CONNECTION LIMIT").
        let isSuperuser = flag(7)
        let limits = [
            (isSuperuser ? -1 : found.int4(0, 8) ?? -1, "the role \(role)", "ALTER ROLE \(role) CONNECTION LIMIT"),
            (
                isSuperuser ? -1 : found.int4(0, 9) ?? -1, "the database \(database)",
                "ALTER DATABASE \(database) CONNECTION LIMIT"
            ),
            (found.int4(0, 10) ?? -1, "the server", "ALTER SYSTEM SET max_connections ="),
        ]
        let short = limits.filter { $0.0 >= 0 && Int($0.0) < connectionsNeeded }.min { $0.0 < $1.0 }
        connectionShortage = short.map { limit, owner, remedy in
            "\(owner) allows \(limit) connections, Refold holds up to \(connectionsNeeded): "
                + "\(remedy) \(connectionsNeeded)"
        }
    }
}

/// What ends an error of a server that answers.
public enum DatabaseRemedy: Equatable {
    /// A statement for `missingGrants`.
    case grant(String)
    /// Why the database is of no use, and what to do.
    case unusable(String)

    /// Nil: nothing that the error alone explains.
    /// - Parameter open: the connection that got the error.
    public init?(_ error: PostgresError, _ open: Connection) {
        func ask(_ sql: String) -> String? { (try? open.query(sql))?.text(0, 0) }
        switch error.sqlState {
        case "42501":
            let role = ask("select quote_ident(current_user)") ?? "the role of the database URL"
            self = .grant(
                "GRANT ALL ON SCHEMA refold TO \(role); GRANT ALL ON ALL TABLES IN SCHEMA refold TO \(role) "
                    + "(PostgreSQL: \(error.message))")
        case "57014":
            // Also of an administrator's pg_cancel_backend.
            let role = ask("select quote_ident(current_user)") ?? "ROLE"
            let limit = ask("select current_setting('statement_timeout')") ?? "too short"
            guard limit != "0" else {
                self = .unusable("\(error)")
                return
            }
            self = .unusable(
                "\(error.statement): PostgreSQL canceled the statement (\(error.message)). The "
                    + "statement_timeout of the role \(role) or of the database is \(limit): "
                    + "run ALTER ROLE \(role) SET statement_timeout = '60s'")
        default: return nil
        }
    }
}
