import EventModel

/// Packs the small blocks of live segments into large ones: 256 KiB of records, LZ4.
///
/// The first live segment becomes a packed one under its own name: written beside it, synced, renamed over it. Further
/// ones are appended to it, synced, and only then deleted. So every event is whole on disk in at least one file at any
/// moment, and what a crash leaves is told apart by position: `PackedSegments.settle`.
struct Compactor {
    let directory: String
    let fileSystem: any LogFileSystem
    let clock: any LogClock
    let random: @Sendable () -> UInt64

    static let temporaryName = "pack.tmp"
    static let blockBytes = 256 << 10

    /// A packed segment that is not sealed: open for writing, and where its blocks end.
    struct Growing {
        let segment: Segment
        let file: any LogFile
        var end: Position
        var offset: Int
        /// Received-at of its last event; nil while it has none.
        var lastTime: Timestamp?
    }

    /// Replaces a live segment, which ends at `end`, by a packed one of the same events.
    /// - Throws: `SegmentDamage`, `FileError`. Then the live segment is as it was.
    func replace(_ live: Segment, end: Position, segmentBytes: Int) throws -> Growing {
        let path = directory + "/" + Self.temporaryName
        let header = SegmentHeader(
            logID: live.header.logID, salt: max(1, random()), base: live.base, created: clock.now(),
            segmentBytes: UInt64(segmentBytes), kind: .packed)
        try fileSystem.remove(path)
        do {
            let file = try fileSystem.open(path, create: true, writable: true)
            try withUnsafeTemporaryAllocation(byteCount: SegmentHeader.byteCount, alignment: 8) { page in
                header.encode(into: page)
                try file.write(UnsafeRawBufferPointer(page), at: 0)
            }
            let segment = Segment(path: live.path, name: live.name, header: header, file: file)
            let growing = try copy(
                live, end: end,
                to: Growing(
                    segment: segment, file: file, end: live.base, offset: SegmentHeader.byteCount))
            try fileSystem.rename(path, to: live.path)
            try fileSystem.synchronizeDirectory(directory)
            return growing
        } catch {
            try? fileSystem.remove(path)
            throw error
        }
    }

    /// Appends the events of a live segment, which begins where `growing` ends and ends at `end`, and syncs them. The
    /// live segment is not touched.
    /// - Throws: `SegmentDamage`, `FileError`. Then `growing` is cut back to what it was: what a failed fsync may have
    ///   left in memory must not be found there and believed by the next start.
    func append(_ live: Segment, end: Position, to growing: Growing) throws -> Growing {
        precondition(live.base == growing.end, "segments join without a gap")
        do {
            // A crash before may have left something there.
            if try growing.file.byteCount() > growing.offset { try growing.file.truncate(growing.offset) }
            return try copy(live, end: end, to: growing)
        } catch {
            try? growing.file.truncate(growing.offset)
            throw error
        }
    }

    private func copy(_ live: Segment, end: Position, to old: Growing) throws -> Growing {
        var growing = old
        let raw = GrowingBuffer(), output = GrowingBuffer()
        var open: (base: Position, count: Int, first: Timestamp, last: Timestamp)?
        func flush() throws {
            guard let block = open else { return }
            output.removeAll()
            var header = BlockEncoder.append(
                raw.bytes, count: block.count, base: block.base, firstTime: block.first, lastTime: block.last,
                durableCount: block.base.rawValue, effort: .high, to: output)
            header.salt = growing.segment.header.salt
            header.encode(into: output.region(0, BlockHeader.byteCount))
            try growing.file.write(output.bytes, at: growing.offset)
            growing.offset += output.count
            growing.end = header.end
            growing.lastTime = block.last
            raw.removeAll()
            open = nil
        }
        _ = try WholeSegment(segment: live, end: end).forEachBlock { header, _, records in
            if open != nil, raw.count + records.byteCount > Self.blockBytes { try flush() }
            raw.append(records.bytes)
            open = (
                base: open?.base ?? header.base, count: (open?.count ?? 0) + header.count,
                first: open?.first ?? header.firstTime, last: header.lastTime
            )
        }
        try flush()
        if !LogFault.isPlanted(.unlinkBeforeSync) { try growing.file.synchronize() }
        return growing
    }
}
