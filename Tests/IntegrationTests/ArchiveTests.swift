import Foundation
import TestSupport
import Testing

/// Segments go to an archive and off the disk; what needs them again gets them from there; checkpoints go outside.
@Suite(.serialized) struct ArchiveTests {
    @Test func whatLeftTheDiskIsFetchedAndARebuildIsExact() async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        let archive = world.folder + "/archive", outside = world.folder + "/outside"
        for path in [archive, outside] {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        }
        // PostgreSQL's own example of a command that never overwrites (PostgreSQL 15, 26.3.1).
        let store = "test ! -f '\(archive)/%f' && cp '%p' '\(archive)/%f'", fetch = "cp '\(archive)/%f' '%p'"
        func settings(_ archiveCommand: String) -> [String] {
            [
                "log.segment_bytes=1048576", "archive_command=\(archiveCommand)", "restore_command=\(fetch)",
                "retention.bytes=1", "checkpoint_command=cp '%p' '\(outside)/last'",
            ].flatMap { ["--set", $0] }
        }
        // First an archive that refuses everything: nothing leaves, and it is said.
        try world.startDaemon(settings("echo the tape is full; false"))
        try await world.untilSubscribed()
        let crl = try await firstCRL(world)
        let fleet = [
            "--devices", "50", "--rate", "0", "--count", "60000",
        ]
        try await world.untilEnded(try world.startFleet(fleet))
        try await world.untilQuiet()
        let degraded = await eventually(within: 60) {
            let status = try? world.run(["status", "--http", world.http]).out
            return status?.contains("the archive is behind") == true && status?.contains("the tape is full") == true
        }
        #expect(degraded, "\(String(describing: world.status()))")
        #expect(try info(world)["removed"] as? Int == 0)
        #expect(world.stopDaemon().exitCode == 0)

        try world.startDaemon(settings(store))
        let removed = await eventually(within: 60) { (try? info(world)["removed"] as? Int).map { $0 > 0 } ?? false }
        #expect(removed, "\(String(describing: world.status())) \(world.daemonLog.suffix(3000))")
        let first = try #require(try info(world)["first_position"] as? Int)
        #expect(first > 0)
        try await world.untilQuiet()
        let row = try world.postgres.psql(
            "select count(*) > 0, bool_and(actor = 'retention') from refold.audit_logs where action = "
                + "'log.segments_removed'", database: world.database)
        #expect(row.trimmingCharacters(in: .whitespacesAndNewlines) == "t|t")

        // A reader that cannot ask the archive says so; one that can gets it.
        let without = try world.run(["log", "cat", "--from", "0", "--limit", "1", "--data", world.data])
        #expect(without.code == 1 && without.error.contains("before the horizon"), "\(without.error)")
        let with = try world.run([
            "log", "cat", "--from", "0", "--limit", "1", "--json", "--data", world.data, "--restore-command", fetch,
        ])
        let fetched = try with.object()["position"] as? Int
        #expect(with.code == 0 && fetched == 0)
        #expect(try world.run(["log", "verify", "--deep", "--data", world.data]).code == 0)

        let past = ["crl", "show", "ca", "--at", crl.position, "--data", world.data]
        let gone = try world.run(past)
        #expect(gone.code == 1 && gone.error.contains("before the horizon"), "\(gone)")
        #expect(try world.run(past + ["--restore-command", fetch]).out == crl.pem)

        // A proof of what is only in the archive.
        let key = try #require(try info(world)["public_key"] as? String), proof = world.folder + "/proof"
        let proved = try world.run([
            "log", "prove", "--position", "7", "--data", world.data, "--restore-command", fetch, "--output", proof,
        ])
        #expect(proved.code == 0, "\(proved.error)")
        #expect(try world.run(["log", "check-proof", proof, "--key", key]).code == 0)

        // A rebuild, from the archive and the disk.
        _ = try world.postgres.psql("drop schema refold cascade", database: world.database)
        setenv("REFOLD_RESTORE_COMMAND", fetch, 1)
        defer { unsetenv("REFOLD_RESTORE_COMMAND") }
        let isExact = await eventually(within: 90) { (try? world.naiveFoldDifferences(from: 0)) == .some(nil) }
        #expect(isExact, "\(String(describing: world.status()))")

        // The checkpoint is outside, on the API and on the broker.
        let signed = try #require(await checkpoint(world))
        #expect(signed.hasPrefix("refold/"))
        let isOutside = await eventually {
            (try? String(contentsOfFile: outside + "/last", encoding: .utf8)) == (await checkpoint(world))
        }
        #expect(isOutside)
        let witness = try await MosquittoWitness(world.broker, topic: "refold/+/checkpoint")
        let isRetained = await eventually {
            witness.arrivals.last.map { String(decoding: $0.payload, as: UTF8.self) } == (await checkpoint(world))
        }
        #expect(isRetained)
        world.killDaemon()
    }

    /// The CRL of a new authority, and the position of its event.
    private func firstCRL(_ world: World) async throws -> (pem: String, position: String) {
        _ = try world.run(["ca", "init", "ca", "--data", world.data, "--http", world.http])
        func body() -> Data? { HTTP.body("http://\(world.http)/crl/ca.pem") }
        try #require(await eventually(within: 20) { body() != nil })
        let log = try world.run(["log", "cat", "--json", "--data", world.data]).out.split(separator: "\n")
        let event = try #require(log.first { $0.contains("\"crl.issued/1\"") })
        let position = try #require(event.firstMatch(of: /"position":(\d+)/)?.1)
        return (String(decoding: try #require(body()), as: UTF8.self), String(position))
    }

    /// Without an archive what goes is in a snapshot: tables, commands and looks into the past go on from there.
    @Test func whatLiesBeforeTheHorizonIsInASnapshot() async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        let rules = [
            "--set", "log.segment_bytes=1048576", "--set", "retention.bytes=1", "--set", "retention.allow_horizon=true",
        ]
        #expect(try world.run(["config", "check", "--set", "retention.bytes=1"]).code == 2)
        try world.startDaemon(rules)
        try await world.untilSubscribed()
        let added = try world.run([
            "firmware", "add", "--tenant", "acme", "--version", "2", "--url", "https://x.example/2",
            "--http", world.http, "--data", world.data,
        ])
        #expect(added.code == 0, "\(added.error)")
        try await world.untilEnded(try world.startFleet(["--devices", "50", "--rate", "0", "--count", "100000"]))
        try await world.untilQuiet()
        #expect(await eventually(within: 90) { (try? info(world)["removed"] as? Int).map { $0 > 0 } ?? false })
        try await world.untilQuiet()
        let first = try #require(try info(world)["first_position"] as? Int)
        let snapshots = try world.run(["snapshot", "list", "--json", "--data", world.data])
        #expect(snapshots.code == 0 && snapshots.out.contains("\"recorded\":true"), "\(snapshots)")
        let reading = try world.run(["log", "cat", "--from", "0", "--limit", "1", "--data", world.data])
        #expect(reading.code == 1 && reading.error.contains("before the horizon"), "\(reading.error)")

        // The tables come back.
        let sums = "select count(*), sum(message_count), max(last_position) from refold.device_status"
        let before = try world.postgres.psql(sums, database: world.database)
        _ = try world.postgres.psql("drop schema refold cascade", database: world.database)
        let areBack = await eventually(within: 90) {
            (try? world.postgres.psql(sums, database: world.database)) == before
        }
        #expect(areBack, "\(before) \(String(describing: world.status())) \(world.daemonLog.suffix(2000))")

        // The past, over HTTP and from the files; and one more snapshot by command.
        let device = try world.postgres.psql(
            "select tenant_id || '/devices/' || device_id from refold.device_status limit 1",
            database: world.database
        ).trimmingCharacters(in: .whitespacesAndNewlines)
        let url = "http://\(world.http)/api/v1/tenants/\(device)?at=\(first + 100_000)"
        let missing = "http://\(world.http)/api/v1/tenants/\(device)?at=1"
        let made = try world.run(["snapshot", "create", "--json", "--http", world.http, "--data", world.data])
        #expect(made.code == 0, "\(made.error)")
        let end = try #require(try made.object()["end"] as? Int)
        let body = try #require(HTTP.body("http://\(world.http)/api/v1/tenants/\(device)?at=\(end - 1)"))
        let answer = String(decoding: body, as: UTF8.self)
        #expect(answer.contains("\"as_of\":{\"position\":\(end - 1)"), "\(answer)")
        for other in [url, missing] { #expect(try #require(HTTP.get(other)).status != 200, "\(other)") }

        // The decider goes on from a snapshot: its own decision is not in the log any more.
        #expect(world.stopDaemon().exitCode == 0)
        try world.startDaemon(rules)
        try await world.untilSubscribed()
        let second = try world.run([
            "firmware", "add", "--tenant", "acme", "--version", "3", "--url", "https://x.example/3",
            "--http", world.http, "--data", world.data, "--json",
        ])
        let id = try second.object()["id"] as? Int
        #expect(second.code == 0 && id == 2, "\(second)")
        world.killDaemon()
    }

    private func info(_ world: World) throws -> [String: Any] {
        try world.run(["log", "info", "--json", "--data", world.data]).object()
    }

    private func checkpoint(_ world: World) async -> String? {
        HTTP.body("http://\(world.http)/api/v1/log/checkpoint").map { String(decoding: $0, as: UTF8.self) }
    }
}
