import Foundation
import TestSupport
import Testing

/// A bit of the log flips under a daemon that works: its projections stop before it, the rest goes on, and they go on
/// behind it when an operator has signed for the loss.
@Suite(.serialized) struct DamageTests {
    @Test func projectionsStopBeforeDamageAndGoOnBehindWhatWasAccepted() async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        try world.startDaemon()
        try await world.untilSubscribed()
        try await world.untilEnded(try world.startFleet(["--devices", "20", "--rate", "2000", "--count", "4000"]))
        try await world.untilQuiet()
        #expect(try world.run(["log", "verify", "--deep", "--json", "--data", world.data]).code == 0)
        world.killDaemon()

        let bad = try flipABit(in: world)
        let found = try world.run(["log", "verify", "--json", "--data", world.data])
        #expect(found.code == 1)
        let damage = try #require(try found.object()["damage"] as? [[String: Any]])
        #expect(damage.count == 1 && damage[0]["segment"] as? String == bad)
        let from = try #require(damage[0]["from"] as? Int), to = try #require(damage[0]["to"] as? Int)
        let lost = try #require(damage[0]["lost_events"] as? Int)
        #expect(lost == to - from + 1 && lost > 0)
        #expect(damage[0]["before"] is String && damage[0]["after"] is String)
        // What it would do, and that damage remains.
        #expect(try world.run(["log", "repair", "--data", world.data]).code == 1)
        #expect(try world.run(["log", "repair", "--accept-loss", "--data", world.data]).code == 2)

        // Everything is to be folded again, over the damage.
        try world.startDaemon()
        try await world.untilSubscribed()
        _ = try world.postgres.psql("drop schema refold cascade", database: world.database)
        let stopped = await eventually(within: 60) {
            guard let status = world.status() else { return false }
            return status.state == "degraded"
                && status.projections.allSatisfy {
                    $0.state == "failed" && ($0.last_error ?? "").contains("repair --accept-loss")
                        && ($0.last_error ?? "").contains(bad) && $0.position == (from == 0 ? nil : from - 1)
                }
        }
        #expect(stopped, "\(String(describing: world.status()))")
        let before = try #require(world.status()?.log.durable)
        let more = try world.startFleet(["--devices", "20", "--rate", "0", "--count", "500"])
        try await world.untilEnded(more)
        #expect(await eventually { (world.status()?.log.durable ?? 0) >= before + 500 }, "ingest goes on")
        #expect(world.status()?.brokers.first?.subscribed == true)

        let arguments = [
            "log", "repair", "--accept-loss", "--operator", "kim", "--reason", "no backup", "--yes", "--json", "--data",
            world.data, "--http", world.http,
        ]
        let repaired = try world.run(arguments)
        #expect(repaired.code == 0, "\(repaired.error)")
        let accepted = try #require(try repaired.object()["accepted"] as? [[String: Any]])
        #expect(accepted.count == 1 && accepted[0]["from"] as? Int == from && accepted[0]["to"] as? Int == to)
        try await world.untilQuiet()
        let differences = try world.naiveFoldDifferences()
        #expect(differences == nil, "\(differences ?? "")")

        // The gap is seen by whoever looks.
        #expect(try world.run(["log", "verify", "--data", world.data]).code == 0)
        #expect(try world.run(["log", "verify", "--data", world.data]).out.contains("accepted at position"))
        #expect(try world.run(["log", "info", "--data", world.data]).out.contains("no backup"))
        #expect(try world.run(["status", "--http", world.http]).out.contains("\(lost) events"))
        let row = try world.postgres.psql(
            "select actor, subject from refold.audit_logs where action = 'log.loss_accepted'", database: world.database)
        #expect(row.trimmingCharacters(in: .whitespacesAndNewlines) == "kim|log:\(from)-\(to)")
        #expect(try world.run(arguments).code == 0, "nothing is left to accept")
        // A failure of the campaign engine counts for six seconds.
        let isHealthy = await eventually(within: 20) { world.status()?.state == "healthy" }
        #expect(isHealthy, "\(String(describing: world.status()))")
        world.killDaemon()

        // And when the daemon is down.
        let again = try flipABit(in: world, at: 3)
        #expect(again == bad)
        #expect(try world.run(["log", "verify", "--data", world.data]).code == 1)
        #expect(try world.run(arguments).code == 0)
        let both = try world.run(["log", "verify", "--data", world.data]).out
        #expect(both.contains("2 accepted losses"), "\(both)")
        try world.startDaemon()
        try await world.untilQuiet()
        world.killDaemon()
    }

    /// Flips a bit in the middle of a block of the first segment; returns the file's path.
    private func flipABit(in world: World, at block: Int = 12) throws -> String {
        let folder = world.data + "/log"
        let name = try #require(
            try FileManager.default.contentsOfDirectory(atPath: folder)
                .filter { $0.hasSuffix(".seg") }.min())
        let path = folder + "/" + name
        let bytes = [UInt8](try #require(FileManager.default.contents(atPath: path)))
        let magic = Array("RBLK".utf8)
        let blocks = stride(from: 4096, to: bytes.count - 4096, by: 8).filter { Array(bytes[$0..<($0 + 4)]) == magic }
        let offset = blocks[min(block, blocks.count - 2)] + 90
        chmod(path, 0o600)
        let file = try #require(FileHandle(forUpdatingAtPath: path))
        try file.seek(toOffset: UInt64(offset))
        try file.write(contentsOf: [bytes[offset] ^ 4])
        try file.close()
        return path
    }
}
