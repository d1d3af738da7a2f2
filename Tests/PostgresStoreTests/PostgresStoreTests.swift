import EventModel
import Postgres
import Projecting
import ProjectionTestSupport
import TestSupport
import Testing
@testable import PostgresStore

/// A database of its own on the shared server: migrated, with the tables of the test projections.
func makeTarget() throws -> DatabaseTarget {
    let server = try PostgresServer.shared.get()
    return DatabaseTarget(server.url(database: try server.makeDatabase(copyOf: try template.get())))
}

/// The same on another server.
func makeTarget(on server: PostgresServer) throws -> DatabaseTarget {
    let target = DatabaseTarget(server.url(database: try server.makeDatabase()))
    _ = try RefoldSchema.migrate(target)
    try Connection(target).exec(CountingFold.sql + StoreCase.sql)
    return target
}

/// Migrated once, copied by each test.
private let template = Result {
    let server = try PostgresServer.shared.get()
    let name = try server.makeDatabase()
    let target = DatabaseTarget(server.url(database: name))
    _ = try RefoldSchema.migrate(target)
    try Connection(target).exec(CountingFold.sql + StoreCase.sql)
    return name
}

@Suite struct PostgresStoreTests {
    @Test(arguments: StoreCase.allCases)
    func obeysTheRulesOfStores(_ store: StoreCase) throws {
        let target = try makeTarget()
        #expect(try store.problem(PostgresStore(target), other: PostgresStore(target)) == nil)
    }

    /// What folds must never let through; a database refuses it for ever, so it must be `.refusedRows`, not
    /// `.unavailable`.
    @Test func whatPostgresCannotHoldIsRefused() throws {
        let store = PostgresStore(try makeTarget())
        let bench = StoreBench(store)
        for text in ["\0", "ok"] {
            var problem: StoreError?
            do {
                try bench.commit(
                    nil, 0,
                    all: { rows in
                        rows.beginRow(fieldCount: 10)
                        rows.text(text)
                        rows.int8(1)
                        for _ in 0..<7 { rows.null() }
                        rows.int8(0)
                    })
            } catch { problem = error as? StoreError }
            if case .refusedRows? = problem {
                #expect(text == "\0")
            } else {
                #expect(problem == nil && text == "ok")
            }
        }
    }

    @Test func withoutTheSchemaItIsRefusedUntilItIsPrepared() throws {
        let server = try PostgresServer.shared.get()
        let target = DatabaseTarget(server.url(database: try server.makeDatabase()))
        let projection = StoreCase.projection()
        let error = #expect(throws: StoreError.self) {
            try PostgresStore(target).checkpoint(of: projection, partition: 0)
        }
        #expect(error.map { "\($0)" }?.contains("projection_checkpoints") == true)
        let store = PostgresStore(target) { _ = try RefoldSchema.migrate(on: $0) }
        #expect(try store.checkpoint(of: projection, partition: 0) == nil)
    }

    /// `ALTER DATABASE … SET default_transaction_read_only` stays in the sessions that began under it.
    @Test func aReadOnlySessionIsReplaced() throws {
        let target = try makeTarget(), admin = try Connection(target)
        let database = try #require(try admin.query("SELECT quote_ident(current_database())").text(0, 0))
        try admin.exec("ALTER DATABASE \(database) SET default_transaction_read_only = on")
        let bench = StoreBench(PostgresStore(target))
        let error = #expect(throws: StoreError.self) { try bench.commit(nil, 0, inserts: [1]) }
        guard case .unavailable? = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        try admin.exec("ALTER DATABASE \(database) RESET default_transaction_read_only")
        try bench.commit(nil, 0, inserts: [1])
    }

    /// A BEFORE trigger that returns NULL drops rows without an error. Few rows and many go different ways.
    @Test(arguments: ["test_all", "test_inserts"], [1, 2500] as [Int64])
    func rowsThatATriggerDropsAreAnError(table: String, count: Int64) throws {
        let target = try makeTarget(), admin = try Connection(target)
        try admin.exec(
            """
            CREATE FUNCTION refold.drop_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
            CREATE TRIGGER quiet BEFORE INSERT OR UPDATE ON refold.\(table)
                FOR EACH ROW EXECUTE FUNCTION refold.drop_row();
            """)
        let bench = StoreBench(PostgresStore(target))
        let error = #expect(throws: StoreError.self) { try put(count, table, nil, 0, bench) }
        guard case .refused(let text)? = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(text.contains("table refold.\(table): \(count) rows were sent and PostgreSQL kept 0"), "\(text)")
        #expect(text.contains("triggers, rules and row-level security"))
        try admin.exec("DROP TRIGGER quiet ON refold.\(table)")
        try put(count, table, nil, 0, bench)
    }

    @Test(arguments: ["test_all", "test_inserts"]) func rowsThatARuleDropsAreAnError(table: String) throws {
        let target = try makeTarget(), admin = try Connection(target)
        let bench = StoreBench(PostgresStore(target))
        try put(1, table, nil, 0, bench)
        try admin.exec("CREATE RULE quiet AS ON INSERT TO refold.\(table) DO INSTEAD NOTHING")
        let error = #expect(throws: StoreError.self) { try put(2, table, 0, 1, bench, from: 10) }
        guard case .refused(let text)? = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(text.contains("drop the rule"), "\(text)")
        try admin.exec("DROP RULE quiet ON refold.\(table)")
        try put(2, table, 0, 1, bench, from: 10)
    }

    private func put(
        _ count: Int64, _ table: String, _ old: Int64?, _ new: Int64, _ bench: StoreBench, from first: Int64 = 0
    ) throws {
        let range = first..<first + count
        guard table == "test_all" else { return try bench.commit(old, new, inserts: Array(range)) }
        try bench.commit(
            old, new,
            all: { rows in
                for n in range {
                    rows.beginRow(fieldCount: 10)
                    rows.text("k")
                    rows.int8(n)
                    for _ in 0..<7 { rows.null() }
                    rows.int8(0)
                }
            })
    }

    /// By hand. The rows hold the events already; a restore brings rows and checkpoint back together.
    @Test func aCheckpointMovedBackByHandIsRefused() throws {
        let target = try makeTarget(), admin = try Connection(target), store = PostgresStore(target)
        let bench = StoreBench(store), projection = StoreCase.projection()
        try bench.commit(nil, 5)
        try bench.commit(5, 9)
        try admin.exec("UPDATE refold.projection_checkpoints SET position = 3")
        #expect(throws: StoreError.self) { try bench.commit(9, 10) }
        for _ in 0..<2 {
            let error = #expect(throws: StoreError.self) { try store.checkpoint(of: projection, partition: 0) }
            guard case .refused(let text)? = error else {
                Issue.record("\(String(describing: error))")
                return
            }
            #expect(text.contains("from position 9 to 3"), "\(text)")
            #expect(text.contains("refold replay rebuild test_store"), "\(text)")
        }
        try admin.exec("UPDATE refold.projection_checkpoints SET position = 9")
        #expect(try store.checkpoint(of: projection, partition: 0) == Position(9))
        try admin.exec(
            """
            CREATE TABLE saved AS TABLE refold.projection_checkpoints; UPDATE saved SET position = 3;
            TRUNCATE refold.projection_checkpoints CASCADE;
            INSERT INTO refold.projection_checkpoints SELECT * FROM saved
            """)
        #expect(try store.checkpoint(of: projection, partition: 0) == Position(3))
    }
}

/// Rows of a tenant, read by somebody who is not the owner. `refold.protect_tenant_rows` is what every table
/// uses.
@Suite struct RowLevelSecurityTests {
    private func reader(_ tenant: String?) throws -> Connection {
        let owner = try makeTarget()
        try Connection(owner).exec(
            """
            CREATE TABLE refold.test_rls (tenant_id text, v int);
            SELECT refold.protect_tenant_rows('refold.test_rls');
            CREATE VIEW refold.test_rls_view WITH (security_invoker) AS SELECT * FROM refold.test_rls;
            SELECT refold.grant_read('refold.test_rls_view');
            INSERT INTO refold.test_rls VALUES ('acme', 1), ('acme', 2), ('other', 3);
            """)
        let connection = try Connection(DatabaseTarget(owner.url.replacing("user=postgres", with: "user=refold_app")))
        if let tenant { try connection.exec("SET app.tenant_id = '\(tenant)'") }
        return connection
    }

    @Test(arguments: [(nil, 0), ("", 0), ("acme", 2), ("other", 1), ("nobody", 0)] as [(String?, Int64)])
    func aTenantSeesItsOwnRowsAndNobodyAnybodys(tenant: String?, rows: Int64) throws {
        let connection = try reader(tenant)
        #expect(try connection.query("SELECT count(*) FROM refold.test_rls").int8(0, 0) == rows)
        #expect(try connection.query("SELECT count(*) FROM refold.test_rls_view").int8(0, 0) == rows)
    }

    @Test(arguments: [
        "INSERT INTO refold.test_rls VALUES ('acme', 9)", "UPDATE refold.test_rls SET v = 0",
        "DELETE FROM refold.test_rls",
        "TRUNCATE refold.test_rls", "SELECT * FROM refold.projection_checkpoints",
        "ALTER TABLE refold.test_rls NO FORCE ROW LEVEL SECURITY",
        "SET ROLE postgres",
    ])
    func readersOnlyRead(sql: String) throws {
        let connection = try reader("acme")
        let error = #expect(throws: PostgresError.self) { try connection.exec(sql) }
        #expect(error?.sqlState == "42501")
    }
}
