import EventModel
import Foundation
import Testing
@testable import EventLog

/// A folder of its own, deleted with the object.
final class TemporaryDirectory {
    let path: String

    init() {
        path = FileManager.default.temporaryDirectory.appendingPathComponent("refold-log-\(UUID().uuidString)").path
        try? FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    /// Copies the folder as it is now, as a crash would leave it.
    func copy() throws -> TemporaryDirectory {
        let other = TemporaryDirectory()
        for name in try FileManager.default.contentsOfDirectory(atPath: path) {
            try FileManager.default.copyItem(atPath: path + "/" + name, toPath: other.path + "/" + name)
        }
        return other
    }

    var segments: [String] {
        ((try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []).filter { $0.hasSuffix(".seg") }.sorted()
    }

    func patch(_ name: String, at offset: Int, _ bytes: [UInt8]) throws {
        // A sealed one is read-only.
        chmod(path + "/" + name, 0o600)
        let file = try #require(FileHandle(forUpdatingAtPath: path + "/" + name))
        try file.seek(toOffset: UInt64(offset))
        try file.write(contentsOf: bytes)
        try file.close()
    }

    func bytes(_ name: String) throws -> [UInt8] {
        Array(try #require(FileManager.default.contents(atPath: path + "/" + name)))
    }
}

/// A clock that stands where it is put.
final class TestClock: LogClock, @unchecked Sendable {
    private let lock = NSLock()
    private var wall: Int64
    private var steady: Int64 = 0
    var isSynchronised = false
    var bootID: String?

    init(_ time: String = "2026-11-21T00:00:00Z") { wall = Timestamp(rfc3339: time)!.microseconds }
    func now() -> Timestamp { lock.withLock { Timestamp(microseconds: wall) } }
    func steadyMicroseconds() -> Int64 { lock.withLock { steady } }
    func advance(seconds: Double) {
        lock.withLock {
            wall += Int64(seconds * 1e6)
            steady += Int64(seconds * 1e6)
        }
    }
    func step(seconds: Double) { lock.withLock { wall += Int64(seconds * 1e6) } }
}

func batch(_ payloads: [String], at time: Timestamp = Timestamp(microseconds: 1_000_000)) -> RecordBatch {
    var batch = RecordBatch()
    for payload in payloads {
        batch.append(
            kind: .message, verdict: .accepted, flags: RecordFlags(qos: 1), receivedAt: time, packetID: 7,
            broker: Array("main".utf8), topic: Array("tenant/acme/device/d1/telemetry".utf8), properties: [],
            payload: Array(payload.utf8))
    }
    return batch
}

extension RecordBatch {
    mutating func append(
        kind: EventKind, verdict: Verdict, flags: RecordFlags, receivedAt: Timestamp, packetID: UInt16,
        broker: [UInt8], topic: [UInt8], properties: [UInt8], payload: [UInt8]
    ) {
        broker.withUnsafeBytes { broker in
            topic.withUnsafeBytes { topic in
                properties.withUnsafeBytes { properties in
                    payload.withUnsafeBytes { payload in
                        append(
                            kind: kind, verdict: verdict, flags: flags, receivedAt: receivedAt, packetID: packetID,
                            broker: broker, topic: topic, properties: properties, payload: payload)
                    }
                }
            }
        }
    }
}

/// All payloads from `position` on.
func payloads(_ source: any LogSource, from position: UInt64 = 0, atLeast: Int = 1) throws -> [String] {
    let reader = try source.reader(from: Position(position))
    let block = EventBlock()
    var result: [String] = []
    var next = Position(position)
    while try reader.read(into: block, atLeast: atLeast) {
        block.forEach { record, at in
            guard at >= next else { return }
            #expect(at == next, "positions follow each other")
            next = at.next
            result.append(String(decoding: record.payload, as: UTF8.self))
        }
        #expect(reader.position == next)
    }
    return result
}

extension FileLog {
    @discardableResult
    func add(_ payloads: String..., at time: Timestamp = Timestamp(microseconds: 1_000_000)) throws -> Range<Position> {
        var records = batch(payloads, at: time)
        return try append(&records)
    }
}

func options(segmentBytes: Int = 64 << 10) -> FileLogOptions {
    var options = FileLogOptions()
    options.segmentBytes = segmentBytes
    // Tests of keeping step the maintainer themselves.
    options.isKeeping = false
    options.clock = TestClock()
    return options
}
