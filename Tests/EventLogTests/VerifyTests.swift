import EventModel
import Foundation
import Synchronization
import Testing
@testable import EventLog

/// Damage is found and described, signed for, and then passed over by readers, never before.
struct VerifyTests {
    private let events = 40

    /// One event a commit, several segments; closed.
    private func makeLog(_ folder: TemporaryDirectory) throws {
        let log = try FileLog.open(directory: folder.path, options: options(segmentBytes: 48 << 10))
        for index in 0..<events {
            try log.add("event \(index)", at: Timestamp(microseconds: 1_000_000 * Int64(index + 1)))
        }
        log.close()
    }

    /// Where the block of an event lies.
    private func place(_ position: UInt64, in folder: TemporaryDirectory) throws -> (name: String, offset: Int) {
        let name = try #require(folder.segments.last { LogFormat.segmentBase(name: $0)!.rawValue <= position })
        let base = LogFormat.segmentBase(name: name)!.rawValue
        return (name, (1 + Int(position - base)) * LogFormat.alignment)
    }

    private func flip(_ position: UInt64, byte: Int, in folder: TemporaryDirectory) throws {
        let place = try place(position, in: folder)
        let old = try folder.bytes(place.name)[place.offset + byte]
        try folder.patch(place.name, at: place.offset + byte, [old ^ 0x10])
    }

    @Test func aSoundLogIsSound() throws {
        let folder = TemporaryDirectory()
        try makeLog(folder)
        let log = try ReadOnlyLog(directory: folder.path)
        var settings = LogVerifier.Options()
        settings.deep = true
        let report = try log.verify(options: settings)
        #expect(report.isSound && report.damages.isEmpty)
        #expect(report.events == UInt64(events) && report.blocks == events && report.segments == folder.segments.count)
        #expect(report.positions == Position(0)..<Position(UInt64(events)))
        #expect(report.segments > 3)
    }

    @Test(arguments: [4, 20, 40, 66, 140, 300, 4095])
    func aFlippedBitIsFoundAndDescribed(byte: Int) throws {
        let folder = TemporaryDirectory()
        try makeLog(folder)
        try flip(13, byte: byte, in: folder)
        let place = try place(13, in: folder)
        let report = try ReadOnlyLog(directory: folder.path).verify()
        let damage = try #require(report.damages.first)
        #expect(report.damages.count == 1 && !report.isSound)
        #expect(damage.range.positions == Position(13)..<Position(14) && damage.lostEvents == 1)
        #expect(damage.range.segment.hasSuffix(place.name))
        #expect(damage.range.bytes.lowerBound == place.offset)
        #expect(damage.before == Timestamp(microseconds: 13_000_000))
        #expect(damage.after == Timestamp(microseconds: 15_000_000))
        #expect(report.events == UInt64(events) - 1)
        // What the header still vouches for tells whom it concerns.
        if byte >= 72 { #expect(damage.devices == ["tenant/acme/device/d1"]) }
    }

    @Test func theFirstAndTheLastBlockOfAFile() throws {
        let folder = TemporaryDirectory()
        try makeLog(folder)
        let second = LogFormat.segmentBase(name: folder.segments[1])!.rawValue
        for position in [second - 1, second] {
            try flip(position, byte: 70, in: folder)
        }
        let report = try ReadOnlyLog(directory: folder.path).verify()
        #expect(
            report.damages.map(\.range.positions) == [
                Position(second - 1)..<Position(second), Position(second)..<Position(second + 1),
            ])
        #expect(report.events == UInt64(events) - 2)
    }

    /// A file that is not sealed is looked at again before its damage is believed: each place is said once all
    /// the same.
    @Test func severalDamagesInOneFileAreSaidOnceEach() throws {
        let folder = TemporaryDirectory()
        try makeLog(folder)
        for position: UInt64 in [2, 5, 6, 9] { try flip(position, byte: 80, in: folder) }
        let report = try ReadOnlyLog(directory: folder.path).verify()
        #expect(report.damages.map(\.range.positions.lowerBound.rawValue) == [2, 5, 9], "neighbours are one")
        #expect(report.events == UInt64(events) - 4 && report.blocks == events - 4)
    }

    @Test func aMissingFileAndADamagedHeader() throws {
        let folder = TemporaryDirectory()
        try makeLog(folder)
        let names = folder.segments
        let bases = names.map { LogFormat.segmentBase(name: $0)! }
        try FileManager.default.removeItem(atPath: folder.path + "/" + names[1])
        try folder.patch(names[2], at: 33, [0xAA, 0xBB])
        let report = try ReadOnlyLog(directory: folder.path).verify()
        #expect(report.damages.map(\.range.positions) == [bases[1]..<bases[2], bases[2]..<bases[3]])
        #expect(report.damages[1].range.bytes == 0..<4096)
    }

    @Test func bytesBehindTheLastBlockOfAClosedFile() throws {
        let folder = TemporaryDirectory()
        try makeLog(folder)
        let name = folder.segments[0], size = try folder.bytes(name).count
        try folder.patch(name, at: size, [UInt8](repeating: 7, count: 10))
        let report = try ReadOnlyLog(directory: folder.path).verify()
        #expect(report.damages.count == 1 && report.damages[0].lostEvents == 0 && !report.isSound)
        #expect(report.unaccepted.isEmpty, "nothing is lost: there is nothing to sign for")
    }

    @Test func aRangeIsReadAndNoMore() throws {
        let folder = TemporaryDirectory()
        try makeLog(folder)
        try flip(3, byte: 80, in: folder)
        try flip(33, byte: 80, in: folder)
        let log = try ReadOnlyLog(directory: folder.path)
        #expect(try log.verify(Position(10)..<Position(30)).isSound)
        #expect(try log.verify(Position(10)..<Position(40)).damages.count == 1)
        #expect(try log.verify(Position(3)..<Position(4)).damages.map(\.range.positions) == [Position(3)..<Position(4)])
        #expect(try log.verify().damages.count == 2)
    }

    @Test func timesThatStepBack() throws {
        let folder = TemporaryDirectory()
        try makeLog(folder)
        // Another file of the same log in an earlier one's place would do it; here the header is written anew.
        let place = try place(20, in: folder)
        var bytes = Array(try folder.bytes(place.name)[place.offset..<(place.offset + 4096)])
        try bytes.withUnsafeMutableBytes { bytes in
            let salt = UnsafeRawBufferPointer(bytes).little(48, as: UInt64.self)
            var header = try #require(BlockHeader(UnsafeRawBufferPointer(rebasing: bytes[..<72]), salt: salt))
            header.firstTime = Timestamp(microseconds: 5)
            header.encode(into: UnsafeMutableRawBufferPointer(rebasing: bytes[..<72]))
        }
        try folder.patch(place.name, at: place.offset, bytes)
        let log = try ReadOnlyLog(directory: folder.path)
        let report = try log.verify()
        #expect(report.damages.count == 1 && report.damages[0].range.reason.contains("steps back"))
        var deep = LogVerifier.Options()
        deep.deep = true
        #expect(try log.verify(options: deep).damages.count == 2, "and the record says another time than the header")
    }

    @Test func readersGoOnBehindWhatWasSignedForAndNotBefore() throws {
        let folder = TemporaryDirectory()
        try makeLog(folder)
        try flip(7, byte: 80, in: folder)
        try flip(25, byte: 5, in: folder)
        let log = try FileLog.open(directory: folder.path, options: options(segmentBytes: 48 << 10))
        #expect(throws: LogError.self) { try payloads(log) }
        let ranges = try log.verify().unaccepted.map(\.range.positions)
        #expect(ranges == [Position(7)..<Position(8), Position(25)..<Position(26)])
        let reader = try log.reader(from: Position(0)), block = EventBlock()
        #expect(try reader.read(into: block, atLeast: 1 << 20) && block.end == Position(7))
        #expect(throws: LogError.self) { try reader.read(into: block, atLeast: 1 << 20) }

        let first = try log.acceptLosses(in: [ranges[0]], operatorName: "kim", reason: "no backup of that day")
        #expect(first.map(\.positions) == [ranges[0]])
        // The reader that stood before the damage goes on, and stops at the other one.
        #expect(try reader.read(into: block, atLeast: 1 << 20) && block.base == Position(8))
        while reader.position < Position(25) { #expect(try reader.read(into: block, atLeast: 1)) }
        #expect(throws: LogError.self) { try reader.read(into: block, atLeast: 1) }

        _ = try log.acceptLosses(in: ranges, operatorName: "kim", reason: "nor of the other")
        #expect(log.acceptedLosses.count == 2, "nobody signs twice")
        let expected = (0..<events).filter { $0 != 7 && $0 != 25 }.map { "event \($0)" }
        func read(_ source: any LogSource) throws -> [String] {
            let reader = try source.reader(from: Position(0)), block = EventBlock()
            var found: [String] = []
            while try reader.read(into: block, atLeast: 1 << 20) {
                block.forEach { record, _ in
                    if record.kind == .message { found.append(String(decoding: record.payload, as: UTF8.self)) }
                }
            }
            return found
        }
        #expect(try read(log) == expected)
        let report = try log.verify()
        #expect(report.isSound && report.damages.count == 2)
        #expect(report.damages.map { $0.accepted?.event.operatorName } == ["kim", "kim"])
        #expect(report.damages[0].accepted?.event.reason == "no backup of that day")
        log.close()

        // Another process, with the hints and without: what counts is in the log.
        #expect(try read(ReadOnlyLog(directory: folder.path)) == expected)
        try FileManager.default.removeItem(atPath: folder.path + "/losses")
        let other = try ReadOnlyLog(directory: folder.path)
        #expect(other.acceptedLosses.isEmpty)
        #expect(try read(other) == expected)
        #expect(other.acceptedLosses.count == 2)
        // A hint at what is no acceptance is no acceptance.
        try Data("{\"position\":9}\n".utf8).write(to: URL(fileURLWithPath: folder.path + "/losses"))
        #expect(try ReadOnlyLog(directory: folder.path).acceptedLosses.isEmpty)
    }

    /// The hint leads to a block that is damaged itself: it is met as damage, and asks nobody for acceptances again.
    @Test func anAcceptanceThatIsDamagedItselfIsDamageLikeAnyOther() throws {
        let folder = TemporaryDirectory()
        try makeLog(folder)
        try flip(7, byte: 80, in: folder)
        let log = try FileLog.open(directory: folder.path, options: options(segmentBytes: 48 << 10))
        let accepted = try log.acceptLosses(in: [Position(7)..<Position(8)], operatorName: "kim", reason: "gone")
        let position = try #require(accepted.first).position
        try log.add("behind it")
        log.close()
        try flip(position.rawValue, byte: 80, in: folder)
        let other = try ReadOnlyLog(directory: folder.path)
        #expect(other.acceptedLosses.isEmpty)
        let report = try other.verify()
        #expect(
            report.unaccepted.map(\.range.positions) == [
                Position(7)..<Position(8), position..<position.next,
            ])
        #expect(throws: LogError.self) { try other.reader(from: Position(7)).read(into: EventBlock(), atLeast: 1) }
    }

    @Test func aMissingFileADamagedHeaderAndTheLogsEndCanBeSignedForToo() throws {
        let folder = TemporaryDirectory()
        try makeLog(folder)
        let names = folder.segments
        try FileManager.default.removeItem(atPath: folder.path + "/" + names[1])
        try folder.patch(names[2], at: 33, [0xAA, 0xBB])
        try flip(UInt64(events) - 1, byte: 100, in: folder)
        let log = try FileLog.open(directory: folder.path, options: options(segmentBytes: 48 << 10))
        #expect(log.durableCount == UInt64(events), "the file `durable` knows of the last one")
        let damages = try log.verify().unaccepted
        #expect(damages.count == 3 && damages.last?.range.positions == Position(39)..<Position(40))
        try log.add("later", at: Timestamp(microseconds: 100_000_000))
        _ = try log.acceptLosses(in: damages.map(\.range.positions), operatorName: "kim", reason: "gone")
        #expect(try log.verify().isSound)
        for start in [0, 12, 15, 25, 35, 39] {
            let reader = try log.reader(from: Position(UInt64(start))), block = EventBlock()
            var last = Position(0)
            while try reader.read(into: block, atLeast: 1) { last = block.end }
            #expect(last.rawValue == log.durableCount)
        }
        log.close()
        let again = try FileLog.open(directory: folder.path, options: options(segmentBytes: 48 << 10))
        #expect(try again.verify().isSound)
        again.close()
    }

    @Test func progressEndsAtTheEnd() throws {
        let folder = TemporaryDirectory()
        try makeLog(folder)
        let seen = Mutex<[(UInt64, UInt64)]>([])
        var settings = LogVerifier.Options()
        settings.progress = { done, total in seen.withLock { $0.append((done, total)) } }
        _ = try ReadOnlyLog(directory: folder.path).verify(options: settings)
        let last = try #require(seen.withLock { $0.last })
        #expect(last.0 == last.1 && last.1 > 0)
    }
}

/// The scrubber finds what happened to closed files, forgets what was mended, and reads no more than it is told to.
struct ScrubberTests {
    private func makeLog(_ folder: TemporaryDirectory) throws -> FileLog {
        let log = try FileLog.open(directory: folder.path, options: options(segmentBytes: 48 << 10))
        for index in 0..<60 {
            try log.add("event \(index)", at: Timestamp(microseconds: 1_000_000 * Int64(index + 1)))
        }
        return log
    }

    @discardableResult
    private func pass(_ scrubber: Scrubber, pieces: Int = 1 << 16) -> Int {
        let passes = scrubber.status.passes
        var steps = 0
        while scrubber.status.passes == passes, steps < 1000 {
            _ = scrubber.step(byteCount: pieces)
            steps += 1
        }
        return steps
    }

    @Test func itFindsDamageAndForgetsWhatWasMended() throws {
        let folder = TemporaryDirectory()
        let log = try makeLog(folder)
        defer { log.close() }
        let scrubber = Scrubber(log: log)
        #expect(pass(scrubber) < 1000)
        #expect(scrubber.status.damages.isEmpty && scrubber.status.passes == 1)
        let name = folder.segments[1], good = try folder.bytes(name)
        try folder.patch(name, at: 3 * 4096 + 100, [good[3 * 4096 + 100] ^ 1])
        for pieces in [1, 5000, 1 << 20] {
            pass(scrubber, pieces: pieces)
            #expect(scrubber.status.damages.map(\.range.positions) == [Position(13)..<Position(14)], "\(pieces)")
        }
        try folder.patch(name, at: 3 * 4096 + 100, [good[3 * 4096 + 100]])
        pass(scrubber)
        #expect(scrubber.status.damages.isEmpty)
    }

    @Test func whatWasSignedForIsNoDamage() throws {
        let folder = TemporaryDirectory()
        let log = try makeLog(folder)
        defer { log.close() }
        try folder.patch(folder.segments[0], at: 5 * 4096 + 80, [0xFF, 0xFF, 0xFF])
        let scrubber = Scrubber(log: log)
        pass(scrubber)
        #expect(scrubber.status.damages.count == 1)
        _ = try log.acceptLosses(in: [Position(0)..<Position(60)], operatorName: "kim", reason: "gone")
        scrubber.forgetAccepted()
        #expect(scrubber.status.damages.isEmpty)
        pass(scrubber)
        #expect(scrubber.status.damages.isEmpty)
    }

    @Test func aSmallStepReadsLittleAndAPassReadsEverythingOnce() throws {
        let folder = TemporaryDirectory()
        let log = try makeLog(folder)
        defer { log.close() }
        let scrubber = Scrubber(log: log)
        #expect(scrubber.step(byteCount: 4096) < 32 << 10)
        let steps = pass(scrubber, pieces: 16 << 10)
        #expect(steps > 8, "\(steps)")
    }
}

/// Sealed segments: every byte counts, the footer's too, and it knows whose events a lost block held.
struct SealedVerifyTests {
    private func makeLog(_ folder: TemporaryDirectory) throws -> FileLog {
        var settings = options(segmentBytes: 64 << 10)
        settings.isKeeping = true
        let log = try FileLog.open(directory: folder.path, options: settings)
        var random = SystemRandomNumberGenerator()
        for _ in 0..<2000 where log.catalog.sealed(from: Position(0)).count < 3 {
            let noise = (0..<1500).map { _ in UInt8.random(in: 33...126, using: &random) }
            try log.add(String(decoding: noise, as: UTF8.self), at: log.options.clock.now())
            usleep(500)
        }
        return log
    }

    @Test func everyPartOfTheFooterIsChecked() throws {
        let folder = TemporaryDirectory()
        let log = try makeLog(folder)
        let segment = try #require(log.catalog.sealed(from: Position(0)).first), trailer = try #require(segment.trailer)
        log.close()
        chmod(segment.path, 0o600)
        let good = try folder.bytes(segment.name)
        #expect(try ReadOnlyLog(directory: folder.path).verify().isSound)
        let footer = trailer.footerOffset, end = trailer.fileBytes
        var places = [footer + 8, footer + 70, end - 4097, end - 9]
        places += [trailer.index, trailer.postings, trailer.tree].filter { $0.byteCount > 0 }.map { $0.offset + 5 }
        for place in places {
            try folder.patch(segment.name, at: place, [good[place] ^ 0x20])
            let report = try ReadOnlyLog(directory: folder.path).verify()
            #expect(!report.isSound && report.unaccepted.isEmpty, "byte \(place)")
            #expect(report.events == log.durableCount, "no event is lost")
            try folder.patch(segment.name, at: place, [good[place]])
        }
        #expect(try ReadOnlyLog(directory: folder.path).verify().isSound)
    }

    @Test func theDevicesOfALostBlockAreKnownFromTheFooter() throws {
        let folder = TemporaryDirectory()
        let log = try makeLog(folder)
        let segment = try #require(log.catalog.sealed(from: Position(0)).first)
        log.close()
        chmod(segment.path, 0o600)
        // The whole header of the first block: nothing of it can be made out.
        try folder.patch(segment.name, at: 4096, [UInt8](repeating: 0xEE, count: 72))
        let damage = try #require(try ReadOnlyLog(directory: folder.path).verify().damages.first)
        #expect(damage.devices == ["tenant/acme/device/d1"] && damage.devicesAreComplete)
        #expect(damage.range.bytes.lowerBound == 4096 && damage.lostEvents > 1)
    }
}
