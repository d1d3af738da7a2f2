import EventModel
import Foundation
import Primitives
import Projecting
import Projections
import Testing
@testable import EventLog
@testable import Simulation

/// The recovery table's rows about whole files, and about bits.
@Suite struct DamagedFilesTests {
    private static let folder = LogBench.directory

    /// What opening must do, and what must still be readable, after something happened to the files.
    struct Row: Sendable, CustomTestStringConvertible {
        enum Opening: Sendable, Equatable {
            /// Opens, with so much as is missing in its report or found by readers.
            case opens
            case refuses(LogError.Code)
        }
        let name: String
        let opening: Opening
        /// Segments by their place in the log whose events cannot be read.
        let lost: Set<Int>
        let change: @Sendable (SimulatedDisk, [String]) -> Void
        var testDescription: String { name }
    }

    private static func path(_ name: String) -> String { folder + "/" + name }

    static let rows: [Row] = [
        Row(name: "the first is missing", opening: .opens, lost: [0]) { disk, names in
            disk.place(path(names[0]), nil)
        },
        Row(name: "one in the middle is missing", opening: .opens, lost: [1]) { disk, names in
            disk.place(path(names[1]), nil)
        },
        Row(name: "the first is empty", opening: .opens, lost: [0]) { disk, names in disk.place(path(names[0]), []) },
        Row(name: "one in the middle has 10 bytes", opening: .opens, lost: [1]) { disk, names in
            disk.place(path(names[1]), Array(disk.contents(path(names[1]))![..<10]))
        },
        Row(name: "the last is empty", opening: .refuses(.corrupt), lost: [3]) { disk, names in
            disk.place(path(names[3]), [])
        },
        Row(name: "the last has 10 bytes", opening: .refuses(.corrupt), lost: [3]) { disk, names in
            disk.place(path(names[3]), Array(disk.contents(path(names[3]))![..<10]))
        },
        Row(name: "one in the middle has a flipped bit in its magic", opening: .opens, lost: [1]) { disk, names in
            disk.flip(path(names[1]), bit: 3)
        },
        Row(name: "one in the middle is no segment", opening: .refuses(.foreign), lost: [1]) { disk, names in
            disk.place(path(names[1]), [UInt8](repeating: 0x20, count: 8192))
        },
        Row(name: "the header of one in the middle is zero", opening: .opens, lost: [1]) { disk, names in
            let bytes = disk.contents(path(names[1]))!
            disk.place(path(names[1]), [UInt8](repeating: 0, count: 4096) + bytes[4096...])
        },
        Row(name: "one has another's name too", opening: .refuses(.foreign), lost: []) { disk, names in
            disk.place(path("00000000000000000001.seg"), disk.contents(path(names[1])))
        },
        Row(name: "two have each other's names", opening: .refuses(.foreign), lost: [0, 1]) { disk, names in
            let (a, b) = (disk.contents(path(names[0])), disk.contents(path(names[1])))
            disk.place(path(names[0]), b)
            disk.place(path(names[1]), a)
        },
        Row(name: "one is of another log", opening: .refuses(.foreign), lost: [1]) { disk, names in
            let other = SimulatedDisk(seed: 99)
            guard let bench = try? LogBench(other, segmentBytes: 16 << 10) else { return }
            for index in 0..<9 { bench.append(["other \(index)"]) }
            disk.place(path(names[1]), other.contents(path(names[1])))
        },
        Row(name: "one in the middle is cut in its blocks", opening: .opens, lost: [1]) { disk, names in
            disk.place(path(names[1]), Array(disk.contents(path(names[1]))![..<4096]))
        },
    ]

    /// Four segments of three events each.
    private func fourSegments() throws -> SimulatedDisk {
        let disk = SimulatedDisk(seed: 7)
        let bench = try LogBench(disk, segmentBytes: 16 << 10)
        for index in 0..<12 { bench.append(["event \(index)"]) }
        #expect(bench.segments.count == 4)
        bench.kill()
        return disk
    }

    private func expected(_ index: Int) -> [String] { (0..<3).map { "event \(index * 3 + $0)" } }

    @Test(arguments: rows) func aFileThatIsNotAsItShouldBe(_ row: Row) throws {
        let disk = try fourSegments()
        let names = disk.names(in: Self.folder).filter { $0.hasSuffix(".seg") }
        let originals = names.map { disk.contents(Self.path($0)) }
        row.change(disk, names)
        let before = names.map { disk.contents(Self.path($0)) }
        switch row.opening {
        case .refuses(let code):
            let error = #expect(throws: LogError.self) { _ = try LogBench(disk, segmentBytes: 16 << 10) }
            #expect(error?.code == code, "\(error.map { "\($0)" } ?? "")")
            #expect((error?.description.contains(Self.folder)) == true, "says which file")
            #expect(names.map { disk.contents(Self.path($0)) } == before, "nothing was changed")
        case .opens:
            let bench = try LogBench(disk, segmentBytes: 16 << 10)
            #expect(bench.log.durableCount == 12, "no position is given away twice")
            for index in 0..<4 {
                let found = try? first(3, of: bench.log, from: UInt64(index * 3))
                #expect(found == (row.lost.contains(index) ? nil : expected(index)), "segment \(index)")
            }
            guard case .success(let positions) = bench.append(["after"]) else {
                Issue.record("appending goes on")
                return
            }
            #expect(positions.lowerBound == Position(12))
            for index in 0..<3 { #expect(disk.contents(Self.path(names[index])) == before[index], "not touched") }
            bench.kill()
        }
        // What a person puts back is as it was.
        if row.name.hasPrefix("one has another's name") { disk.place(Self.path("00000000000000000001.seg"), nil) }
        for (name, bytes) in zip(names, originals) where disk.contents(Self.path(name)) != bytes {
            if name != names[3] || row.lost.contains(3) { disk.place(Self.path(name), bytes) }
        }
        let restored = try LogBench(disk, segmentBytes: 16 << 10)
        #expect(try Array(restored.payloads().prefix(12)) == (0..<12).map { "event \($0)" })
    }

    private func first(_ count: Int, of log: any LogSource, from: UInt64) throws -> [String] {
        let reader = try log.reader(from: Position(from))
        let block = EventBlock()
        var result: [String] = []
        while result.count < count, try reader.read(into: block, atLeast: 1) {
            block.forEach { record, position in
                if position.rawValue >= from { result.append(String(decoding: record.payload, as: UTF8.self)) }
            }
        }
        return Array(result.prefix(count))
    }

    /// Another process, with nobody writing: it must say what is wrong, not show less in silence.
    @Test func aReaderFromOutsideSaysWhatIsMissing() throws {
        for length in 0...10 {
            let disk = try fourSegments()
            let names = disk.names(in: Self.folder).filter { $0.hasSuffix(".seg") }
            disk.place(Self.path(names[3]), Array(disk.contents(Self.path(names[3]))![..<length]))
            let error = #expect(throws: LogError.self) {
                _ = try ReadOnlyLog(directory: Self.folder, fileSystem: disk.process(isExposed: false))
            }
            #expect(error?.code == .corrupt && error?.description.contains(names[3]) == true)
        }
        let disk = try fourSegments()
        let names = disk.names(in: Self.folder).filter { $0.hasSuffix(".seg") }
        var log = try ReadOnlyLog(directory: Self.folder, fileSystem: disk.process(isExposed: false))
        #expect(try log.missingBeginning() == nil)
        disk.place(Self.path(names[0]), nil)
        log = try ReadOnlyLog(directory: Self.folder, fileSystem: disk.process(isExposed: false))
        #expect(try log.missingBeginning() == Position(0)..<Position(3))
        let line =
            #"{"archived":true,"base":0,"bytes":1,"decisions":0,"end":3,"first_time":"","last_time":"","#
            + #""name":"\#(names[0])"}"#
        disk.place(Self.folder + "/removed", Array((line + "\n").utf8))
        #expect(try log.missingBeginning() == nil, "removed on purpose")
    }

    @Test func aProjectorAheadOfTheLogIsRefused() throws {
        let disk = try fourSegments()
        let bench = try LogBench(disk, segmentBytes: 16 << 10)
        let database = ModelDatabase(random: SeededRandom(seed: 1))
        let entry = try #require(Catalog.entry(named: "dead_letters"))
        var pass = try ProjectionPass(
            source: bench.log, fold: entry.makeFold(.all), store: ModelStore(database), options: ProjectorOptions())
        while try pass.step() {}
        #expect(database.checkpoint(of: entry.descriptor) == Position(11))
        // The log comes back from a backup that is older than the tables.
        let older = try LogBench(SimulatedDisk(seed: 1), segmentBytes: 16 << 10)
        older.append(["event 0"])
        let error = #expect(throws: ProjectorError.self) {
            _ = try ProjectionPass(
                source: older.log, fold: entry.makeFold(.all), store: ModelStore(database), options: ProjectorOptions())
        }
        #expect(error.map { "\($0)" }?.contains("past the log's end") == true)
        #expect(database.checkpoint(of: entry.descriptor) == Position(11), "nothing was changed")
    }

    // MARK: A sealed segment of 1 MiB

    /// One sealed segment, and a second so that it is not the last. Returns where its blocks begin.
    private func sealed(seed: UInt64 = 11) throws
        -> (disk: SimulatedDisk, path: String, blocks: [(base: UInt64, first: String)])
    {
        let disk = SimulatedDisk(seed: seed)
        let bench = try LogBench(disk, segmentBytes: 1 << 20, blockBytes: 64 << 10, isKeeping: true)
        var random = SeededRandom(seed: seed), blocks: [(base: UInt64, first: String)] = []
        while bench.segments.count < 2 {
            let texts = (0..<17).map { _ in LogBench.text(4096, &random) }
            guard case .success(let positions) = bench.append(texts) else { break }
            blocks.append((positions.lowerBound.rawValue, texts[0]))
        }
        bench.threads.stepUntilIdle()
        bench.append(["the last"])
        bench.threads.stepUntilIdle()
        let path = LogBench.directory + "/" + bench.segments[0]
        let end = try #require(LogFormat.segmentBase(name: bench.segments[1]))
        bench.log.close()
        let segment = try Segment.open(
            bench.segments[0], in: LogBench.directory, logID: nil, fileSystem: disk.process(isExposed: false))
        #expect(segment.trailer != nil, "it is sealed")
        return (disk, path, blocks.filter { $0.base < end.rawValue })
    }

    /// Every bit under `make soak`; here one in about 30,000, and some of each page's kind.
    @Test func aFlippedBitIsFoundAndCostsOneBlock() throws {
        let (disk, path, blocks) = try sealed()
        let bytes = try #require(disk.contents(path))
        let stride = WorldTests.isSoak ? 1 : 30_011
        var bits = Array(Swift.stride(from: 3, to: bytes.count * 8, by: stride))
        bits += [0, 32 * 8, 40 * 8, 500 * 8, 4096 * 8, 4100 * 8, 4120 * 8, 4168 * 8, bytes.count * 8 - 1]
        var inBlocks = 0
        for bit in bits {
            let mend = disk.flip(path, bit: bit)
            defer { mend() }
            let log = try ReadOnlyLog(directory: LogBench.directory, fileSystem: disk.process(isExposed: false))
            var lost = 0
            for block in blocks {
                let found = try? first(1, of: log, from: block.base)
                if found == nil { lost += 1 } else { #expect(found == [block.first], "bit \(bit)") }
            }
            let isHeader = bit < 4096 * 8
            #expect(lost <= (isHeader ? blocks.count : 1), "bit \(bit): \(lost) blocks are lost")
            inBlocks += lost == 1 ? 1 : 0
            var options = LogVerifier.Options()
            options.deep = false
            let report = try log.verify(nil, options: options)
            #expect(lost == 0 || !report.damages.isEmpty, "bit \(bit) is not found")
            #expect(disk.contents(path)?.count == bytes.count, "nothing is cut off")
        }
        #expect(inBlocks > bits.count / 2)
        #expect(disk.contents(path) == bytes)
    }

    /// A disk that lost a write and says nothing: zeroes, or what another segment had in that place, blocks of the same
    /// log with checksums that are right. Every sector and page under `make soak`.
    @Test func aStaleSectorIsFoundAndCostsOneBlock() throws {
        let (disk, path, blocks) = try sealed()
        let bytes = try #require(disk.contents(path))
        let (other, otherPath, _) = try sealed(seed: 12)
        let foreign = try #require(other.contents(otherPath))
        let sectorCount = bytes.count / SimulatedDisk.sectorBytes
        for width in [1, 8] {
            let step = WorldTests.isSoak ? width : 8 * 29 + width
            for first in Swift.stride(from: 8, to: sectorCount - width, by: step) {
                let start = first * SimulatedDisk.sectorBytes
                for old in [[], Array(foreign.dropFirst(start).prefix(width * SimulatedDisk.sectorBytes))] {
                    let mend = disk.makeStale(path, sectors: first..<(first + width), was: old)
                    defer { mend() }
                    let log = try ReadOnlyLog(
                        directory: LogBench.directory, fileSystem: disk.process(isExposed: false))
                    var lost = 0
                    for block in blocks {
                        let found = try? self.first(1, of: log, from: block.base)
                        if found == nil { lost += 1 } else { #expect(found == [block.first], "sector \(first)") }
                    }
                    #expect(lost <= (width == 1 ? 1 : 2), "sector \(first): \(lost) blocks are lost")
                    let report = try log.verify()
                    let isChanged = disk.contents(path) != bytes
                    #expect(!isChanged || !report.damages.isEmpty, "sectors \(first) + \(width) are not found")
                    #expect(disk.contents(path)?.count == bytes.count, "nothing is cut off")
                }
            }
        }
        #expect(disk.contents(path) == bytes)
    }

    /// A writer that opens over it, closes, and the mended file: the same bytes, all events.
    @Test func aWriterLeavesADamagedSegmentAsItIs() throws {
        let (disk, path, blocks) = try sealed()
        let bytes = try #require(disk.contents(path))
        for bit in [300 * 8, 5000 * 8 + 1, 400_000 * 8 + 3, (bytes.count - 100) * 8, (bytes.count - 8000) * 8] {
            let crashed = disk.copy(seed: 3)
            let mend = crashed.flip(path, bit: bit)
            let damaged = try #require(crashed.contents(path))
            let bench = try LogBench(crashed, segmentBytes: 1 << 20, blockBytes: 64 << 10, isKeeping: true)
            bench.append(["new"])
            bench.threads.stepUntilIdle()
            let now = try #require(crashed.contents(path))
            let blocksEnd = min(bytes.count, 4096 + blocks.count * 69_632)
            #expect(now.prefix(blocksEnd) == damaged.prefix(blocksEnd), "bit \(bit)")
            bench.log.close()
            mend()
            let again = try LogBench(crashed, segmentBytes: 1 << 20, blockBytes: 64 << 10)
            for block in blocks { #expect(try first(1, of: again.log, from: block.base) == [block.first]) }
        }
    }

    /// What sealing had written when the machine stopped: any of it. The blocks say all that the footer says.
    @Test func aTornFooterIsMadeAgain() throws {
        let (disk, path, blocks) = try sealed()
        let bytes = try #require(disk.contents(path))
        var footerPages = 0
        for cut in Swift.stride(from: bytes.count - 1, to: bytes.count - 9000, by: -731) {
            for isZeroed in [false, true] {
                let crashed = disk.copy(seed: 3)
                let tail = isZeroed ? [UInt8](repeating: 0, count: bytes.count - cut) : []
                crashed.place(path, Array(bytes[..<cut]) + tail)
                let bench = try LogBench(crashed, segmentBytes: 1 << 20, blockBytes: 64 << 10, isKeeping: true)
                bench.threads.stepUntilIdle()
                for block in [blocks[0], blocks[blocks.count - 1]] {
                    let found = try? first(1, of: bench.log, from: block.base)
                    // A cut into the last block loses that, and nothing else.
                    #expect(
                        found == [block.first] || (found == nil && block.base == blocks.last?.base && cut < 4096),
                        "cut at \(cut) of \(bytes.count)")
                }
                let again = try Segment.open(
                    String(path.split(separator: "/").last!), in: LogBench.directory, logID: nil,
                    fileSystem: crashed.process(isExposed: false))
                #expect(again.trailer != nil, "cut at \(cut) of \(bytes.count): not sealed again")
                #expect(bench.log.report.corrupt.isEmpty)
                footerPages += 1
            }
        }
        #expect(footerPages > 10)
    }
}
