import Foundation
import Postgres
import TestSupport
import Testing

/// Poison under a whole daemon: a constraint that somebody added refuses one device's rows.
@Suite struct ParkedKeysTests {
    @Test func aRefusedDeviceWaitsAndARetryMakesTheTablesWhole() async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        try world.startDaemon()
        try await world.untilSubscribed()
        try await world.untilEnded(try world.startFleet(["--devices", "20", "--rate", "0", "--count", "500"]))
        try await world.untilQuiet()
        let connection = try Connection(DatabaseTarget(world.databaseURL))
        let device = try connection.query("SELECT tenant_id, device_id FROM refold.device_status_v1 ORDER BY 2 LIMIT 1")
        let tenant = try #require(device.text(0, 0)), id = try #require(device.text(0, 1))
        let key = "tenant/\(tenant)/device/\(id)"
        try connection.exec(
            """
            ALTER TABLE refold.device_status_v1 ADD CONSTRAINT poison
            CHECK ((tenant_id, device_id) <> ('\(tenant)', '\(id)')) NOT VALID
            """)
        try await world.untilEnded(try world.startFleet(["--devices", "20", "--rate", "0", "--count", "3000"]))
        try await world.untilQuiet()

        let address = ["--http", world.http, "--data", world.data]
        let parked = try world.run(["dead-letters", "parked", "--json"] + address)
        #expect(parked.code == 0 && parked.out.split(separator: "\n").count == 1, "\(parked.out)")
        #expect(parked.out.contains(key) && parked.out.contains("23514"))
        let status = try world.run(["status"] + address)
        #expect(status.out.hasPrefix("degraded") && status.out.contains("device_status: 1 key is parked"))
        // Only this device's row is behind.
        let differences = try world.naiveFoldDifferences() ?? ""
        #expect(differences.contains(id), "\(differences.prefix(500))")

        let verify = try world.run([
            "replay", "verify", "device_status", "--data", world.data, "--database-url", world.databaseURL,
        ])
        #expect(verify.code == 1 && verify.out.contains("1 keys of device_status are parked"), "\(verify)")

        world.killDaemon()
        try world.startDaemon()
        try await world.untilSubscribed()
        try await world.untilQuiet()
        let early = try world.run(["dead-letters", "retry"] + address)
        #expect(early.code == 1 && early.out.contains("1 still wait"), "\(early.out)")
        try connection.exec("ALTER TABLE refold.device_status_v1 DROP CONSTRAINT poison")
        let retry = try world.run(
            ["dead-letters", "retry", "--tenant", tenant, "--device", id, "--projection", "device_status"] + address)
        #expect(retry.code == 0 && retry.out.contains("1 keys were taken up again"), "\(retry.out)")
        #expect(try world.naiveFoldDifferences() == nil)
        #expect(try world.run(["dead-letters", "parked"] + address).out.contains("no key is parked"))
        // Live again.
        try await world.untilEnded(try world.startFleet(["--devices", "20", "--rate", "0", "--count", "500"]))
        try await world.untilQuiet()
        #expect(try world.naiveFoldDifferences() == nil)
        world.killDaemon()
    }
}
