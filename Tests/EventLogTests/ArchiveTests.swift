import EventModel
import Foundation
import Synchronization
import Testing
@testable import EventLog

/// Segments leave the disk only when they are somewhere else, or nobody will ever ask for them.
struct ArchiveTests {
    /// An archive in a folder, that fails on demand.
    final class Archive: Sendable {
        let folder = TemporaryDirectoryBox()
        let fails = Mutex(false)
        let fetched = Mutex<[String]>([])
        let stored = Mutex<[String]>([])

        var command: SegmentCommand {
            { [self] path, name in
                if fails.withLock({ $0 }) { throw Refusal() }
                stored.withLock { $0.append(name) }
                let target = folder.path + "/" + name
                try? FileManager.default.removeItem(atPath: target)
                try FileManager.default.copyItem(atPath: path, toPath: target)
            }
        }
        var restore: SegmentCommand {
            { [self] path, name in
                if fails.withLock({ $0 }) { throw Refusal() }
                fetched.withLock { $0.append(name) }
                try FileManager.default.copyItem(atPath: folder.path + "/" + name, toPath: path)
            }
        }
    }
    struct Refusal: Error, CustomStringConvertible { let description = "no room" }
    final class TemporaryDirectoryBox: @unchecked Sendable {
        private let folder = TemporaryDirectory()
        var path: String { folder.path }
    }

    private let clock = TestClock()

    private func open(_ folder: TemporaryDirectory) throws -> FileLog {
        var settings = options(segmentBytes: 64 << 10)
        settings.clock = clock
        settings.isKeeping = true
        return try FileLog.open(directory: folder.path, options: settings)
    }

    /// Events that do not compress, one a commit, until so many segments are sealed.
    private func fill(_ log: FileLog, sealed: Int) throws {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<4000 where log.catalog.sealed(from: Position(0)).count < sealed {
            let noise = (0..<1500).map { _ in UInt8.random(in: 33...126, using: &random) }
            try log.add(String(decoding: noise, as: UTF8.self), at: clock.now())
            clock.advance(seconds: 1)
            usleep(500)
        }
        try #require(log.catalog.sealed(from: Position(0)).count >= sealed, "\(log.statistics.keeping)")
        try settle(log)
    }

    /// Waits until the maintainer has packed or sealed every segment but the open one: retention depends on it.
    private func settle(_ log: FileLog) throws {
        func isSettled() throws -> Bool {
            try log.catalog.bases.dropLast().allSatisfy { try log.catalog.segment(base: $0).state != .live }
        }
        for _ in 0..<10_000 where try !isSettled() { usleep(1000) }
        try #require(try isSettled(), "\(log.statistics.keeping)")
    }

    @Test func segmentsAreArchivedInOrderOnceAndAFailureIsTriedAgain() throws {
        let folder = TemporaryDirectory(), archive = Archive()
        let log = try open(folder)
        try fill(log, sealed: 4)
        let archiver = try Archiver(log: log, command: archive.command)
        #expect(archiver.step())
        archive.fails.withLock { $0 = true }
        #expect(!archiver.step())
        #expect(archiver.status.failures == 1 && archiver.status.lastError?.contains("no room") == true)
        #expect(!archiver.step() && archiver.status.failures == 1, "not before its time")
        clock.advance(seconds: 1.1)
        #expect(!archiver.step() && archiver.status.failures == 2)
        clock.advance(seconds: 1.1)
        #expect(!archiver.step() && archiver.status.failures == 2, "the pause doubles")
        clock.advance(seconds: 400)
        #expect(!archiver.step() && archiver.status.isBehind)
        archive.fails.withLock { $0 = false }
        clock.advance(seconds: 60)
        while archiver.step() {}
        let sealed = log.catalog.sealed(from: Position(0))
        #expect(archiver.status.through == sealed.last?.trailer?.end && archiver.status.lastError == nil)
        #expect(!archiver.status.isBehind)
        #expect(archive.stored.withLock { $0 } == sealed.map(\.name))
        // What is archived stays so across a restart.
        let again = try Archiver(log: log, command: archive.command)
        #expect(!again.step() && again.status.through == archiver.status.through)
        log.close()
    }

    @Test func nothingIsRemovedThatIsNeededOrNotArchived() throws {
        let folder = TemporaryDirectory(), archive = Archive()
        let log = try open(folder)
        try fill(log, sealed: 4)
        let sealed = log.catalog.sealed(from: Position(0)), ends = sealed.map { $0.trailer!.end }
        var rules = RetentionRules()
        rules.bytesMax = 1
        rules.canRestore = true
        let archiver = try Archiver(log: log, command: archive.command)
        let everybody = [RetentionGuard(name: "the projection p", needsFrom: Position(log.durableCount))]
        // Neither archived nor allowed to be lost.
        #expect(Retention(log: log, rules: RetentionRules(), archiver: nil).step(guards: []) == 0)
        let without = Retention(log: log, rules: rules, archiver: nil)
        #expect(without.isDue && without.step(guards: everybody) == 0)
        #expect(without.status.blockedBy?.contains("archive_command") == true)
        let retention = Retention(log: log, rules: rules, archiver: archiver)
        #expect(retention.step(guards: everybody) == 0)
        #expect(retention.status.blockedBy?.contains("not archived yet") == true)
        while archiver.step() {}
        // A projection that is behind.
        #expect(retention.step(guards: [RetentionGuard(name: "the projection p", needsFrom: Position(3))]) == 0)
        #expect(retention.status.blockedBy?.contains("the projection p is at position 3") == true)
        #expect(retention.step(guards: [RetentionGuard(name: "p", needsFrom: ends[0])]) == 1)
        #expect(log.firstPosition == ends[0])
        let count = retention.step(guards: everybody)
        #expect(count == sealed.count - 2, "the newest sealed one stays")
        #expect(!folder.segments.contains(sealed[0].name) && folder.segments.contains(sealed.last!.name))
        log.close()
    }

    @Test func whatWasRemovedIsFetchedWhenItIsWanted() throws {
        let folder = TemporaryDirectory(), archive = Archive()
        var log = try open(folder)
        try fill(log, sealed: 12)
        let before = try payloads(log, atLeast: 1 << 20)
        let archiver = try Archiver(log: log, command: archive.command)
        while archiver.step() {}
        var rules = RetentionRules()
        rules.secondsMax = 0
        rules.canRestore = true
        clock.advance(seconds: 10)
        let guards = [RetentionGuard(name: "p", needsFrom: Position(log.durableCount))]
        #expect(Retention(log: log, rules: rules, archiver: archiver).step(guards: guards) > 9)
        let first = log.firstPosition
        #expect(first > Position(0) && log.horizon == first)
        func expectBeforeHorizon(_ source: any LogSource) throws {
            #expect { try source.reader(from: Position(0)).read(into: EventBlock(), atLeast: 1) } throws: {
                ($0 as? LogError)?.code == .beforeHorizon
            }
        }
        try expectBeforeHorizon(log)
        log.setRestorer(SegmentRestorer(filesMax: 2, command: archive.restore))
        #expect(log.horizon == Position(0))
        let messages = try payloads(log, atLeast: 1 << 20).filter { !$0.hasPrefix("{\"archived\"") }
        #expect(messages == before)
        let restored = try FileManager.default.contentsOfDirectory(atPath: folder.path + "/restored")
        #expect(restored.count <= 2, "\(restored)")
        // Another process, and a restart.
        log.close()
        let other = try ReadOnlyLog(directory: folder.path)
        try expectBeforeHorizon(other)
        other.setRestorer(SegmentRestorer(command: archive.restore))
        #expect(try payloads(other, atLeast: 1 << 20).filter { !$0.hasPrefix("{\"archived\"") } == before)
        #expect(try other.removedSegments().allSatisfy { $0.archived && $0.root != nil })
        #expect(try other.verify().isSound)
        log = try open(folder)
        #expect(log.firstPosition == first)
        // An archive that gives something else, or nothing.
        let another = folder.path + "/" + folder.segments[0]
        log.setRestorer(
            SegmentRestorer(filesMax: 2) { path, name in
                try FileManager.default.copyItem(atPath: another, toPath: path)
            })
        try FileManager.default.removeItem(atPath: folder.path + "/restored")
        try expectBeforeHorizon(log)
        archive.fails.withLock { $0 = true }
        log.setRestorer(SegmentRestorer(filesMax: 2, command: archive.restore))
        try expectBeforeHorizon(log)
        log.close()
    }

    /// A foreign data folder put `x; touch INJECTED; #.seg` into the shell of `restore_command`.
    @Test(arguments: [
        (0, 1, "x; touch INJECTED; #.seg"), (0, 1, "../../../etc/passwd"), (0, 1, "00000000000000000001.seg"),
        (0, 1, ""), (0, 1, "00000000000000000000.seg\n"), (5, 2, "00000000000000000005.seg"),
    ])
    func removedSegmentsHaveTheLogsNames_F31(base: UInt64, end: UInt64, name: String) throws {
        let folder = TemporaryDirectory()
        let log = try open(folder)
        try log.add("x", at: clock.now())
        log.close()
        let line = RemovedSegment(
            name: name, base: base, end: end, bytes: 1, firstTime: "", lastTime: "", root: nil, archived: true,
            decisions: 1)
        try (JSONEncoder().encode(line) + Data("\n".utf8)).write(to: URL(fileURLWithPath: folder.path + "/removed"))
        let other = try ReadOnlyLog(directory: folder.path)
        let asked = Mutex<[String]>([])
        other.setRestorer(SegmentRestorer { _, name in asked.withLock { $0.append(name) } })
        #expect { try other.removedSegments() } throws: { ($0 as? LogError)?.code == .corrupt }
        _ = other.horizon
        _ = try? payloads(other, atLeast: 1 << 20)
        #expect(asked.withLock { $0 } == [])
    }

    @Test func aCrashBetweenTheNoteAndTheRemovalLosesNothing() throws {
        let folder = TemporaryDirectory(), archive = Archive()
        var log = try open(folder)
        try fill(log, sealed: 4)
        let archiver = try Archiver(log: log, command: archive.command)
        while archiver.step() {}
        let names = folder.segments, kept = try folder.copy()
        var rules = RetentionRules()
        (rules.bytesMax, rules.canRestore) = (1, true)
        let guards = [RetentionGuard(name: "p", needsFrom: Position(log.durableCount))]
        #expect(Retention(log: log, rules: rules, archiver: archiver).step(guards: guards) > 0)
        log.close()
        // The files are there again, as if they had never been deleted.
        for name in names where !folder.segments.contains(name) {
            try FileManager.default.copyItem(atPath: kept.path + "/" + name, toPath: folder.path + "/" + name)
        }
        log = try open(folder)
        #expect(log.firstPosition == Position(0) && log.horizon == Position(0))
        try settle(log)
        let again = try Archiver(log: log, command: archive.command)
        #expect(Retention(log: log, rules: rules, archiver: again).step(guards: guards) > 0)
        // By name: the log may have begun another segment since.
        let here = Set(folder.segments)
        #expect(try log.catalog.removed.all(log.catalog).map(\.name) == names.filter { !here.contains($0) })
        log.close()
    }

    @Test func decisionsStayUnlessTheyCanBeHadBackAndAreFoundAgain() throws {
        let folder = TemporaryDirectory(), archive = Archive()
        let log = try open(folder)
        var decision = RecordBatch()
        decision.append(kind: .decision, schema: "firmware.added/1", receivedAt: clock.now(), json: Array("{}".utf8))
        _ = try log.append(&decision)
        try fill(log, sealed: 6)
        var rules = RetentionRules()
        (rules.bytesMax, rules.allowHorizon) = (1, true)
        let guards = [RetentionGuard(name: "p", needsFrom: Position(log.durableCount))]
        let careless = Retention(log: log, rules: rules, archiver: nil)
        #expect(careless.step(guards: guards) == 0)
        #expect(careless.status.blockedBy?.contains("holds 1 decisions") == true)
        let archiver = try Archiver(log: log, command: archive.command)
        while archiver.step() {}
        rules.canRestore = true
        #expect(Retention(log: log, rules: rules, archiver: archiver).step(guards: guards) > 2)
        log.setRestorer(SegmentRestorer(command: archive.restore))
        // Whoever wants decisions fetches the one segment that has some.
        let reader = try log.decisionReader(from: Position(0)), block = EventBlock()
        var decisions = 0
        while try reader.read(into: block, atLeast: 1 << 20) {
            block.forEach { record, _ in if record.kind == .decision { decisions += 1 } }
        }
        #expect(decisions == 1 && reader.position.rawValue == log.durableCount)
        #expect(archive.fetched.withLock { $0.count } == 1)
        log.close()
    }

    @Test func theRulesOfSizeAndAge() throws {
        let folder = TemporaryDirectory()
        let log = try open(folder)
        try fill(log, sealed: 5)
        var rules = RetentionRules()
        rules.allowHorizon = true
        rules.bytesMax = log.statistics.usedBytes - 1
        let guards = [RetentionGuard(name: "p", needsFrom: Position(log.durableCount))]
        #expect(Retention(log: log, rules: rules, archiver: nil).step(guards: guards) == 1, "one is enough")
        rules.bytesMax = nil
        let second = log.catalog.sealed(from: Position(0))[0].trailer!
        rules.secondsMax = Int((clock.now().microseconds - second.lastTime.microseconds) / 1_000_000) + 2
        #expect(Retention(log: log, rules: rules, archiver: nil).step(guards: guards) == 0)
        clock.advance(seconds: 3)
        #expect(Retention(log: log, rules: rules, archiver: nil).step(guards: guards) == 1)
        let block = EventBlock(), last = try log.reader(from: Position(log.durableCount - 1))
        _ = try last.read(into: block, atLeast: 1)
        var said = ""
        block.forEach { record, _ in said = record.topicString + String(decoding: record.payload, as: UTF8.self) }
        #expect(said.hasPrefix("log.segments_removed/1") && said.contains("\"reason\":\"age\""), "\(said)")
        log.close()
    }
}
