import Foundation
import TestSupport
import Testing

/// Standard error fails in every way that a container, a shell or a disk makes it fail: the daemon goes on.
@Suite(.serialized) struct StandardErrorTests {
    @Test(arguments: ["2>/dev/full", "2>&-", "2>none"])
    func standardErrorThatTakesNothingEndsNothing_systemd6620(redirection: String) async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        let fifo = world.folder + "/fifo"
        #expect(mkfifo(fifo, 0o600) == 0)
        let reader = open(fifo, O_RDWR | O_CLOEXEC)
        // A pipe whose reader goes away: nobody has the fifo open once this test closes it.
        let isPipe = redirection.contains("none")
        try world.startDaemon(shell: "exec \"$0\" \"$@\" " + (isPipe ? "2>'\(fifo)'" : redirection))
        try await world.untilSubscribed()
        close(reader)
        try await restartBroker(world)
        try await untilIngestMoves(world)
        if redirection != "2>&-" {
            let name = "refold_log_lines_" + (isPipe ? "dropped_total" : "waiting")
            #expect(await eventually { world.metric(name).map { $0 > 0 } ?? false }, "\(name)")
        }
        let end = world.stopDaemon()
        #expect(end.exitCode == 0 && end.seconds < 15, "\(end)")
        // With number 2 closed, the next file that was opened got it: log lines must not be in the log's files.
        #expect(try world.run(["log", "verify", "--deep", "--data", world.data]).code == 0)
    }

    /// The pipe is full to the last byte and nobody reads.
    @Test func nobodyReadsStandardError_moby31540() async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        let fifo = world.folder + "/fifo"
        #expect(mkfifo(fifo, 0o600) == 0)
        let reader = open(fifo, O_RDWR | O_CLOEXEC | O_NONBLOCK)
        defer { close(reader) }
        let piece = [UInt8](repeating: 0x61, count: 4096)
        while write(reader, piece, piece.count) > 0 {}
        while write(reader, piece, 1) > 0 {}
        try world.startDaemon(shell: "exec \"$0\" \"$@\" 2>'\(fifo)'")
        try await world.untilSubscribed()
        try await restartBroker(world)
        try await untilIngestMoves(world)
        #expect(await eventually { world.metric("refold_log_output_blocked_seconds").map { $0 > 0 } ?? false })
        let end = world.stopDaemon()
        #expect(end.exitCode == 0 && end.seconds < 15, "\(end)")
    }

    /// Standard error is a file on the disk of the data folder: the disk holds ingest, not a log line the process.
    @Test(.enabled(if: geteuid() == 0))
    func standardErrorOnTheDiskThatFillsIsHeldAndResumes_dlog2() async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        try FileManager.default.createDirectory(atPath: world.data, withIntermediateDirectories: true)
        let mount = try ChildProcess(
            ["/usr/bin/mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", world.data], log: world.folder + "/mount.log")
        mount.wait()
        try #require(mount.exitCode == 0, "root cannot mount a tmpfs here")
        defer { umount2(world.data, Int32(MNT_DETACH)) }
        let lines = world.data + "/stderr"
        try world.startDaemon(["--set", "log.segment_bytes=1048576"], shell: "exec \"$0\" \"$@\" 2>>'\(lines)'")
        try await world.untilSubscribed()
        let filler = world.data + "/filler"
        try FullDiskTests.fill(filler)
        // The last page of the file has room for some lines yet.
        let end = open(lines, O_WRONLY | O_APPEND)
        while write(end, "\n", 1) > 0 {}
        close(end)
        // More than the segment that is open has room for.
        let fleet = try world.startFleet(["--devices", "50", "--rate", "4000", "--count", "24000"])
        #expect(await eventually(within: 60) { world.status()?.state == "held" })
        #expect(await eventually { world.metric("refold_log_lines_waiting").map { $0 > 0 } ?? false })
        try FileManager.default.removeItem(atPath: filler)
        try await world.untilEnded(fleet)
        try await world.untilQuiet()
        #expect(await eventually { world.metric("refold_log_lines_waiting") == 0 })
        #expect(world.stopDaemon().exitCode == 0)
        let said = try String(contentsOfFile: lines, encoding: .utf8)
        for line in said.split(separator: "\n") {
            #expect((try? JSONSerialization.jsonObject(with: Data(line.utf8))) != nil, "a torn line: \(line)")
        }
        #expect(said.contains("stopped in order"))
    }

    /// Makes the daemon log: it loses the connection and comes back.
    private func restartBroker(_ world: World) async throws {
        world.broker.stop()
        #expect(await eventually { world.status()?.brokers.first?.connected == false })
        try world.broker.start()
        #expect(await eventually(within: 60) { world.status()?.brokers.first?.subscribed == true })
    }

    private func untilIngestMoves(_ world: World) async throws {
        let before = world.status()?.log.durable ?? 0
        try await world.untilEnded(try world.startFleet(["--devices", "5", "--rate", "0", "--count", "100"]))
        #expect(await eventually { (world.status()?.log.durable ?? 0) >= before + 100 })
    }
}
