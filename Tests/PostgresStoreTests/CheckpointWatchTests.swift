import Postgres
import ProjectionTestSupport
import TestSupport
import Testing
@testable import PostgresStore

@Suite struct CheckpointWatchTests {
    private let connection: Connection
    private let admin: Connection
    private let bench: StoreBench

    init() throws {
        let target = try makeTarget()
        (connection, admin) = (try Connection(target), try Connection(target))
        bench = StoreBench(PostgresStore(target))
        try bench.commit(nil, 5)
    }

    @Test func anyProjectionMayHaveChangedBeforeTheFirstReadingOfAConnection() throws {
        var watch = CheckpointWatch()
        #expect(try watch.changes(connection) == nil)
        #expect(try watch.changes(connection) == [])
        watch.restart()
        #expect(try watch.changes(connection) == nil)
    }

    /// Each changes the checkpoint, most without changing its position in the end.
    @Test(arguments: [
        "UPDATE refold.projection_checkpoints SET position = 3",
        "UPDATE refold.projection_checkpoints SET position = position",
        "DELETE FROM refold.projection_checkpoints",
        "TRUNCATE refold.projection_checkpoints CASCADE",
        """
        BEGIN; CREATE TABLE saved AS TABLE refold.projection_checkpoints;
        TRUNCATE refold.projection_checkpoints CASCADE;
        INSERT INTO refold.projection_checkpoints SELECT * FROM saved; COMMIT
        """,
    ])
    func everyChangeIsReportedOnce(sql: String) throws {
        var watch = CheckpointWatch()
        _ = try watch.changes(connection)
        try admin.exec(sql)
        #expect(try watch.changes(connection) == [StoreCase.projection().name])
        #expect(try watch.changes(connection) == [])
    }

    @Test func aCommitIsAChange() throws {
        var watch = CheckpointWatch()
        _ = try watch.changes(connection)
        try bench.commit(5, 9)
        #expect(try watch.changes(connection) == [StoreCase.projection().name])
    }

    @Test func aLockedTableIsNotWaitedForLong() throws {
        var watch = CheckpointWatch()
        _ = try watch.changes(connection)
        try admin.exec("BEGIN; LOCK TABLE refold.projection_checkpoints")
        let error = #expect(throws: PostgresError.self) { _ = try watch.changes(connection) }
        #expect(error?.sqlState == "55P03")
        try admin.exec("UPDATE refold.projection_checkpoints SET position = 9; COMMIT")
        #expect(try watch.changes(connection) == [StoreCase.projection().name])
    }
}
