import Foundation
import TestSupport
import Testing

/// The tables are compared with the log while everything goes on; what somebody changed in them is an alarm.
@Suite(.serialized) struct SelfCheckTests {
    @Test func theStandingCheckFindsWhatTheVerbFinds() async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        try world.startDaemon(["--set", "verify.every_seconds=1"])
        try await world.untilSubscribed()
        let fleet = try world.startFleet(["--devices", "20", "--rate", "500", "--count", "3000"])
        func verify(_ more: [String] = []) throws -> World.Outcome {
            try world.run(["replay", "verify", "--data", world.data, "--database-url", world.databaseURL] + more)
        }
        // Beside live traffic.
        let live = try verify(["--json"])
        #expect(live.code == 0, "\(live.out) \(live.error)")
        try await world.untilEnded(fleet)
        try await world.untilQuiet()
        #expect(world.status()?.state == "healthy")
        _ = try world.postgres.psql(
            "update refold.device_status set message_count = message_count + 7 where (tenant_id, device_id) = "
                + "(select tenant_id, device_id from refold.device_status order by 1, 2 limit 1)",
            database: world.database)
        #expect(await eventually(within: 30) { world.status()?.state == "degraded" })
        let status = try world.run(["status", "--http", world.http])
        #expect(status.out.contains("replay verify"), "\(status.out)")
        let found = try verify(["--json"])
        #expect(found.code == 1)
        let differences = try #require(try found.object()["differences"] as? [[String: Any]])
        #expect(differences.count == 1 && differences[0]["columns"] as? [String] == ["message_count"])
        #expect((differences[0]["last_events"] as? [Int])?.isEmpty == false)
        #expect(try verify().out.contains("message_count"))
        #expect(try verify(["dead_letters"]).code == 0)
        _ = try world.postgres.psql(
            "update refold.device_status set message_count = message_count - 7 where (tenant_id, device_id) = "
                + "(select tenant_id, device_id from refold.device_status order by 1, 2 limit 1)",
            database: world.database)
        #expect(await eventually(within: 30) { world.status()?.state == "healthy" })
        // Without a database there is no answer, and that is said.
        let away = try world.run([
            "replay", "verify", "--data", world.data, "--database-url", "postgresql://nobody@127.0.0.1:1/none",
        ])
        #expect(away.code == 3 && away.error.contains("cannot be compared"))
        #expect(try verify(["no_such"]).code == 2)
        world.killDaemon()
    }
}
