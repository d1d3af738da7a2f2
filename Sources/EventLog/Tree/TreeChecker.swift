import EventModel
import Evidence

/// Derives the tree again from decoded records and compares it with all that was kept of it: the rows and trees in the
/// footers, the checkpoints that were signed at their ends, and the stored checkpoint. One owner's own.
///
/// It begins where the tree before is known: at position 0, or at a sealed segment. Behind damage it waits for the next
/// sealed segment, whose tree is then taken from the footer of the one before.
public final class TreeChecker {
    /// Something that does not agree.
    public struct Finding: Sendable, Equatable {
        /// The file that says otherwise.
        public let file: String
        /// Events under what does not agree.
        public let positions: Range<Position>
        public let reason: String
    }

    private let catalog: SegmentCatalog?
    private let key: VerifierKey?
    private let stored: Checkpoint?
    private let storedPath: String
    private let hasher = LeafHasher()
    private var grower: TreeGrower?
    /// The sealed segment that is being derived.
    private var current: (section: TreeSection, path: String)?
    public private(set) var findings: [Finding] = []
    /// Events whose leaves were derived, sealed segments that were compared, and whether the stored checkpoint was.
    public private(set) var events: UInt64 = 0
    public private(set) var segments = 0
    public private(set) var hasComparedCheckpoint = false

    /// For the records of a log, in order.
    init(catalog: SegmentCatalog, key: VerifierKey?, durableCount: UInt64, isLive: Bool) throws(LogError) {
        self.catalog = catalog
        self.key = key
        let file = CheckpointFile(directory: catalog.directory, fileSystem: catalog.fileSystem)
        storedPath = catalog.directory + "/" + CheckpointFile.name
        let bytes = try file.read()
        do {
            let note = try bytes.map { try SignedNote(parsing: $0) }
            stored = try note.map { note in
                try key.map { try note.checkpoint(verifiedBy: $0) } ?? note.checkpoint()
            }
            if let stored, stored.size > durableCount, !isLive {
                add(
                    storedPath, Position(durableCount)..<Position(stored.size),
                    "a checkpoint of \(stored.size) events "
                        + "was signed, the log holds \(durableCount): it was rolled back, or cut off")
            }
        } catch {
            stored = nil
            add(storedPath, Position(0)..<Position(0), "the stored checkpoint is not to be believed: \(error)")
        }
    }

    /// For records that are no log's: nothing is compared.
    public init() {
        (catalog, key, stored, storedPath) = (nil, nil, nil, "")
        grower = TreeGrower(behind: CompactRange())
    }

    /// The root of all that was added; nil while the tree before is not known.
    public var root: TreeHash? { grower?.tree.root }

    /// Takes the next records.
    public func add(_ block: EventBlock) {
        finishSegment(at: block.base)
        if let size = grower?.size, size != block.base.rawValue {
            // What was lost may have been in the tree: it is known again from the next footer on.
            grower = nil
            current = nil
        }
        if current == nil { beginSegment(at: block.base) }
        guard grower != nil else { return }
        events += UInt64(block.count)
        if let stored, !hasComparedCheckpoint, stored.size > block.base.rawValue, stored.size <= block.end.rawValue {
            block.forEach { record, position in
                grower?.append(hasher.leaf(record))
                if position.rawValue + 1 == stored.size { compare(stored) }
            }
        } else {
            block.forEach { record, _ in grower?.append(hasher.leaf(record)) }
        }
    }

    /// Nothing more comes.
    public func finish() {
        if let size = grower?.size { finishSegment(at: Position(size)) }
    }

    private func beginSegment(at base: Position) {
        if let catalog, let segment = try? catalog.segmentIfPresent(base: base),
            let section = try? segment.treeSection()
        {
            current = (section, segment.path)
            if let grower, grower.tree != section.before {
                add(segment.path, Position(0)..<base, "the tree before the segment is not that of its footer")
            }
            grower = grower ?? TreeGrower(behind: section.before)
        } else if grower == nil, base.rawValue == 0 {
            grower = TreeGrower(behind: CompactRange())
        }
    }

    private func finishSegment(at position: Position) {
        guard let (section, path) = current, position >= section.end, let size = grower?.size else { return }
        current = nil
        guard size == section.end.rawValue else { return }
        segments += 1
        compareRows(section, path)
        if grower?.tree != section.through {
            add(path, section.base..<section.end, "the records do not lead to the tree of the footer")
        }
        check(section, path)
        grower?.drop(before: section.end.rawValue)
    }

    private func compareRows(_ section: TreeSection, _ path: String) {
        let derived = grower?.rows(from: section.base.rawValue, to: section.end.rawValue) ?? []
        for (row, hashes) in section.rows.enumerated() where row < derived.count {
            let level = UInt64(TreeSection.rowStride * (row + 1))
            let first = section.base.rawValue >> level
            for (index, hash) in hashes.enumerated() where hash != .unknown && hash != derived[row][index] {
                let start = (first + UInt64(index)) << level
                add(
                    path, Position(start)..<Position(start + 1 << level),
                    "the records are not those that were hashed "
                        + "when the segment was sealed")
            }
        }
    }

    private func check(_ section: TreeSection, _ path: String) {
        guard !section.checkpoint.isEmpty else { return }
        do {
            let note = try SignedNote(parsing: section.checkpoint)
            let checkpoint = try key.map { try note.checkpoint(verifiedBy: $0) } ?? note.checkpoint()
            guard checkpoint.size != section.end.rawValue || checkpoint.root != section.root else { return }
            add(path, section.base..<section.end, "the checkpoint in the footer is of another tree")
        } catch {
            add(path, section.base..<section.end, "the checkpoint in the footer is not to be believed: \(error)")
        }
    }

    private func compare(_ stored: Checkpoint) {
        hasComparedCheckpoint = true
        if root != stored.root {
            add(
                storedPath, Position(0)..<Position(stored.size),
                "the first \(stored.size) events are not those that "
                    + "the checkpoint was signed for")
        }
    }

    private func add(_ file: String, _ positions: Range<Position>, _ reason: String) {
        findings.append(Finding(file: file, positions: positions, reason: reason))
    }
}
