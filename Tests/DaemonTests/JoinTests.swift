import EventLog
import Logging
import Postgres
import PostgresStore
import Settings
import TestSupport
import Testing
@testable import refold

/// What works with the database ends soon after it is stopped, also while a lock keeps it waiting.
@Suite struct JoinTests {
    private let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
    private let folder: String
    private let target: DatabaseTarget
    /// Locks what it likes in the database.
    private let other: Connection
    private let log: FileLog

    init() throws {
        folder = try makeTemporaryFolder("join")
        let server = try PostgresServer.shared.get()
        target = DatabaseTarget(server.url(database: try server.makeDatabase()))
        _ = try RefoldSchema.migrate(target)
        other = try Connection(target)
        log = try FileLog.open(directory: folder + "/log", options: FileLogOptions())
    }

    private func settings() async throws -> Settings {
        try Settings(
            from: await SettingsSource(
                file: nil, flags: [:], environment: ["REFOLD_DATA": folder, "REFOLD_VERIFY_EVERY_SECONDS": "1"]))
    }

    private func isWaiting() -> Bool {
        let sql =
            "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND database = "
            + "(SELECT oid FROM pg_database WHERE datname = current_database())"
        return (try? other.query(sql).bool(0, 0)) == true
    }

    @Test(.timeLimit(.minutes(1))) func aSelfCheckThatWaitsForATableEnds() async throws {
        let check = SelfCheck(try await settings(), log: log, databaseURL: target.url, logger: logger)
        try other.exec("BEGIN; LOCK TABLE refold.device_status_v1")
        check.start()
        #expect(await eventually { isWaiting() })
        check.stop()
        #expect(check.thread.join(milliseconds: DaemonPart.endMilliseconds))
        #expect(check.last == nil, "one that is given up is no failure")
        log.close()
    }

    @Test(.timeLimit(.minutes(1))) func aRebuildThatWaitsForATableIsCancelled() async throws {
        let snapshots = SnapshotKeeper(try await settings(), log: log, logger: logger)
        let keeper = RebuildKeeper(
            log: log, databaseURL: target.url, projectors: [], snapshots: snapshots, logger: logger)
        let running = Task { await keeper.run() }
        // Readers keep the exchange from its lock.
        try other.exec("BEGIN; LOCK TABLE refold.device_status_v1 IN ACCESS SHARE MODE")
        _ = try await keeper.beginRebuild(["device_status"], startOver: false, fromSnapshot: false)
        #expect(await eventually { await keeper.rebuilds().first?.stage == "swapping" })
        running.cancel()
        await running.value
        #expect(await keeper.rebuilds().first?.stage == "cancelled")
        log.close()
    }
}
