import EventLog
import EventModel
import Foundation
import Postgres
import PostgresStore
import Projecting
import ProjectionTestSupport
import Projections
import Snapshots
import TestSupport
import Testing

@testable import Rebuilding
@testable import refold

/// The live tables agree with the log, or it is shown where not.
@Suite final class VerifyTests {
    private static let count: UInt64 = 1200
    private let folder = NSTemporaryDirectory() + "refold-verify-tests-" + UUID().uuidString
    private let log: FileLog
    private let target: DatabaseTarget

    init() throws {
        var options = FileLogOptions()
        options.segmentBytes = 64 << 10
        options.isKeeping = false
        log = try FileLog.open(directory: folder + "/log", options: options)
        var history = FleetHistory(seed: 11)
        try history.append(Int(Self.count), to: log)
        let server = try PostgresServer.shared.get()
        target = DatabaseTarget(server.url(database: try server.makeDatabase()))
        _ = try RefoldSchema.migrate(target)
    }

    deinit {
        log.close()
        try? FileManager.default.removeItem(atPath: folder)
    }

    /// Tables as projectors leave them: each at a position of its own.
    private func fillTables(_ ends: [String: UInt64] = [:]) throws {
        for entry in Catalog.entries {
            let fold = try BulkFold(source: log, entries: [entry], stores: [PostgresStore(target)])
            try fold.run(to: Position(ends[entry.name] ?? Self.count))
        }
    }

    private var snapshots: SnapshotFolder {
        get throws {
            SnapshotFolder(folder + "/snapshots", logID: try ReadOnlyLog(directory: folder + "/log").logID)
        }
    }

    private func verify(_ change: (inout VerifyOptions) -> Void = { _ in }) throws -> ReplayVerification {
        var options = VerifyOptions()
        change(&options)
        return try ReplayVerifier(
            log: ReadOnlyLog(directory: folder + "/log"), database: target, snapshots: snapshots,
            scratchFolder: folder + "/scratch"
        ).run(options)
    }

    @Test func everyWayAgreesWhereverEachProjectionStands() throws {
        try fillTables(["device_status": 700, "campaigns": 1, "dead_letters": 1199])
        let none = try verify()
        #expect(none.agrees && none.differences.isEmpty && none.snapshotEnd == nil)
        #expect(none.tables.count == Catalog.entries.flatMap(\.descriptor.storedTables).count)
        #expect(none.tables.allSatisfy { $0.folded.count == 2 })
        #expect(none.tables.first { $0.name == "device_status_v1" }?.end == Position(700))
        #expect(none.tables.first { $0.name == "device_status_v1" }?.live.count ?? 0 > 0)
        try fillTables()
        let maker = SnapshotMaker(
            source: log, logID: try ReadOnlyLog(directory: folder + "/log").logID, folder: try snapshots, deciders: []
        ) { Timestamp(microseconds: 0) }
        for end in [300, 900] { _ = try maker.make(end: Position(UInt64(end))) }
        let with = try verify()
        #expect(with.agrees && with.snapshotEnd == Position(900))
        #expect(with.tables.allSatisfy { $0.folded.count == 3 })
    }

    @Test(arguments: [
        ("UPDATE refold.device_status_v1 SET message_count = message_count + 1 WHERE device_id = $1", "message_count"),
        ("UPDATE refold.device_status_v1 SET last_metrics = '{\"planted\": 1.0}' WHERE device_id = $1", "last_metrics"),
        ("UPDATE refold.device_status_v1 SET site_id = 'planted' WHERE device_id = $1", "site_id"),
        ("DELETE FROM refold.device_status_v1 WHERE device_id = $1", ""),
    ])
    func aPlantedDifferenceIsShown(sql: String, column: String) throws {
        try fillTables()
        let connection = try Connection(target)
        let rows = try connection.query(
            "SELECT device_id FROM refold.device_status_v1 WHERE last_metrics IS NOT NULL LIMIT 1")
        let device = try #require(rows.text(0, 0))
        var parameters = Parameters()
        parameters.text(device)
        _ = try connection.query(sql, parameters)
        let report = try verify()
        #expect(!report.agrees && report.differenceCount == report.differences.count)
        let found = try #require(report.differences.first { $0.key.contains { $0.value == "\"\(device)\"" } })
        #expect(found.table == "device_status_v1" && found.eventCount > 0 && !found.events.isEmpty)
        if column.isEmpty {
            #expect(found.live == nil && found.folded != nil)
        } else {
            #expect(found.columns.map(\.name) == [column])
        }
        #expect(report.tables.filter { !$0.agrees }.map(\.name) == ["device_status_v1"])
        #expect(report.text.contains(device) && report.text.contains("DIFFERS"))
    }

    /// Its events are the decisions that it names, not the messages of its device.
    @Test func aCertificatesDifferenceNamesItsDecisions() throws {
        try fillTables()
        let connection = try Connection(target)
        let rows = try connection.query(
            """
            UPDATE refold.device_certificates_v1 SET status = 'ACTIVE' WHERE status = 'REVOKED'
            RETURNING added_position, last_position
            """)
        #expect(rows.rowCount > 0)
        let named = (0..<rows.rowCount).map { row in [rows.int8(row, 0), rows.int8(row, 1)].map { $0.map(String.init) }
        }
        let report = try verify()
        #expect(report.tables.filter { !$0.agrees }.map(\.name) == ["device_certificates_v1"])
        for found in report.differences {
            #expect(found.columns.map(\.name) == ["status"] && found.eventCount == 2)
            #expect(named.contains(found.events.map { String($0.rawValue) }))
        }
    }

    @Test(arguments: [
        ("jobs", "result = 'x' WHERE last_position > position", "position, last_position"),
        ("job_attempts", "worker = 'x' WHERE report = 0", "token"),
        ("job_attempts", "worker = 'x' WHERE report > 0", "report"),
    ])
    func aJobsDifferenceNamesItsDecisions(table: String, change: String, positions: String) throws {
        try fillTables()
        let rows = try Connection(target).query("UPDATE refold.\(table)_v1 SET \(change) RETURNING \(positions)")
        let named = (0..<rows.rowCount).map { row in
            (0..<rows.columnCount).compactMap { rows.int8(row, $0).map(String.init) }
        }
        let report = try verify { $0.differencesMax = 1_000 }
        #expect(!named.isEmpty && report.differenceCount == named.count)
        #expect(Set(report.differences.map { $0.events.map { String($0.rawValue) } }) == Set(named))
    }

    @Test func rowsTooManyAreShownAndCountedAndBounded() throws {
        try fillTables()
        try Connection(target).exec(
            """
            INSERT INTO refold.device_connection_events_v1 (position, tenant_id, device_id, event_type, at, details)
            SELECT 5000 + n, 'acme', 'ghost', 'CONNECTED', now(), '{}' FROM generate_series(1, 30) AS n
            """)
        let report = try verify { $0.differencesMax = 7 }
        #expect(report.differenceCount == 30 && report.differences.count == 7)
        #expect(report.differences.allSatisfy { $0.folded == nil && $0.live?.text("device_id") == "ghost" })
    }

    @Test func otherVersionsAndCheckpointsBeyondTheLogAreNotCompared() throws {
        try fillTables()
        let connection = try Connection(target)
        try connection.exec(
            """
            UPDATE refold.projection_checkpoints SET version = 99 WHERE projection = 'audit_logs';
            UPDATE refold.projection_checkpoints SET position = 99999 WHERE projection = 'dead_letters'
            """)
        let report = try verify()
        #expect(!report.agrees && report.skipped.map(\.projection).sorted() == ["audit_logs", "dead_letters"])
        #expect(report.tables.allSatisfy { $0.agrees })
    }

    /// The tables of one moment are compared, however they change meanwhile.
    @Test func itLooksAtOneMoment() throws {
        try fillTables(["device_status": 400])
        let target = target, log = log
        let report = try verify { options in
            options.progress = { _ in
                guard let entry = Catalog.entry(named: "device_status"),
                    let fold = try? BulkFold(source: log, entries: [entry], stores: [PostgresStore(target)])
                else { return }
                _ = try? fold.run(to: Position(Self.count))
            }
        }
        #expect(report.agrees)
        #expect(report.tables.first { $0.name == "device_status_v1" }?.end == Position(400))
        let later = try verify()
        #expect(later.agrees && later.tables.first { $0.name == "device_status_v1" }?.end == Position(Self.count))
    }

    @Test func itCanBeCancelled() throws {
        try fillTables()
        #expect(throws: CancellationError.self) { _ = try self.verify { $0.isCancelled = { true } } }
    }
}
