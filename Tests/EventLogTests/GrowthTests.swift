import EventModel
import Foundation
import Primitives
import Testing
@testable import EventLog

/// Space in steps, and when a segment ends.
@Suite struct GrowthTests {
    private func liveOptions(_ disk: any LogFileSystem = PosixFileSystem()) -> FileLogOptions {
        var settings = options(segmentBytes: 64 << 20)
        settings.fileSystem = disk
        settings.keepsTree = false
        return settings
    }

    private func bytes(_ folder: TemporaryDirectory, _ index: Int) throws -> Int {
        let path = folder.path + "/" + folder.segments[index]
        return try #require(FileManager.default.attributesOfItem(atPath: path)[.size] as? Int)
    }

    private func noise(_ count: Int, _ seed: Int) -> String {
        var random = SeededRandom(seed: UInt64(seed))
        return String(decoding: (0..<count).map { _ in UInt8(0x21 + random.next() % 90) }, as: UTF8.self)
    }

    @Test func aNewLogTakesAMebibyteAndMoreAsItGrows() throws {
        let folder = TemporaryDirectory()
        let log = try FileLog.open(directory: folder.path, options: liveOptions())
        #expect(try bytes(folder, 0) == 1 << 20)
        var sizes: Set<Int> = []
        for number in 0..<20 {
            try log.add(noise(500_000, number))
            try sizes.insert(bytes(folder, 0))
            #expect(log.statistics.allocatedBytes >= log.statistics.usedBytes)
        }
        #expect(folder.segments.count == 1, "large commits fill a segment")
        #expect(sizes.subtracting([1, 2, 4, 8, 16].map { $0 << 20 }).isEmpty && sizes.count >= 4)
        log.close()
        let again = try FileLog.open(directory: folder.path, options: liveOptions())
        try again.add("more")
        #expect(try payloads(again) == (0..<20).map { noise(500_000, $0) } + ["more"])
        again.close()
    }

    @Test func aSegmentOfSmallCommitsEndsEarly() throws {
        let folder = TemporaryDirectory()
        let log = try FileLog.open(directory: folder.path, options: liveOptions())
        for number in 0..<1100 { try log.add("\(number)") }
        #expect(folder.segments == [LogFormat.segmentName(Position(0)), LogFormat.segmentName(Position(1023))])
        #expect(try bytes(folder, 0) == 4 << 20 && bytes(folder, 1) == 1 << 20)
        while try log.maintainer.maintainOne() {}
        #expect(try bytes(folder, 0) < 64 << 10)
        #expect(try payloads(log) == (0..<1100).map(String.init))
        log.close()
    }

    @Test func anOldSegmentEndsAndIsSealed() throws {
        let folder = TemporaryDirectory(), clock = TestClock()
        var settings = liveOptions()
        settings.clock = clock
        settings.sealAfterSeconds = 60
        let log = try FileLog.open(directory: folder.path, options: settings)
        try log.add("a")
        clock.advance(seconds: 61)
        try log.add("b")
        #expect(folder.segments.count == 2)
        while try log.maintainer.maintainOne() {}
        #expect(try log.catalog.segment(base: Position(0)).state == .growing)
        clock.advance(seconds: 60)
        while try log.maintainer.maintainOne() {}
        #expect(try log.catalog.segment(base: Position(0)).state == .sealed)
        #expect(try payloads(log) == ["a", "b"])
        log.close()
    }

    /// Where no step of the usual size is left, a commit still takes the pages that it needs.
    @Test func theLastOfADiskIsUsed() throws {
        let folder = TemporaryDirectory(), disk = FaultyFileSystem()
        let log = try FileLog.open(directory: folder.path, options: liveOptions(disk))
        for number in 0..<6 { try log.add(noise(100_000, number)) }
        // Whoever takes space ahead fails, and the writer's first attempt too.
        disk.set(.init(operation: .allocate, code: ENOSPC, times: 2))
        for number in 6..<12 { try log.add(noise(100_000, number)) }
        let size = try bytes(folder, 0)
        #expect(size > 1 << 20)
        disk.set(nil)
        for number in 12..<24 { try log.add(noise(100_000, number)) }
        #expect(try payloads(log) == (0..<24).map { noise(100_000, $0) })
        log.close()
    }
}
