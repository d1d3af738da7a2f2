import EventModel

/// What a segment's block headers say, without their records.
struct SegmentOutline: Equatable {
    /// Position behind the last block that follows the ones before without a gap.
    var end: Position
    /// Where that block ends.
    var offset = SegmentHeader.byteCount
    var blockCount = 0
    var rawBytes = 0
    var lastTime: Timestamp?

    /// Raw bytes a block, on average.
    var blockBytes: Int { blockCount > 0 ? rawBytes / blockCount : 0 }
}

extension Segment {
    /// Hops from block header to block header, up to the first that is missing, or that begins at or behind `limit`.
    /// Reads a page of each block.
    func outline(until limit: Position = Position(.max)) throws(FileError) -> SegmentOutline {
        var outline = SegmentOutline(end: base)
        let scanner = BlockScanner(file: file, salt: header.salt)
        while outline.end < limit {
            guard let header = try scanner.findHeader(), scanner.offset == outline.offset, header.base == outline.end
            else { break }
            outline.end = header.end
            outline.offset += header.bytesOnDisk
            outline.blockCount += 1
            outline.rawBytes += header.rawBytes
            outline.lastTime = header.lastTime
            scanner.seek(to: outline.offset)
        }
        return outline
    }
}
