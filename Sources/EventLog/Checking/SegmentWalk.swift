import CLZ4
import EventModel

/// Walks one segment's blocks in order, from one place to the position where it must end, over damage.
///
/// Whoever walks knows how far events were durable (the next segment's base, or the durable count): what is missing
/// below that is damage, what is not there beyond is only not written yet, or torn.
struct SegmentWalk {
    enum Step {
        /// A whole, intact block, at this offset; the stored bytes are valid until the next call.
        case block(BlockHeader, offset: Int, stored: UnsafeRawBufferPointer)
        case damage(CorruptRange)
        /// Everything durable that the segment holds has been seen.
        case end
    }

    private let segment: Segment
    private let scanner: BlockScanner
    /// The walk ends at this position.
    private let limit: Position
    /// Where the next block must begin.
    private(set) var expected: Position
    /// Set when the file ended in damage.
    private(set) var isOver = false

    var offset: Int { scanner.offset }

    init(_ segment: Segment, from offset: Int = SegmentHeader.byteCount, expecting: Position, until limit: Position) {
        self.segment = segment
        self.limit = limit
        expected = expecting
        scanner = BlockScanner(file: segment.file, salt: segment.header.salt, offset: offset)
    }

    mutating func next() throws(FileError) -> Step {
        guard expected < limit, !isOver else { return .end }
        let offset = scanner.offset
        let reason: String
        switch try scanner.next() {
        case .block(let header, let stored) where header.base == expected:
            expected = header.end
            return .block(header, offset: offset, stored: stored)
        case .block(let header, _): reason = "expected position \(expected), found \(header.base)"
        case .damaged(let what): reason = what
        case .end: reason = "durable events are missing"
        }
        let later = try blockBehind(offset)
        let goesOn = min(later?.base ?? limit, limit)
        let behind = if let later { later.offset } else { try segment.file.byteCount() }
        let range = CorruptRange(
            segment: segment.path, bytes: offset..<max(offset, behind),
            positions: expected..<goesOn, reason: reason)
        expected = goesOn
        if let later { scanner.seek(to: later.offset) } else { isOver = true }
        return .damage(range)
    }

    /// The first whole block at or behind `offset` that holds what comes after the damage.
    private func blockBehind(_ offset: Int) throws(FileError) -> (base: Position, offset: Int)? {
        let search = BlockScanner(file: segment.file, salt: segment.header.salt, offset: offset)
        while let header = try search.findHeader() {
            let found = search.offset
            if header.base >= expected, header.base < limit, case .block = try search.next() {
                return (header.base, found)
            }
            search.seek(to: found + LogFormat.alignment)
        }
        return nil
    }
}

/// What can still be read of a damaged block: for the report, never for a fold.
enum Salvage {
    static let devicesMax = 100

    /// Device addresses (`tenant/{t}/device/{d}`) in the records that can still be made out at `range`, sorted; at most
    /// `devicesMax`. The checksum does not vouch for them: a name may have lost a letter.
    static func devices(in range: CorruptRange, of segment: Segment) -> [String] {
        guard range.bytes.count >= BlockHeader.byteCount else { return [] }
        let length = min(range.bytes.count, LogFormat.rawBytesMax + LogFormat.alignment)
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: length, alignment: 16)
        defer { bytes.deallocate() }
        guard let count = try? segment.file.read(into: bytes, at: range.bytes.lowerBound), count > 0 else { return [] }
        var names: Set<String> = []
        var offset = 0
        while offset + BlockHeader.byteCount <= count, names.count < devicesMax {
            let head = UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + BlockHeader.byteCount)])
            guard let header = BlockHeader(head, salt: segment.header.salt) else {
                offset += LogFormat.alignment
                continue
            }
            let end = min(offset + BlockHeader.byteCount + header.storedBytes, count)
            add(UnsafeRawBufferPointer(rebasing: bytes[(offset + BlockHeader.byteCount)..<end]), header, to: &names)
            offset += header.bytesOnDisk
        }
        return names.sorted()
    }

    private static func add(_ stored: UnsafeRawBufferPointer, _ header: BlockHeader, to names: inout Set<String>) {
        switch header.codec {
        case .raw: add(records: stored, to: &names)
        case .lz4:
            // What LZ4 could make of it before it failed is in the buffer; the rest is zero, which is no record.
            let room = UnsafeMutableRawBufferPointer.allocate(byteCount: header.rawBytes, alignment: 16)
            defer { room.deallocate() }
            room.initializeMemory(as: UInt8.self, repeating: 0)
            _ = LZ4_decompress_safe(
                stored.assumingMemoryBound(to: CChar.self).baseAddress,
                room.assumingMemoryBound(to: CChar.self).baseAddress, Int32(stored.count), Int32(room.count))
            add(records: UnsafeRawBufferPointer(room), to: &names)
        }
    }

    private static func add(records: UnsafeRawBufferPointer, to names: inout Set<String>) {
        var offset = 0
        while let length = RecordView.check(records, at: offset), length > 0, names.count < devicesMax,
            let start = records.baseAddress
        {
            let topic = RecordView(unchecked: start + offset).topic
            if let parsed = DeviceTopic(topic) {
                names.insert(String(decoding: UnsafeRawBufferPointer(rebasing: topic[parsed.address]), as: UTF8.self))
            }
            offset += length
        }
    }
}
