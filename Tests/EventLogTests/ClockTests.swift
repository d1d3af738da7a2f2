import EventModel
import Foundation
import Testing
@testable import EventLog

/// What the log makes of a wall clock that is set: by whom, and whether rightly, it cannot know.
@Suite struct ClockTests {
    private let clock = TestClock()
    private let folder = TemporaryDirectory()

    private func open(accepts: Bool = false, _ change: (inout FileLogOptions) -> Void = { _ in }) throws -> FileLog {
        var settings = options()
        settings.clock = clock
        settings.acceptClock = accepts
        change(&settings)
        return try FileLog.open(directory: folder.path, options: settings)
    }

    private struct Entry: Equatable {
        let position: UInt64
        let at: Timestamp
        /// Of the clock's own events, the payload.
        let text: String
        let step: ClockStepped?
    }

    private func entries(_ log: some LogSource) throws -> [Entry] {
        let block = EventBlock(), reader = try log.reader(from: Position(0))
        var found: [Entry] = []
        while try reader.read(into: block, atLeast: 1 << 20) {
            block.forEach { record, position in
                found.append(
                    Entry(
                        position: position.rawValue, at: record.receivedAt,
                        text: String(decoding: record.payload, as: UTF8.self),
                        step: record.topicString == LogSchema.clockStepped.rawValue
                            ? try? JSONDecoder().decode(ClockStepped.self, from: Data(record.payload)) : nil))
            }
        }
        return found
    }

    private func time(_ text: String) -> Timestamp { Timestamp(rfc3339: text)! }

    /// The clock is three days ahead for 3 s, or 7,300 s ahead for 1 s.
    @Test(arguments: [(259_200.0, 3.0), (7_300, 1), (2, 1), (-259_200, 3)])
    func aMomentaryErrorOfTheClockIsNeverInReceivedAt_fluentScheduler305(step: Double, seconds: Double) throws {
        let log = try open(), begin = clock.now()
        try log.add("before", at: log.now())
        clock.advance(seconds: 10)
        clock.step(seconds: step)
        #expect(log.clock.status.state == .held && log.clock.status.stepMicroseconds == Int64(step * 1e6))
        try log.add("during", at: log.now())
        clock.advance(seconds: seconds)
        clock.step(seconds: -step)
        try log.add("after", at: log.now())
        #expect(log.clock.status.state == .following)
        let entries = try entries(log), messages = entries.filter { $0.step == nil }
        #expect(messages.map(\.text) == ["before", "during", "after"])
        #expect(
            messages.map { $0.at.microseconds - begin.microseconds } == [
                0, 10_000_000, 10_000_000 + Int64(seconds * 1e6),
            ])
        // It is on record, and nothing followed it.
        #expect(entries.compactMap(\.step).map(\.stepMicroseconds) == [Int64(step * 1e6), -Int64(step * 1e6)])
        #expect(entries.compactMap(\.step).allSatisfy { $0.adopted == false && $0.movesTimersBy == 0 })
        log.close()
        #expect(try verify().damages.isEmpty)
    }

    @Test func aStepThatStaysIsAdoptedAndSaysByHowMuchTimersMove() throws {
        let log = try open()
        try log.add("before", at: log.now())
        clock.step(seconds: 7_300)
        try log.add("held", at: log.now())
        clock.advance(seconds: 599)
        try log.add("still held", at: log.now())
        clock.advance(seconds: 2)
        #expect(log.now() == time("2026-11-21T00:10:01Z"), "the clock follows when the event is durable, not before")
        try log.add("adopted", at: log.now())
        #expect(log.now() == clock.now() && log.clock.status.state == .following)
        let entries = try entries(log)
        #expect(
            entries.map { $0.step == nil ? $0.text : "step \($0.step!.adopted!)" } == [
                "before", "step false", "held", "still held", "step true", "adopted",
            ])
        #expect(entries[4].step?.movesTimersBy == 7_300_000_000 && entries[4].step?.era == nil)
        #expect(entries[3].at == time("2026-11-21T00:09:59Z") && entries[5].at == clock.now())
        log.close()
    }

    @Test func aTimeServiceIsBelievedSooner() throws {
        clock.isSynchronised = true
        let log = try open()
        clock.step(seconds: 7_300)
        try log.add("held", at: log.now())
        clock.advance(seconds: 31)
        try log.add("adopted", at: log.now())
        #expect(log.now() == clock.now())
        log.close()
    }

    /// The future was an error, and had been believed: received-at goes back, the order stands, readers find their way.
    @Test func aFutureThatWasAnErrorEndsWithItsCause() throws {
        var log = try open()
        try log.add("a", at: log.now())
        clock.step(seconds: 259_200)
        _ = log.now()
        clock.advance(seconds: 601)
        try log.add("b", at: log.now())
        try log.add("c", at: log.now())
        clock.step(seconds: -259_200)
        let stamped = log.now()
        clock.advance(seconds: 601)
        try log.add("d", at: stamped.adding(microseconds: 601_000_000))
        try log.add("e", at: log.now())
        #expect(log.now() == clock.now())
        func check(_ log: some LogSource, _ find: (Timestamp) throws -> Position) throws {
            let entries = try entries(log), messages = entries.filter { $0.step == nil }
            #expect(messages.map(\.text) == ["a", "b", "c", "d", "e"])
            #expect(
                messages.map { String($0.at.description.prefix(16)) } == [
                    "2026-11-21T00:00", "2026-11-24T00:10", "2026-11-24T00:10", "2026-11-21T00:20", "2026-11-21T00:20",
                ])
            let era = try #require(entries.first { $0.step?.era == true })
            #expect(era.step?.movesTimersBy == -259_200_000_000)
            // What the wrong clock stamped counts as received before its correction.
            let wrong = try #require(entries.first { $0.step?.adopted == true }).position
            #expect(try find(time("2026-11-20T00:00:00Z")).rawValue == 0)
            #expect(try find(time("2026-11-21T00:19:00Z")).rawValue == wrong)
            #expect(try find(era.at).rawValue == wrong)
            #expect(try find(era.at.adding(microseconds: 1)).rawValue == messages[4].position + 1)
            #expect(try find(time("2026-11-23T00:00:00Z")).rawValue == log.durableCount)
        }
        try check(log) { try log.position(atOrAfter: $0) }
        log.close()
        #expect(try verify().damages.isEmpty)
        log = try open { $0.keepsTree = false }
        try check(log) { try log.position(atOrAfter: $0) }
        // Packing does not join what an era parts.
        try log.add("f", at: log.now())
        while try log.maintainer.maintainOne() {}
        let firsts = try log.catalog.bases.compactMap {
            try log.catalog.segment(base: $0).firstTime(durableCount: log.durableCount)
        }
        #expect(firsts.count >= 2 && firsts[1] < time("2026-11-22T00:00:00Z"))
        #expect(try entries(log).filter { $0.step == nil }.map(\.text) == ["a", "b", "c", "d", "e", "f"])
        log.close()
        #expect(try verify().damages.isEmpty)
    }

    /// Nothing was received for longer than the clock was ahead: no era begins, and yet nothing bears a time to come.
    @Test func whatAClockStampedThatIsGivenUpIsLowered() throws {
        let log = try open()
        try log.add("a", at: log.now())
        clock.step(seconds: 400)
        _ = log.now()
        clock.advance(seconds: 601)
        try log.add("b", at: log.now())
        clock.step(seconds: -400)
        _ = log.now()
        clock.advance(seconds: 700)
        let ahead = log.now()
        #expect(ahead > clock.now())
        try log.add("c", at: ahead)
        try log.add("d", at: ahead)
        let entries = try entries(log)
        #expect(entries.allSatisfy { $0.at <= clock.now() } && entries.last?.at == clock.now())
        #expect(entries.contains { $0.step?.adopted == true && $0.step?.era == nil && $0.step!.stepMicroseconds < 0 })
        #expect(zip(entries, entries.dropFirst()).allSatisfy { $0.at <= $1.at })
        log.close()
    }

    private func verify() throws -> VerifyReport {
        var settings = LogVerifier.Options()
        settings.deep = true
        return try ReadOnlyLog(directory: folder.path).verify(options: settings)
    }

    /// Booted in 1970, and NTP is not there yet: the log opens, and waits until the clock is right.
    @Test func aClockBehindTheLogIsWaitedFor_weewx72() throws {
        let log = try open()
        try log.add("today", at: log.now())
        log.close()
        clock.step(seconds: -1_795_000_000)
        let again = try open()
        #expect(again.clock.status.state == .waiting)
        clock.advance(seconds: 100_000)
        #expect(again.clock.status.state == .waiting, "1970 does not become right by waiting")
        clock.step(seconds: 1_795_000_000)
        #expect(again.clock.status.state == .following && again.now() == clock.now())
        try again.add("right", at: again.now())
        #expect(try entries(again).map(\.text) == ["today", "right"])
        again.close()
    }

    /// The clock was ahead while the daemon ran, long enough to be believed, and was corrected while it was down.
    @Test func aLogThatEndsInAFutureThatWasAnErrorIsGoneOnWith() throws {
        let log = try open()
        try log.add("a", at: log.now())
        clock.step(seconds: 259_200)
        _ = log.now()
        clock.advance(seconds: 601)
        try log.add("b", at: log.now())
        log.close()
        clock.step(seconds: -259_200)
        let again = try open()
        #expect(again.clock.status.state == .waiting && again.clock.status.holdMicroseconds == 600_000_000)
        clock.advance(seconds: 601)
        for _ in 0..<2 { #expect(again.clock.status.state == .waiting, "a look at the status ends no wait") }
        #expect(again.clock.poll().state == .held)
        try again.add("c", at: again.now())
        #expect(again.now() == clock.now())
        #expect(try entries(again).last?.at == clock.now())
        again.close()
    }

    @Test func anOperatorVouchesForTheClock() throws {
        let log = try open()
        try log.add("late", at: clock.now().adding(microseconds: 301_000_000))
        log.close()
        let again = try open(accepts: true)
        try again.add("now", at: again.now())
        #expect(try entries(again).last?.at == clock.now() && again.clock.status.state == .following)
        again.close()
    }

    /// A daemon that starts again while the clock is wrong has the time that it had.
    @Test func aStartIsNoReasonToBelieveAStep() throws {
        clock.bootID = "00000000-0000-0000-0000-000000000001"
        let log = try open(), begin = clock.now()
        try log.add("a", at: log.now())
        log.close()
        clock.advance(seconds: 5)
        clock.step(seconds: 259_200)
        let again = try open()
        #expect(again.clock.status.state == .held)
        try again.add("b", at: again.now())
        clock.step(seconds: -259_200)
        #expect(try entries(again).last?.at == begin.adding(microseconds: 5_000_000))
        again.close()
        // After the next boot nothing is known but the wall clock.
        clock.bootID = "00000000-0000-0000-0000-000000000002"
        clock.step(seconds: 3_600)
        let booted = try open()
        #expect(booted.clock.status.state == .following)
        booted.close()
    }

    /// A bit that flips in a space made a digit of it, and the offset ten times what it was.
    @Test func aFlippedBitOfTheClockFileGivesNoOtherOffset() throws {
        clock.bootID = "00000000-0000-0000-0000-000000000001"
        let file = try #require(ClockFile(directory: folder.path, fileSystem: PosixFileSystem(), clock: clock))
        for offset in [1_795_219_200_000_000, 0, -5, 1 << 61] as [Int64] {
            file.write(offset)
            #expect(file.offset() == offset)
            let whole = try folder.bytes(ClockFile.name)
            for bit in 0..<whole.count * 8 {
                var bytes = whole
                bytes[bit / 8] ^= UInt8(1) << UInt8(bit % 8)
                try folder.patch(ClockFile.name, at: 0, bytes)
                let found = file.offset()
                #expect(found == nil || found == offset, "bit \(bit) of \(offset): \(found ?? 0)")
            }
        }
    }

    /// Older versions wrote no CRC. What no clock can have written is damage, and ends nothing.
    @Test func aClockFileWithoutACRCIsRead() throws {
        let boot = "00000000-0000-0000-0000-000000000001"
        clock.bootID = boot
        clock.advance(seconds: 10)
        let file = try #require(ClockFile(directory: folder.path, fileSystem: PosixFileSystem(), clock: clock))
        func write(_ offset: Int64) throws {
            let text = "\(boot) \(offset)"
            let padded = text + String(repeating: " ", count: 79 - text.utf8.count) + "\n"
            try Data(padded.utf8).write(to: URL(fileURLWithPath: folder.path + "/" + ClockFile.name))
        }
        let offset = clock.now().microseconds - clock.steadyMicroseconds()
        try write(offset - 3_600_000_000)
        #expect(file.offset() == offset - 3_600_000_000)
        let kept = try open()
        #expect(kept.clock.status.state == .held && kept.clock.status.stepMicroseconds == 3_600_000_000)
        kept.close()
        for damaged in [Int64.max, .min] {
            try write(damaged)
            #expect(file.offset() == nil)
            let log = try open()
            #expect(log.clock.status.state == .following && log.now() == clock.now())
            log.close()
        }
    }

    /// No sum with an offset that was kept overflows, whoever kept it.
    @Test(arguments: [Int64.max, .min]) func anOffsetBeyondAllBoundsOverflowsNothing(kept: Int64) {
        clock.advance(seconds: 10)
        let guarded = GuardedClock(clock, kept: kept)
        #expect(abs(guarded.now().microseconds) <= 1 << 62)
        #expect(guarded.status.state == .held)
        clock.advance(seconds: 601)
        #expect(guarded.plan(behind: guarded.now()).records.last?.event.adopted == true)
    }

    /// A clock that is far ahead deletes nothing.
    @Test func retentionByAgeDoesNotBelieveAClockThatIsAhead() throws {
        let log = try open(), begin = log.clock.ageReference()
        try log.add("a", at: log.now())
        clock.step(seconds: 40 * 86_400)
        _ = log.now()
        clock.advance(seconds: 601)
        try log.add("adopted", at: log.now())
        #expect(log.now() == clock.now())
        #expect(log.clock.ageReference() == begin.adding(microseconds: 601_000_000))
        clock.isSynchronised = true
        #expect(log.clock.ageReference() == clock.now(), "a time service vouches for it")
        log.close()
        clock.isSynchronised = false
        clock.step(seconds: 400 * 86_400)
        let again = try open()
        #expect(again.clock.ageReference() <= clock.now().adding(microseconds: -399 * 86_400_000_000))
        again.close()
    }
}
