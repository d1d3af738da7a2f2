import EventModel
import Evidence
import Foundation
import Testing
@testable import EventLog

/// The tree across the life of segments: packed, sealed, opened again, with footers made again, and damaged.
struct SealedTreeTests {
    private let directory = TemporaryDirectory()
    private let signer = TestSigner()

    /// Small segments, so that a few thousand events go through every state.
    private func open(_ directory: TemporaryDirectory? = nil, segmentBytes: Int = 128 << 10) throws -> FileLog {
        try FileLog.open(
            directory: (directory ?? self.directory).path, options: signer.options(segmentBytes: segmentBytes))
    }

    private func keep(_ log: FileLog, _ isDone: ([SegmentState]) -> Bool) throws {
        for _ in 0..<2000 {
            if try log.maintainer.maintainOne() { continue }
            let states = try log.catalog.bases.map { try log.catalog.segment(base: $0).state }
            if isDone(states) { return }
            // A segment waits for the tree.
            usleep(5000)
        }
        Issue.record("\(log.statistics.keeping), \(String(describing: log.treeStatus))")
    }

    private func fill(_ log: FileLog, _ count: Int) throws {
        // Commits of 100 small records: packed.
        try log.addMany(count, each: 30)
        // A segment is sealed when the tree has its events.
        for _ in 0..<2000 where log.treeStatus?.size != log.durableCount { usleep(5000) }
        try keep(log) { $0.contains(.sealed) && $0.filter { $0 == .live }.count == 1 }
    }

    @Test func everyPositionIsProvedFromEveryKindOfSegment() throws {
        let log = try open()
        try fill(log, 30_000)
        let states = try log.catalog.bases.map { try log.catalog.segment(base: $0).state }
        #expect(Set(states) == [.sealed, .growing, .live])
        let files = try ReadOnlyLog(directory: directory.path)
        let all = try leaves(files)
        #expect(all.count == 30_000)
        // While the writer is up, against any size; the leaves are those of a naive walk.
        let tree = try files.tree()
        for size in [1, 300, 9999, 25_000, 30_000] {
            #expect(try tree.root(of: UInt64(size)) == root(all[..<size]))
        }
        log.close()
        let note = try SignedNote(parsing: directory.bytes("checkpoint"))
        let key = signer.key(log.report.logID).verifier
        let after = try ReadOnlyLog(directory: directory.path)
        for position in stride(from: 0, to: 30_000, by: 997) {
            let proof = try after.prove(Position(UInt64(position)), in: note)
            #expect(proof.bytes.count < 4096)
            #expect(try proof.check(key).size == 30_000)
        }
        for base in log.catalog.bases {
            guard let section = try log.catalog.segment(base: base).treeSection() else { continue }
            #expect(section.root == root(all[..<Int(section.end.rawValue)]))
            let sealed = try SignedNote(parsing: section.checkpoint).checkpoint(verifiedBy: key)
            #expect(sealed.size == section.end.rawValue && sealed.root == section.root)
        }
        var deep = LogVerifier.Options()
        deep.deep = true
        deep.key = key
        let report = try after.verify(options: deep)
        #expect(report.isSound && report.treeEvents == 30_000 && report.hasComparedCheckpoint, "\(report.damages)")
    }

    @Test func aReopenedLogGoesOnFromTheNewestFooter() throws {
        let log = try open()
        try fill(log, 10_000)
        log.close()
        let first = try SignedNote(parsing: directory.bytes("checkpoint"))
        let again = try open()
        try again.addMany(5000)
        again.close()
        #expect(again.treeStatus?.size == 15_000)
        let second = try SignedNote(parsing: directory.bytes("checkpoint"))
        let files = try ReadOnlyLog(directory: directory.path)
        #expect(try second.checkpoint().root == root(try leaves(files)))
        let proof = try files.proveConsistency(from: first, to: second)
        #expect(try proof.check(signer.key(log.report.logID).verifier).new.size == 15_000)
    }

    @Test func aFooterIsMadeAgainWithTheSameTree() throws {
        let log = try open()
        try fill(log, 30_000)
        let bases = log.catalog.bases
        let sealed = try bases.filter { try log.catalog.segment(base: $0).state == .sealed }
        try #require(sealed.count >= 2)
        let sections = try sealed.map { try log.catalog.segment(base: $0).treeSection() }
        log.close()
        let name = LogFormat.segmentName(sealed[0])
        let path = directory.path + "/" + name
        #expect(chmod(path, 0o600) == 0)
        try directory.patch(name, at: try directory.bytes(name).count - 8, [1, 2, 3])
        let again = try open()
        try keep(again) { $0[0] == .sealed }
        let made = try #require(try again.catalog.segment(base: sealed[0]).treeSection())
        again.close()
        #expect(made.through == sections[0]?.through && made.rows == sections[0]?.rows)
    }

    /// The folder as a kill would leave it, at many moments of a life with packing, sealing and signing: every one
    /// opens again, and what was signed before is the beginning of what is signed after.
    @Test func whateverMomentItStopsAtTheTreeGoesOn() throws {
        let clock = TestClock()
        var options = signer.options(segmentBytes: 128 << 10)
        options.clock = clock
        let log = try FileLog.open(directory: directory.path, options: options)
        let key = signer.key(log.report.logID).verifier
        for round in 0..<25 {
            try log.addMany(400, each: 30)
            clock.advance(seconds: 1.1)
            if round % 3 > 0 { _ = try log.maintainer.maintainOne() }
            // What was signed first: a kill leaves nothing newer than it beside an older log.
            let killed = TemporaryDirectory()
            for name in ["checkpoint", "frontier"] + directory.segments + ["durable"] {
                try? FileManager.default.copyItem(
                    atPath: directory.path + "/" + name, toPath: killed.path + "/" + name)
            }
            let before = try FileManager.default.contents(atPath: killed.path + "/checkpoint")
                .map { try SignedNote(parsing: $0) }
            let again = try FileLog.open(directory: killed.path, options: options)
            try again.addMany(30)
            while try again.maintainer.maintainOne() {}
            again.close()
            #expect(again.treeStatus?.state == .current, "round \(round): \(String(describing: again.treeStatus))")
            let files = try ReadOnlyLog(directory: killed.path)
            let after = try SignedNote(parsing: killed.bytes("checkpoint"))
            #expect(try after.checkpoint(verifiedBy: key).size == files.durableCount)
            if let before { _ = try files.proveConsistency(from: before, to: after).check(key) }
        }
        log.close()
    }

    /// What is kept is proved without what was removed: the first kept footer knows the tree before it.
    @Test func removedSegmentsAreNotNeededForWhatIsKeptAndAreProvedFromTheArchive() throws {
        let log = try open()
        try fill(log, 40_000)
        let sealed = try log.catalog.bases.filter { try log.catalog.segment(base: $0).state == .sealed }
        log.close()
        try #require(sealed.count >= 4)
        let all = try leaves(try ReadOnlyLog(directory: directory.path))
        let archive = try directory.copy()
        let note = try SignedNote(parsing: directory.bytes("checkpoint"))
        for base in sealed[..<3] {
            try FileManager.default.removeItem(atPath: directory.path + "/" + LogFormat.segmentName(base))
        }
        let horizon = sealed[3].rawValue
        #expect(horizon % 256 != 0, "an edge in the middle of a tile")
        let files = try ReadOnlyLog(directory: directory.path)
        let tree = try files.tree()
        func leads(_ tree: LogTree, _ position: UInt64, _ size: UInt64) throws -> Bool {
            let path = try tree.inclusion(of: Position(position), size: size)
            return TreeProofs.root(leaf: all[Int(position)], index: position, size: size, path: path)
                == root(all[..<Int(size)])
        }
        for position in [horizon, horizon + 1, horizon + 2, horizon + 100, horizon + 255, horizon + 300, 39_999] {
            #expect(try leads(tree, position, 40_000), "\(position)")
            #expect(try leads(tree, position, position + 1), "\(position) as the last")
            let proof = try files.prove(Position(position), in: note)
            #expect(try proof.check(signer.key(files.logID).verifier).size == 40_000)
        }
        for first in [horizon, horizon + 1, horizon + 77, horizon + 256, 39_000] {
            let path = try tree.consistency(from: first, to: 40_000)
            #expect(
                TreeProofs.isConsistent(
                    first: first, firstRoot: root(all[..<Int(first)]), second: 40_000, secondRoot: root(all), path: path
                ))
        }
        #expect(throws: LogError.self) { try tree.inclusion(of: Position(horizon - 1), size: 40_000) }
        let kept = TestArchive(
            catalog: SegmentCatalog(directory: archive.path, fileSystem: PosixFileSystem()), size: 40_000)
        try kept.catalog.refresh()
        let whole = try LogTree(catalog: files.catalog, durableCount: 40_000, archive: kept)
        for position in [0, 1, 255, 256, sealed[1].rawValue - 1, sealed[1].rawValue, horizon - 1, horizon, 39_999] {
            #expect(try leads(whole, position, 40_000), "\(position), with the archive")
            #expect(try leads(whole, position, position + 1), "\(position) as the last, with the archive")
        }
        let path = try whole.consistency(from: 300, to: 40_000)
        #expect(
            TreeProofs.isConsistent(
                first: 300, firstRoot: root(all[..<300]), second: 40_000, secondRoot: root(all), path: path))
    }

    /// Where the key's owner edits a sealed segment and mends every checksum, only the tree tells.
    @Test func deepVerificationFindsWhatChecksumsDoNot() throws {
        let log = try open()
        try fill(log, 12_000)
        log.close()
        let key = signer.key(log.report.logID)
        // The same records but one, sealed by the same code, with the honest checkpoint put back.
        let forged = TemporaryDirectory()
        let honest = try directory.bytes("checkpoint")
        try Data(honest).write(to: URL(fileURLWithPath: forged.path + "/checkpoint"))
        var options = signer.options(segmentBytes: 128 << 10)
        let id = log.report.logID
        let words = Words([id.high, id.low])
        options.random = { words.next() }
        options.signer = nil
        let other = try FileLog.open(directory: forged.path, options: options)
        #expect(other.report.logID == id)
        for start in stride(from: 0, to: 12_000, by: 100) {
            let text = String(repeating: "x", count: 30)
            var records = batch((start..<(start + 100)).map { $0 == 777 ? "777 \(text.dropLast())y" : "\($0) \(text)" })
            _ = try other.append(&records)
        }
        try keep(other) { $0.contains(.sealed) && $0.filter { $0 == .live }.count == 1 }
        other.close()
        var deep = LogVerifier.Options()
        deep.key = key.verifier
        let files = try ReadOnlyLog(directory: forged.path)
        #expect(try files.verify(options: deep).isSound)
        deep.deep = true
        let report = try files.verify(options: deep)
        #expect(report.damages.map(\.range.segment) == [forged.path + "/checkpoint"], "\(report.damages)")
        #expect(throws: LogError.self) { try files.prove(Position(3), in: try SignedNote(parsing: honest)) }
        // With the honest segments' footers around forged blocks the rows tell which 256 events.
        let honestFiles = try ReadOnlyLog(directory: directory.path)
        let rows = try #require(try honestFiles.catalog.segment(base: Position(0)).treeSection())
        let derived = try #require(try files.catalog.segment(base: Position(0)).treeSection())
        let different = zip(rows.rows[0], derived.rows[0]).enumerated().filter { $1.0 != $1.1 }.map(\.offset)
        #expect(different == [3])
    }

    /// Events that were signed for and then lost, and given up: the tree goes on, and what is left can be proved.
    @Test func acceptedLossesDoNotEndTheTree() throws {
        let log = try open(segmentBytes: 1 << 20)
        try log.addMany(1500)
        log.close()
        let before = try SignedNote(parsing: directory.bytes("checkpoint"))
        let name = try #require(directory.segments.last)
        // The block of the events 700 to 799: 100 records in a page each.
        let damaged = try damage(name, holding: 750)
        let again = try open(segmentBytes: 1 << 20)
        for _ in 0..<300 {
            if case .stopped = again.treeStatus?.state { break }
            usleep(10_000)
        }
        guard case .stopped = again.treeStatus?.state else {
            Issue.record("\(String(describing: again.treeStatus))")
            return
        }
        guard case .none? = try again.tree?.section(base: Position(0), end: Position(1500)) else {
            Issue.record("damage must not keep what is behind it from being sealed")
            return
        }
        let accepted = try again.acceptLosses(
            in: [Position(0)..<Position(1500)], operatorName: "me", reason: "a test")
        #expect(accepted.count == 1)
        try again.addMany(600)
        for _ in 0..<300 where again.treeStatus?.state != .current { usleep(10_000) }
        again.close()
        #expect(again.treeStatus?.state == .current, "\(String(describing: again.treeStatus))")
        let after = try SignedNote(parsing: directory.bytes("checkpoint"))
        #expect(try after.checkpoint().size == 2101)
        // An outsider who holds the old checkpoint needs hashes of what is lost only when nobody kept them: the new
        // one was signed over the old tree. What was lost cannot be proved, what came behind it can be, from the root.
        let files = try ReadOnlyLog(directory: directory.path)
        #expect(throws: (any Error).self) { try files.prove(Position(damaged), in: after) }
        _ = before
    }

    private func damage(_ name: String, holding position: UInt64) throws -> UInt64 {
        let log = try ReadOnlyLog(directory: directory.path)
        let segment = try log.catalog.segment(base: Position(0))
        let scanner = BlockScanner(file: segment.file, salt: segment.header.salt)
        while let header = try scanner.findHeader() {
            if header.end.rawValue > position {
                try directory.patch(name, at: scanner.offset + 100, [0xFF, 0xFE])
                return header.base.rawValue
            }
            scanner.seek(to: scanner.offset + header.bytesOnDisk)
        }
        throw LogError(.outOfRange, "no such block")
    }
}

/// Another folder that has what was removed.
private final class TestArchive: SegmentArchive {
    let catalog: SegmentCatalog
    let size: UInt64

    init(catalog: SegmentCatalog, size: UInt64) {
        self.catalog = catalog
        self.size = size
    }

    func base(of position: Position) throws -> Position? { catalog.bases(around: position).containing }
    func segment(base: Position) throws -> Segment? { try catalog.segment(base: base) }
    func reader(of base: Position, from position: Position) throws -> LeafReader {
        LeafReader(FileLogReader(catalog: catalog, position: position) { [size] in size }, from: position)
    }
}

private final class Words: @unchecked Sendable {
    private let lock = NSLock()
    private var words: [UInt64]
    init(_ words: [UInt64]) { self.words = words }
    func next() -> UInt64 { lock.withLock { words.isEmpty ? UInt64.random(in: 1...UInt64.max) : words.removeFirst() } }
}
