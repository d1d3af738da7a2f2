// What stands behind the blocks of a sealed segment. `schemas/log-format.md`, "Footer", is the specification.
//
// A footer is a page-aligned run: a frame of 72 bytes, which tells a scanner that the blocks end here; three sections
// (block index, posting lists, tree); and, as the file's last page, the trailer. Whoever opens the segment reads the
// trailer and nothing else. A footer says nothing that the blocks do not say: damaged, it is made again.

import EventModel

/// Where one section of a footer lies, and the CRC32C of it. An empty section was not made.
struct FooterSection: Equatable {
    static let byteCount = 24

    /// From the file's beginning, in bytes.
    var offset = 0
    var byteCount = 0
    var crc: UInt32 = 0
}

/// The first bytes of a footer.
struct FooterFrame: Equatable {
    /// As long as a block's header, so that a scanner reads one or the other.
    static let byteCount = BlockHeader.byteCount
    static let magic: UInt32 = 0x5254_4652  // "RFTR"

    var base: Position
    /// Position behind the last event.
    var end: Position
    var salt: UInt64
    var blockCount: Int
    /// Of the whole footer, trailer included.
    var footerBytes: Int

    func encode(into bytes: UnsafeMutableRawBufferPointer) {
        precondition(bytes.count == Self.byteCount)
        bytes.initializeMemory(as: UInt8.self, repeating: 0)
        bytes.store(little: Self.magic, 0)
        bytes.store(little: UInt64(footerBytes), 8)
        bytes.store(little: UInt64(blockCount), 16)
        bytes.store(little: base.rawValue, 24)
        bytes.store(little: end.rawValue, 32)
        bytes.store(little: salt, 48)
        bytes.store(little: LogFormat.crc(UnsafeRawBufferPointer(rebasing: bytes[8...])), 4)
    }
}

extension FooterFrame {
    /// Nil when these bytes are not the frame of a footer of the segment with this salt.
    init?(_ bytes: UnsafeRawBufferPointer, salt expectedSalt: UInt64) {
        guard bytes.count >= Self.byteCount, bytes.little(0, as: UInt32.self) == Self.magic,
            bytes.little(48, as: UInt64.self) == expectedSalt,
            bytes.little(4, as: UInt32.self)
                == LogFormat.crc(UnsafeRawBufferPointer(rebasing: bytes[8..<Self.byteCount])),
            let footerBytes = Int(exactly: bytes.little(8, as: UInt64.self)),
            let blockCount = Int(exactly: bytes.little(16, as: UInt64.self))
        else { return nil }
        self.footerBytes = footerBytes
        self.blockCount = blockCount
        base = Position(bytes.little(24, as: UInt64.self))
        end = Position(bytes.little(32, as: UInt64.self))
        salt = expectedSalt
    }
}

/// The last page of a sealed segment: all that must be known to open it. A segment is sealed when, and only when, its
/// last page is a valid trailer.
struct SegmentTrailer: Equatable {
    static let byteCount = LogFormat.alignment
    static let magic: UInt64 = 0x4C52_5444_4C4F_4652  // "RFOLDTRL"
    private static let crcOffset = byteCount - 4
    /// Kinds and verdicts that have a counter.
    static let counterCount = 8

    var logID: LogID
    var salt: UInt64
    var base: Position
    /// Position behind the last event.
    var end: Position
    var firstTime: Timestamp
    var lastTime: Timestamp
    /// Where the blocks end and the footer begins.
    var footerOffset: Int
    /// Of the whole file: one that was cut or that grew is not sealed.
    var fileBytes: Int
    var blockCount: Int
    /// Bytes of the records, before compression.
    var rawBytes: UInt64
    /// Events by `EventKind.rawValue` and by `Verdict.rawValue`.
    var kindCounts = [UInt64](repeating: 0, count: counterCount)
    var verdictCounts = [UInt64](repeating: 0, count: counterCount)
    var index = FooterSection()
    var postings = FooterSection()
    var tree = FooterSection()

    var eventCount: UInt64 { end.rawValue - base.rawValue }

    func encode(into bytes: UnsafeMutableRawBufferPointer) {
        precondition(
            bytes.count == Self.byteCount && kindCounts.count == Self.counterCount
                && verdictCounts.count == Self.counterCount)
        bytes.initializeMemory(as: UInt8.self, repeating: 0)
        bytes.store(little: Self.magic, 0)
        bytes.store(little: LogFormat.version, 8)
        bytes.store(little: UInt32(Self.byteCount), 12)
        bytes.storeBytes(of: logID.high.bigEndian, toByteOffset: 16, as: UInt64.self)
        bytes.storeBytes(of: logID.low.bigEndian, toByteOffset: 24, as: UInt64.self)
        bytes.store(little: salt, 32)
        bytes.store(little: base.rawValue, 40)
        bytes.store(little: end.rawValue, 48)
        bytes.store(little: firstTime.microseconds, 56)
        bytes.store(little: lastTime.microseconds, 64)
        bytes.store(little: UInt64(footerOffset), 72)
        bytes.store(little: UInt64(fileBytes), 80)
        bytes.store(little: UInt64(blockCount), 88)
        bytes.store(little: rawBytes, 96)
        for index in 0..<Self.counterCount {
            bytes.store(little: kindCounts[index], 104 + 8 * index)
            bytes.store(little: verdictCounts[index], 168 + 8 * index)
        }
        for (number, section) in [index, postings, tree].enumerated() {
            let offset = 232 + FooterSection.byteCount * number
            bytes.store(little: UInt64(section.offset), offset)
            bytes.store(little: UInt64(section.byteCount), offset + 8)
            bytes.store(little: section.crc, offset + 16)
        }
        bytes.store(little: LogFormat.crc(UnsafeRawBufferPointer(rebasing: bytes[..<Self.crcOffset])), Self.crcOffset)
    }

    /// Nil when this page is not the whole trailer of a file of `fileBytes`, or claims what cannot be.
    init?(_ bytes: UnsafeRawBufferPointer, fileBytes expectedBytes: Int) {
        guard bytes.count == Self.byteCount, bytes.little(0, as: UInt64.self) == Self.magic,
            bytes.little(Self.crcOffset, as: UInt32.self)
                == LogFormat.crc(UnsafeRawBufferPointer(rebasing: bytes[..<Self.crcOffset])),
            bytes.little(8, as: UInt32.self) == LogFormat.version,
            bytes.little(12, as: UInt32.self) == UInt32(Self.byteCount),
            let footerOffset = Int(exactly: bytes.little(72, as: UInt64.self)),
            let fileBytes = Int(exactly: bytes.little(80, as: UInt64.self)), fileBytes == expectedBytes,
            let blockCount = Int(exactly: bytes.little(88, as: UInt64.self))
        else { return nil }
        logID = LogID(
            high: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 16, as: UInt64.self)),
            low: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 24, as: UInt64.self)))
        salt = bytes.little(32)
        base = Position(bytes.little(40, as: UInt64.self))
        end = Position(bytes.little(48, as: UInt64.self))
        firstTime = Timestamp(storedMicroseconds: bytes.little(56))
        lastTime = Timestamp(storedMicroseconds: bytes.little(64))
        self.footerOffset = footerOffset
        self.fileBytes = fileBytes
        self.blockCount = blockCount
        rawBytes = bytes.little(96)
        for index in 0..<Self.counterCount {
            kindCounts[index] = bytes.little(104 + 8 * index)
            verdictCounts[index] = bytes.little(168 + 8 * index)
        }
        var sections: [FooterSection] = []
        for number in 0..<3 {
            let offset = 232 + FooterSection.byteCount * number
            guard let begin = Int(exactly: bytes.little(offset, as: UInt64.self)),
                let count = Int(exactly: bytes.little(offset + 8, as: UInt64.self)),
                count == 0 || (begin >= footerOffset && begin <= fileBytes && count <= fileBytes - begin)
            else { return nil }
            sections.append(FooterSection(offset: begin, byteCount: count, crc: bytes.little(offset + 16)))
        }
        (index, postings, tree) = (sections[0], sections[1], sections[2])
        guard base < end, firstTime <= lastTime, footerOffset >= SegmentHeader.byteCount,
            footerOffset % LogFormat.alignment == 0, footerOffset < fileBytes - Self.byteCount,
            blockCount > 0, blockCount <= footerOffset / LogFormat.alignment
        else { return nil }
    }

    /// Everything but the footer's own places, which `Footer.encode` finds.
    init(header: SegmentHeader, end: Position, firstTime: Timestamp, lastTime: Timestamp, footerOffset: Int) {
        logID = header.logID
        salt = header.salt
        base = header.base
        self.end = end
        self.firstTime = firstTime
        self.lastTime = lastTime
        self.footerOffset = footerOffset
        fileBytes = 0
        blockCount = 0
        rawBytes = 0
    }
}

enum Footer {
    /// The bytes of a whole footer, to be written at `trailer.footerOffset`. Fills in where its sections lie.
    static func encode(
        _ trailer: inout SegmentTrailer, index: [UInt8], postings: [UInt8], tree: [UInt8]
    ) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: FooterFrame.byteCount)
        func add(_ section: [UInt8]) -> FooterSection {
            guard !section.isEmpty else { return FooterSection() }
            bytes.append(contentsOf: repeatElement(0, count: -bytes.count & 7))
            let place = FooterSection(
                offset: trailer.footerOffset + bytes.count, byteCount: section.count,
                crc: section.withUnsafeBytes { LogFormat.crc($0) })
            bytes.append(contentsOf: section)
            return place
        }
        trailer.index = add(index)
        trailer.postings = add(postings)
        trailer.tree = add(tree)
        let total = LogFormat.aligned(bytes.count) + SegmentTrailer.byteCount
        bytes.append(contentsOf: repeatElement(0, count: total - bytes.count))
        trailer.fileBytes = trailer.footerOffset + total
        let frame = FooterFrame(
            base: trailer.base, end: trailer.end, salt: trailer.salt, blockCount: trailer.blockCount,
            footerBytes: total)
        bytes.withUnsafeMutableBytes { raw in
            frame.encode(into: UnsafeMutableRawBufferPointer(rebasing: raw[..<FooterFrame.byteCount]))
            trailer.encode(into: UnsafeMutableRawBufferPointer(rebasing: raw[(total - SegmentTrailer.byteCount)...]))
        }
        return bytes
    }
}
