import EventModel
import Evidence
import Foundation
import Primitives
import Testing
@testable import EventLog

/// A signer for whatever log it is asked for, with one key.
struct TestSigner {
    private let pem = try! SigningKey.generate(name: "any").pem()

    func key(_ id: LogID) -> SigningKey {
        try! SigningKey(pem: pem, name: Checkpoint.origin(logID: id.description))
    }

    func options(segmentBytes: Int = 64 << 10) -> FileLogOptions {
        var options = EventLogTests.options(segmentBytes: segmentBytes)
        options.signer = { id in key(id) }
        return options
    }

    func checkpoint(of directory: TemporaryDirectory, _ id: LogID) throws -> Checkpoint {
        try SignedNote(parsing: directory.bytes("checkpoint")).checkpoint(verifiedBy: key(id).verifier)
    }
}

/// Leaves of all that can be read.
func leaves(_ source: any LogSource) throws -> [TreeHash] {
    let reader = LeafReader(try source.reader(from: Position(0)), from: Position(0))
    var all: [TreeHash] = []
    while true {
        let (lost, leaves) = try reader.read()
        if leaves.isEmpty { return all }
        all += (0..<lost).map { LeafHasher.lostLeaf(Position(UInt64(all.count) + $0)) } + leaves
    }
}

func root(_ leaves: some Collection<TreeHash>) -> TreeHash {
    var range = CompactRange()
    for leaf in leaves { range.append(leaf: leaf) }
    return range.root
}

extension FileLog {
    func addMany(_ count: Int, each size: Int = 20) throws {
        for start in stride(from: 0, to: count, by: 100) {
            let payloads = (start..<min(start + 100, count)).map { "\($0) " + String(repeating: "x", count: size) }
            var records = batch(payloads)
            _ = try append(&records)
        }
    }
}

struct TreeTests {
    private let directory = TemporaryDirectory()
    private let signer = TestSigner()

    @Test func aCleanCloseSignsEverything() throws {
        let log = try FileLog.open(directory: directory.path, options: signer.options())
        try log.addMany(1000)
        log.close()
        #expect(log.treeStatus?.state == .current && log.treeStatus?.size == 1000)
        let checkpoint = try signer.checkpoint(of: directory, log.report.logID)
        #expect(checkpoint.origin == "refold/\(log.report.logID)" && checkpoint.size == 1000)
        #expect(checkpoint.root == root(try leaves(try ReadOnlyLog(directory: directory.path))))
        #expect(log.checkpoint?.bytes == (try directory.bytes("checkpoint")))
    }

    @Test func aReopenedLogGoesOnConsistently() throws {
        var sizes: [Checkpoint] = [], id: LogID?
        for count in [1, 300, 255, 1024, 3] {
            let log = try FileLog.open(directory: directory.path, options: signer.options())
            try log.addMany(count)
            log.close()
            id = log.report.logID
            sizes.append(try signer.checkpoint(of: directory, log.report.logID))
        }
        #expect(sizes.map(\.size) == [1, 301, 556, 1580, 1583])
        let log = try ReadOnlyLog(directory: directory.path)
        let tree = try log.tree()
        let all = try leaves(log)
        for (old, new) in zip(sizes, sizes.dropFirst()) {
            let path = try tree.consistency(from: old.size, to: new.size)
            #expect(
                TreeProofs.isConsistent(
                    first: old.size, firstRoot: old.root, second: new.size, secondRoot: new.root, path: path))
            for position in [0, old.size - 1, old.size, new.size - 1] {
                let path = try tree.inclusion(of: Position(position), size: new.size)
                #expect(
                    TreeProofs.root(
                        leaf: all[Int(position)], index: position, size: new.size, path: path) == new.root)
            }
        }
        #expect(id == log.logID)
    }

    @Test func checkpointsComeEverySecondAndAreStoredBeforeTheyAreTold() throws {
        let told = Told()
        var options = signer.options()
        let path = directory.path + "/checkpoint"
        options.onCheckpoint = { note in
            told.add(note.bytes, stored: FileManager.default.contents(atPath: path).map(Array.init))
        }
        let clock = TestClock()
        options.clock = clock
        let log = try FileLog.open(directory: directory.path, options: options)
        try log.add("a")
        #expect(told.waitFor(1))
        try log.add("b")
        // The clock stands: no second has passed.
        for _ in 0..<500 where log.treeStatus?.size != 2 { usleep(10_000) }
        #expect(log.treeStatus?.size == 2)
        #expect(told.notes.count == 1)
        clock.advance(seconds: 1.1)
        try log.add("c")
        #expect(told.waitFor(2))
        log.close()
        #expect(told.sizes == [1, 3])
        #expect(told.allWereStored)
    }

    @Test(arguments: [(FaultyFileSystem.Operation.rename, EIO), (.rename, ENOSPC), (.write, ENOSPC), (.open, EMFILE)])
    func aCheckpointThatCannotBeKeptIsToldNobodyAndTriedAgain(
        operation: FaultyFileSystem.Operation, code: Int32
    ) throws {
        let told = Told(), disk = FaultyFileSystem(), clock = TestClock()
        var options = signer.options(segmentBytes: 1 << 20)
        options.onCheckpoint = { told.add($0.bytes, stored: nil) }
        (options.fileSystem, options.clock) = (disk, clock)
        let log = try FileLog.open(directory: directory.path, options: options)
        try log.add("a")
        #expect(told.waitFor(1))
        try log.add("b")
        clock.advance(seconds: 1.1)
        disk.set(.init(operation: operation, code: code))
        // The error is shown a moment before the tree is current again.
        func isCurrentAgain() -> Bool {
            log.treeStatus.map { $0.lastError != nil && $0.state == .current } ?? false
        }
        for _ in 0..<500 where !isCurrentAgain() {
            usleep(10_000)
            clock.advance(seconds: 0.01)
        }
        #expect(isCurrentAgain())
        #expect(try signer.checkpoint(of: directory, log.report.logID).size == 1)
        #expect(told.notes.count == 1)
        disk.set(nil)
        try log.add("c")
        for _ in 0..<500 where log.treeStatus?.checkpointSize != 3 {
            usleep(10_000)
            clock.advance(seconds: 0.05)
        }
        #expect(log.treeStatus?.lastError == nil && told.sizes == [1, 3])
        log.close()
    }

    @Test func aTreeThatDisagreesWithTheStoredCheckpointIsNotSigned() throws {
        let log = try FileLog.open(directory: directory.path, options: signer.options())
        try log.addMany(300)
        log.close()
        let id = log.report.logID, key = signer.key(id)
        let honest = try signer.checkpoint(of: directory, id)
        // What another history of the same log would have left: other root, larger, another key, garbage.
        let other = SHA256.digest([1])
        let stranger = try SigningKey.generate(name: key.verifier.name)
        for (what, note) in [
            ("another root", try Checkpoint(origin: honest.origin, size: 200, root: other).signed(with: key).bytes),
            ("another key", try honest.signed(with: stranger).bytes), ("garbage", Array("hello\n".utf8)),
        ] {
            try Data(note).write(to: URL(fileURLWithPath: directory.path + "/checkpoint"))
            let again = try FileLog.open(directory: directory.path, options: signer.options())
            try again.add("more")
            again.close()
            guard case .refused = again.treeStatus?.state else {
                Issue.record("\(what): \(String(describing: again.treeStatus))")
                continue
            }
            #expect(try directory.bytes("checkpoint") == note, "\(what): it was overwritten")
            #expect(again.checkpoint == nil)
        }
    }

    @Test func aLogThatWasRolledBackIsNotSigned() throws {
        let options = signer.options()
        let log = try FileLog.open(directory: directory.path, options: options)
        try log.addMany(300)
        log.close()
        let older = try directory.copy()
        let again = try FileLog.open(directory: directory.path, options: options)
        try again.addMany(300)
        again.close()
        let newest = try directory.bytes("checkpoint")
        // Yesterday's segments under today's checkpoint.
        try Data(newest).write(to: URL(fileURLWithPath: older.path + "/checkpoint"))
        let back = try FileLog.open(directory: older.path, options: options)
        #expect(back.report.corrupt.map(\.positions) == [Position(300)..<Position(600)])
        try back.addMany(10)
        back.close()
        #expect(try older.bytes("checkpoint") == newest)
        guard case .stopped = back.treeStatus?.state else {
            Issue.record("\(String(describing: back.treeStatus))")
            return
        }
    }

    /// The file `durable` is not synced: after a power failure only the checkpoint may say what was durable.
    @Test func whatWasSignedForIsNotTakenForATornWrite() throws {
        let log = try FileLog.open(directory: directory.path, options: signer.options())
        try log.add("one")
        try log.add("two")
        log.close()
        try FileManager.default.removeItem(atPath: directory.path + "/durable")
        let name = try #require(directory.segments.last)
        try directory.patch(name, at: 2 * 4096 + 80, [0xFF])
        let unsigned = try directory.copy()
        let torn = try FileLog.open(directory: unsigned.path, options: options())
        #expect(torn.report.torn != nil && torn.report.durableCount == 1)
        torn.close()
        let corrupt = try FileLog.open(directory: directory.path, options: signer.options())
        #expect(corrupt.report.torn == nil)
        #expect(corrupt.report.corrupt.map(\.positions) == [Position(1)..<Position(2)])
        corrupt.close()
    }

    @Test func aKeyThatCannotBeReadKeepsNobodyFromWriting() throws {
        var options = options()
        options.signer = { (_) throws(LogError) in throw LogError(.system, "log.key is not to be read") }
        let log = try FileLog.open(directory: directory.path, options: options)
        try log.add("one")
        log.close()
        #expect(log.treeStatus?.state == .refused("log.key is not to be read"))
        #expect(log.treeStatus?.size == 1)
    }
}

struct TreeSectionTests {
    private let all = (0..<70_000).map { SHA256.digest(withUnsafeBytes(of: $0) { Array($0) }) }

    private func section(_ base: Int, _ end: Int) -> TreeSection {
        var before = CompactRange()
        for leaf in all[..<base] { before.append(leaf: leaf) }
        var grower = TreeGrower(behind: before)
        for leaf in all[base..<end] { grower.append(leaf) }
        return TreeSection(
            before: before, through: grower.tree, rows: grower.rows(from: UInt64(base), to: UInt64(end))!,
            checkpoint: Array("note".utf8))
    }

    @Test func rowsAndRangesAreThoseOfTheLeaves() throws {
        for (base, end) in [(0, 1), (0, 256), (0, 255), (3, 1000), (256, 512), (300, 65_536), (500, 70_000), (7, 7)] {
            let section = section(base, end)
            #expect(section.root == root(all[..<end]))
            #expect(section.before.root == root(all[..<base]))
            for level in [8, 16] {
                for index in 0..<(70_000 >> level) {
                    let last = (index + 1) << level
                    let known = section.node(level: level, index: UInt64(index))
                    #expect((known != nil) == (last > base && last <= end))
                    if let known { #expect(known == root(all[(index << level)..<last])) }
                }
            }
            let bytes = section.encoded()
            bytes.withUnsafeBytes { #expect(TreeSection($0) == section) }
        }
    }

    @Test func bytesThatAreNoSectionAreRefused() {
        let bytes = section(300, 5000).encoded()
        for count in 0..<bytes.count {
            bytes[..<count].withUnsafeBytes { #expect(TreeSection($0) == nil) }
        }
        (bytes + [0]).withUnsafeBytes { #expect(TreeSection($0) == nil) }
        for offset in 0..<TreeSection.headerBytes {
            for value: UInt8 in [0xFF, 0x80, 0x01] {
                var changed = bytes
                changed[offset] ^= value
                // No trap and no memory beyond the bytes, whatever the lengths say.
                changed.withUnsafeBytes { _ = TreeSection($0) }
            }
        }
    }

    @Test func aGrowerGoesOnBehindAnyTreeAndForgetsWhatIsSealed() {
        for begin in [0, 1, 255, 256, 300, 511, 513] {
            var before = CompactRange()
            for leaf in all[..<begin] { before.append(leaf: leaf) }
            var grower = TreeGrower(behind: before)
            for leaf in all[begin..<2000] { grower.append(leaf) }
            #expect(grower.size == 2000 && grower.tree.root == root(all[..<2000]))
            grower.drop(before: 1100)
            #expect(grower.rows(from: 900, to: 2000) == nil)
            let tiles = (4..<7).map { root(all[($0 * 256)..<(($0 + 1) * 256)]) }
            #expect(grower.rows(from: 1100, to: 2000)?.first == tiles)
            var tree = CompactRange()
            for leaf in all[..<3000] { tree.append(leaf: leaf) }
            grower.skip(to: tree)
            for leaf in all[3000..<4100] { grower.append(leaf) }
            #expect(grower.tree.root == root(all[..<4100]))
            let row = grower.rows(from: 1100, to: 4100)?.first ?? []
            #expect(row.count == 12)
            #expect(row[3...6].allSatisfy { $0 == .unknown })
            #expect(row[7] == root(all[(11 * 256)..<(12 * 256)]))
        }
    }
}

private final class Told: @unchecked Sendable {
    private let lock = NSLock()
    private var all: [(note: [UInt8], stored: [UInt8]?)] = []

    func add(_ note: [UInt8], stored: [UInt8]?) { lock.withLock { all.append((note, stored)) } }
    var notes: [[UInt8]] { lock.withLock { all.map(\.note) } }
    var allWereStored: Bool { lock.withLock { all.allSatisfy { $0.note == $0.stored } } }
    var sizes: [UInt64] { notes.compactMap { try? SignedNote(parsing: $0).checkpoint().size } }

    func waitFor(_ count: Int) -> Bool {
        for _ in 0..<500 {
            if notes.count >= count { return true }
            usleep(10_000)
        }
        return false
    }
}
