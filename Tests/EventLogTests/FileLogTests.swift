import EventModel
import Foundation
import Synchronization
import Testing
@testable import EventLog

@Suite struct FileLogTests {
    @Test func whatIsAppendedIsRead() throws {
        let folder = TemporaryDirectory()
        let log = try FileLog.open(directory: folder.path, options: options())
        #expect(log.report.isNew)
        #expect(log.durableCount == 0)
        #expect(try payloads(log) == [])
        #expect(try log.add("a", "b") == Position(0)..<Position(2))
        #expect(try log.add("c") == Position(2)..<Position(3))
        #expect(log.durableCount == 3)
        #expect(try payloads(log) == ["a", "b", "c"])
        #expect(try payloads(log, from: 1) == ["b", "c"])
        #expect(try payloads(log, from: 3) == [])
        #expect(throws: LogError.self) { try log.reader(from: Position(4)) }
        log.close()
        #expect(throws: AppendError.self) { try log.add("d") }
    }

    @Test func everyFieldSurvives() throws {
        let folder = TemporaryDirectory()
        let log = try FileLog.open(directory: folder.path, options: options())
        var records = RecordBatch()
        records.append(
            kind: .message, verdict: .foreignCommand, flags: [.retained, .duplicate, RecordFlags(qos: 1)],
            receivedAt: Timestamp(microseconds: 42), packetID: 65_535, broker: Array("b".utf8),
            topic: Array("tenant/a/device/d/ota".utf8), properties: [1, 2, 3], payload: [0, 255])
        _ = try log.append(&records)
        let block = EventBlock()
        #expect(try log.reader(from: Position(0)).read(into: block, atLeast: 1))
        block.forEach { record, position in
            #expect(position == Position(0))
            #expect(record.verdict == .foreignCommand)
            #expect(record.flags == [.retained, .duplicate, RecordFlags(qos: 1)])
            #expect(record.receivedAt.microseconds == 42)
            #expect(record.packetID == 65_535)
            #expect(record.brokerString == "b")
            #expect(record.topicString == "tenant/a/device/d/ota")
            #expect(Array(record.properties) == [1, 2, 3])
            #expect(Array(record.payload) == [0, 255])
        }
        log.close()
    }

    @Test func reopenedItGoesOn() throws {
        let folder = TemporaryDirectory()
        var id: LogID?
        for round in 0..<4 {
            let log = try FileLog.open(directory: folder.path, options: options())
            #expect(log.report.isNew == (round == 0))
            #expect(log.report.durableCount == UInt64(round))
            #expect(log.report.torn == nil && log.report.corrupt.isEmpty)
            #expect(id == nil || id == log.report.logID)
            id = log.report.logID
            #expect(try log.add("\(round)") == Position(UInt64(round))..<Position(UInt64(round + 1)))
            log.close()
        }
        #expect(try payloads(ReadOnlyLog(directory: folder.path)) == ["0", "1", "2", "3"])
    }

    @Test func itRollsAndReadersFollow() throws {
        let folder = TemporaryDirectory()
        let log = try FileLog.open(directory: folder.path, options: options(segmentBytes: 16 << 10))
        let tail = try log.reader(from: Position(0))
        let block = EventBlock()
        for index in 0..<40 {
            try log.add("event \(index)")
            #expect(try tail.read(into: block, atLeast: 1))
            #expect(block.base == Position(UInt64(index)) && block.count == 1)
            #expect(try !tail.read(into: block, atLeast: 1))
        }
        #expect(folder.segments.count == 14)
        #expect(log.statistics.segments == 14)
        #expect(log.statistics.usedBytes == 54 * 4096)
        let expected = (0..<40).map { "event \($0)" }
        for atLeast in [1, 1000, 1 << 20] { #expect(try payloads(log, atLeast: atLeast) == expected) }
        for from in 0...40 { #expect(try payloads(log, from: UInt64(from)) == Array(expected[from...])) }
        log.close()
        #expect(folder.segments.count == 14, "the prepared segment is given back")
        let again = try FileLog.open(directory: folder.path, options: options(segmentBytes: 16 << 10))
        #expect(again.durableCount == 40)
        #expect(try payloads(again) == expected)
        again.close()
    }

    @Test func aBatchLargerThanASegmentGetsALargeOne() throws {
        let folder = TemporaryDirectory()
        let log = try FileLog.open(directory: folder.path, options: options(segmentBytes: 16 << 10))
        var bytes = [UInt8](repeating: 0, count: 300_000)
        for index in bytes.indices { bytes[index] = UInt8.random(in: 0x21...0x7E) }
        let text = String(decoding: bytes, as: UTF8.self)
        try log.add("small")
        try log.add(text)
        try log.add("small again")
        #expect(try payloads(log) == ["small", text, "small again"])
        log.close()
    }

    @Test func manyThreadsShareCommits() throws {
        let folder = TemporaryDirectory()
        let log = try FileLog.open(directory: folder.path, options: options(segmentBytes: 1 << 20))
        let threads = 8, batches = 50, perBatch = 5
        let ranges = Mutex<[(thread: Int, number: Int, range: Range<Position>)]>([])
        DispatchQueue.concurrentPerform(iterations: threads) { thread in
            for number in 0..<batches {
                var records = batch((0..<perBatch).map { "\(thread)/\(number)/\($0)" })
                let range = try! log.append(&records)
                #expect(log.durableCount >= range.upperBound.rawValue, "durable when append returns")
                ranges.withLock { $0.append((thread, number, range)) }
            }
        }
        let all = try payloads(log)
        #expect(all.count == threads * batches * perBatch)
        let taken = ranges.withLock { $0 }
        for (thread, number, range) in taken {
            let found = all[Int(range.lowerBound.rawValue)..<Int(range.upperBound.rawValue)]
            #expect(Array(found) == (0..<perBatch).map { "\(thread)/\(number)/\($0)" })
        }
        for thread in 0..<threads {
            let mine = taken.filter { $0.thread == thread }.sorted { $0.number < $1.number }
            #expect(zip(mine, mine.dropFirst()).allSatisfy { $0.range.upperBound <= $1.range.lowerBound })
        }
        #expect(log.statistics.events == UInt64(all.count))
        #expect(log.statistics.commits <= UInt64(threads * batches))
        log.close()
    }

    @Test func tasksAppendToo() async throws {
        let folder = TemporaryDirectory()
        let log = try FileLog.open(directory: folder.path, options: options())
        try await withThrowingTaskGroup(of: Range<Position>.self) { group in
            for index in 0..<20 { group.addTask { try await log.append(batch(["\(index)"])) } }
            var seen = Set<Position>()
            for try await range in group { #expect(seen.insert(range.lowerBound).inserted) }
        }
        #expect(try Set(payloads(log)) == Set((0..<20).map(String.init)))
        log.close()
        await #expect(throws: AppendError.self) { try await log.append(batch(["late"])) }
    }

    @Test func timesNeverDecrease() throws {
        let folder = TemporaryDirectory()
        let log = try FileLog.open(directory: folder.path, options: options())
        try log.add("a", at: Timestamp(microseconds: 100))
        try log.add("b", at: Timestamp(microseconds: 50))
        log.close()
        let again = try FileLog.open(directory: folder.path, options: options())
        try again.add("c", at: Timestamp(microseconds: 10))
        var times: [Int64] = []
        let block = EventBlock()
        _ = try again.reader(from: Position(0)).read(into: block, atLeast: 1 << 20)
        block.forEach { record, _ in times.append(record.receivedAt.microseconds) }
        #expect(times == [100, 100, 100])
        again.close()
    }

    @Test func theSecondOpenerIsRefusedAndToldWho() throws {
        let folder = TemporaryDirectory()
        let log = try FileLog.open(directory: folder.path, options: options())
        let error = #expect(throws: LogError.self) { try FileLog.open(directory: folder.path, options: options()) }
        #expect(error?.code == .locked)
        #expect(error?.description.contains("process \(getpid()) ") == true)
        log.close()
        let again = try FileLog.open(directory: folder.path, options: options())
        again.close()
    }

    @Test func waitingEndsWithTheCommitOrTheTime() throws {
        let folder = TemporaryDirectory()
        let log = try FileLog.open(directory: folder.path, options: options())
        #expect(log.waitForDurable(beyond: 0, timeoutMilliseconds: 1) == 0)
        let appended = Thread { _ = try? log.add("x") }
        appended.start()
        #expect(log.waitForDurable(beyond: 0, timeoutMilliseconds: 10_000) == 1)
        log.close()
    }

    @Test func lookUpByTime() throws {
        let folder = TemporaryDirectory()
        let log = try FileLog.open(directory: folder.path, options: options(segmentBytes: 16 << 10))
        #expect(try log.position(atOrAfter: Timestamp(microseconds: 0)) == Position(0))
        for index in 0..<30 {
            let time = Timestamp(microseconds: Int64(1000 + 10 * index))
            try log.add("a", "b", at: time)
        }
        for index in 0..<30 {
            let time = Int64(1000 + 10 * index)
            #expect(try log.position(atOrAfter: Timestamp(microseconds: time)) == Position(UInt64(2 * index)))
            #expect(try log.position(atOrAfter: Timestamp(microseconds: time - 9)) == Position(UInt64(2 * index)))
        }
        #expect(try log.position(atOrAfter: Timestamp(microseconds: 5000)) == Position(60))
        log.close()
        let other = try ReadOnlyLog(directory: folder.path)
        #expect(try other.position(atOrAfter: Timestamp(microseconds: 1100)) == Position(20))
    }
}
