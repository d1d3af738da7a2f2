import EventModel
import Evidence

// Proofs for outsiders, from the files alone, with a writer up or not. Whatever is handed out was checked here first,
// as the outsider will: a proof that does not hold is never written.

extension ReadOnlyLog {
    /// The name that this log's checkpoints are signed under.
    public var origin: String { Checkpoint.origin(logID: logID.description) }

    /// That the event at `position` is in the log that the checkpoint says.
    /// - Throws: `.outOfRange` when the checkpoint does not cover the position, or it is not kept; `.corrupt` when the
    ///   log does not hold what was signed for; `.foreign` when the checkpoint is of another log.
    public func prove(_ position: Position, in note: SignedNote) throws -> InclusionProof {
        let checkpoint = try checkpoint(note)
        guard position.rawValue < checkpoint.size else {
            throw LogError(
                .outOfRange,
                "the checkpoint covers the positions below \(checkpoint.size): position "
                    + "\(position) needs a later one")
        }
        let tree = try tree()
        let record = try record(at: position)
        let path = try tree.inclusion(of: position, size: checkpoint.size)
        let leaf = record.withUnsafeBytes { LeafHasher().leaf(RecordView(unchecked: $0.baseAddress!)) }
        guard
            TreeProofs.root(leaf: leaf, index: position.rawValue, size: checkpoint.size, path: path)
                == checkpoint.root
        else {
            throw LogError(
                .corrupt,
                "the log does not hold what the checkpoint of \(checkpoint.size) events was "
                    + "signed for: it was changed since. refold log verify --deep says where")
        }
        return InclusionProof(record: record, position: position, path: path, note: note)
    }

    /// That the log of one checkpoint is the beginning of that of another.
    public func proveConsistency(from old: SignedNote, to new: SignedNote) throws -> ConsistencyProof {
        let (first, second) = (try checkpoint(old), try checkpoint(new))
        guard first.size <= second.size else {
            throw LogError(
                .outOfRange,
                "the first checkpoint has \(first.size) events, the second \(second.size): "
                    + "name the older one first")
        }
        let path = try tree().consistency(from: first.size, to: second.size)
        guard
            TreeProofs.isConsistent(
                first: first.size, firstRoot: first.root, second: second.size, secondRoot: second.root, path: path)
        else {
            throw LogError(
                .corrupt,
                "the checkpoints of \(first.size) and \(second.size) events are not of one "
                    + "history, or the log is not theirs")
        }
        return ConsistencyProof(old: old, new: new, path: path)
    }

    private func checkpoint(_ note: SignedNote) throws -> Checkpoint {
        let checkpoint = try note.checkpoint()
        guard checkpoint.origin == origin else {
            throw LogError(.foreign, "the checkpoint is of \(checkpoint.origin), this log is \(origin)")
        }
        let durable = durableCount
        guard checkpoint.size <= durable else {
            throw LogError(
                .corrupt,
                "the checkpoint was signed for \(checkpoint.size) events, the log holds "
                    + "\(durable): it was rolled back, or this is an older copy")
        }
        return checkpoint
    }

    /// The record at a position, as stored.
    private func record(at position: Position) throws -> [UInt8] {
        let block = EventBlock()
        guard try reader(from: position).read(into: block, atLeast: 1) else {
            throw LogError(.outOfRange, "there is no event at position \(position)")
        }
        var found: [UInt8]?
        block.forEach { record, at in
            if at == position { found = Array(record.bytes) }
        }
        guard let found else {
            throw LogError(.corrupt, "the event at position \(position) is lost, and was given up by an operator")
        }
        return found
    }

    /// Writes the tree of a checkpoint as static files (C2SP tlog-tiles): tiles, entry bundles when `withEntries`, and
    /// last `checkpoint`. `write` gets the path from the log's prefix on.
    /// - Throws: `.corrupt` when the log's tree is not the checkpoint's: then no `checkpoint` is written.
    public func exportTiles(
        of note: SignedNote, withEntries: Bool, progress: (UInt64) -> Void = { _ in },
        write: (_ path: String, _ bytes: [UInt8]) throws -> Void
    ) throws {
        let checkpoint = try checkpoint(note)
        guard horizon.rawValue == 0 else {
            throw LogError(
                .beforeHorizon,
                "the log begins at position \(horizon): the tiles before it can only be "
                    + "made with the removed segments, which the archive's restore_command brings (--restore-command)")
        }
        let block = EventBlock(), hasher = LeafHasher()
        let reader = try reader(from: Position(0))
        var writer = TileWriter(withEntries: withEntries), tree = CompactRange()
        func add(_ leaf: TreeHash, _ entry: @autoclosure () -> [UInt8]) throws {
            guard writer.size < checkpoint.size else { return }
            tree.append(leaf: leaf)
            try writer.append(leaf: leaf, entry: withEntries ? entry() : []) { try write($0.path, $0.bytes) }
        }
        while writer.size < checkpoint.size, try reader.read(into: block, atLeast: 256 << 10) {
            while writer.size < min(block.base.rawValue, checkpoint.size) {
                let lost = Position(writer.size)
                try add(LeafHasher.lostLeaf(lost), LeafHasher.lostCanonical(lost))
            }
            try block.forEach { record, _ in try add(hasher.leaf(record), LeafHasher.canonical(record)) }
            progress(writer.size)
        }
        try writer.finish { try write($0.path, $0.bytes) }
        guard tree.upper == checkpoint.size, tree.root == checkpoint.root else {
            throw LogError(
                .corrupt,
                "the log does not hold what the checkpoint of \(checkpoint.size) events was "
                    + "signed for: the tiles are written, but no checkpoint belongs to them")
        }
        try write("checkpoint", note.bytes)
    }
}
