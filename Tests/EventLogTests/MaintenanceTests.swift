import EventModel
import Foundation
import Primitives
import Synchronization
import Testing
@testable import EventLog

/// What becomes of segments that are no longer written, step by step, and with every step cut short.
@Suite struct MaintenanceTests {
    /// Four pages of blocks a segment: a commit each, or four packed live segments.
    private func smallOptions(_ disk: any LogFileSystem = PosixFileSystem()) -> FileLogOptions {
        var settings = options(segmentBytes: 20 << 10)
        settings.fileSystem = disk
        // Which is behind by as much as its thread likes.
        settings.keepsTree = false
        return settings
    }

    private func add(_ range: Range<Int>, to log: FileLog) throws {
        for number in range { try log.add("\(number)", at: Timestamp(microseconds: Int64(1000 + number))) }
    }

    private func expected(_ count: Int) -> [String] { (0..<count).map(String.init) }

    private func states(_ log: FileLog) throws -> [SegmentState] {
        try log.catalog.bases.map { try log.catalog.segment(base: $0).state }
    }

    /// 70,000 bytes that do not compress: a block of 18 pages.
    private func large(_ number: Int) -> String {
        var random = SeededRandom(seed: UInt64(number))
        return String(decoding: (0..<70_000).map { _ in UInt8(0x21 + random.next() % 90) }, as: UTF8.self)
    }

    private func check(_ log: some LogSource, _ count: Int) throws {
        for atLeast in [1, 1000, 1 << 20] { #expect(try payloads(log, atLeast: atLeast) == expected(count)) }
        for from in 0...count { #expect(try payloads(log, from: UInt64(from)) == Array(expected(count)[from...])) }
    }

    @Test func smallCommitsArePackedAndTheirFilesGo() throws {
        let folder = TemporaryDirectory()
        let log = try FileLog.open(directory: folder.path, options: smallOptions())
        let other = try ReadOnlyLog(directory: folder.path)
        try add(0..<13, to: log)
        #expect(folder.segments.count == 4)
        let before = log.statistics.usedBytes
        #expect(try log.maintainer.maintainOne())
        #expect(try states(log) == [.growing, .live, .live, .live])
        try check(log, 13)
        #expect(try log.maintainer.maintainOne() && log.maintainer.maintainOne())
        #expect(try !log.maintainer.maintainOne(), "the one being written stays")
        #expect(try states(log) == [.growing, .live])
        #expect(folder.segments == [LogFormat.segmentName(Position(0)), LogFormat.segmentName(Position(12))])
        try check(log, 13)
        try check(other, 13)
        _ = log.maintainer.step()
        try add(13..<14, to: log)
        #expect(log.statistics.keeping == .init(packed: 3, sealed: 0, waiting: 1, damaged: [], problem: nil))
        #expect(log.statistics.usedBytes < before && log.statistics.segments == 2)
        log.close()
        let again = try FileLog.open(directory: folder.path, options: smallOptions())
        #expect(again.report.torn == nil && again.report.corrupt.isEmpty)
        try check(again, 14)
        try add(14..<20, to: again)
        while try again.maintainer.maintainOne() {}
        try check(again, 20)
        #expect(try again.verify().isSound)
        again.close()
    }

    @Test func aGrowingSegmentIsSealedWhenItIsFull() throws {
        let folder = TemporaryDirectory()
        let log = try FileLog.open(directory: folder.path, options: smallOptions())
        let other = try ReadOnlyLog(directory: folder.path)
        try add(0..<30, to: log)
        while try log.maintainer.maintainOne() {}
        let found = try states(log)
        #expect(found == [.sealed, .growing, .live])
        try check(log, 30)
        try check(other, 30)
        let first = try log.catalog.segment(base: Position(0))
        let trailer = try #require(first.trailer)
        #expect(trailer.eventCount == trailer.end.rawValue && trailer.firstTime == Timestamp(microseconds: 1000))
        #expect(try Int(trailer.end.rawValue) == first.blockIndex()?.entries.reduce(0) { $0 + $1.count })
        let attributes = try FileManager.default.attributesOfItem(atPath: first.path)
        #expect(attributes[.posixPermissions] as? Int == 0o400)
        for (log, number) in [(log as any LogSource, 0), (other, 1)] {
            for at in stride(from: 0, to: 30, by: 7) {
                let time = Timestamp(microseconds: Int64(1000 + at))
                let found = try (log as? FileLog)?.position(atOrAfter: time) ?? other.position(atOrAfter: time)
                #expect(found == Position(UInt64(at)), "log \(number)")
            }
        }
        let summaries = try ReadOnlyLog(directory: folder.path).segments()
        #expect(summaries.map(\.state) == found)
        #expect(summaries.first?.end == trailer.end)
        #expect(try log.verify().isSound && other.verify().isSound)
        log.close()
    }

    @Test func largeCommitsAreSealedWhereTheyAre() throws {
        let folder = TemporaryDirectory()
        var settings = smallOptions()
        settings.segmentBytes = 256 << 10
        let log = try FileLog.open(directory: folder.path, options: settings)
        for number in 0..<8 { try log.add(large(number)) }
        try log.add("end")
        #expect(folder.segments.count == 3)
        let bytes = try folder.bytes(folder.segments[0])
        #expect(try log.maintainer.maintainOne())
        #expect(try states(log) == [.sealed, .live, .live])
        let after = try folder.bytes(folder.segments[0])
        #expect(after.starts(with: bytes), "blocks stay where they are")
        while try log.maintainer.maintainOne() {}
        #expect(try states(log) == [.sealed, .sealed, .live])
        #expect(try payloads(log) == (0..<8).map(large) + ["end"])
        #expect(try payloads(ReadOnlyLog(directory: folder.path)) == (0..<8).map(large) + ["end"])
        log.close()
    }

    @Test func aSegmentIsSealedWhenTheTreeHasComeSoFar() throws {
        let folder = TemporaryDirectory()
        var settings = smallOptions()
        settings.keepsTree = true
        let log = try FileLog.open(directory: folder.path, options: settings)
        try add(0..<30, to: log)
        let deadline = Date(timeIntervalSinceNow: 30)
        while try states(log) != [.sealed, .growing, .live], Date() < deadline { _ = try log.maintainer.maintainOne() }
        let sealed = try log.catalog.segment(base: Position(0))
        let section = try #require(try sealed.treeSection())
        #expect(try section.root == ReadOnlyLog(directory: folder.path).tree().root(of: section.end.rawValue))
        try check(log, 30)
        log.close()
    }

    @Test func aGrowingSegmentEndsWhereLargeCommitsBegin() throws {
        let folder = TemporaryDirectory()
        var settings = smallOptions()
        settings.segmentBytes = 128 << 10
        let log = try FileLog.open(directory: folder.path, options: settings)
        for number in 0..<40 { try log.add("\(number)") }
        for number in 0..<4 { try log.add(large(number)) }
        for number in 40..<80 { try log.add("\(number)") }
        while try log.maintainer.maintainOne() {}
        #expect(try Set(states(log)) == [.sealed, .growing, .live])
        let all = expected(40) + (0..<4).map(large) + (40..<80).map(String.init)
        #expect(try payloads(log) == all)
        #expect(try log.verify().isSound)
        log.close()
        #expect(try payloads(ReadOnlyLog(directory: folder.path)) == all)
    }

    /// Whoever reads, before, while and after files are packed and sealed under it, sees every event once.
    @Test func readersGoOnWhileFilesGo() throws {
        let folder = TemporaryDirectory()
        let log = try FileLog.open(directory: folder.path, options: smallOptions())
        try add(0..<60, to: log)
        let other = try ReadOnlyLog(directory: folder.path)
        let readers: [any LogReader] = try (0..<60).flatMap {
            [try log.reader(from: Position(UInt64($0))), try other.reader(from: Position(UInt64($0)))]
        }
        let block = EventBlock()
        var nexts = (0..<60).flatMap { [Position(UInt64($0)), Position(UInt64($0))] }
        func readOne(_ index: Int) throws {
            guard try readers[index].read(into: block, atLeast: 1) else { return }
            block.forEach { record, position in
                guard position >= nexts[index] else { return }
                #expect(position == nexts[index] && record.payload.elementsEqual("\(position)".utf8))
                nexts[index] = position.next
            }
        }
        // Some begin before anything was packed, some never read until all is done.
        var round = 0
        repeat {
            for index in readers.indices where (index + round) % 5 == 0 { try readOne(index) }
            round += 1
        } while try log.maintainer.maintainOne()
        #expect(round > 10)
        for index in readers.indices {
            while nexts[index] < Position(60) {
                let before = nexts[index]
                try readOne(index)
                guard nexts[index] > before else { break }
            }
        }
        #expect(nexts.allSatisfy { $0 == Position(60) })
        log.close()
    }

    @Test func readersOnOtherThreadsGoOnWhileTheKeeperWorks() throws {
        let folder = TemporaryDirectory()
        var settings = smallOptions()
        settings.isKeeping = true
        let log = try FileLog.open(directory: folder.path, options: settings)
        try log.add("0")
        let other = try ReadOnlyLog(directory: folder.path)
        let total = 1500
        DispatchQueue.concurrentPerform(iterations: 5) { role in
            do {
                if role == 0 {
                    for number in 1..<total { try log.add("\(number)") }
                    return
                }
                let source: any LogSource = role % 2 == 1 ? log : other
                let deadline = Date(timeIntervalSinceNow: 60)
                repeat {
                    let reader = try source.reader(from: Position(0)), block = EventBlock()
                    var next = Position(0)
                    while next.rawValue < total, Date() < deadline {
                        _ = source.waitForDurable(beyond: next.rawValue, timeoutMilliseconds: 1000)
                        while try reader.read(into: block, atLeast: role * 100) {
                            block.forEach { record, position in
                                guard position >= next else { return }
                                #expect(position == next && record.payload.elementsEqual("\(position)".utf8))
                                next = position.next
                            }
                        }
                    }
                    #expect(next == Position(UInt64(total)))
                } while log.durableCount < total
            } catch {
                Issue.record("role \(role): \(error)")
            }
        }
        log.close()
        let again = try FileLog.open(directory: folder.path, options: smallOptions())
        #expect(try payloads(again) == expected(total))
        again.close()
    }

    /// Killed after any operation of packing and sealing: nothing is lost, nothing is there twice, and it goes on.
    @Test func killedAnywhereItLosesNothing() throws {
        var number = 0, isOver = false
        while !isOver {
            let folder = TemporaryDirectory(), disk = StoppingFileSystem()
            let log = try FileLog.open(directory: folder.path, options: smallOptions(disk))
            try add(0..<18, to: log)
            disk.stop(after: number)
            while (try? log.maintainer.maintainOne()) == true, !disk.hasStopped {}
            isOver = !disk.hasStopped
            let what = disk.operations.dropFirst(number).first ?? "the end"
            try check(log, 18)
            let crashed = try folder.copy()
            try check(try ReadOnlyLog(directory: crashed.path), 18)
            let again = try FileLog.open(directory: crashed.path, options: smallOptions())
            #expect(again.report.corrupt.isEmpty, "killed at \(what)")
            try check(again, 18)
            while try again.maintainer.maintainOne() {}
            try check(again, 18)
            #expect(try again.verify().isSound, "killed at \(what)")
            #expect(try states(again).dropLast().allSatisfy { $0 != .live }, "killed at \(what)")
            try add(18..<30, to: again)
            while try again.maintainer.maintainOne() {}
            try check(again, 30)
            let names = try FileManager.default.contentsOfDirectory(atPath: crashed.path)
            #expect(!names.contains { $0.hasSuffix(".tmp") && $0 != "next.tmp" }, "killed at \(what)")
            again.close()
            try check(try ReadOnlyLog(directory: crashed.path), 30)
            disk.stop(after: nil)
            log.close()
            number += 1
        }
        #expect(number > 20, "\(number) operations")
    }

    /// Any operation failing once: readers see everything, and what is not an fsync is tried again.
    @Test(arguments: [ENOSPC, EIO])
    func anyOperationMayFail(code: Int32) throws {
        var number = 0, isOver = false
        while !isOver {
            let folder = TemporaryDirectory(), disk = StoppingFileSystem(), clock = TestClock()
            var settings = smallOptions(disk)
            settings.clock = clock
            let log = try FileLog.open(directory: folder.path, options: settings)
            try add(0..<16, to: log)
            disk.stop(after: number, .fault(code))
            var idle = 0
            while idle < 3 {
                if log.maintainer.step() == .worked { idle = 0 } else { idle += 1 }
                clock.advance(seconds: 60)
                #expect(try payloads(log) == expected(16))
            }
            isOver = !disk.hasStopped
            let what = disk.operations.dropFirst(number).first ?? "the end"
            // Space for the next segment is made ready beside, and made again when that fails.
            let isSync = what.hasPrefix("f") && disk.hasStopped && !what.hasSuffix("next.tmp")
            #expect(log.statistics.keeping.problem == nil || isSync, "\(what) fails")
            if isSync { #expect(log.statistics.keeping.problem?.contains("restart") == true) }
            disk.stop(after: nil)
            try add(16..<20, to: log)
            #expect(try payloads(log) == expected(20))
            log.close()
            let again = try FileLog.open(directory: folder.path, options: smallOptions())
            #expect(again.report.corrupt.isEmpty, "\(what) fails")
            while try again.maintainer.maintainOne() {}
            try check(again, 20)
            #expect(try again.verify().isSound, "\(what) fails")
            again.close()
            number += 1
        }
    }

    @Test func damageIsLeftAsItIsAndTheRestIsKept() throws {
        let folder = TemporaryDirectory()
        let log = try FileLog.open(directory: folder.path, options: smallOptions())
        try add(0..<18, to: log)
        let name = folder.segments[2]
        try folder.patch(name, at: 8192 + 100, [0xFF])
        let bytes = try folder.bytes(name)
        while log.maintainer.step() == .worked {}
        #expect(log.statistics.keeping.damaged == [name])
        #expect(try folder.bytes(name) == bytes)
        #expect(try states(log) == [.sealed, .live, .growing, .live])
        let error = #expect(throws: LogError.self) { try payloads(log) }
        #expect(error?.description.contains("positions 9..<10") == true)
        #expect(try payloads(log, from: 10) == Array(expected(18)[10...]))
        log.close()
        let again = try FileLog.open(directory: folder.path, options: smallOptions())
        #expect(try again.maintainer.maintainOne(), "it notes the damage again")
        #expect(try !again.maintainer.maintainOne())
        #expect(try payloads(again, from: 10) == Array(expected(18)[10...]))
        again.close()
    }

    @Test(arguments: [8192, 16_384])
    func whatIsLeftIsSealedWhenTheLossIsAccepted(damagedPage: Int) throws {
        let folder = TemporaryDirectory()
        let log = try FileLog.open(directory: folder.path, options: smallOptions())
        try add(0..<18, to: log)
        let name = folder.segments[2], lost = 8 + damagedPage / 4096 - 1
        try folder.patch(name, at: damagedPage + 100, [0xFF])
        let bytes = try folder.bytes(name)
        while log.maintainer.step() == .worked {}
        #expect(log.statistics.keeping.damaged == [name])
        #expect(
            try log.acceptLosses(
                in: [Position(0)..<Position(18)], operatorName: "me", reason: "a disk"
            ).count == 1)
        while log.maintainer.step() == .worked {}
        #expect(log.statistics.keeping.damaged == [])
        #expect(try states(log) == [.sealed, .sealed, .growing, .live])
        #expect(try folder.bytes(name).starts(with: bytes), "the damage stays, to be looked at")
        let readable = (0..<18).filter { $0 != lost }.map(String.init)
        func numbers(_ source: any LogSource) throws -> [String] {
            let reader = try source.reader(from: Position(0)), block = EventBlock()
            var found: [String] = []
            while try reader.read(into: block, atLeast: 1) {
                block.forEach { record, _ in
                    if record.kind == .message { found.append(String(decoding: record.payload, as: UTF8.self)) }
                }
            }
            return found
        }
        #expect(try numbers(log) == readable)
        #expect(try numbers(ReadOnlyLog(directory: folder.path)) == readable)
        let selection = EventSelection.device(tenant: "acme", device: "d1")
        let reader = log.events(selection, in: Position(0)..<Position(.max))
        var found: [String] = []
        while try reader.read({ record, _ in found.append(String(decoding: record.payload, as: UTF8.self)) }) {}
        #expect(found == readable)
        #expect(try log.verify().isSound)
        log.close()
        let again = try FileLog.open(directory: folder.path, options: smallOptions())
        #expect(try numbers(again) == readable)
        again.close()
    }

    @Test func aLogWhoseLastFileIsSealedGoesOnInANewOne() throws {
        let folder = TemporaryDirectory()
        let log = try FileLog.open(directory: folder.path, options: smallOptions())
        try add(0..<17, to: log)
        while try log.maintainer.maintainOne() {}
        #expect(try states(log) == [.sealed, .live])
        log.close()
        try FileManager.default.removeItem(atPath: folder.path + "/" + folder.segments[1])
        let again = try FileLog.open(directory: folder.path, options: smallOptions())
        #expect(again.report.corrupt.map(\.positions) == [Position(16)..<Position(17)], "one was durable and is gone")
        #expect(try again.add("next").lowerBound == Position(17))
        #expect(try payloads(again, from: 17) == ["next"])
        again.close()
    }

    @Test func aDamagedGrowingSegmentIsNeverCut() throws {
        let folder = TemporaryDirectory()
        let log = try FileLog.open(directory: folder.path, options: smallOptions())
        try add(0..<13, to: log)
        while try log.maintainer.maintainOne() {}
        log.close()
        // The second block: what it held is in no other file any more.
        try folder.patch(folder.segments[0], at: 8192 + 10, [0xFF])
        let bytes = try folder.bytes(folder.segments[0])
        let again = try FileLog.open(directory: folder.path, options: smallOptions())
        try add(13..<18, to: again)
        while again.maintainer.step() == .worked {}
        #expect(try folder.bytes(folder.segments[0]) == bytes)
        #expect(try payloads(again, from: 8) == Array(expected(18)[8...]))
        #expect(throws: LogError.self) { try payloads(again) }
        #expect(try again.verify().damages.map(\.range.positions) == [Position(4)..<Position(8)])
        again.close()
    }

    /// A footer is made again from the blocks, wherever it is damaged enough not to be believed.
    @Test func aTornFooterIsMadeAgain() throws {
        let folder = TemporaryDirectory()
        let log = try FileLog.open(directory: folder.path, options: smallOptions())
        try add(0..<30, to: log)
        while try log.maintainer.maintainOne() {}
        let whole = try folder.bytes(folder.segments[0])
        let footer = try #require(try log.catalog.segment(base: Position(0)).trailer).footerOffset
        log.close()
        for cut in stride(from: footer, to: whole.count, by: 512) {
            for isZeroed in [false, true] {
                let torn = try folder.copy()
                let path = torn.path + "/" + torn.segments[0]
                chmod(path, 0o600)
                if isZeroed {
                    try torn.patch(torn.segments[0], at: cut, [UInt8](repeating: 0, count: whole.count - cut))
                } else {
                    truncate(path, off_t(cut))
                }
                try check(try ReadOnlyLog(directory: torn.path), 30)
                let again = try FileLog.open(directory: torn.path, options: smallOptions())
                #expect(again.report.corrupt.isEmpty)
                try check(again, 30)
                while try again.maintainer.maintainOne() {}
                #expect(try torn.bytes(torn.segments[0]) == whole, "the same blocks, the same footer")
                again.close()
            }
        }
    }

    @Test func aDamagedIndexOnlyMakesLookingUpSlower() throws {
        let folder = TemporaryDirectory()
        let log = try FileLog.open(directory: folder.path, options: smallOptions())
        try add(0..<30, to: log)
        while try log.maintainer.maintainOne() {}
        let trailer = try #require(try log.catalog.segment(base: Position(0)).trailer)
        log.close()
        try folder.patch(folder.segments[0], at: trailer.index.offset + 3, [0x77])
        try check(try ReadOnlyLog(directory: folder.path), 30)
    }

    @Test func theOldestSegmentsMayGoWhileTheyAreRead() throws {
        let folder = TemporaryDirectory()
        let log = try FileLog.open(directory: folder.path, options: smallOptions())
        try add(0..<30, to: log)
        while try log.maintainer.maintainOne() {}
        let reader = try log.reader(from: Position(0)), block = EventBlock()
        #expect(try reader.read(into: block, atLeast: 1))
        let next = try #require(log.catalog.bases.dropFirst().first)
        log.catalog.remove(Position(0))
        try FileManager.default.removeItem(atPath: log.catalog.path(Position(0)))
        #expect(log.firstPosition == next)
        var seen = block.end
        while try reader.read(into: block, atLeast: 1) {
            #expect(block.base == seen)
            seen = block.end
        }
        #expect(seen == Position(30))
        let error = #expect(throws: LogError.self) { try payloads(log) }
        #expect(error?.code == .beforeHorizon)
        log.close()
    }
}
