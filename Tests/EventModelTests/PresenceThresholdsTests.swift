import EventModel
import Foundation
import Testing

struct PresenceThresholdsTests {
    private let thresholds = PresenceThresholds()

    @Test(arguments: [
        (0, "ONLINE"), (90_000_000, "ONLINE"), (90_000_001, "STALE"), (300_000_000, "STALE"), (300_000_001, "OFFLINE"),
        (-1, "ONLINE"), (Int64.max, "OFFLINE"),
    ]) func statusDependsOnTheSilence(microseconds: Int64, status: String) {
        #expect(
            thresholds.status(lastSeen: Timestamp(microseconds: 0), at: Timestamp(microseconds: microseconds)) == status
        )
    }

    @Test func aDeviceThatWasNeverSeenIsOffline() {
        #expect(thresholds.status(lastSeen: nil, at: Timestamp(microseconds: 0)) == "OFFLINE")
    }

    @Test func theTableInPostgreSQLBeginsWithTheSameThresholds() throws {
        let migration = URL(filePath: #filePath).appending(path: "../../../schemas/postgres/0002_device_status.sql")
        let sql = try String(contentsOf: migration.standardized, encoding: .utf8)
        for (column, seconds) in [
            ("stale_after_seconds", thresholds.staleSeconds), ("offline_after_seconds", thresholds.offlineSeconds),
        ] {
            let definition = try #require(sql.split(separator: "\n").first { $0.contains("    \(column) ") })
            #expect(definition.firstMatch(of: /NOT NULL DEFAULT (\d+)/)?.1 == "\(Int(seconds))")
        }
    }
}
