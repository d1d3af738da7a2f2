import EventModel
import Foundation
import Testing
@testable import EventLog

@Suite struct RecoveryTests {
    /// Three commits; returns the folder, where the last commit begins, and where it ends.
    private func threeCommits(last: [String] = ["c", "d"]) throws -> (TemporaryDirectory, Range<Int>) {
        let folder = TemporaryDirectory()
        let log = try FileLog.open(directory: folder.path, options: options())
        try log.add("a")
        try log.add("b")
        let begin = Int(log.statistics.usedBytes)
        var records = batch(last)
        _ = try log.append(&records)
        let end = Int(log.statistics.usedBytes)
        log.close()
        return (folder, begin..<end)
    }

    /// As after a power failure that came before the last commit was acknowledged.
    private func forgetDurable(_ folder: TemporaryDirectory) throws {
        try FileManager.default.removeItem(atPath: folder.path + "/durable")
    }

    /// A small block is stored raw and cut at every byte; a larger one is compressed and cut at many.
    @Test(arguments: [(40, 1), (1200, 53)])
    func aTornTailAtEveryByteIsWholeOrNotAtAll(payloadBytes: Int, every: Int) throws {
        let random = (0..<4).map { _ in String((0..<payloadBytes).map { _ in "abcdefgh0123456789".randomElement()! }) }
        let (folder, last) = try threeCommits(last: random)
        let name = folder.segments[0]
        let whole = try folder.bytes(name)
        let used =
            BlockHeader.byteCount
            + Int(whole.withUnsafeBytes { $0.little(last.lowerBound + 12, as: UInt32.self) })
        try forgetDurable(folder)
        let lengths = Set(stride(from: 0, through: used + 16, by: every)).union([used - 1, used, used + 1])
            .union(stride(from: used, to: last.count, by: 509)).union([last.count])
        for length in lengths.sorted() {
            // What a disk writes last is zero, as preallocated; and the file may also end there.
            let crashed = try folder.copy()
            if length % 2 == 0 {
                let zeroes = [UInt8](repeating: 0, count: last.upperBound - last.lowerBound - length)
                try crashed.patch(name, at: last.lowerBound + length, zeroes)
            } else {
                truncate(crashed.path + "/" + name, off_t(last.lowerBound + length))
            }
            let remains = Array(whole[last.lowerBound..<(last.lowerBound + length)])
            let log = try FileLog.open(directory: crashed.path, options: options())
            let survives = length >= used
            #expect(try payloads(log) == ["a", "b"] + (survives ? random : []), "cut after \(length) bytes")
            #expect(log.report.corrupt.isEmpty)
            let torn = !survives && remains.contains { $0 != 0 }
            #expect((log.report.torn != nil) == torn, "cut after \(length) bytes")
            if let report = log.report.torn {
                let saved = Array(try #require(FileManager.default.contents(atPath: report.savedAs)))
                #expect(saved.starts(with: remains))
            }
            #expect(try log.add("next").lowerBound == Position(survives ? 6 : 2))
            #expect(try payloads(log).last == "next")
            log.close()
            let again = try FileLog.open(directory: crashed.path, options: options())
            #expect(again.report.torn == nil && again.report.corrupt.isEmpty)
            again.close()
        }
    }

    @Test func aFlippedBitInWhatWasDurableIsReportedAndNeverCut() throws {
        let (folder, last) = try threeCommits()
        let name = folder.segments[0]
        let second = last.lowerBound - LogFormat.alignment
        for offset in [second, second + 5, second + 30, second + BlockHeader.byteCount + 3, second + 4000] {
            for withProof in [true, false] {
                let damaged = try folder.copy()
                // Without the file `durable`, the third block is the proof: it says that two were durable.
                if !withProof { try forgetDurable(damaged) }
                let original = try damaged.bytes(name)
                try damaged.patch(name, at: offset, [original[offset] ^ 0x10])
                let before = try damaged.bytes(name)
                let log = try FileLog.open(directory: damaged.path, options: options())
                #expect(log.report.torn == nil)
                let report = try #require(log.report.corrupt.first)
                #expect(report.bytes == second..<last.lowerBound)
                #expect(report.positions == Position(1)..<Position(2))
                #expect(log.durableCount == 4)
                #expect(try damaged.bytes(name) == before, "nothing was changed")
                let error = #expect(throws: LogError.self) { try payloads(log) }
                #expect(error?.code == .corrupt)
                #expect(error?.description.contains("positions 1..<2") == true)
                #expect(try payloads(log, from: 2) == ["c", "d"], "behind the damage it is readable")
                #expect(try log.add("e").lowerBound == Position(4))
                log.close()
            }
        }
    }

    @Test func whatComesBeforeDamageIsHandedOutFirst() throws {
        let (folder, last) = try threeCommits()
        try folder.patch(folder.segments[0], at: last.lowerBound + 80, [0xFF])
        let log = try ReadOnlyLog(directory: folder.path)
        let reader = try log.reader(from: Position(0))
        let block = EventBlock()
        #expect(try reader.read(into: block, atLeast: 1 << 20))
        #expect(block.count == 2)
        #expect(throws: LogError.self) { try reader.read(into: block, atLeast: 1 << 20) }
        #expect(throws: LogError.self, "it does not go away") { try reader.read(into: block, atLeast: 1 << 20) }
    }

    @Test func theLastCommitDamagedAfterItWasAcknowledgedIsCorruption() throws {
        let (folder, last) = try threeCommits()
        try folder.patch(folder.segments[0], at: last.lowerBound + 80, [0xFF])
        let log = try FileLog.open(directory: folder.path, options: options())
        #expect(log.report.torn == nil)
        #expect(log.report.corrupt.map(\.positions) == [Position(2)..<Position(4)])
        // Positions are never given away twice: it goes on behind what is lost, in a new segment.
        #expect(try log.add("e").lowerBound == Position(4))
        #expect(folder.segments.count == 2)
        #expect(throws: LogError.self) { try payloads(log) }
        #expect(try payloads(log, from: 4) == ["e"])
        log.close()
        let again = try FileLog.open(directory: folder.path, options: options())
        #expect(try again.add("f").lowerBound == Position(5))
        again.close()
    }

    @Test func theLastCommitGoneAltogetherIsCorruptionToo() throws {
        let (folder, last) = try threeCommits()
        try folder.patch(folder.segments[0], at: last.lowerBound, [UInt8](repeating: 0, count: last.count))
        let log = try FileLog.open(directory: folder.path, options: options())
        #expect(log.report.corrupt.map(\.positions) == [Position(2)..<Position(4)])
        log.close()
    }

    @Test func aBlockOfAnotherSegmentIsNoBlock() throws {
        // Left-overs of a deleted file, which some disks give back after a crash.
        let (folder, last) = try threeCommits(), (other, _) = try threeCommits()
        try forgetDurable(folder)
        let foreign = try other.bytes(other.segments[0])
        try folder.patch(folder.segments[0], at: last.lowerBound, Array(foreign[last]))
        let log = try FileLog.open(directory: folder.path, options: options())
        #expect(log.report.torn != nil)
        #expect(try payloads(log) == ["a", "b"])
        log.close()
    }

    @Test func aSegmentThatIsMissingIsNoticed() throws {
        let folder = TemporaryDirectory()
        let log = try FileLog.open(directory: folder.path, options: options(segmentBytes: 16 << 10))
        for index in 0..<9 { try log.add("\(index)") }
        log.close()
        try FileManager.default.removeItem(atPath: folder.path + "/" + folder.segments[1])
        let again = try FileLog.open(directory: folder.path, options: options(segmentBytes: 16 << 10))
        let error = #expect(throws: LogError.self) { try payloads(again) }
        #expect(error?.code == .corrupt)
        #expect(error?.description.contains("3..<6") == true)
        #expect(try payloads(again, from: 6) == ["6", "7", "8"])
        again.close()
    }

    @Test(arguments: ["nonsense", "another log's", "a newer format's", "a damaged"])
    func aFileThatIsNotOursIsRefused(what: String) throws {
        let (folder, _) = try threeCommits(), (other, _) = try threeCommits()
        let name = LogFormat.segmentName(Position(4)), path = folder.path + "/" + name
        var bytes = try (what == "another log's" ? other : folder).bytes(folder.segments[0])
        switch what {
        case "nonsense": bytes = [UInt8](repeating: 7, count: 5000)
        case "a damaged": bytes[40] ^= 1
        default:
            // With a checksum that is right: a header as another program would have written it.
            if what == "a newer format's" { bytes[8] = 2 } else { bytes[40] = 4 }
            bytes.withUnsafeMutableBytes { raw in
                let crc = LogFormat.crc(UnsafeRawBufferPointer(rebasing: raw[..<4092]))
                raw.store(little: crc, 4092)
            }
        }
        _ = FileManager.default.createFile(atPath: path, contents: Data(bytes))
        let error = #expect(throws: LogError.self) { try FileLog.open(directory: folder.path, options: options()) }
        #expect(error?.code == (what == "a damaged" ? .corrupt : .foreign))
        // Which of two logs is the strange one nobody can tell: the newest segment decides, and the other is named.
        #expect(error?.description.contains(what == "another log's" ? folder.segments[0] : name) == true)
    }

    @Test func anOldSegmentWithADamagedHeaderStopsReadersNotTheWriter() throws {
        let folder = TemporaryDirectory()
        let log = try FileLog.open(directory: folder.path, options: options(segmentBytes: 16 << 10))
        for index in 0..<7 { try log.add("\(index)") }
        log.close()
        try folder.patch(folder.segments[0], at: 100, [1])
        let again = try FileLog.open(directory: folder.path, options: options(segmentBytes: 16 << 10))
        #expect(again.report.corrupt.map(\.positions) == [Position(0)..<Position(3)])
        #expect(try again.add("7").lowerBound == Position(7))
        let error = #expect(throws: LogError.self) { try payloads(again) }
        #expect(error?.code == .corrupt)
        #expect(try payloads(again, from: 3) == ["3", "4", "5", "6", "7"])
        #expect(try payloads(ReadOnlyLog(directory: folder.path), from: 3).count == 5)
        again.close()
    }

    @Test func aLogWhoseSegmentsAreGoneIsNoNewLog() throws {
        let (folder, _) = try threeCommits()
        try FileManager.default.removeItem(atPath: folder.path + "/" + folder.segments[0])
        let error = #expect(throws: LogError.self) { try FileLog.open(directory: folder.path, options: options()) }
        #expect(error?.code == .corrupt)
    }

    @Test func aRollInterruptedAnywhereIsTakenUp() throws {
        let (folder, _) = try threeCommits()
        _ = FileManager.default.createFile(atPath: folder.path + "/next.tmp", contents: Data(count: 5000))
        let log = try FileLog.open(directory: folder.path, options: options())
        #expect(try payloads(log) == ["a", "b", "c", "d"])
        log.close()
        #expect(!FileManager.default.fileExists(atPath: folder.path + "/next.tmp"))
        // A new segment without a block yet: what lies before it was durable.
        let page = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 4096)
        defer { page.deallocate() }
        SegmentHeader(
            logID: log.report.logID, salt: 1, base: Position(4), created: Timestamp(microseconds: 0),
            segmentBytes: 65536
        ).encode(into: page)
        let name = LogFormat.segmentName(Position(4))
        _ = FileManager.default.createFile(atPath: folder.path + "/" + name, contents: Data(page) + Data(count: 61_440))
        let again = try FileLog.open(directory: folder.path, options: options())
        #expect(again.report.corrupt.isEmpty && again.durableCount == 4)
        #expect(try again.add("e").lowerBound == Position(4))
        #expect(try payloads(again) == ["a", "b", "c", "d", "e"])
        again.close()
    }
}
