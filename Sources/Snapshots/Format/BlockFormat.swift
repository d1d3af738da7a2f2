import CChecksum
import CLZ4
import EventLog

// Blocks of rows on disk: those of a snapshot, and those of the runs in which rows are kept while they are folded.
// `schemas/snapshot-format.md` is the specification.

/// What stands before the bytes of a block.
struct BlockHead: Equatable {
    static let byteCount = 32
    static let magic: UInt32 = 0x4B42_5352  // "RSBK"
    /// More is never allocated, whatever a header claims: a row may be as large as a record, and a little more.
    static let rawBytesMax = 64 << 20

    enum Codec: UInt32 { case raw = 0, lz4 = 1 }

    var section: UInt32
    var rows: UInt32
    var rawBytes: UInt32
    var storedBytes: UInt32
    var codec: Codec
    /// CRC32C of the stored bytes, begun with the file's salt: what is left of another file never passes.
    var storedCRC: UInt32

    func encode(into bytes: UnsafeMutableRawBufferPointer, salt: UInt32) {
        let words = [Self.magic, section, rows, rawBytes, storedBytes, codec.rawValue, storedCRC]
        for (index, value) in words.enumerated() {
            bytes.storeBytes(of: value.littleEndian, toByteOffset: index * 4, as: UInt32.self)
        }
        let crc = refold_crc32c(salt, bytes.baseAddress, 28)
        bytes.storeBytes(of: crc.littleEndian, toByteOffset: 28, as: UInt32.self)
    }
}

extension BlockHead {
    /// Nil when these bytes are no head of a block of the file with this salt.
    init?(_ bytes: UnsafeRawBufferPointer, salt: UInt32) {
        func word(_ index: Int) -> UInt32 {
            UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: index * 4, as: UInt32.self))
        }
        guard bytes.count >= Self.byteCount, word(0) == Self.magic, let codec = Codec(rawValue: word(5)),
            refold_crc32c(salt, bytes.baseAddress, 28) == word(7), word(3) <= Self.rawBytesMax,
            word(4) <= Self.rawBytesMax, codec == .lz4 || word(3) == word(4)
        else { return nil }
        (section, rows, rawBytes, storedBytes) = (word(1), word(2), word(3), word(4))
        self.codec = codec
        storedCRC = word(6)
    }
}

/// Where a block lies, and which key its first row has.
struct BlockPlace: Equatable, Sendable {
    var offset: Int
    /// Head included.
    var byteCount: Int
    var rows: Int
    var firstKey: [UInt8]
}

/// Writes blocks one behind the other, a mebibyte at a time.
final class BlockWriter {
    private let file: any LogFile
    private let salt: UInt32
    private var buffer: [UInt8] = []
    /// Where `buffer` goes.
    private var bufferOffset: Int
    private var compressed: [UInt8] = []
    /// Sees all bytes in the order of the file.
    private let observe: (UnsafeRawBufferPointer) -> Void

    init(
        file: any LogFile, at offset: Int, salt: UInt32,
        observe: @escaping (UnsafeRawBufferPointer) -> Void = { _ in }
    ) {
        self.file = file
        self.salt = salt
        self.observe = observe
        bufferOffset = offset
    }

    /// Where the next byte goes.
    var offset: Int { bufferOffset + buffer.count }

    func write(_ raw: [UInt8], rows: Int, section: UInt32, firstKey: [UInt8]) throws -> BlockPlace {
        precondition(raw.count <= BlockHead.rawBytesMax, "a block is longer than a reader takes")
        let start = offset
        let bound = Int(LZ4_compressBound(Int32(raw.count)))
        if compressed.count < bound { compressed = [UInt8](repeating: 0, count: bound) }
        let size = raw.withUnsafeBytes { raw in
            compressed.withUnsafeMutableBytes { room in
                Int(
                    LZ4_compress_default(
                        raw.assumingMemoryBound(to: CChar.self).baseAddress,
                        room.assumingMemoryBound(to: CChar.self).baseAddress, Int32(raw.count), Int32(room.count)))
            }
        }
        let isCompressed = size > 0 && size < raw.count
        let stored = isCompressed ? compressed[..<size] : raw[...]
        let crc = stored.withUnsafeBytes { refold_crc32c(salt, $0.baseAddress, $0.count) }
        let head = BlockHead(
            section: section, rows: UInt32(rows), rawBytes: UInt32(raw.count), storedBytes: UInt32(stored.count),
            codec: isCompressed ? .lz4 : .raw, storedCRC: crc)
        withUnsafeTemporaryAllocation(byteCount: BlockHead.byteCount, alignment: 8) { room in
            head.encode(into: room, salt: salt)
            buffer.append(contentsOf: room)
        }
        buffer.append(contentsOf: stored)
        if buffer.count >= 1 << 20 { try flush() }
        return BlockPlace(offset: start, byteCount: BlockHead.byteCount + stored.count, rows: rows, firstKey: firstKey)
    }

    func write(_ bytes: [UInt8]) throws {
        buffer.append(contentsOf: bytes)
        if buffer.count >= 1 << 20 { try flush() }
    }

    func flush() throws {
        try buffer.withUnsafeBytes { bytes in
            guard bytes.count > 0 else { return }
            observe(bytes)
            try file.write(bytes, at: bufferOffset)
        }
        bufferOffset += buffer.count
        buffer.removeAll(keepingCapacity: true)
    }
}

/// A block's rows in memory.
final class RowBlock {
    fileprivate(set) var bytes: [UInt8]
    /// Where each row begins, and the end.
    let offsets: [Int]

    var count: Int { offsets.count - 1 }

    fileprivate init(bytes: [UInt8], offsets: [Int]) {
        self.bytes = bytes
        self.offsets = offsets
    }

    func row<R>(_ index: Int, _ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
        try bytes.withUnsafeBytes {
            try body(UnsafeRawBufferPointer(rebasing: $0[offsets[index]..<offsets[index + 1]]))
        }
    }
}

/// Reads blocks, each checked.
struct BlockReader: Sendable {
    let file: any LogFile
    let salt: UInt32
    /// For messages.
    let path: String

    /// The raw bytes of a block.
    func raw(_ place: BlockPlace, section: UInt32) throws -> [UInt8] {
        var stored = [UInt8](repeating: 0, count: place.byteCount)
        let count = try stored.withUnsafeMutableBytes { try file.read(into: $0, at: place.offset) }
        return try stored.withUnsafeBytes { stored in
            guard count == place.byteCount, let head = BlockHead(stored, salt: salt), head.section == section,
                Int(head.rows) == place.rows, BlockHead.byteCount + Int(head.storedBytes) == place.byteCount
            else { throw damaged(place, "its head is not what was written") }
            let body = UnsafeRawBufferPointer(rebasing: stored[BlockHead.byteCount...])
            guard refold_crc32c(salt, body.baseAddress, body.count) == head.storedCRC else {
                throw damaged(place, "its checksum is wrong")
            }
            guard head.codec == .lz4 else { return Array(body) }
            var raw = [UInt8](repeating: 0, count: Int(head.rawBytes))
            let size = raw.withUnsafeMutableBytes { raw in
                LZ4_decompress_safe(
                    body.assumingMemoryBound(to: CChar.self).baseAddress,
                    raw.assumingMemoryBound(to: CChar.self).baseAddress, Int32(body.count), Int32(raw.count))
            }
            guard Int(size) == raw.count else { throw damaged(place, "it does not decompress") }
            return raw
        }
    }

    func rows(_ place: BlockPlace, section: UInt32) throws -> RowBlock {
        let bytes = try raw(place, section: section)
        var offsets = [0]
        offsets.reserveCapacity(place.rows + 1)
        try bytes.withUnsafeBytes { bytes in
            while offsets[offsets.count - 1] < bytes.count {
                guard let length = Tuple.length(in: bytes, at: offsets[offsets.count - 1]) else {
                    throw damaged(place, "it holds no whole rows")
                }
                offsets.append(offsets[offsets.count - 1] + length)
            }
        }
        guard offsets.count == place.rows + 1 else { throw damaged(place, "it does not hold \(place.rows) rows") }
        return RowBlock(bytes: bytes, offsets: offsets)
    }

    private func damaged(_ place: BlockPlace, _ what: String) -> SnapshotError {
        SnapshotError(.damaged, "\(path): the block at byte \(place.offset) is damaged: \(what)")
    }
}
