import Postgres
import Projecting
import ProjectionTestSupport
import TestSupport
import Testing
@testable import PostgresStore

/// A database of its own on the shared server: migrated, with the tables of the test projections.
func makeTarget() throws -> Target {
    let server = try PostgresServer.shared.get()
    return Target(server.url(database: try server.makeDatabase(copyOf: try template.get())))
}

/// The same on another server.
func makeTarget(on server: PostgresServer) throws -> Target {
    let target = Target(server.url(database: try server.makeDatabase()))
    _ = try RefoldSchema.migrate(target)
    try Connection(target).exec(CountingFold.sql + StoreCase.sql)
    return target
}

/// Migrated once, copied by each test.
private let template = Result {
    let server = try PostgresServer.shared.get()
    let name = try server.makeDatabase()
    let target = Target(server.url(database: name))
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
        let target = Target(server.url(database: try server.makeDatabase()))
        let projection = StoreCase.projection()
        let error = #expect(throws: StoreError.self) {
            try PostgresStore(target).checkpoint(of: projection, partition: 0)
        }
        #expect(error.map { "\($0)" }?.contains("projection_checkpoints") == true)
        let store = PostgresStore(target) { _ = try RefoldSchema.migrate(on: $0) }
        #expect(try store.checkpoint(of: projection, partition: 0) == nil)
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
        let connection = try Connection(Target(owner.url.replacing("user=postgres", with: "user=refold_app")))
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
        "SET ROLE postgres"
    ])
    func readersOnlyRead(sql: String) throws {
        let connection = try reader("acme")
        let error = #expect(throws: PostgresError.self) { try connection.exec(sql) }
        #expect(error?.sqlState == "42501")
    }
}
