// The bytes on disk, version 1. `schemas/log-format.md` is the specification; LogFormatTests holds both to it.

import CChecksum
import EventModel
import Primitives

enum LogFormat {
    static let version: UInt32 = 1
    /// Segment headers and blocks begin at multiples of this: a page, so that no commit rewrites one that was
    /// acknowledged, on any disk with sectors of up to 4 KiB.
    static let alignment = 4096
    static let segmentMagic: UInt64 = 0x4745_5344_4C4F_4652  // "RFOLDSEG"
    static let blockMagic: UInt32 = 0x4B4C_4252  // "RBLK"
    /// The raw bytes of one block: more is never allocated, whatever a header claims.
    static let rawBytesMax = 64 << 20

    /// A mebibyte of zeroes to write from; never freed, never written to.
    nonisolated(unsafe) static let zeroes: UnsafeRawBufferPointer = {
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: alignment)
        bytes.initializeMemory(as: UInt8.self, repeating: 0)
        return UnsafeRawBufferPointer(bytes)
    }()

    static func aligned(_ offset: Int) -> Int { (offset + alignment - 1) & ~(alignment - 1) }

    static func crc(_ bytes: UnsafeRawBufferPointer, from crc: UInt32 = 0) -> UInt32 {
        refold_crc32c(crc, bytes.baseAddress, bytes.count)
    }

    static func isZero(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard let base = bytes.baseAddress else { return true }
        var offset = 0
        while offset + 8 <= bytes.count {
            if base.loadUnaligned(fromByteOffset: offset, as: UInt64.self) != 0 { return false }
            offset += 8
        }
        while offset < bytes.count {
            if bytes[offset] != 0 { return false }
            offset += 1
        }
        return true
    }

    /// `00000000000000004711.seg`
    static func segmentName(_ base: Position) -> String {
        let digits = String(base.rawValue)
        return String(repeating: "0", count: 20 - digits.utf8.count) + digits + ".seg"
    }

    /// The base position that a segment's name says, or nil when it is not a segment's name.
    static func segmentBase(name: String) -> Position? {
        guard name.utf8.count == 24, name.hasSuffix(".seg"),
            name.utf8.prefix(20).allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }), let base = UInt64(name.prefix(20))
        else { return nil }
        return Position(base)
    }
}

/// Names one log for ever; every segment carries it. 16 random bytes, shown as 32 hexadecimal digits.
public struct LogID: Hashable, Sendable, CustomStringConvertible {
    public let high: UInt64
    public let low: UInt64

    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    public var description: String { Hex.encode(high) + Hex.encode(low) }
}

extension UnsafeRawBufferPointer {
    func little<T: FixedWidthInteger>(_ offset: Int, as type: T.Type = T.self) -> T {
        precondition(offset >= 0 && offset + MemoryLayout<T>.size <= count, "a number beyond the buffer")
        return T(littleEndian: loadUnaligned(fromByteOffset: offset, as: T.self))
    }
}

extension UnsafeMutableRawBufferPointer {
    func store<T: FixedWidthInteger>(little value: T, _ offset: Int) {
        precondition(offset >= 0 && offset + MemoryLayout<T>.size <= count, "a number beyond the buffer")
        storeBytes(of: value.littleEndian, toByteOffset: offset, as: T.self)
    }
}

/// How the blocks of a segment came to be.
enum SegmentKind: UInt32 {
    /// By group commits; acknowledgements rely on it.
    case live = 0
    /// By packing the blocks of live segments, which held the same events.
    case packed = 1
}

/// The first page of a segment.
struct SegmentHeader: Equatable {
    static let byteCount = LogFormat.alignment
    private static let crcOffset = byteCount - 4

    var logID: LogID
    /// Random, repeated in each block: bytes left over from another segment never pass for this one's.
    var salt: UInt64
    var base: Position
    var created: Timestamp
    /// What was asked for when it was created, in bytes; the file may be shorter after a repair on a full disk.
    var segmentBytes: UInt64
    var kind = SegmentKind.live

    func encode(into bytes: UnsafeMutableRawBufferPointer) {
        precondition(bytes.count == Self.byteCount)
        bytes.initializeMemory(as: UInt8.self, repeating: 0)
        bytes.store(little: LogFormat.segmentMagic, 0)
        bytes.store(little: LogFormat.version, 8)
        bytes.store(little: UInt32(Self.byteCount), 12)
        bytes.storeBytes(of: logID.high.bigEndian, toByteOffset: 16, as: UInt64.self)
        bytes.storeBytes(of: logID.low.bigEndian, toByteOffset: 24, as: UInt64.self)
        bytes.store(little: salt, 32)
        bytes.store(little: base.rawValue, 40)
        bytes.store(little: created.microseconds, 48)
        bytes.store(little: segmentBytes, 56)
        bytes.store(little: kind.rawValue, 64)
        bytes.store(little: LogFormat.crc(UnsafeRawBufferPointer(rebasing: bytes[..<Self.crcOffset])), Self.crcOffset)
    }

    enum DecodeError: Error, Equatable {
        case notASegment, newerVersion(UInt32), damaged
    }

    static func decode(_ bytes: UnsafeRawBufferPointer) throws(DecodeError) -> SegmentHeader {
        guard bytes.count >= byteCount else { throw .damaged }
        guard bytes.little(0, as: UInt64.self) == LogFormat.segmentMagic else {
            // A page of zeroes, or a flipped bit in the magic of what is a header otherwise, is damage: nobody must be
            // told to move the file away for that.
            let looksLikeOurs = bytes.little(12, as: UInt32.self) == UInt32(byteCount)
            throw looksLikeOurs || LogFormat.isZero(bytes) ? .damaged : .notASegment
        }
        let crc = LogFormat.crc(UnsafeRawBufferPointer(rebasing: bytes[..<crcOffset]))
        guard crc == bytes.little(crcOffset, as: UInt32.self), bytes.little(12, as: UInt32.self) == UInt32(byteCount)
        else { throw .damaged }
        // Behind the checksum, which every version keeps in its place: a flipped bit is no newer format.
        let version = bytes.little(8, as: UInt32.self)
        guard version == LogFormat.version, let kind = SegmentKind(rawValue: bytes.little(64)) else {
            throw .newerVersion(version)
        }
        let id = LogID(
            high: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 16, as: UInt64.self)),
            low: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 24, as: UInt64.self)))
        return SegmentHeader(
            logID: id, salt: bytes.little(32), base: Position(bytes.little(40, as: UInt64.self)),
            created: Timestamp(storedMicroseconds: bytes.little(48)), segmentBytes: bytes.little(56), kind: kind)
    }
}

enum BlockCodec: UInt8 {
    case raw = 0
    case lz4 = 1
}

/// What stands before the records of one commit.
struct BlockHeader: Equatable {
    static let byteCount = 72
    /// A byte of an LZ4 block stands for at most so many (LZ4 block format: a length grows by 255 a byte).
    static let lz4GrowthMax = 255

    var codec: BlockCodec
    var count: Int
    var rawBytes: Int
    var storedBytes: Int
    var base: Position
    var firstTime: Timestamp
    var lastTime: Timestamp
    var salt: UInt64
    /// How many events were known to be durable when this was written: an earlier block that is damaged cannot be
    /// a torn write when it lies below.
    var durableCount: UInt64
    /// CRC32C of the stored bytes.
    var storedCRC: UInt32

    var end: Position { base.advanced(by: count) }
    /// With the header and the zeroes up to the next page.
    var bytesOnDisk: Int { LogFormat.aligned(Self.byteCount + storedBytes) }

    func encode(into bytes: UnsafeMutableRawBufferPointer) {
        precondition(bytes.count == Self.byteCount)
        bytes.store(little: LogFormat.blockMagic, 0)
        bytes.store(little: UInt32(rawBytes), 8)
        bytes.store(little: UInt32(storedBytes), 12)
        bytes.store(little: UInt32(count), 16)
        bytes.store(little: UInt32(codec.rawValue), 20)  // one byte and three of zero
        bytes.store(little: base.rawValue, 24)
        bytes.store(little: firstTime.microseconds, 32)
        bytes.store(little: lastTime.microseconds, 40)
        bytes.store(little: salt, 48)
        bytes.store(little: durableCount, 56)
        bytes.store(little: storedCRC, 64)
        bytes.store(little: UInt32(0), 68)
        bytes.store(little: LogFormat.crc(UnsafeRawBufferPointer(rebasing: bytes[8...])), 4)
    }
}

extension BlockHeader {
    /// Nil when these bytes are not a whole block header of the segment with this salt, or claim what cannot be.
    init?(_ bytes: UnsafeRawBufferPointer, salt expectedSalt: UInt64) {
        guard bytes.count >= Self.byteCount else { return nil }
        let crc = LogFormat.crc(UnsafeRawBufferPointer(rebasing: bytes[8..<Self.byteCount]))
        guard bytes.little(0, as: UInt32.self) == LogFormat.blockMagic, bytes.little(4, as: UInt32.self) == crc,
            bytes.little(48, as: UInt64.self) == expectedSalt || LogFault.isPlanted(.saltIgnored),
            bytes.little(68, as: UInt32.self) == 0,
            let codec = UInt8(exactly: bytes.little(20, as: UInt32.self)).flatMap(BlockCodec.init(rawValue:))
        else { return nil }
        self.codec = codec
        rawBytes = Int(bytes.little(8, as: UInt32.self))
        storedBytes = Int(bytes.little(12, as: UInt32.self))
        count = Int(bytes.little(16, as: UInt32.self))
        base = Position(bytes.little(24, as: UInt64.self))
        firstTime = Timestamp(storedMicroseconds: bytes.little(32))
        lastTime = Timestamp(storedMicroseconds: bytes.little(40))
        salt = expectedSalt
        durableCount = bytes.little(56)
        storedCRC = bytes.little(64)
        guard rawBytes <= LogFormat.rawBytesMax, storedBytes <= rawBytes, storedBytes > 0, count > 0,
            count <= rawBytes / RecordView.headerBytes,
            codec == .raw ? storedBytes == rawBytes : rawBytes <= storedBytes * Self.lz4GrowthMax,
            firstTime <= lastTime, base.rawValue <= UInt64.max - UInt64(count), durableCount <= base.rawValue
        else { return nil }
    }
}
