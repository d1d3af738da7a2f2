import EventModel

/// Brings packed segments and the live ones that they were made of into order after a crash.
///
/// A live segment is deleted when its events are whole and synced in the packed one before it. So when a packed segment
/// that is not sealed reaches into live ones, everything that is not whole in it is whole in them:
///
///     packed   |======|======|====xx            live ones wholly in the valid part are deleted,
///     live            |------|------|-----      the packed one is cut where the first that remains begins
///
/// One that does not reach up to the next segment has lost events that were durable: it is left as it is.
struct PackedSegments {
    let directory: String
    let fileSystem: any LogFileSystem
    let catalog: SegmentCatalog

    func settle() throws(LogError) {
        let bases = catalog.bases
        for (index, base) in bases.enumerated().dropLast() {
            guard catalog.unsealed().contains(where: { $0.base == base }) else { continue }
            guard let packed = try whole(base), packed.state == .growing else { continue }
            let behind = bases[(index + 1)...].prefix { next in (try? whole(next))??.state == .live }
            if let first = behind.first { try settle(packed, first: first, behind: Array(behind), last: bases.last) }
        }
    }

    /// - Parameter behind: the bases of the live segments behind the packed one; `last` is never deleted.
    private func settle(
        _ packed: Segment, first: Position, behind: [Position], last: Position?
    ) throws(LogError) {
        let valid = try system { () throws(FileError) in try ends(of: packed, from: first) }
        // Then durable events are missing in it, and nothing about it is changed.
        guard let (whole, offsets) = valid else { return }
        // What the kernel holds and never wrote must be on disk before anything is deleted for it.
        if let start = offsets[first], let end = offsets[whole], start < end,
            !LogFault.isPlanted(.unprovenTailKept)
        {
            try system { () throws(FileError) in
                try fileSystem.open(packed.path, create: false, writable: true).writeAgain(start..<end)
            }
        }
        var remaining = behind[...]
        while let base = remaining.first, base != last, let next = remaining.dropFirst().first, next <= whole {
            try system { () throws(FileError) in try fileSystem.remove(catalog.path(base)) }
            catalog.remove(base)
            remaining = remaining.dropFirst()
        }
        guard let kept = remaining.first, let offset = offsets[kept] else { return }
        try system { () throws(FileError) in
            if remaining.count < behind.count { try fileSystem.synchronizeDirectory(directory) }
            guard try packed.file.byteCount() > offset else { return }
            let file = try fileSystem.open(packed.path, create: false, writable: true)
            try file.truncate(offset)
            try file.synchronize()
        }
    }

    /// Up to where the segment is whole, its blocks from `first` on being read, and where in the file each position at
    /// which a block ends lies. Nil when it does not reach `first`.
    private func ends(of segment: Segment, from first: Position) throws(FileError)
        -> (end: Position, offsets: [Position: Int])?
    {
        let before = try segment.outline(until: first)
        guard before.end >= first else { return nil }
        var end = before.end, offsets = [before.end: before.offset]
        let scanner = BlockScanner(file: segment.file, salt: segment.header.salt, offset: before.offset)
        while case .block(let header, _) = try scanner.next(), header.base == end {
            end = header.end
            offsets[end] = scanner.offset
        }
        return (end, offsets)
    }

    /// Nil when its header is damaged: that is said elsewhere.
    private func whole(_ base: Position) throws(LogError) -> Segment? {
        do throws(LogError) {
            return try catalog.segmentIfPresent(base: base)
        } catch {
            if error.code == .corrupt || error.code == .foreign { return nil }
            throw error
        }
    }
}
