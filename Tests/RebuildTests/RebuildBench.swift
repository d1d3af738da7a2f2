import EventLog
import EventModel
import Postgres
import PostgresStore
import Projecting
import ProjectionTestSupport
@testable import Projections
import Rebuilding
import TestSupport
import Threading

/// A database with the tables of the counting projection in two versions, a log in memory, and what is done with both.
final class RebuildBench: Sendable {
    let log = MemoryLog()
    let target: DatabaseTarget

    /// - Parameters:
    ///   - versions: the tables that there are.
    ///   - owner: whose everything is, without a superuser's privileges; made here.
    init(versions: [Int] = [1], on server: PostgresServer? = nil, owner: String? = nil) throws {
        let server = try server ?? PostgresServer.shared.get()
        let database = try server.makeDatabase()
        if let owner {
            let output = try server.psql(
                "CREATE ROLE \(owner) LOGIN; ALTER DATABASE \(database) OWNER TO \(owner)", database: database)
            guard output.isEmpty else { throw SystemError(output) }
        }
        target = DatabaseTarget(server.url(database: database, user: owner ?? "postgres"))
        _ = try RefoldSchema.migrate(target)
        let connection = try Connection(target)
        for version in versions { try connection.exec(CountingFold.sql(version: version)) }
    }

    static func entry(_ version: Int = 1) -> Catalog.Entry {
        Catalog.Entry(descriptor: CountingFold.versioned(version)) { scope, _ in
            CountingFold(versioned: version, scope: scope)
        }
    }

    func append(_ count: Int) {
        let start = Int(log.durableCount)
        log.append((start..<start + count).map { "t\($0 % 97)" })
    }

    func projector(_ version: Int = 1) -> Projector {
        var options = ProjectorOptions()
        (options.backoffMax, options.failedRetry) = (.milliseconds(100), .milliseconds(100))
        let target = target
        return Projector(
            CountingFold.versioned(version), source: log, options: options,
            makeFold: { CountingFold(versioned: version, scope: $0) }, makeStore: { PostgresStore(target) })
    }

    /// Projects all there is with a projector of its own.
    func project(_ version: Int = 1) async throws {
        let projector = projector(version), run = Task { await projector.run() }
        let isApplied = await projector.waitUntilApplied(Position(log.durableCount - 1), timeout: .seconds(20))
        await projector.stop()
        await run.value
        if !isApplied { throw SystemError("not projected: \(projector.status.lastError ?? "")") }
    }

    func rebuild(_ version: Int = 1, _ change: (inout RebuildOptions) -> Void = { _ in }) -> Rebuild {
        var options = RebuildOptions()
        options.program = "test"
        change(&options)
        return Rebuild([Self.entry(version)], source: log, target: target, options: options)
    }

    /// Runs it on a thread of its own.
    func start(_ rebuild: Rebuild) -> Task<Void, any Error> {
        Task { try await onOwnThread("rebuild") { try rebuild.run() } }
    }

    func rollback(_ version: Int = 1) throws -> Rollback.Report {
        try Rollback.run([Self.entry(version)], source: log, target: target, patience: .seconds(5))
    }

    func ask(_ sql: String) throws -> [String?] {
        let found = try Connection(target).query(sql)
        return (0..<found.rowCount).flatMap { row in (0..<found.columnCount).map { found.text(row, $0) } }
    }

    /// What is wrong with the tables in `schema`, by a count of what the log holds; nil when nothing is.
    func difference(in schema: String = "refold", version: Int = 1) throws -> String? {
        let (counts, events) = ("\(schema).test_counts_v\(version)", "\(schema).test_events_v\(version)")
        let found = try ask(
            """
            SELECT concat_ws('/', (SELECT count(*) FROM \(events)), (SELECT coalesce(sum(messages), 0) FROM \(counts)),
                (SELECT count(*) FROM \(counts)), (SELECT max(position) FROM \(schema).projection_checkpoints),
                (SELECT count(*) FROM \(counts) AS c WHERE messages <>
                    \(version) * (SELECT count(*) FROM \(events) AS e WHERE e.topic = c.topic)))
            """)[0]
        let count = Int(log.durableCount)
        let expected = "\(count)/\(count * version)/\(min(97, count))/\(count - 1)/0"
        return found == expected ? nil : "found \(found ?? ""), expected \(expected)"
    }

    func isRight() throws -> Bool { try difference() == nil }
}
