import Foundation
import TestSupport
import Testing

/// The daemon's neighbours fail, or it is told to stop: nothing is lost, and it says what is the matter.
@Suite(.serialized) struct OutageTests {
    @Test func postgresKilledInTheMiddleOfTransactionsLeavesTheTablesExact() async throws {
        let world = try World(postgres: try PostgresServer())
        try world.startDaemon()
        try await world.untilSubscribed()
        let fleet = try world.startFleet([
            "--devices", "50", "--rate", "1500", "--count", "7500", "--malformed", "0.02",
        ])
        for round in 1...4 {
            try await Task.sleep(for: .milliseconds(400 + 150 * round))
            world.postgres.kill()
            if round == 1 {
                #expect(await eventually { world.status()?.state == "degraded" })
                let before = try #require(world.status()?.log.durable)
                #expect(
                    await eventually { world.status().map { $0.log.durable > before + 100 } ?? false },
                    "ingest goes on")
            }
            try world.postgres.start()
        }
        try await world.untilEnded(fleet)
        try await world.untilQuiet()
        try expectEverything(world, exactly: true)
        #expect(await eventually { world.status()?.state == "healthy" }, "\(String(describing: world.status()))")
        world.killDaemon()
    }

    @Test func withoutPostgresAtTheStartItIngestsAndCatchesUpLater() async throws {
        let world = try World(postgres: try PostgresServer())
        world.postgres.stop()
        try world.startDaemon()
        try await world.untilSubscribed()
        #expect(world.status()?.state == "degraded")
        let fleet = try world.startFleet(["--devices", "20", "--rate", "0", "--count", "3000"])
        try await world.untilEnded(fleet)
        #expect(await eventually { world.status().map { $0.log.durable >= 3040 } ?? false })
        try world.postgres.start()
        try await world.untilQuiet()
        try expectEverything(world, exactly: true)
        world.killDaemon()
    }

    @Test func aBrokerThatRestartsCostsNothing() async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        try world.startDaemon()
        try await world.untilSubscribed()
        let fleet = try world.startFleet(["--devices", "30", "--rate", "1000", "--count", "4000"])
        for round in 1...2 {
            // The whole fleet is connected: a first connection that fails ends it.
            let durable = round * 1000
            #expect(await eventually { world.status().map { $0.log.durable > durable } ?? false })
            world.broker.stop()
            try world.broker.start()
        }
        try await world.untilEnded(fleet)
        try await world.untilQuiet()
        try expectEverything(world, exactly: false)
        world.killDaemon()
    }

    @Test func aStopIsOrderlyAndQuickUnderLoad() async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        try world.startDaemon()
        try await world.untilSubscribed()
        let fleet = try world.startFleet(["--devices", "50", "--rate", "3000", "--count", "12000"])
        for _ in 1...3 {
            try await Task.sleep(for: .milliseconds(800))
            let (exitCode, seconds) = world.stopDaemon()
            #expect(exitCode == 0, "\(world.daemonLog.suffix(1000))")
            #expect(seconds < 10, "it took \(seconds) s")
            try world.startDaemon()
            try await world.untilSubscribed()
        }
        try await world.untilEnded(fleet)
        try await world.untilQuiet()
        try expectEverything(world, exactly: true)
        // The broker has taken every acknowledgement, so nothing recorded came again.
        let events = try world.run(["log", "cat", "--data", world.data, "--kind", "connection", "--json"]).out
        #expect(!events.contains("broker.redelivered/1"))
        world.killDaemon()
    }

    @Test func aSecondDaemonOnTheSameLogRefuses() async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        try world.startDaemon()
        try await world.untilSubscribed()
        let output = world.folder + "/second.log"
        var arguments = world.runArguments
        let http = try #require(arguments.firstIndex(of: "--http"))
        arguments[http + 1] = "127.0.0.1:\(freeLoopbackPort())"
        let second = try world.refold(arguments, log: output)
        #expect(await eventually { !second.isRunning })
        #expect(second.exitCode == 4, "it passes: 2 would keep the unit from starting again")
        let said = try String(contentsOfFile: output, encoding: .utf8)
        let lines = said.split(separator: "\n").filter { $0.hasPrefix("refold:") }
        #expect(lines.count == 1 && lines[0].contains("lock") && lines[0].contains(world.data), "\(said)")
        // The first does not notice.
        let fleet = try world.startFleet(["--devices", "5", "--rate", "0", "--count", "200"])
        try await world.untilEnded(fleet)
        try await world.untilQuiet()
        try expectEverything(world, exactly: true)
        world.killDaemon()
    }

    /// Positions mean other events in another log: going on from those checkpoints would leave events out in silence.
    @Test func tablesOfAnotherLogAreRefused() async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        try world.startDaemon()
        try await world.untilSubscribed()
        try await world.untilEnded(try world.startFleet(["--devices", "5", "--rate", "0", "--count", "200"]))
        try await world.untilQuiet()
        #expect(world.stopDaemon().exitCode == 0)
        try FileManager.default.moveItem(atPath: world.data, toPath: world.folder + "/kept")
        let output = world.folder + "/other.log", other = try world.refold(world.runArguments, log: output)
        #expect(await eventually { !other.isRunning })
        #expect(other.exitCode == 2)
        let said = try String(contentsOfFile: output, encoding: .utf8)
        #expect(said.contains("belong to the log") && said.contains("drop schema refold"), "\(said)")
        try FileManager.default.removeItem(atPath: world.data)
        try FileManager.default.moveItem(atPath: world.folder + "/kept", toPath: world.data)
        try world.startDaemon()
        try await world.untilQuiet()
        try expectEverything(world, exactly: true)
        world.killDaemon()
    }

    /// Commits are asynchronous: a database that crashes after the last of them falls back, with nothing new to fold.
    @Test func aDatabaseThatLosesItsLastCommitsWhenAllIsQuietGetsThemAgain() async throws {
        let world = try World(postgres: try PostgresServer())
        try world.startDaemon()
        try await world.untilSubscribed()
        for _ in 1...3 {
            try await world.untilEnded(try world.startFleet(["--devices", "20", "--rate", "0", "--count", "500"]))
            try await world.untilQuiet()
            world.postgres.kill()
            try world.postgres.start()
            #expect(await eventually(within: 15) { (try? world.naiveFoldDifferences()) == .some(nil) })
        }
        try await world.untilQuiet()
        try expectEverything(world, exactly: true)
        world.killDaemon()
    }

    private func expectEverything(_ world: World, exactly: Bool) throws {
        let ledger = try world.ledger()
        let result = Comparison(
            log: try world.log(), published: ledger.published, acknowledged: ledger.acknowledged, exactly: exactly)
        #expect(result.missing.isEmpty, "\(result.missing.count) missing, \(result.missing.prefix(3))")
        #expect(result.surplus.isEmpty, "\(result.surplus.count) too many, \(result.surplus.prefix(3))")
        let differences = try world.naiveFoldDifferences()
        #expect(differences == nil, "\(differences ?? "")")
    }
}
