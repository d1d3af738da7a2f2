import Campaigns
import Deciding
import EventLog
import EventModel
import Foundation
import Projecting
import ProjectionTestSupport
import Projections
import Synchronization
import Testing

@testable import Snapshots

/// Snapshots of a real log: from nothing or from one another, they are the same; whatever fails, an old one stays good.
@Suite struct MakerTests {
    private let folder = Folder()

    private func log(_ events: Int, seed: UInt64 = 1) throws -> FileLog {
        var options = FileLogOptions()
        options.segmentBytes = 64 << 10
        options.isKeeping = false
        let log = try FileLog.open(directory: folder.path + "/log", options: options)
        var history = FleetHistory(seed: seed)
        try history.append(events, to: log)
        return log
    }

    private func maker(
        _ log: FileLog, _ name: String = "snapshots", threads: Int = 2,
        fileSystem: any LogFileSystem = PosixFileSystem()
    ) throws -> SnapshotMaker {
        let id = try ReadOnlyLog(directory: log.directory).logID
        var maker = SnapshotMaker(
            source: log, logID: id,
            folder: SnapshotFolder(folder.path + "/" + name, logID: id, fileSystem: fileSystem),
            deciders: [campaigns], now: { Timestamp(microseconds: 5) })
        maker.options.threads = threads
        maker.rowBytesMax = 10_000
        maker.fileSystem = fileSystem
        return maker
    }

    private let campaigns = DeciderFold(name: "campaigns", version: 1) { old, range, source in
        var state = try old.map { try CampaignState(stored: $0) } ?? CampaignState()
        try state.fold(range, of: source)
        return state.stored()
    }

    private func digests(_ snapshot: SnapshotFile) -> [String] {
        snapshot.description.tables.map { "\($0.name) \($0.rows) \($0.digest)" }
            + snapshot.description.deciders.map(\.sha256)
    }

    @Test(arguments: [2, 9, 10])
    func oneFromAnotherIsOneFromNothing(seed: UInt64) throws {
        let log = try log(600, seed: seed), whole = try maker(log).make(end: Position(600))
        let tables = whole.file.description.tables
        #expect(tables.count == 27)
        #expect(tables.filter { $0.rows == 0 }.map(\.name) == ["firmware_versions_v1", "api_token_events_v1"])
        for (name, ends) in [("a", [1, 599, 600]), ("b", [20, 333, 600]), ("c", [600])] as [(String, [UInt64])] {
            let maker = try maker(log, name, threads: name == "c" ? 1 : 3)
            for end in ends {
                let made = try maker.make(end: Position(end))
                #expect(made.event?.end == end && made.file.end == Position(end))
                #expect(made.event?.sha256 == (try made.file.check().description))
            }
            #expect(try digests(maker.folder.usable().last!) == digests(whole.file))
            #expect(try maker.make(end: Position(600)).event == nil, "it is there")
        }
        log.close()
    }

    @Test func aDamagedOneIsReportedAndAnOlderTaken() throws {
        let log = try log(300), notes = Mutex<[String]>([])
        var maker = try maker(log)
        maker.note = { note in notes.withLock { $0.append(note) } }
        for end in [100, 200] as [UInt64] { _ = try maker.make(end: Position(end)) }
        let good = try self.maker(log, "other").make(end: Position(300)).file
        // In the middle of a block: it opens, and is found out in use.
        let path = folder.path + "/snapshots/00000000000000000200.snapshot"
        try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: path)
        let file = try #require(FileHandle(forUpdatingAtPath: path))
        try file.seek(toOffset: 120)
        try file.write(contentsOf: [0xAA, 0xBB, 0xCC])
        try file.close()
        let made = try maker.make(end: Position(300))
        #expect(digests(made.file) == digests(good) && made.from == Position(100))
        #expect(notes.withLock { $0.count == 1 && $0[0].contains("00000000000000000200.snapshot") })
        let items = try maker.folder.items()
        #expect(items.count == 3)
        if case .unusable(let name, _, let why) = items[1] {
            #expect(name == "00000000000000000200.snapshot" && why.code == .damaged)
        } else {
            Issue.record("the damaged one counts as whole")
        }
        log.close()
    }

    /// The power fails, or the disk does, after any number of operations.
    @Test func whateverFailsTheOldOneStaysGood() throws {
        let log = try log(400)
        _ = try maker(log).make(end: Position(200))
        var failures = 0
        for limit in 0..<200 {
            let disk = FailingFileSystem(after: limit)
            do {
                _ = try maker(log, fileSystem: disk).make(end: Position(400))
                break
            } catch {
                failures += 1
            }
            let usable = try maker(log).folder.usable()
            // Once it has its name it is whole, whatever failed behind that.
            #expect(usable.map(\.end) == [Position(200)] || usable.map(\.end) == [Position(200), Position(400)])
            for file in usable { _ = try file.check() }
            if usable.count == 2 { try FileManager.default.removeItem(atPath: usable[1].path) }
        }
        #expect(failures > 5)
        let folder = try maker(log).folder
        #expect(try folder.usable().count == 2)
        log.close()
    }

    @Test func thoseBeforeTheHorizonGoButForTheNewest() throws {
        let log = try log(400)
        let maker = try maker(log)
        for end in [50, 100, 200, 400] as [UInt64] { _ = try maker.make(end: Position(end)) }
        let unfinished = maker.folder.path + "/00000000000000000300.snapshot.tmp"
        #expect(FileManager.default.createFile(atPath: unfinished, contents: Data()))
        #expect(try maker.folder.prune(horizon: Position(0)).isEmpty)
        #expect(try maker.folder.prune(horizon: Position(150)) == ["00000000000000000050.snapshot"])
        #expect(try maker.folder.prune(horizon: Position(200)) == ["00000000000000000100.snapshot"])
        #expect(try maker.folder.usable().map(\.end) == [Position(200), Position(400)])
        let left = try FileManager.default.contentsOfDirectory(atPath: maker.folder.path)
        #expect(!left.contains { $0.hasSuffix(".tmp") })
        log.close()
    }

    @Test func anotherLogsSnapshotIsNotUsed() throws {
        let log = try log(100), made = try maker(log).make()
        let other = SnapshotFolder(
            made.file.path.replacingOccurrences(
                of: "/00000000000000000100.snapshot", with: ""), logID: LogID(high: 9, low: 9))
        #expect(try other.usable().isEmpty && other.items().count == 1)
        log.close()
    }
}

/// What was removed for good is in a snapshot: everybody goes on from there.
@Suite struct HorizonTests {
    @Test func whatASnapshotCoversMayGo() async throws {
        let folder = Folder()
        var options = FileLogOptions()
        options.segmentBytes = 64 << 10
        let log = try FileLog.open(directory: folder.path + "/log", options: options)
        defer { log.close() }
        var history = FleetHistory(seed: 9)
        while log.firstPosition == Position(0), log.statistics.keeping.sealed < 5 { try history.append(500, to: log) }
        var rules = RetentionRules()
        (rules.bytesMax, rules.allowHorizon) = (1, true)
        let retention = Retention(log: log, rules: rules, archiver: nil)
        let guards = [RetentionGuard(name: "p", needsFrom: Position(log.durableCount))]
        let needed = try #require(retention.needsCoverThrough)
        #expect(retention.step(guards: guards, coveredThrough: Position(0)) == 0)
        #expect(retention.status.blockedBy?.contains("in no snapshot yet") == true)

        let campaigns = DeciderFold(name: "campaigns", version: 1) { old, range, source in
            var state = try old.map { try CampaignState(stored: $0) } ?? CampaignState()
            try state.fold(range, of: source)
            return state.stored()
        }
        let snapshots = SnapshotFolder(folder.path + "/snapshots", logID: log.logID)
        let maker = SnapshotMaker(
            source: log, logID: log.logID, folder: snapshots, deciders: [campaigns],
            now: { Timestamp(microseconds: 0) })
        var whole = CampaignState()
        try whole.fold(Position(0)..<Position(log.durableCount), of: log)
        let first = try maker.make()
        #expect(first.file.end >= needed)
        #expect(retention.step(guards: guards, coveredThrough: first.file.end) > 2)
        #expect(log.firstPosition > Position(0) && log.firstPosition <= first.file.end)
        #expect(try snapshots.prune(horizon: log.horizon).isEmpty)

        try history.append(200, to: log)
        let second = try maker.make(end: Position(log.durableCount))
        #expect(second.from == first.file.end, "it goes on from the first")
        let stored = try #require(try second.file.state(ofDecider: "campaigns"))
        let decider = DeciderService<CampaignState>(
            writer: DecisionWriter(log), source: log, clock: { Timestamp(microseconds: 0) }
        ) {
            (try? CampaignState(stored: stored.bytes)).map { DeciderSnapshot(state: $0, end: second.file.end) }
        }
        #expect(try await decider.recover().campaignCount == whole.campaignCount)
        // From nothing, nobody can.
        #expect(throws: LogError.self) {
            try SnapshotMaker(
                source: log, logID: log.logID, folder: SnapshotFolder(folder.path + "/none", logID: nil), deciders: [],
                now: { Timestamp(microseconds: 0) }
            ).make()
        }
    }
}

/// The real disk, which fails every operation that changes something after so many.
private final class FailingFileSystem: LogFileSystem {
    private let real = PosixFileSystem()
    private let left: Mutex<Int>

    init(after count: Int) { left = Mutex(count) }

    fileprivate func count(_ operation: String, _ path: String) throws(FileError) {
        let fails = left.withLock { left in
            left -= 1
            return left < 0
        }
        if fails { throw FileError(operation: operation, path: path, code: EIO) }
    }

    func open(_ path: String, create: Bool, writable: Bool) throws(FileError) -> any LogFile {
        if create { try count("open", path) }
        return FailingFile(real: try real.open(path, create: create, writable: writable), path: path, disk: self)
    }
    func rename(_ path: String, to newPath: String) throws(FileError) {
        try count("rename", path)
        try real.rename(path, to: newPath)
    }
    func remove(_ path: String) throws(FileError) { try real.remove(path) }
    func list(_ directory: String) throws(FileError) -> [String] { try real.list(directory) }
    func status(_ path: String) throws(FileError) -> FileStatus? { try real.status(path) }
    func makeReadOnly(_ path: String) throws(FileError) {
        try count("chmod", path)
        try real.makeReadOnly(path)
    }
    func makeDirectory(_ path: String) throws(FileError) { try real.makeDirectory(path) }
    func synchronizeDirectory(_ path: String) throws(FileError) {
        try count("fsync", path)
        try real.synchronizeDirectory(path)
    }
    func lock(_ path: String, text: String) throws(FileError) -> (any FileLock)? { try real.lock(path, text: text) }
    func isLocked(_ path: String) -> Bool { real.isLocked(path) }
    func map(_ path: String, byteCount: Int, writable: Bool) throws(FileError) -> (any SharedPage)? {
        try real.map(path, byteCount: byteCount, writable: writable)
    }
}

private final class FailingFile: LogFile {
    private let real: any LogFile
    private let path: String
    private let disk: FailingFileSystem

    init(real: any LogFile, path: String, disk: FailingFileSystem) {
        (self.real, self.path, self.disk) = (real, path, disk)
    }

    func byteCount() throws(FileError) -> Int { try real.byteCount() }
    func allocatedBytes() throws(FileError) -> Int { try real.allocatedBytes() }
    func read(into bytes: UnsafeMutableRawBufferPointer, at offset: Int) throws(FileError) -> Int {
        try real.read(into: bytes, at: offset)
    }
    func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(FileError) {
        try disk.count("write", path)
        try real.write(bytes, at: offset)
    }
    func allocate(_ byteCount: Int) throws(FileError) { try real.allocate(byteCount) }
    func truncate(_ byteCount: Int) throws(FileError) { try real.truncate(byteCount) }
    func synchronize() throws(FileError) {
        try disk.count("fdatasync", path)
        try real.synchronize()
    }
}
