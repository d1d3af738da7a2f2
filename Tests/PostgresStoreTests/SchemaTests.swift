import Postgres
import TestSupport
import Testing
@testable import PostgresStore

@Suite struct SchemaTests {
    @Test func aFreshDatabaseGetsEverythingAndThenNothing() throws {
        let server = try PostgresServer.shared.get()
        let target = DatabaseTarget(server.url(database: try server.makeDatabase()))
        let all = RefoldSchema.migrations.map(\.name)
        #expect(try RefoldSchema.migrate(target) == all && all.first == "foundation")
        #expect(try RefoldSchema.migrate(target).isEmpty)
        let connection = try Connection(target)
        let found = try connection.query(
            "SELECT count(*) FROM refold.schema_migrations WHERE length(checksum) = 64")
        #expect(found.int8(0, 0) == Int64(all.count))
    }

    @Test func twoAtOnceDoNotMeet() async throws {
        let server = try PostgresServer.shared.get()
        let target = DatabaseTarget(server.url(database: try server.makeDatabase()))
        let counts = try await withThrowingTaskGroup(of: Int.self) { group in
            for _ in 0..<4 { group.addTask { try RefoldSchema.migrate(target).count } }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        #expect(counts.sorted() == [0, 0, 0, RefoldSchema.migrations.count])
    }
}
