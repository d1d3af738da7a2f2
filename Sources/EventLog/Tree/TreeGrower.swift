import EventModel
import Evidence

/// The tree as it grows at its right edge: takes leaves in order, keeps the compact range of all of them and the nodes
/// of level 8, 16, … since a given event. Leaves of one tile (256, aligned) are hashed together, in place.
struct TreeGrower {
    /// The nodes of one level that are kept: those with index `first`, `first` + 1, …
    struct Row: Equatable {
        var first: UInt64
        var hashes: [TreeHash] = []
    }

    private static let tileLeaves: UInt64 = 256
    /// Up to the last whole tile, or beyond it while the first is not aligned.
    private var range: CompactRange
    /// Leaves behind `range`: part of one tile.
    private var pending: [TreeHash] = []
    /// Level 8, 16, …
    private(set) var rows: [Row] = []

    /// Goes on behind a tree.
    init(behind tree: CompactRange) {
        precondition(tree.lower == 0, "a tree begins at 0")
        range = tree
        pending.reserveCapacity(Int(Self.tileLeaves))
        for level in stride(from: TreeSection.rowStride, to: 64, by: TreeSection.rowStride) {
            rows.append(Row(first: tree.upper >> UInt64(level)))
        }
    }

    /// Leaves of the tree, those before it began included.
    var size: UInt64 { range.upper + UInt64(pending.count) }

    /// The whole tree.
    var tree: CompactRange {
        var tree = range
        for leaf in pending { tree.append(leaf: leaf) }
        return tree
    }

    mutating func append(_ leaf: TreeHash) {
        guard range.upper % Self.tileLeaves == 0 else {
            // The first tile, when it was begun by others.
            return append(CompactRange.Node(start: range.upper, level: 0, hash: leaf))
        }
        pending.append(leaf)
        if pending.count == Int(Self.tileLeaves) { closeTile() }
    }

    private mutating func closeTile() {
        pending.withUnsafeMutableBufferPointer { hashes in
            var count = hashes.count
            while count > 1 {
                count /= 2
                for index in 0..<count { hashes[index] = TreeHash.node(hashes[2 * index], hashes[2 * index + 1]) }
            }
        }
        let hash = pending[0]
        pending.removeAll(keepingCapacity: true)
        append(CompactRange.Node(start: range.upper, level: TreeSection.rowStride, hash: hash))
    }

    private mutating func append(_ node: CompactRange.Node) {
        keep(node)
        var completed: [CompactRange.Node] = []
        range.append(node) { if $0.level % TreeSection.rowStride == 0 { completed.append($0) } }
        for node in completed { keep(node) }
    }

    private mutating func keep(_ node: CompactRange.Node) {
        guard node.level > 0, node.level % TreeSection.rowStride == 0 else { return }
        rows[node.level / TreeSection.rowStride - 1].hashes.append(node.hash)
    }

    /// Goes on behind a larger tree whose leaves in between are not to be had: nodes in between are not known.
    mutating func skip(to tree: CompactRange) {
        precondition(tree.lower == 0 && tree.upper >= size, "a tree does not shrink")
        range = tree
        pending.removeAll(keepingCapacity: true)
        for index in rows.indices {
            let level = UInt64(TreeSection.rowStride * (index + 1))
            let missing = Int((tree.upper >> level) - rows[index].first) - rows[index].hashes.count
            rows[index].hashes += repeatElement(.unknown, count: missing)
        }
    }

    /// Forgets the nodes whose last leaf lies before `position`.
    mutating func drop(before position: UInt64) {
        for index in rows.indices {
            let first = position >> UInt64(TreeSection.rowStride * (index + 1))
            guard first > rows[index].first else { continue }
            rows[index].hashes.removeFirst(min(rows[index].hashes.count, Int(first - rows[index].first)))
            rows[index].first = first
        }
    }

    /// The kept nodes whose last leaf lies in [base, end), a level each; nil when some were never kept.
    func rows(from base: UInt64, to end: UInt64) -> [[TreeHash]]? {
        guard end <= size else { return nil }
        var result: [[TreeHash]] = []
        for (index, row) in rows.enumerated() {
            let level = UInt64(TreeSection.rowStride * (index + 1))
            let wanted = (base >> level)..<(end >> level)
            if wanted.isEmpty {
                result.append([])
                continue
            }
            guard wanted.lowerBound >= row.first, wanted.upperBound - row.first <= UInt64(row.hashes.count) else {
                return nil
            }
            result.append(Array(row.hashes[Int(wanted.lowerBound - row.first)..<Int(wanted.upperBound - row.first)]))
        }
        return result
    }
}
