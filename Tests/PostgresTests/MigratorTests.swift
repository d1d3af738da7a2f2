import TestSupport
import Testing
@testable import Postgres

@Suite struct MigratorTests {
    private let first = Migrator.Migration(
        number: 1, name: "one",
        sql: """
            CREATE SCHEMA s;
            CREATE TABLE s.schema_migrations (
                number int, name text, checksum text, applied_at timestamptz DEFAULT now(),
                suffices int);
            """)
    private let second = Migrator.Migration(number: 2, name: "two", sql: "CREATE TABLE s.two (a int)")

    private func connection() throws -> Connection {
        try connect(try PostgresServer.shared.get().makeDatabase())
    }

    @Test func appliesWhatIsDueAndNoMore() throws {
        let connection = try connection()
        #expect(try Migrator([first], schema: "s").run(on: connection) == [first])
        #expect(try Migrator([second, first], schema: "s").run(on: connection) == [second])
        #expect(try Migrator([first, second], schema: "s").run(on: connection) == [])
    }

    @Test func aFailingMigrationLeavesNothingBehind() throws {
        let connection = try connection()
        let broken = Migrator.Migration(number: 2, name: "broken", sql: "CREATE TABLE s.x (a int); SELECT 1/0;")
        let error = #expect(throws: PostgresError.self) {
            try Migrator([first, broken], schema: "s").run(on: connection)
        }
        #expect(error?.statement == "migration 2_broken")
        #expect(try connection.query("SELECT to_regclass('s.x') IS NULL").bool(0, 0) == true)
        #expect(try Migrator([first, second], schema: "s").run(on: connection) == [second])
    }

    @Test func aNewerSchemaIsRefused() throws {
        let connection = try connection()
        _ = try Migrator([first, second], schema: "s").run(on: connection)
        let error = #expect(throws: MigrationError.self) {
            try Migrator([first], schema: "s").run(on: connection)
        }
        #expect(error.map { "\($0)" }?.contains("version 2, this program knows 1") == true)
    }

    @Test func aNewerSchemaThatSaysSoIsGoneOnWith() throws {
        let connection = try connection()
        let adds = Migrator.Migration(number: 2, name: "two", sql: "-- suffices: 0001\nCREATE TABLE s.two (a int)")
        let third = Migrator.Migration(number: 3, name: "three", sql: "-- suffices: 0002\nCREATE TABLE s.three (a int)")
        _ = try Migrator([first, adds], schema: "s").run(on: connection)
        #expect(try Migrator([first], schema: "s").run(on: connection) == [])
        _ = try Migrator([first, adds, third], schema: "s").run(on: connection)
        #expect(try Migrator([first, adds], schema: "s").run(on: connection) == [])
        #expect(throws: MigrationError.self) { try Migrator([first], schema: "s").run(on: connection) }
    }

    @Test func anAlteredMigrationIsRefused() throws {
        let connection = try connection()
        _ = try Migrator([first, second], schema: "s").run(on: connection)
        let altered = Migrator.Migration(number: 2, name: "two", sql: "CREATE TABLE s.two (a bigint)")
        let error = #expect(throws: MigrationError.self) {
            try Migrator([first, altered], schema: "s").run(on: connection)
        }
        #expect(error.map { "\($0)" }?.contains("2_two differs") == true)
    }

    @Test(
        arguments: [
            ("0001_x.sql", 1), ("0012_two_words.sql", 12), ("1_x.sql", nil), ("0000_x.sql", nil),
            ("0001_x.txt", nil), ("x.sql", nil),
        ] as [(String, Int?)])
    func fileNames(file: String, number: Int?) {
        #expect(Migrator.Migration(file: file, sql: "")?.number == number)
    }
}
