import EventModel
import Foundation
import Primitives
import Testing
@testable import EventLog

/// One device's events, wherever they lie.
@Suite struct KeyedReaderTests {
    /// 400 commits of 10 devices in two tenants, events of our own among them; sealed, growing and live segments.
    private func makeLog(_ folder: TemporaryDirectory) throws -> (FileLog, [(topic: String, payload: String)]) {
        var settings = options(segmentBytes: 64 << 10)
        settings.keepsTree = false
        let log = try FileLog.open(directory: folder.path, options: settings)
        var random = SeededRandom(seed: 7)
        var all: [(topic: String, payload: String)] = []
        for number in 0..<400 {
            var records = RecordBatch()
            for _ in 0..<(random.next() % 4 + 1) {
                let device = Int(random.next() % 12)
                let filler = String(decoding: (0..<200).map { _ in UInt8(0x21 + random.next() % 90) }, as: UTF8.self)
                let payload = "\(all.count) \(filler)"
                let topic =
                    switch device {
                    case 10: "nonsense/topic"
                    case 11: "campaign.created/1"
                    default: "tenant/t\(device % 2)/device/d\(device)/telemetry"
                    }
                let time = Timestamp(microseconds: Int64(number))
                if device == 11 {
                    records.append(kind: .decision, schema: topic, receivedAt: time, json: Array(payload.utf8))
                } else {
                    records.append(
                        kind: .message, verdict: device == 10 ? .badTopicFormat : .accepted,
                        flags: RecordFlags(qos: 1), receivedAt: time, packetID: 1, broker: Array("b".utf8),
                        topic: Array(topic.utf8), properties: [], payload: Array(payload.utf8))
                }
                all.append((topic, payload))
            }
            _ = try log.append(&records)
            if number == 300 { while try log.maintainer.maintainOne() {} }
        }
        return (log, all)
    }

    private func read(_ reader: KeyedReader) throws -> [String] {
        var found: [String] = [], last: Position?
        while try reader.read({ record, position in
            #expect(last.map { $0 < position } ?? true)
            last = position
            found.append(String(decoding: record.payload, as: UTF8.self))
        }) {}
        return found
    }

    @Test func onlyItsEventsAndAllOfThem() throws {
        let folder = TemporaryDirectory()
        let (log, all) = try makeLog(folder)
        let states = try Set(log.catalog.bases.map { try log.catalog.segment(base: $0).state })
        #expect(states.contains(.sealed) && states.contains(.live))
        let other = try ReadOnlyLog(directory: folder.path)
        let everything = Position(0)..<Position(.max)
        for device in 0..<10 {
            let selection = EventSelection.device(tenant: "t\(device % 2)", device: "d\(device)")
            let expected = all.filter { $0.topic.hasPrefix("tenant/t\(device % 2)/device/d\(device)/") }.map(\.payload)
            #expect(try read(log.events(selection, in: everything)) == expected)
            #expect(try read(other.events(selection, in: everything)) == expected)
            #expect(try read(other.events(.anyTenant(device: "d\(device)"), in: everything)) == expected)
        }
        #expect(
            try read(log.events(.schema("campaign.created/1"), in: everything))
                == all.filter { $0.topic == "campaign.created/1" }.map(\.payload))
        for selection in [EventSelection.device(tenant: "t1", device: "d0"), .anyTenant(device: "d"), .schema("x/1")] {
            #expect(try read(log.events(selection, in: everything)) == [])
        }
        for (lower, upper) in [(0, 1), (17, 401), (333, 334), (all.count - 3, all.count), (500, 500)] {
            let expected = all[lower..<upper].filter { $0.topic.hasPrefix("tenant/t1/device/d3/") }.map(\.payload)
            let range = Position(UInt64(lower))..<Position(UInt64(upper))
            #expect(try read(log.events(.device(tenant: "t1", device: "d3"), in: range)) == expected)
        }
        log.close()
    }

    @Test func blocksThatCannotHoldThemAreNotRead() throws {
        let folder = TemporaryDirectory()
        var settings = options(segmentBytes: 1 << 20)
        settings.keepsTree = false
        settings.blockBytes = 1 << 10
        let log = try FileLog.open(directory: folder.path, options: settings)
        var random = SeededRandom(seed: 1)
        // Large blocks, each of another device, until the segment has rolled.
        for number in 0..<40 {
            let filler = String(decoding: (0..<70_000).map { _ in UInt8(0x21 + random.next() % 90) }, as: UTF8.self)
            var records = RecordBatch()
            records.append(
                kind: .message, verdict: .accepted, flags: [], receivedAt: Timestamp(microseconds: 1), packetID: 1,
                broker: [], topic: Array("tenant/t/device/d\(number % 20)/telemetry".utf8), properties: [],
                payload: Array(filler.utf8))
            _ = try log.append(&records)
        }
        while try log.maintainer.maintainOne() {}
        let sealed = try #require(log.catalog.bases.last)
        let reader = log.events(.device(tenant: "t", device: "d3"), in: Position(0)..<sealed)
        let found = try read(reader)
        #expect(found.count == reader.blocksRead && found.count >= 1)
        log.close()
    }

    @Test func damageIsToldAndADamagedFooterIsNoObstacle() throws {
        let folder = TemporaryDirectory()
        let (log, all) = try makeLog(folder)
        let segment = try log.catalog.segment(base: Position(0))
        let trailer = try #require(segment.trailer), index = try #require(try segment.blockIndex())
        log.close()
        let selection = EventSelection.device(tenant: "t1", device: "d3"), everything = Position(0)..<Position(.max)
        let expected = all.filter { $0.topic.hasPrefix("tenant/t1/device/d3/") }.map(\.payload)
        for section in [trailer.index, trailer.postings] {
            for offset in stride(from: 0, to: section.byteCount, by: 37) {
                let damaged = try folder.copy()
                try damaged.patch(damaged.segments[0], at: section.offset + offset, [0xA5])
                #expect(try read(ReadOnlyLog(directory: damaged.path).events(selection, in: everything)) == expected)
            }
        }
        let damaged = try folder.copy()
        try damaged.patch(damaged.segments[0], at: index.entries[0].offset + 300, [0xA5, 0x5A])
        let error = #expect(throws: LogError.self) {
            try read(ReadOnlyLog(directory: damaged.path).events(selection, in: everything))
        }
        #expect(error?.code == .corrupt)
    }
}
