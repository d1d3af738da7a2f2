import Foundation
import TestSupport
import Testing

/// `refold replay rebuild` and `rollback` as people run them: by a daemon under load, and without one.
@Suite(.serialized) struct RebuildVerbTests {
    private func makeWorld() async throws -> World {
        let world = try World(postgres: try PostgresServer.shared.get())
        try world.startDaemon()
        try await world.untilSubscribed()
        return world
    }

    private func lines(_ outcome: World.Outcome) throws -> [[String: Any]] {
        try outcome.out.split(separator: "\n").map {
            try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any] ?? [:]
        }
    }

    @Test func rebuiltAndRolledBackUnderLoad() async throws {
        let world = try await makeWorld()
        let fleet = try world.startFleet(["--devices", "200", "--rate", "800", "--count", "6000"])
        let before = world.status()?.log.durable ?? 0
        #expect(await eventually { (world.status()?.log.durable ?? 0) >= before + 200 })
        let flags = ["--http", world.http, "--data", world.data, "--json"]
        var blocked: [Double] = []
        for _ in 0..<2 {
            let rebuilt = try world.run(["replay", "rebuild", "--all"] + flags)
            #expect(rebuilt.code == 0, "\(rebuilt.error)\(rebuilt.out)")
            let last = try #require(try lines(rebuilt).last)
            #expect(last["stage"] as? String == "done")
            blocked.append(last["blocked_milliseconds"] as? Double ?? -1)
        }
        let back = try world.run(["replay", "rollback", "device_status", "campaigns"] + flags)
        #expect(back.code == 0, "\(back.error)")
        blocked.append(try back.object()["blocked_milliseconds"] as? Double ?? -1)
        try await world.untilEnded(fleet)
        try await world.untilQuiet()
        #expect(try world.naiveFoldDifferences() == nil)
        print("blocked writes in ms, all projections of a daemon under load: \(blocked)")
        #expect(try world.run(["snapshot", "create"] + flags).code == 0)
        let fromSnapshot = try world.run(["replay", "rebuild", "--all", "--from-snapshot"] + flags)
        #expect(fromSnapshot.code == 0, "\(fromSnapshot.error)")
        #expect(try lines(fromSnapshot).last?["from"] as? Int ?? 0 >= 6000)
        try await world.untilQuiet()
        #expect(try world.naiveFoldDifferences() == nil)
        #expect(try world.run(["replay", "drop", "device_status"] + flags).code == 0)
        let again = try world.run(["replay", "rollback", "device_status"] + flags)
        #expect(again.code == 1 && again.error.contains("no way back"), "\(again.error)")
        let none = try world.run(["replay", "rebuild"] + flags)
        #expect(none.code == 2)
        let listed = try world.run(["replay", "rebuilds"] + flags)
        #expect(try lines(listed).count == 3)
        #expect(try world.run(["replay", "drop", "--all"] + flags).code == 0)
        _ = world.stopDaemon()
    }

    /// Rows of another version are rebuilt at the start; rows that were rolled back to are not.
    @Test func theDaemonRebuildsWhatIsOfAnotherVersion() async throws {
        let world = try await makeWorld()
        try await world.untilEnded(try world.startFleet(["--devices", "100", "--rate", "2000", "--count", "3000"]))
        try await world.untilQuiet()
        _ = world.stopDaemon()
        try world.postgres.psql(
            """
            UPDATE refold.projection_checkpoints SET version = 0, position = 7
                WHERE projection IN ('device_status', 'dead_letters');
            UPDATE refold.device_status_v1 SET message_count = 0;
            UPDATE refold.projection_checkpoints SET held_version = 1, held_reason = 'paused: by hand'
                WHERE projection = 'dead_letters'
            """, database: world.database)
        try world.startDaemon()
        try await world.untilSubscribed()
        func projection(_ name: String) -> World.Status.Projection? {
            world.status()?.projections.first { $0.name == name }
        }
        let end = try #require(world.status()).log.durable
        #expect(await eventually(within: 60) { projection("device_status")?.position ?? 0 >= end - 1 })
        #expect(await eventually { projection("dead_letters")?.state == "paused" })
        #expect(projection("dead_letters")?.last_error == "paused: by hand")
        #expect(world.status()?.state == "degraded")
        let flags = ["--http", world.http, "--data", world.data]
        let rebuilt = try world.run(["replay", "rebuild", "dead_letters"] + flags)
        #expect(rebuilt.code == 0, "\(rebuilt.error)")
        try await world.untilQuiet()
        #expect(try world.naiveFoldDifferences() == nil)
        _ = world.stopDaemon()
    }

    @Test func theDaemonIsKilledInTheMiddleAgainAndAgain() async throws {
        let world = try await makeWorld()
        let fleet = try world.startFleet(["--devices", "100", "--rate", "2000", "--count", "6000"])
        try await world.untilEnded(fleet)
        try await world.untilQuiet()
        let flags = ["--http", world.http, "--data", world.data, "--json"]
        for round in 0..<5 {
            let verb = try world.refold(["replay", "rebuild", "--all"] + flags, log: world.folder + "/rebuild.log")
            try await Task.sleep(for: .milliseconds(150 + round * 120))
            world.killDaemon()
            verb.kill(SIGKILL)
            verb.wait()
            try world.startDaemon()
            try await world.untilSubscribed()
        }
        try await world.untilQuiet()
        #expect(try world.naiveFoldDifferences() == nil)
        let rebuilt = try world.run(["replay", "rebuild", "--all"] + flags)
        #expect(rebuilt.code == 0, "\(rebuilt.error)")
        #expect(try world.naiveFoldDifferences() == nil)
        _ = world.stopDaemon()
    }

    /// The whole database is gone, and no daemon runs. The verb is killed at whatever stage, and run again.
    @Test func anEmptyDatabaseIsFilledWithoutADaemon() async throws {
        let world = try await makeWorld()
        let fleet = try world.startFleet(["--devices", "100", "--rate", "2000", "--count", "6000"])
        try await world.untilEnded(fleet)
        try await world.untilQuiet()
        _ = world.stopDaemon()
        try world.postgres.psql(
            "DROP SCHEMA refold CASCADE; DROP SCHEMA refold_next CASCADE", database: world.database)
        let arguments = [
            "replay", "rebuild", "--all", "--data", world.data, "--database-url", world.databaseURL, "--http",
            world.http,
        ]
        for round in 0..<5 {
            let verb = try world.refold(arguments, log: world.folder + "/rebuild.log")
            try await Task.sleep(for: .milliseconds(80 + round * 100))
            verb.kill(SIGKILL)
            verb.wait()
        }
        let rebuilt = try world.run(arguments)
        #expect(rebuilt.code == 0 && rebuilt.out.contains("rebuilt from"), "\(rebuilt.error)")
        #expect(try world.naiveFoldDifferences() == nil)
        try world.startDaemon()
        try await world.untilSubscribed()
        try await world.untilEnded(try world.startFleet(["--devices", "100", "--rate", "1000", "--count", "500"]))
        try await world.untilQuiet()
        #expect(try world.naiveFoldDifferences() == nil)
        _ = world.stopDaemon()
    }
}
