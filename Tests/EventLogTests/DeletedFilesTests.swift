import EventModel
import Foundation
import Synchronization
import Testing
@testable import EventLog

/// An operator deletes or replaces files under an open log: what no file holds is not acknowledged.
@Suite struct DeletedFilesTests {
    /// Three events fill a segment: eight leave room in the third, whose file had another name when it was made.
    @Test(arguments: [1, 8]) func aDeletedSegmentFailsTheWriter(events: Int) throws {
        let folder = TemporaryDirectory(), said = Mutex<[String]>([])
        var options = options(segmentBytes: 16 << 10)
        options.onFailure = { text in said.withLock { $0.append(text) } }
        let log = try FileLog.open(directory: folder.path, options: options)
        for number in 0..<events { try log.add("\(number)") }
        let last = try #require(folder.segments.last)
        #expect(folder.segments.count > 1 || events == 1)
        for name in folder.segments { try FileManager.default.removeItem(atPath: folder.path + "/" + name) }
        let failure = #expect(throws: AppendError.self) { try log.add("late") }
        guard case .failed(let text) = failure else {
            Issue.record("acknowledged, or survived: \(String(describing: failure))")
            return
        }
        #expect(text.contains("deleted") && text.contains(last), "\(text)")
        #expect(log.durableCount == UInt64(events))
        #expect(said.withLock { $0 } == [text])
        #expect(throws: AppendError.self) { try log.add("later") }
        log.close()
        withExtendedLifetime(folder) {}
    }

    @Test func aDeletedLockFileLetsNoSecondWriterIn() throws {
        let folder = TemporaryDirectory()
        let log = try FileLog.open(directory: folder.path, options: options())
        try log.add("a")
        try FileManager.default.removeItem(atPath: folder.path + "/lock")
        let error = #expect(throws: LogError.self) {
            _ = try FileLog.open(directory: folder.path, options: options())
        }
        #expect(error?.code == .locked)
        #expect(try ReadOnlyLog(directory: folder.path).isWriterUp)
        #expect(!FileManager.default.fileExists(atPath: folder.path + "/lock"), "the second one made none")
        let failure = #expect(throws: AppendError.self) { try log.add("b") }
        #expect(failure?.description.contains(folder.path + "/lock") == true, "\(String(describing: failure))")
        log.close()
        let again = try FileLog.open(directory: folder.path, options: options())
        #expect(try payloads(again) == ["a"])
        again.close()
        withExtendedLifetime(folder) {}
    }

    @Test func aReplacedFolderOrLockFailsTheWriter() throws {
        for replaces in ["", "/lock"] {
            let folder = TemporaryDirectory(), path = folder.path + replaces
            let log = try FileLog.open(directory: folder.path, options: options())
            try log.add("a")
            try FileManager.default.moveItem(atPath: path, toPath: folder.path + ".old")
            defer { try? FileManager.default.removeItem(atPath: folder.path + ".old") }
            if replaces.isEmpty {
                try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
            } else {
                try Data().write(to: URL(fileURLWithPath: path))
            }
            let failure = #expect(throws: AppendError.self) { try log.add("b") }
            #expect(failure?.description.contains("replaced") == true, "\(String(describing: failure))")
            #expect(log.durableCount == 1)
            log.close()
            withExtendedLifetime(folder) {}
        }
    }

    /// open(2) waits for a FIFO's other end.
    @Test func whatIsNoRegularFileIsRefusedAtOnce() throws {
        let folder = TemporaryDirectory(), disk = PosixFileSystem(), path = folder.path + "/fifo"
        try #require(mkfifo(path, 0o600) == 0)
        for body: () throws -> Void in [
            { _ = try disk.open(path, create: false, writable: false) },
            { _ = try disk.open(path, create: true, writable: true) },
            { _ = try disk.map(path, byteCount: 32, writable: false) },
            { _ = try disk.map(path, byteCount: 32, writable: true) },
            { _ = try disk.lock(path, text: "1") },
        ] {
            let error = #expect(throws: FileError.self) { try body() }
            #expect(error?.description.contains("no regular file") == true, "\(String(describing: error))")
        }
        #expect(!disk.isLocked(path))
        let error = #expect(throws: FileError.self) {
            _ = try disk.open(folder.path, create: false, writable: false)
        }
        #expect(error?.code == EISDIR)
    }

    @Test(arguments: [LogKey.name, LogKey.publicName]) func aFIFOInPlaceOfAKeyIsAnError(name: String) throws {
        let folder = TemporaryDirectory(), path = folder.path + "/" + name
        try #require(mkfifo(path, 0o600) == 0)
        let error = #expect(throws: LogError.self) {
            _ = try LogKey.open(dataFolder: folder.path, logID: LogID(high: 1, low: 2))
        }
        #expect(error?.description.contains(path) == true, "\(String(describing: error))")
        #expect(error?.description.contains("no regular file") == true)
    }

    @Test(arguments: ["clock", "reserve", "checkpoint"])
    func aFIFOInTheLogsFolderDoesNotHangTheStart(name: String) throws {
        let folder = TemporaryDirectory(), path = folder.path + "/" + name, clock = TestClock()
        try #require(mkfifo(path, 0o600) == 0)
        clock.bootID = "boot"
        var options = options()
        options.clock = clock
        let log = try FileLog.open(directory: folder.path, options: options)
        try log.add("a")
        log.close()
        withExtendedLifetime(folder) {}
    }
}
