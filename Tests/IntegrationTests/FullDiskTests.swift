import Foundation
import TestSupport
import Testing

/// The data folder is a file system of its own that somebody else fills.
@Suite(.serialized) struct FullDiskTests {
    /// Only root can mount one.
    @Test(.enabled(if: geteuid() == 0))
    func aFullDiskHoldsIngestAndNothingElseAndIsForgottenWhenItIsOver() async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        try FileManager.default.createDirectory(atPath: world.data, withIntermediateDirectories: true)
        let mount = try ChildProcess(
            ["/usr/bin/mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", world.data], log: world.folder + "/mount.log")
        mount.wait()
        try #require(mount.exitCode == 0, "root cannot mount a tmpfs here: the full disk is not tested")
        defer { umount2(world.data, Int32(MNT_DETACH)) }
        let small = ["--set", "log.segment_bytes=1048576"]
        try world.startDaemon(small)
        try await world.untilSubscribed()
        try await world.untilEnded(try world.startFleet(["--devices", "20", "--rate", "0", "--count", "2000"]))
        try await world.untilQuiet()

        let filler = world.data + "/filler"
        try Self.fill(filler)
        let fleet = try world.startFleet(["--devices", "50", "--rate", "4000", "--count", "20000"])
        #expect(await eventually(within: 60) { world.status()?.state == "held" }, "\(world.daemonLog.suffix(2000))")
        #expect(await eventually { world.metric("refold_held") == 1 })
        #expect(await eventually { world.metric("refold_disk_free_bytes").map { $0 < 4_194_304 } ?? false })
        // Readers and projectors go on to the last event that was taken.
        #expect(await eventually(within: 30) { world.status()?.isCaughtUp == true })
        let durable = try #require(world.status()?.log.durable)
        #expect(try world.log().values.reduce(0, +) > 2000)
        #expect(try world.run(["log", "verify", "--data", world.data]).code == 0)

        // It can be started while the disk is full, and then it is held again.
        world.killDaemon()
        try Self.fill(filler)
        try world.startDaemon(small)
        #expect(await eventually(within: 60) { world.status()?.state == "held" }, "\(world.daemonLog.suffix(2000))")
        let held = try #require(world.status()?.log.durable)
        #expect(held >= durable)

        // Within a second of the space coming back it takes messages again.
        try FileManager.default.removeItem(atPath: filler)
        let freed = ContinuousClock.now
        #expect(await eventually { (world.status()?.log.durable ?? 0) > held })
        let seconds = (ContinuousClock.now - freed) / .seconds(1)
        #expect(seconds < 1, "it took \(seconds) s")
        try await world.untilEnded(fleet)
        try await world.untilQuiet()
        // The free space is measured every few seconds.
        let isHealthy = await eventually(within: 20) { world.status()?.state == "healthy" }
        #expect(isHealthy, "\(String(describing: world.status()))")
        let ledger = try world.ledger()
        let result = Comparison(
            log: try world.log(), published: ledger.published, acknowledged: ledger.acknowledged, exactly: true)
        #expect(result.missing.isEmpty, "\(result.missing.count) missing, \(result.missing.prefix(3))")
        #expect(result.surplus.isEmpty, "\(result.surplus.count) too many, \(result.surplus.prefix(3))")
        let differences = try world.naiveFoldDifferences()
        #expect(differences == nil, "\(differences ?? "")")
        world.killDaemon()
    }

    /// Writes until nothing more fits.
    static func fill(_ path: String) throws {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND, 0o600)
        try #require(descriptor >= 0)
        defer { close(descriptor) }
        let piece = [UInt8](repeating: 1, count: 4096)
        while write(descriptor, piece, piece.count) > 0 {}
    }
}
