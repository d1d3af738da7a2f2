import EventModel
import Glibc

/// A segment's blocks do not lead from its base to where it must end. It is left as it is: not packed, not sealed.
struct SegmentDamage: Error {
    let range: CorruptRange
}

/// A segment that is no longer written, read block by block, decoded, from its base to where it must end.
struct WholeSegment {
    let segment: Segment
    let end: Position
    /// Whether an operator has given these positions up: then they are passed over.
    var isGivenUp: (Range<Position>) throws -> Bool = { _ in false }

    /// Returns where the blocks end.
    /// - Throws: `SegmentDamage`, `FileError`, and what `body` throws.
    func forEachBlock(_ body: (BlockHeader, Int, EventBlock) throws -> Void) throws -> Int {
        let block = EventBlock(capacity: 1 << 20)
        var walk = SegmentWalk(segment, expecting: segment.base, until: end)
        var damagedEnd = 0
        while true {
            switch try walk.next() {
            case .block(let header, let offset, let stored):
                block.removeAll(at: header.base)
                if FileLogReader.decode(header, stored, into: block) {
                    try body(header, offset, block)
                } else if try !isGivenUp(header.base..<header.end) {
                    throw damage(header.base..<header.end, offset..<walk.offset, "the records cannot be decoded")
                }
            case .damage(let range):
                guard try isGivenUp(range.positions) else { throw SegmentDamage(range: range) }
                damagedEnd = range.bytes.upperBound
            case .end:
                guard walk.expected == end else {
                    throw damage(
                        end..<end, walk.offset..<walk.offset,
                        "it reaches up to position \(walk.expected), "
                            + "but the next segment begins at \(end)")
                }
                // Damaged bytes stay, also behind the last block.
                return LogFormat.aligned(max(walk.offset, damagedEnd))
            }
        }
    }

    private func damage(_ positions: Range<Position>, _ bytes: Range<Int>, _ reason: String) -> SegmentDamage {
        SegmentDamage(
            range: CorruptRange(
                segment: segment.path, bytes: bytes, positions: positions, reason: reason))
    }
}

/// Ends a segment with a footer.
///
/// A crash at any point leaves either no valid trailer (the segment is not sealed, and what lies behind its blocks is
/// cut off before a footer is written again) or a whole one. The blocks are not touched.
struct Sealer {
    let directory: String
    let fileSystem: any LogFileSystem
    /// See `WholeSegment`.
    let isGivenUp: (Range<Position>) throws -> Bool

    static let temporaryName = "seal.tmp"

    /// - Parameters:
    ///   - end: the position at which the next segment begins.
    ///   - tree: the content of the tree section.
    /// - Returns: the segment, sealed.
    /// - Throws: `SegmentDamage`, `FileError`.
    func seal(_ segment: Segment, end: Position, tree: [UInt8]) throws -> Segment {
        let builder = FooterBuilder()
        let whole = WholeSegment(segment: segment, end: end, isGivenUp: isGivenUp)
        let footerOffset = try whole.forEachBlock { header, offset, records in
            builder.add(header, at: offset, records: records)
        }
        guard let (footer, trailer) = builder.footer(of: segment.header, footerOffset: footerOffset, tree: tree) else {
            throw SegmentDamage(
                range: CorruptRange(
                    segment: segment.path, bytes: footerOffset..<footerOffset, positions: end..<end,
                    reason: "it holds no events"))
        }
        let (file, path) = try writable(segment, blocksEnd: footerOffset)
        if try file.byteCount() > footerOffset { try file.truncate(footerOffset) }
        try footer.withUnsafeBytes { try file.write($0, at: footerOffset) }
        try file.synchronize()
        try fileSystem.makeReadOnly(path)
        if path != segment.path {
            try fileSystem.rename(path, to: segment.path)
            try fileSystem.synchronizeDirectory(directory)
        }
        return Segment(
            path: segment.path, name: segment.name, header: segment.header, trailer: trailer,
            file: try fileSystem.open(segment.path, create: false, writable: false))
    }

    /// The segment's file, or a copy of its blocks where the file is read-only: it was sealed, and its footer is
    /// damaged.
    private func writable(
        _ segment: Segment, blocksEnd: Int
    ) throws(FileError) -> (file: any LogFile, path: String) {
        do throws(FileError) {
            return (try fileSystem.open(segment.path, create: false, writable: true), segment.path)
        } catch {
            guard error.isReadOnly else { throw error }
        }
        let path = directory + "/" + Self.temporaryName
        try fileSystem.remove(path)
        let copy = try fileSystem.open(path, create: true, writable: true)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: LogFormat.alignment)
        defer { buffer.deallocate() }
        var offset = 0
        while offset < blocksEnd {
            let room = UnsafeMutableRawBufferPointer(rebasing: buffer[..<min(buffer.count, blocksEnd - offset)])
            let count = try segment.file.read(into: room, at: offset)
            guard count > 0 else { break }
            try copy.write(UnsafeRawBufferPointer(rebasing: room[..<count]), at: offset)
            offset += count
        }
        return (copy, path)
    }
}

extension FileError {
    /// The file may be read only.
    var isReadOnly: Bool { code == EACCES || code == EPERM }
}
