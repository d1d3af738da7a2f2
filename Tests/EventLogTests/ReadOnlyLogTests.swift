import EventModel
import Foundation
import Testing
@testable import EventLog

@Suite struct ReadOnlyLogTests {
    @Test func withAWriterUpOnlyWhatItPublishedIsSeen() throws {
        let folder = TemporaryDirectory()
        let log = try FileLog.open(directory: folder.path, options: options(segmentBytes: 16 << 10))
        try log.add("a")
        let other = try ReadOnlyLog(directory: folder.path)
        #expect(other.isWriterUp)
        #expect(other.logID == log.report.logID)
        let tail = try other.reader(from: Position(0))
        let block = EventBlock()
        #expect(try tail.read(into: block, atLeast: 1))
        for index in 1..<20 {
            #expect(try !tail.read(into: block, atLeast: 1))
            try log.add("\(index)")
            #expect(other.waitForDurable(beyond: UInt64(index), timeoutMilliseconds: 10_000) == UInt64(index + 1))
            #expect(try tail.read(into: block, atLeast: 1))
            #expect(block.base == Position(UInt64(index)))
        }
        // A block that is on disk and not published: a writer between write and fdatasync.
        let durable = try folder.bytes("durable")
        try folder.patch("durable", at: 24, [19])
        #expect(other.durableCount == 20, "a count once seen does not go back")
        #expect(try payloads(ReadOnlyLog(directory: folder.path)).count == 19)
        try folder.patch("durable", at: 0, durable)
        log.close()
    }

    @Test func withoutAWriterEveryWholeBlockIsSeen() throws {
        let folder = TemporaryDirectory()
        let log = try FileLog.open(directory: folder.path, options: options())
        try log.add("a")
        try log.add("b")
        log.close()
        try FileManager.default.removeItem(atPath: folder.path + "/durable")
        let other = try ReadOnlyLog(directory: folder.path)
        #expect(!other.isWriterUp)
        #expect(try payloads(other) == ["a", "b"])
        let again = try FileLog.open(directory: folder.path, options: options())
        try again.add("c")
        #expect(other.durableCount == 3)
        #expect(try payloads(other, from: 2) == ["c"])
        again.close()
    }

    @Test func readersKeepUpWithAWriterAcrossRolls() throws {
        let folder = TemporaryDirectory()
        let log = try FileLog.open(directory: folder.path, options: options(segmentBytes: 32 << 10))
        try log.add("0")
        let other = try ReadOnlyLog(directory: folder.path)
        let total = 400
        DispatchQueue.concurrentPerform(iterations: 4) { role in
            do {
                if role == 0 {
                    for index in 1..<total { try log.add(String(repeating: "\(index) ", count: index % 50 + 1)) }
                    return
                }
                let source: any LogSource = role == 1 ? log : other
                let reader = try source.reader(from: Position(0)), block = EventBlock()
                var next = Position(0)
                let deadline = Date(timeIntervalSinceNow: 60)
                while next.rawValue < total, Date() < deadline {
                    let durable = source.waitForDurable(beyond: next.rawValue, timeoutMilliseconds: 1000)
                    while try reader.read(into: block, atLeast: role * 5000) {
                        #expect(block.base == next)
                        next = block.end
                    }
                    #expect(next.rawValue >= durable)
                }
                #expect(next == Position(UInt64(total)))
            } catch {
                Issue.record("role \(role): \(error)")
            }
        }
        log.close()
    }

    @Test func segmentsAndWhatTheyTake() throws {
        let folder = TemporaryDirectory()
        let log = try FileLog.open(directory: folder.path, options: options(segmentBytes: 16 << 10))
        for index in 0..<5 { try log.add("\(index)", at: Timestamp(microseconds: Int64(100 + index))) }
        let segments = try ReadOnlyLog(directory: folder.path).segments()
        #expect(segments.map(\.base) == [Position(0), Position(3)])
        #expect(segments.map(\.end) == [Position(3), Position(5)])
        #expect(segments.map(\.usedBytes) == [4 * 4096, 3 * 4096])
        #expect(segments.map(\.firstTime?.microseconds) == [100, 103])
        log.close()
    }

    @Test func noLogIsSaidPlainly() throws {
        let error = #expect(throws: LogError.self) { try ReadOnlyLog(directory: "/var/empty/refold/log") }
        #expect(error?.description.contains("there is no log in /var/empty/refold/log") == true)
    }
}
