import EventModel

/// Walks the blocks of a stretch of the log, from file to file and over damage of every kind: bad blocks, bad headers,
/// missing files. It reads everything, in large reads, and decodes nothing.
struct LogWalker {
    enum Step {
        /// The walk begins with this file.
        case segment(Segment, bytes: Int)
        case block(BlockHeader, offset: Int, stored: UnsafeRawBufferPointer)
        /// The file, unless it is missing or its header cannot be read.
        case damage(CorruptRange, Segment?)
        /// The file's blocks were read to their end, which is at this offset; not said of one that ends in damage.
        case segmentEnd(Segment, offset: Int)
    }

    let catalog: SegmentCatalog
    let from: Position
    /// Durable up to here, at least.
    let to: Position

    func run(_ body: (Step) throws(LogError) -> Void) throws(LogError) {
        guard from < to else { return }
        let bases = catalog.bases
        var expected = from
        var index = max(0, (bases.firstIndex { $0 > from } ?? bases.count) - 1)
        while index < bases.count, expected < to {
            let base = bases[index]
            guard base < to else { break }
            if base > expected {
                try body(.damage(missing(expected..<base, after: index > 0 ? bases[index - 1] : nil), nil))
                expected = base
            }
            let limit = index + 1 < bases.count ? min(bases[index + 1], to) : to
            expected = max(expected, try walk(base, from: expected, limit, body))
            index += 1
        }
        if expected < to { try body(.damage(missing(expected..<to, after: bases.last), nil)) }
    }

    /// Walks one file from the block that holds `start` (or from its beginning) up to `limit`; returns where it ended.
    private func walk(
        _ base: Position, from start: Position, _ limit: Position, _ body: (Step) throws(LogError) -> Void
    ) throws(LogError) -> Position {
        let segment: Segment
        do throws(LogError) {
            segment = try catalog.segment(base: base)
        } catch where error.code == .corrupt || error.code == .foreign {
            let path = catalog.directory + "/" + LogFormat.segmentName(base)
            try body(.damage(CorruptRange(
                segment: path, bytes: 0..<SegmentHeader.byteCount, positions: base..<limit,
                reason: error.code == .corrupt ? "the header is damaged" : error.description), nil))
            return limit
        } catch {
            throw error
        }
        let (size, place) = try system { () throws(FileError) in
            (try segment.file.byteCount(), try beginning(in: segment, of: start))
        }
        try body(.segment(segment, bytes: size))
        var walk = SegmentWalk(segment, from: place.offset, expecting: place.position, until: limit)
        while true {
            let step = try system { () throws(FileError) in try walk.next() }
            switch step {
            case .block(let header, let offset, let stored):
                try body(.block(header, offset: offset, stored: stored))
            case .damage(let range):
                if range.positions.isEmpty || range.positions.upperBound > from { try body(.damage(range, segment)) }
            case .end:
                if !walk.isOver { try body(.segmentEnd(segment, offset: walk.offset)) }
                return walk.expected
            }
        }
    }

    /// A block's place at or before `position`.
    private func beginning(in segment: Segment, of position: Position) throws(FileError)
        -> (offset: Int, position: Position)
    {
        let first = (offset: SegmentHeader.byteCount, position: segment.base)
        guard position > segment.base else { return first }
        let offset = try segment.offset(before: position, durableCount: to.rawValue)
        guard offset > SegmentHeader.byteCount,
            let header = try BlockScanner(file: segment.file, salt: segment.header.salt, offset: offset).findHeader()
        else { return first }
        return (offset, header.base)
    }

    private func missing(_ positions: Range<Position>, after base: Position?) -> CorruptRange {
        let name = base.map { LogFormat.segmentName($0) }
        return CorruptRange(
            segment: catalog.directory + "/" + LogFormat.segmentName(positions.lowerBound), bytes: 0..<0,
            positions: positions,
            reason: "no file holds them" + (name.map { "; the one before is \($0)" } ?? ""))
    }
}
