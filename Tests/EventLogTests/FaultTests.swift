import EventModel
import Foundation
import Synchronization
import Testing
@testable import EventLog

@Suite struct FaultTests {
    private func open(
        _ folder: TemporaryDirectory, _ disk: FaultyFileSystem, segmentBytes: Int = 16 << 10
    ) throws -> FileLog {
        var settings = options(segmentBytes: segmentBytes)
        settings.fileSystem = disk
        return try FileLog.open(directory: folder.path, options: settings)
    }

    /// False when the disk is full.
    private func isKept(_ payload: String, by log: FileLog) throws -> Bool {
        do {
            try log.add(payload)
            return true
        } catch AppendError.full {
            return false
        }
    }

    @Test(arguments: [
        (FaultyFileSystem.Operation.write, EIO), (.fdatasync, EIO), (.fdatasync, ENOSPC), (.fdatasync, EDQUOT),
    ])
    func afterAFailureNothingIsWrittenAgain(operation: FaultyFileSystem.Operation, code: Int32) throws {
        let folder = TemporaryDirectory(), disk = FaultyFileSystem()
        let log = try open(folder, disk)
        try log.add("a")
        disk.set(.init(operation: operation, code: code, times: 1))
        #expect(throws: AppendError.self) { try log.add("b") }
        let syncs = disk.count(of: .fdatasync), writes = disk.count(of: .write)
        for _ in 0..<3 {
            let error = #expect(throws: AppendError.self) { try log.add("c") }
            guard case .failed = error else {
                Issue.record("it must stay dead: \(String(describing: error))")
                return
            }
        }
        #expect(disk.count(of: .fdatasync) == syncs && disk.count(of: .write) == writes, "no second fsync, no write")
        #expect(log.durableCount == 1)
        #expect(try payloads(log) == ["a"], "readers go on, up to what is durable")
        log.close()
    }

    @Test(arguments: [
        // With one failure the clearing up succeeds at once, with four it has to wait for the next append.
        (FaultyFileSystem.Operation.write, ENOSPC, 0, 4), (.write, EDQUOT, 100, 1), (.write, ENOSPC, 1 << 20, 1),
        (.write, ENOSPC, 1 << 20, 4), (.write, EFBIG, 4096, 1), (.allocate, ENOSPC, 0, 20),
    ])
    func aFullDiskHoldsAndGoesOn(operation: FaultyFileSystem.Operation, code: Int32, partial: Int, times: Int) throws {
        let folder = TemporaryDirectory(), disk = FaultyFileSystem()
        let log = try open(folder, disk)
        try log.add("a")
        // Three pages are in a segment: the allocation that fails is that of the second.
        if operation == .allocate {
            try log.add("b")
            try log.add("c")
        }
        let before = try payloads(log)
        disk.set(.init(operation: operation, code: code, times: times, partialBytes: partial))
        for _ in 0..<(times == 1 ? 1 : 2) {
            let error = #expect(throws: AppendError.self) { try log.add("lost one", "lost two") }
            guard case .full = error else {
                Issue.record("full is survived: \(String(describing: error))")
                return
            }
            #expect(log.durableCount == UInt64(before.count))
            #expect(try payloads(log) == before)
        }
        disk.set(nil)
        #expect(try log.add("kept").lowerBound == Position(UInt64(before.count)))
        #expect(try payloads(log) == before + ["kept"])
        log.close()
        let again = try FileLog.open(directory: folder.path, options: options())
        #expect(again.report.torn == nil && again.report.corrupt.isEmpty, "what a failed write left was zeroed")
        #expect(try payloads(again) == before + ["kept"])
        again.close()
    }

    @Test func whatIsWrittenAndNotYetSyncedIsSeenByNobody() throws {
        let folder = TemporaryDirectory(), disk = FaultyFileSystem()
        // Large, so that no next segment is prepared, and synced, beside it.
        let log = try open(folder, disk, segmentBytes: 1 << 20)
        try log.add("a")
        let other = try ReadOnlyLog(directory: folder.path)
        let during = Mutex<(Bool, Bool)?>(nil)
        disk.beforeSync {
            // The block is in the file: a scan of it would find "b".
            let here = log.durableCount == 1 && (try? payloads(log)) == ["a"]
            let there = other.durableCount == 1 && (try? payloads(other)) == ["a"]
            during.withLock { $0 = (here, there) }
        }
        try log.add("b")
        disk.beforeSync(nil)
        let seen = try #require(during.withLock { $0 })
        #expect(seen == (true, true))
        #expect(try payloads(log) == ["a", "b"])
        #expect(try payloads(other) == ["a", "b"])
        log.close()
    }

    @Test(arguments: FaultyFileSystem.Operation.allCases)
    func aRollThatFailsLosesNothing(operation: FaultyFileSystem.Operation) throws {
        for after in 0..<4 {
            let folder = TemporaryDirectory(), disk = FaultyFileSystem()
            let log = try open(folder, disk)
            var appended: [String] = []
            var refused = false
            disk.set(.init(operation: operation, code: EIO, after: after, times: 1))
            for index in 0..<9 {
                if (try? log.add("\(index)")) != nil { appended.append("\(index)") } else { refused = true }
            }
            disk.set(nil)
            #expect(try payloads(log) == appended)
            log.close()
            let again = try FileLog.open(directory: folder.path, options: options())
            let found = try payloads(again)
            #expect(found.starts(with: appended))
            #expect(found.count <= appended.count + (refused ? 1 : 0), "at most the one that nobody was told of")
            #expect(again.report.corrupt.isEmpty)
            again.close()
        }
    }

    /// Whoever appended: the daemon ends although no message comes in.
    @Test(arguments: [FaultyFileSystem.Operation.write, .fdatasync])
    func aFailureIsSaidOnceBeforeAnybodyIsTold(operation: FaultyFileSystem.Operation) throws {
        let folder = TemporaryDirectory(), disk = FaultyFileSystem()
        let said = Mutex<[String]>([])
        var options = options()
        options.fileSystem = disk
        options.onFailure = { text in said.withLock { $0.append(text) } }
        let log = try FileLog.open(directory: folder.path, options: options)
        try log.add("a")
        disk.set(.init(operation: operation, code: EIO, after: 0, times: 1))
        #expect(throws: AppendError.self) { try log.add("b") }
        #expect(said.withLock { $0.count } == 1)
        #expect(said.withLock { $0[0].contains("restart to recover") })
        disk.set(nil)
        #expect(throws: AppendError.self) { try log.add("c") }
        #expect(said.withLock { $0.count } == 1)
        log.close()
    }

    /// A real file system of 4 MiB. Only root can mount one; the process's own file size limit would hit other tests.
    @Test(.enabled(if: geteuid() == 0)) func aRealFullDisk() throws {
        let folder = TemporaryDirectory()
        let mount = Process()
        mount.executableURL = URL(fileURLWithPath: "/usr/bin/mount")
        mount.arguments = ["-t", "tmpfs", "-o", "size=4m", "tmpfs", folder.path]
        mount.standardError = FileHandle.nullDevice
        try mount.run()
        mount.waitUntilExit()
        try #require(mount.terminationStatus == 0, "root cannot mount a tmpfs here: the full disk is not tested")
        defer { umount2(folder.path, Int32(MNT_DETACH)) }
        let log = try FileLog.open(directory: folder.path, options: options(segmentBytes: 256 << 10))
        let filler = String(decoding: (0..<20_000).map { _ in UInt8.random(in: 0x21...0x7E) }, as: UTF8.self)
        var count: UInt64 = 0
        while count < 10_000 {
            guard try isKept(filler, by: log) else { break }
            count += 1
        }
        #expect(count > 50 && count < 200, "the disk was full after \(count) events")
        #expect(log.durableCount == count)
        #expect(try payloads(log).count == Int(count))
        log.close()
        // A full disk can still be started on, and a torn tail on it put aside.
        let again = try FileLog.open(directory: folder.path, options: options(segmentBytes: 256 << 10))
        #expect(again.durableCount == count)
        // Space comes back: so do appends.
        try FileManager.default.removeItem(atPath: folder.path + "/reserve")
        #expect(try again.add("after") == Position(count)..<Position(count + 1))
        again.close()
    }

    @Test func aSlowSyncIsSaid() throws {
        // The call-back's threshold is a second; the histogram shows every one.
        let folder = TemporaryDirectory()
        var settings = options()
        settings.clock = SystemClock()
        let log = try FileLog.open(directory: folder.path, options: settings)
        for index in 0..<5 { try log.add("\(index)") }
        #expect(log.statistics.syncSeconds.counts.reduce(0, +) == 5)
        #expect(log.statistics.commitEvents.counts[0] == 5)
        #expect(log.statistics.syncSeconds.sum > 0)
        log.close()
    }
}
