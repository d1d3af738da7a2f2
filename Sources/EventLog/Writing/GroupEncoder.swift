import CLZ4
import EventModel
import Glibc

/// Turns the batches of one group commit into blocks, in buffers that it keeps. Belongs to the writer's thread.
/// `begin`, then `add` for each batch, then `seal`; `bytes` is what goes to disk.
final class GroupEncoder {
    private let blockBytesTarget: Int
    private var raw = GrowingBuffer()
    private var output = GrowingBuffer()
    private var headers: [(offset: Int, header: BlockHeader)] = []
    private var open: (count: Int, first: Timestamp, last: Timestamp)?
    private(set) var base = Position(0)
    private(set) var end = Position(0)
    private(set) var rawBytes = 0
    private var durableCount: UInt64 = 0

    init(blockBytesTarget: Int) { self.blockBytesTarget = blockBytesTarget }

    var bytes: UnsafeRawBufferPointer { output.bytes }
    var eventCount: Int { Int(end.rawValue - base.rawValue) }
    var blockCount: Int { headers.count }
    var lastTime: Timestamp? { headers.last?.header.lastTime }

    /// `durableCount` is both where the group begins and what its headers say is durable.
    func begin(at base: Position) {
        raw.removeAll()
        output.removeAll()
        headers.removeAll(keepingCapacity: true)
        open = nil
        self.base = base
        end = base
        rawBytes = 0
        durableCount = base.rawValue
    }

    /// Adds a batch whose times are `first` to `last`; it lies in one block as a whole. Returns its positions.
    func add(_ batch: RecordBatch, first: Timestamp, last: Timestamp) -> Range<Position> {
        if open != nil, raw.count + batch.byteCount > blockBytesTarget { closeBlock() }
        batch.withUnsafeBytes { raw.append($0) }
        open = (count: (open?.count ?? 0) + batch.count, first: open?.first ?? first, last: last)
        let positions = end..<end.advanced(by: batch.count)
        end = positions.upperBound
        rawBytes += batch.byteCount
        return positions
    }

    /// Closes the last block. The bytes lack only their headers, which need the segment's salt.
    func finish() { closeBlock() }

    /// Writes the headers.
    func seal(salt: UInt64) {
        for (offset, header) in headers {
            var header = header
            header.salt = salt
            header.encode(into: output.region(offset, BlockHeader.byteCount))
        }
    }

    private func closeBlock() {
        guard let block = open else { return }
        let start = output.count
        headers.append(
            (
                start,
                BlockEncoder.append(
                    raw.bytes, count: block.count, base: headers.last?.header.end ?? base, firstTime: block.first,
                    lastTime: block.last, durableCount: durableCount, to: output)
            ))
        raw.removeAll()
        open = nil
    }
}

enum BlockEncoder {
    enum Effort {
        /// For the writer, whom others wait for: about 500 MB/s.
        case fast
        /// For packing: a fifth fewer bytes of telemetry (39 an event, not 49), at 150 MB/s. Higher levels of LZ4 HC
        /// cost far more and gain a percent or two. Decoding is as fast.
        case high
    }

    /// Appends a block of these records, with its padding, and room for its header, which lacks the segment's salt.
    static func append(
        _ raw: UnsafeRawBufferPointer, count: Int, base: Position, firstTime: Timestamp, lastTime: Timestamp,
        durableCount: UInt64, effort: Effort = .fast, to output: GrowingBuffer
    ) -> BlockHeader {
        let start = output.count
        let room = output.grow(by: BlockHeader.byteCount + raw.count + LogFormat.alignment)
        let body = UnsafeMutableRawBufferPointer(
            rebasing: room[BlockHeader.byteCount..<(BlockHeader.byteCount + raw.count)])
        var stored = 0
        // Compression that does not save a page saves nothing.
        if BlockHeader.byteCount + raw.count > LogFormat.alignment {
            let from = raw.assumingMemoryBound(to: CChar.self).baseAddress
            let to = body.assumingMemoryBound(to: CChar.self).baseAddress
            let (size, room) = (Int32(raw.count), Int32(raw.count - 1))
            stored =
                switch effort {
                case .fast: Int(LZ4_compress_fast(from, to, size, room, 1))
                case .high: Int(LZ4_compress_HC(from, to, size, room, 4))
                }
        }
        let codec: BlockCodec = stored > 0 ? .lz4 : .raw
        if codec == .raw {
            body.copyMemory(from: raw)
            stored = raw.count
        }
        let used = BlockHeader.byteCount + stored
        let onDisk = LogFormat.aligned(used)
        output.region(start + used, onDisk - used).initializeMemory(as: UInt8.self, repeating: 0)
        output.shrink(to: start + onDisk)
        return BlockHeader(
            codec: codec, count: count, rawBytes: raw.count, storedBytes: stored, base: base, firstTime: firstTime,
            lastTime: lastTime, salt: 0, durableCount: durableCount,
            storedCRC: LogFormat.crc(UnsafeRawBufferPointer(rebasing: body[..<stored])))
    }
}

/// Bytes that keep their memory: no zeroing, no reference count, aligned to pages.
final class GrowingBuffer {
    private var storage = UnsafeMutableRawBufferPointer.allocate(byteCount: 256 << 10, alignment: LogFormat.alignment)
    private(set) var count = 0

    deinit { storage.deallocate() }

    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: storage[..<count]) }
    func region(_ offset: Int, _ length: Int) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(rebasing: storage[offset..<(offset + length)])
    }
    func removeAll() { count = 0 }
    func shrink(to newCount: Int) {
        precondition(newCount <= count)
        count = newCount
    }

    /// Makes room behind the bytes and counts it in; the new bytes are not initialised.
    func grow(by more: Int) -> UnsafeMutableRawBufferPointer {
        if count + more > storage.count {
            let larger = UnsafeMutableRawBufferPointer.allocate(
                byteCount: max(count + more, 2 * storage.count), alignment: LogFormat.alignment)
            larger.copyMemory(from: bytes)
            storage.deallocate()
            storage = larger
        }
        count += more
        return region(count - more, more)
    }

    func append(_ more: UnsafeRawBufferPointer) { grow(by: more.count).copyMemory(from: more) }

    /// Drops the first bytes and moves the rest to the front.
    func removeFirst(_ dropped: Int) {
        precondition(dropped <= count)
        if let base = storage.baseAddress, dropped > 0, dropped < count {
            memmove(base, base + dropped, count - dropped)
        }
        count -= dropped
    }
}
