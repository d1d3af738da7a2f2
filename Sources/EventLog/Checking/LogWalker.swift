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
        var expected = from
        // Files are packed and replaced while they are walked: what is missing in one that is not sealed is looked for
        // once more before it is called damage.
        var retriedAt: Position?
        while expected < to {
            let around = catalog.bases(around: expected)
            guard let base = around.containing else {
                let next = min(around.next ?? to, to)
                try body(.damage(missing(expected..<next), nil))
                expected = next
                continue
            }
            let limit = min(around.next ?? to, to)
            let reached = try walk(base, from: expected, limit, isRetry: retriedAt == expected, body)
            expected = max(expected, reached.position)
            if reached.isDoubtful {
                retriedAt = expected
                catalog.forget(base)
                try catalog.refresh()
            }
        }
    }

    /// Walks one file from the block that holds `start` (or from its beginning) up to `limit`; returns where it ended.
    private func walk(
        _ base: Position, from start: Position, _ limit: Position, isRetry: Bool,
        _ body: (Step) throws(LogError) -> Void
    ) throws(LogError) -> (position: Position, isDoubtful: Bool) {
        let segment: Segment
        do throws(LogError) {
            guard let found = try catalog.segmentIfPresent(base: base) else {
                guard isRetry else { return (start, true) }
                try body(.damage(missing(start..<limit), nil))
                return (limit, false)
            }
            segment = found
        } catch  where error.code == .corrupt || error.code == .foreign {
            try body(
                .damage(
                    CorruptRange(
                        segment: catalog.path(base), bytes: 0..<SegmentHeader.byteCount, positions: base..<limit,
                        reason: error.code == .corrupt ? "the header is damaged" : error.description), nil))
            return (limit, false)
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
                if header.end > start { try body(.block(header, offset: offset, stored: stored)) }
            case .damage(let range):
                let begin = range.positions.lowerBound
                if segment.state != .sealed, !(isRetry && begin <= start) { return (max(start, begin), true) }
                if range.positions.isEmpty || range.positions.upperBound > start { try body(.damage(range, segment)) }
            case .end:
                if !walk.isOver { try body(.segmentEnd(segment, offset: walk.offset)) }
                return (walk.expected, false)
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

    private func missing(_ positions: Range<Position>) -> CorruptRange {
        CorruptRange(
            segment: catalog.path(positions.lowerBound), bytes: 0..<0, positions: positions,
            reason: "no file holds them")
    }
}
