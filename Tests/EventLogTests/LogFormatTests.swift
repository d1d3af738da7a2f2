import CChecksum
import EventModel
import Foundation
import Testing
@testable import EventLog

/// The specification's own examples, byte by byte. They were made by another program than this one.
@Suite struct LogFormatTests {
    /// The bytes of a fenced hex dump of `schemas/log-format.md`, at the offsets that it says.
    static func example(_ name: String, into bytes: inout [UInt8]) throws {
        let file = URL(fileURLWithPath: #filePath).appendingPathComponent("../../../schemas/log-format.md").standardized
        let text = try String(contentsOf: file, encoding: .utf8)
        let begin = try #require(text.range(of: "```\(name)\n"))
        let end = try #require(text.range(of: "\n```", range: begin.upperBound..<text.endIndex))
        for line in text[begin.upperBound..<end.lowerBound].split(separator: "\n") {
            var offset = try #require(Int(line.prefix(4), radix: 16))
            for pair in line.dropFirst(6).prefix(47).split(separator: " ") {
                bytes[offset] = try #require(UInt8(pair, radix: 16))
                offset += 1
            }
        }
    }

    static func page(_ name: String) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 4096)
        try example(name, into: &bytes)
        return bytes
    }

    private let time = Timestamp(rfc3339: "2026-11-21T00:00:00Z")!
    private var header: SegmentHeader {
        SegmentHeader(
            logID: LogID(high: 0x0011_2233_4455_6677, low: 0x8899_AABB_CCDD_EEFF), salt: 0x0123_4567_89AB_CDEF,
            base: Position(42), created: time, segmentBytes: 64 << 20)
    }

    @Test func theSegmentHeaderIsAsWritten() throws {
        let literal = try Self.page("segment-header")
        #expect(try literal.withUnsafeBytes { try SegmentHeader.decode($0) } == header)
        var encoded = [UInt8](repeating: 0xEE, count: 4096)
        encoded.withUnsafeMutableBytes { header.encode(into: $0) }
        #expect(encoded == literal)
        #expect(header.logID.description == "00112233445566778899aabbccddeeff")
        #expect(LogFormat.segmentName(Position(4711)) == "00000000000000004711.seg")
        #expect(LogFormat.segmentBase(name: "00000000000000004711.seg") == Position(4711))
        for name in ["4711.seg", "0000000000000000471x.seg", "00000000000000004711.tmp", "99999999999999999999.seg"] {
            #expect(LogFormat.segmentBase(name: name) == nil)
        }
    }

    @Test func everyByteOfTheHeadersIsGuarded() throws {
        let segment = try Self.page("segment-header"), block = try Self.page("block")
        for index in segment.indices {
            var changed = segment
            changed[index] ^= 0x20
            #expect(throws: SegmentHeader.DecodeError.self) {
                try changed.withUnsafeBytes { try SegmentHeader.decode($0) }
            }
        }
        for index in 0..<BlockHeader.byteCount {
            var changed = block
            changed[index] ^= 0x01
            #expect(changed.withUnsafeBytes { BlockHeader($0, salt: header.salt) } == nil, "byte \(index)")
        }
    }

    @Test func theBlockIsAsWritten() throws {
        let literal = try Self.page("block")
        let encoder = GroupEncoder(blockBytesTarget: 1 << 20)
        var records = RecordBatch()
        records.append(
            kind: .message, verdict: .accepted, flags: RecordFlags(qos: 1),
            receivedAt: time.adding(microseconds: 1_500_000),
            packetID: 9, broker: Array("main".utf8), topic: Array("tenant/acme/device/d1/heartbeat".utf8),
            properties: [],
            payload: Array(#"{"seq":7}"#.utf8))
        encoder.begin(at: Position(42))
        let times = records.raiseTimes(to: Timestamp(microseconds: 0))
        _ = encoder.add(records, first: times.first, last: times.last)
        encoder.finish()
        encoder.seal(salt: header.salt)
        #expect(Array(encoder.bytes) == literal)
    }

    @Test func aLogOfLiteralBytesIsRead() throws {
        let folder = TemporaryDirectory()
        // The example begins at position 42; that there was a beginning is not for a reader to ask.
        let bytes = try Self.page("segment-header") + Self.page("block") + [UInt8](repeating: 0, count: 8192)
        let name = folder.path + "/" + LogFormat.segmentName(Position(42))
        #expect(FileManager.default.createFile(atPath: name, contents: Data(bytes)))
        let log = try ReadOnlyLog(directory: folder.path)
        #expect(log.durableCount == 43 && log.firstPosition == Position(42))
        #expect(try payloads(log, from: 42) == [#"{"seq":7}"#])
        let error = #expect(throws: LogError.self) { try payloads(log, from: 41) }
        #expect(error?.code == .beforeHorizon)
    }

    @Test func claimsBeyondTheLimitsAreRefusedBeforeMemoryIsTaken() throws {
        let good = try Self.page("block")
        let claims: [(offset: Int, value: UInt32, what: String)] = [
            (8, UInt32(LogFormat.rawBytesMax) + 1, "raw beyond the limit"), (8, 1, "stored beyond raw"),
            (12, 0, "nothing stored"), (16, 0, "no events"), (16, 100, "more events than fit"),
            (20, 2, "an unknown codec"),
            (20, 256, "a byte that is to be zero"), (68, 1, "a word that is to be zero"),
            (56, 43, "durable beyond itself"),
        ]
        for claim in claims {
            var bytes = good
            bytes.withUnsafeMutableBytes { raw in
                raw.store(little: claim.value, claim.offset)
                raw.store(little: LogFormat.crc(UnsafeRawBufferPointer(rebasing: raw[8..<BlockHeader.byteCount])), 4)
            }
            #expect(bytes.withUnsafeBytes { BlockHeader($0, salt: header.salt) } == nil, "\(claim.what)")
        }
        #expect(good.withUnsafeBytes { BlockHeader($0, salt: header.salt) } != nil)
        #expect(good.withUnsafeBytes { BlockHeader($0, salt: header.salt + 1) } == nil, "another segment's")
    }

    @Test func theChecksumOfTheInstructionIsThatOfTheTable() {
        #expect(
            "123456789".utf8.withContiguousStorageIfAvailable { refold_crc32c(0, $0.baseAddress, 9) }
                == 0xE306_9283)
        let bytes = (0..<20_000).map { _ in UInt8.random(in: 0...255) }
        bytes.withUnsafeBytes { raw in
            for length in Array(0..<70) + [1023, 1024, 3071, 3072, 3073, 6144, 9999, 20_000 - 3] {
                for offset in 0..<3 {
                    let start = raw.baseAddress! + offset
                    #expect(refold_crc32c(7, start, length) == refold_crc32c_portable(7, start, length))
                }
            }
        }
    }
}
