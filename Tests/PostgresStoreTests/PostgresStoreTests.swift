import Postgres
import Projecting
import ProjectionTestSupport
import TestSupport
import Testing
@testable import PostgresStore

/// A database of its own, migrated, with the tables of the test projections.
func makeTarget(on server: PostgresServer) throws -> Target {
    let target = Target(server.url(database: try server.makeDatabase()))
    _ = try RefoldSchema.migrate(target)
    try Connection(target).exec(CountingFold.sql + StoreCase.sql)
    return target
}

@Suite struct PostgresStoreTests {
    @Test(arguments: StoreCase.allCases)
    func obeysTheRulesOfStores(_ store: StoreCase) throws {
        let target = try makeTarget(on: try PostgresServer.shared.get())
        #expect(try store.problem(PostgresStore(target)) == nil)
    }
}
