import EventModel
import Evidence

/// Any node of the log's Merkle tree, from the files alone: kept rows and frontiers of sealed segments, and records
/// hashed again where nothing is kept (at most 255 at an edge, and what is not sealed yet). Proofs are made of it.
/// One owner's own; it sees the log as it was when it was made.
public final class LogTree {
    private let catalog: SegmentCatalog
    /// Leaves that there are.
    public let size: UInt64
    /// The first event that is kept. What lies before is known only as far as the next segment's frontier tells.
    private let horizon: UInt64
    private let horizonNodes: [CompactRange.Node]
    private var sections: [Position: TreeSection] = [:]
    private var withoutSection: Set<Position> = []
    /// Leaves of the stretch that was read last.
    private var window: (start: UInt64, leaves: [TreeHash]) = (0, [])
    private var reader: LeafReader?
    private let archive: SegmentArchive?
    private static let lostAtOnce: UInt64 = 4096

    init(catalog: SegmentCatalog, durableCount: UInt64, archive: SegmentArchive? = nil) throws(LogError) {
        self.catalog = catalog
        self.archive = archive
        size = durableCount
        horizon = catalog.bases.first?.rawValue ?? 0
        var nodes: [CompactRange.Node] = []
        if horizon > 0, let section = try? catalog.segment(base: Position(horizon)).treeSection() {
            nodes = section.before.nodes
        }
        horizonNodes = nodes
    }

    /// The compact range of [lower, upper).
    public func range(_ lower: UInt64, _ upper: UInt64) throws -> CompactRange {
        guard lower <= upper, upper <= size else {
            throw LogError(.outOfRange, "the tree has \(size) leaves, not \(upper)")
        }
        var range = CompactRange(at: lower)
        for (start, level) in CompactRange.levels(lower, upper) {
            range.append(CompactRange.Node(start: start, level: level, hash: try node(start, level))) { _ in }
        }
        return range
    }

    public func root(of size: UInt64) throws -> TreeHash { try range(0, size).root }

    /// RFC 6962, 2.1.1.
    public func inclusion(of position: Position, size: UInt64) throws -> [TreeHash] {
        try TreeProofs.inclusion(of: position.rawValue, size: size) { try range($0, $1) }
    }

    /// RFC 6962, 2.1.2.
    public func consistency(from first: UInt64, to second: UInt64) throws -> [TreeHash] {
        try TreeProofs.consistency(from: first, to: second) { try range($0, $1) }
    }

    private func node(_ start: UInt64, _ level: Int) throws -> TreeHash {
        let end = start + 1 << UInt64(level)
        if end <= horizon, let kept = horizonNodes.first(where: { $0.start == start && $0.level == level }) {
            return kept.hash
        }
        if level > 0, level % TreeSection.rowStride == 0, let section = try section(of: Position(end - 1)),
            let hash = section.node(level: level, index: start >> UInt64(level))
        {
            return hash
        }
        if level <= TreeSection.rowStride, start >= horizon || (end <= horizon && archive != nil) {
            var range = CompactRange(at: start)
            for index in start..<end { range.append(leaf: try leaf(index)) }
            return range.root
        }
        guard level > 0, end > horizon || archive != nil else { throw removed(start) }
        let half = 1 << UInt64(level - 1)
        return TreeHash.node(try node(start, level - 1), try node(start + UInt64(half), level - 1))
    }

    private func removed(_ position: UInt64) -> LogError {
        LogError(
            .outOfRange,
            "position \(position) lies before the horizon: the log begins at \(horizon). Name the "
                + "restore_command of the archive to have it fetched")
    }

    /// The section of the sealed segment that holds `position`, or nil.
    private func section(of position: Position) throws -> TreeSection? {
        let base: Position
        if position.rawValue < horizon {
            guard let found = try archive?.base(of: position) else { return nil }
            base = found
        } else {
            guard let found = catalog.bases(around: position).containing else { return nil }
            base = found
        }
        if let known = sections[base] { return known.end > position ? known : nil }
        if withoutSection.contains(base) { return nil }
        let segment = position.rawValue < horizon ? try archive?.segment(base: base) : try catalog.segment(base: base)
        guard let section = try segment?.treeSection() else {
            withoutSection.insert(base)
            return nil
        }
        sections[base] = section
        return section.end > position ? section : nil
    }

    private func leaf(_ index: UInt64) throws -> TreeHash {
        if index >= window.start, index - window.start < UInt64(window.leaves.count) {
            return window.leaves[Int(index - window.start)]
        }
        if index < horizon {
            guard let archive, let base = try archive.base(of: Position(index)) else { throw removed(index) }
            try fill(at: index, try archive.reader(of: base, from: Position(index)))
        } else {
            if reader == nil || reader!.next.rawValue != index {
                reader = LeafReader(
                    FileLogReader(catalog: catalog, position: Position(index)) { [size] in size },
                    from: Position(index))
            }
            try fill(at: index, reader!)
        }
        guard index >= window.start, index - window.start < UInt64(window.leaves.count) else {
            throw LogError(.corrupt, "the log has no event at position \(index)")
        }
        return window.leaves[Int(index - window.start)]
    }

    private func fill(at index: UInt64, _ reader: LeafReader) throws {
        let (lost, leaves) = try reader.read()
        // However many were lost, few at a time.
        let gap = min(lost, Self.lostAtOnce)
        window = (index, (0..<gap).map { LeafHasher.lostLeaf(Position(index + $0)) } + (gap == lost ? leaves : []))
    }
}

/// Segments that are not in the folder any more, to be had from an archive.
protocol SegmentArchive: AnyObject {
    /// The first position of the removed segment that holds `position`; nil when none is known.
    func base(of position: Position) throws -> Position?
    func segment(base: Position) throws -> Segment?
    /// Leaves of that segment from `position` on.
    func reader(of base: Position, from position: Position) throws -> LeafReader
}

extension Segment {
    /// What the footer says of the tree; nil when the segment is not sealed, or was sealed without a tree, or when the
    /// footer is damaged: it says nothing that cannot be made again.
    func treeSection() throws(LogError) -> TreeSection? {
        guard let trailer, let bytes = try system({ () throws(FileError) in try read(trailer.tree) }),
            let section = bytes.withUnsafeBytes({ TreeSection($0) }),
            section.base == trailer.base, section.end == trailer.end
        else { return nil }
        return section
    }
}

extension ReadOnlyLog {
    /// The tree of what is durable now, for proofs. Reads the files alone.
    public func tree() throws(LogError) -> LogTree {
        let durable = durableCount
        // Proofs of what was removed are made from the archive, when it can be asked.
        let archive = catalog.removed.canRestore ? RestoredSegments(catalog: catalog, durableCount: durable) : nil
        return try LogTree(catalog: catalog, durableCount: durable, archive: archive)
    }

    /// The stored checkpoint's bytes, whoever signed them; nil when there is none.
    public func storedCheckpoint() throws(LogError) -> [UInt8]? {
        try CheckpointFile(directory: directory, fileSystem: catalog.fileSystem).read()
    }
}
