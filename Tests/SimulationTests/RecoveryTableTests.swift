import EventModel
import Foundation
import Primitives
import Projecting
import Projections
import Testing
@testable import EventLog
@testable import Simulation

/// The recovery table: what a log must be after each thing that can befall its files.
@Suite struct RecoveryTableTests {
    private static let name = LogBench.directory + "/00000000000000000000.seg"

    /// A disk on which "a" and "b" are durable and `last` is written and not synced, when the machine stops.
    private func interrupted(_ last: [String]) throws -> (disk: SimulatedDisk, sectors: [Int]) {
        for seed in 1...200 as ClosedRange<UInt64> {
            let bench = try LogBench(SimulatedDisk(seed: seed))
            bench.append(["a"])
            bench.append(["b"])
            bench.disk.plan(.killed, of: bench.view, after: 2)
            bench.append(last)
            guard !bench.disk.isAlive(bench.view) else { continue }
            bench.kill()
            let sectors = bench.disk.dirtySectors(Self.name)
            // The write is done, the sync is not.
            if !sectors.isEmpty, sectors.count % 8 == 0 { return (bench.disk, sectors) }
        }
        throw Violation("no seed stops between write and sync")
    }

    /// After any subset of the last commit's sectors: it is there whole or not at all, and what was before always.
    private func check(_ disk: SimulatedDisk, _ last: [String], _ what: String) throws -> Bool {
        let bench = try LogBench(disk)
        let found = try bench.payloads()
        #expect(bench.log.report.corrupt.isEmpty, "\(what)")
        #expect(found == ["a", "b"] || found == ["a", "b"] + last, "\(what): \(found.map { $0.prefix(9) })")
        guard case .success(let positions) = bench.append(["next"]) else {
            Issue.record("\(what): no append")
            return false
        }
        #expect(positions.lowerBound.rawValue == UInt64(found.count))
        bench.cutPower()
        let again = try LogBench(disk)
        #expect(try again.payloads() == found + ["next"], "\(what)")
        #expect(again.log.report.torn == nil && again.log.report.corrupt.isEmpty, "\(what)")
        return found.count > 2
    }

    /// One page: all 256 subsets of its sectors. More: seeded samples, and under `make soak` all 65,536 of two pages.
    @Test(arguments: [(1, 40), (1, 3000), (3, 2000), (40, 600)])
    func aTornTailOfAnySectorsIsWholeOrNotAtAll(count: Int, bytes: Int) throws {
        var random = SeededRandom(seed: UInt64(bytes))
        let last = (0..<count).map { _ in LogBench.text(bytes, &random) }
        let (disk, sectors) = try interrupted(last)
        let isExhaustive = sectors.count <= (WorldTests.isSoak ? 16 : 8)
        let subsets: [UInt64] =
            isExhaustive
            ? (0..<(1 << UInt64(sectors.count))).map { $0 }
            : (0..<(WorldTests.isSoak ? 20_000 : 150)).map { _ in random.next() } + [0, .max]
        var wholes = 0
        for subset in subsets {
            let crashed = disk.copy(seed: subset)
            crashed.cutPower()
            crashed.powerUp { path, sector in
                guard path == Self.name, let index = sectors.firstIndex(of: sector) else { return true }
                return subset >> UInt64(index % 64) & 1 == 1
            }
            if try check(crashed, last, "subset \(String(subset, radix: 2)) of \(sectors)") { wholes += 1 }
        }
        #expect(wholes > 0 && wholes < subsets.count, "both occur")
    }

    /// The same, cut at every byte, with zeroes behind it or the file's end.
    @Test(arguments: [false, true]) func aTornTailOfAnyLengthIsWholeOrNotAtAll(isCut: Bool) throws {
        let last = ["the last one", "and its neighbour"]
        let (disk, sectors) = try interrupted(last)
        disk.cutPower()
        disk.powerUp { _, _ in true }
        let whole = try #require(disk.contents(Self.name))
        let start = sectors[0] * SimulatedDisk.sectorBytes
        var wholes = 0
        let used = (start..<whole.count).last { whole[$0] != 0 }! + 1 - start
        for length in Array(0...(used + 2)) + Array(stride(from: used, through: 4096, by: 511)) {
            let crashed = disk.copy(seed: 1)
            var bytes = Array(whole[..<(start + length)])
            if !isCut { bytes += [UInt8](repeating: 0, count: whole.count - bytes.count) }
            crashed.place(Self.name, bytes)
            crashed.place(LogBench.directory + "/durable", nil)
            if try check(crashed, last, "\(length) bytes of \(used)") {
                #expect(length >= used)
                wholes += 1
            }
        }
        #expect(wholes > 0)
    }

    // MARK: What a failed fsync leaves

    @Test func whatAFailedFsyncLeftIsDurableBeforeItIsBelieved() throws {
        for seed in 1...20 as ClosedRange<UInt64> {
            let disk = SimulatedDisk(seed: seed)
            var bench = try LogBench(disk)
            bench.append(["a"])
            disk.setFaults(failures: [.init(operation: .synchronize, code: EIO)])
            guard case .failure(.failed) = bench.append(["never acknowledged"]) else {
                Issue.record("an fsync that fails must be said")
                return
            }
            bench.kill()
            bench = try LogBench(disk)
            // The cache shows it: whoever reads it, and whatever is built on it, must find it again.
            let seen = try bench.payloads()
            bench.append(["b"])
            bench.cutPower()
            bench = try LogBench(disk)
            #expect(try bench.payloads() == seen + ["b"])
            #expect(bench.log.report.corrupt.isEmpty)
        }
    }

    /// The same where live segments are deleted because their events stand in the packed one.
    @Test func whatAFailedFsyncLeftInAPackedSegmentIsDurableBeforeLiveOnesAreDeleted() throws {
        let without = try Plant.unprovenTailKept.planted { try lossesAfterAFailedPacking() }
        #expect(without.tried > 5 && without.lost > 0, "the world in which it matters occurs")
        let with = try lossesAfterAFailedPacking()
        #expect(with.tried > 5 && with.lost == 0)
    }

    private func lossesAfterAFailedPacking() throws -> (tried: Int, lost: Int) {
        var tried = 0, lost = 0
        for seed in 1...40 as ClosedRange<UInt64> {
            let disk = SimulatedDisk(seed: seed)
            var bench = try LogBench(disk, segmentBytes: 16 << 10, isKeeping: true)
            var expected: [String] = []
            func append(_ count: Int) {
                for _ in 0..<count {
                    expected.append("\(expected.count)")
                    bench.append([expected[expected.count - 1]])
                }
            }
            append(4)
            bench.threads.stepUntilIdle()
            append(4)
            // The compactor's sync fails, and the process dies before it can take anything back.
            disk.setFaults(failures: [.init(operation: .synchronize, suffix: "pack.tmp", code: EIO)])
            guard let maintainer = bench.threads.names.firstIndex(of: "log-keeper") else { break }
            disk.plan(.killed, of: bench.view, after: 4 + Int(seed % 16))
            for _ in 0..<3 { bench.threads.step(maintainer) }
            guard !disk.isAlive(bench.view) else { continue }
            tried += 1
            bench.kill()
            disk.setFaults()
            bench = try LogBench(disk, segmentBytes: 16 << 10)
            #expect(try bench.payloads() == expected)
            bench.cutPower()
            if let again = try? LogBench(disk, segmentBytes: 16 << 10), (try? again.payloads()) == expected { continue }
            lost += 1
        }
        return (tried, lost)
    }
}
