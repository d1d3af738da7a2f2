/// A stretch of the tree's leaves, [lower, upper), as the roots of the largest whole subtrees in it, left to right: all
/// that is needed to join it with its neighbours, to go on behind it, or to say the root. At most 2·63 hashes.
///
/// (The term and the idea: transparency-dev/merkle, `compact`.)
public struct CompactRange: Sendable, Equatable {
    /// The root of the leaves [start, start + 2^level); `start` is a multiple of 2^level.
    public struct Node: Sendable, Equatable {
        public let start: UInt64
        public let level: Int
        public let hash: TreeHash

        public init(start: UInt64, level: Int, hash: TreeHash) {
            precondition(level >= 0 && level < 64 && start & (1 << UInt64(level) - 1) == 0, "no whole subtree")
            self.start = start
            self.level = level
            self.hash = hash
        }

        public var end: UInt64 { start + 1 << UInt64(level) }
    }

    public let lower: UInt64
    public private(set) var upper: UInt64
    public private(set) var nodes: [Node] = []

    /// An empty stretch that begins at a leaf.
    public init(at lower: UInt64 = 0) {
        self.lower = lower
        upper = lower
    }

    /// From hashes in the order of `levels`; nil when their number is wrong.
    public init?(lower: UInt64, upper: UInt64, hashes: some Collection<TreeHash>) {
        guard lower <= upper else { return nil }
        self.init(at: lower)
        var hashes = hashes[...]
        for (start, level) in Self.levels(lower, upper) {
            guard let hash = hashes.popFirst() else { return nil }
            nodes.append(Node(start: start, level: level, hash: hash))
        }
        guard hashes.isEmpty else { return nil }
        self.upper = upper
    }

    /// The largest whole subtrees that [lower, upper) consists of, left to right.
    public static func levels(_ lower: UInt64, _ upper: UInt64) -> [(start: UInt64, level: Int)] {
        var result: [(start: UInt64, level: Int)] = []
        var start = lower
        while start < upper {
            let fits = 63 - (upper - start).leadingZeroBitCount
            let level = min(start.trailingZeroBitCount, fits)
            result.append((start, level))
            start += 1 << UInt64(level)
        }
        return result
    }

    public var count: UInt64 { upper - lower }
    public var hashes: [TreeHash] { nodes.map(\.hash) }

    public mutating func append(leaf: TreeHash) { append(Node(start: upper, level: 0, hash: leaf)) { _ in } }

    /// Adds a whole subtree that begins at `upper`. `completed` is told of every larger one that this completes.
    public mutating func append(_ node: Node, completed: (Node) -> Void) {
        precondition(node.start == upper, "subtrees join without a gap")
        var node = node
        upper = node.end
        while let left = nodes.last, left.level == node.level, left.start.trailingZeroBitCount > left.level {
            nodes.removeLast()
            node = Node(start: left.start, level: left.level + 1, hash: TreeHash.node(left.hash, node.hash))
            completed(node)
        }
        nodes.append(node)
    }

    /// Joins the stretch that begins where this one ends.
    public mutating func append(_ right: CompactRange) { append(right) { _ in } }

    public mutating func append(_ right: CompactRange, completed: (Node) -> Void) {
        precondition(right.lower == upper, "stretches join without a gap")
        for node in right.nodes { append(node, completed: completed) }
    }

    /// MTH of these leaves alone (RFC 6962, 2.1), as if the stretch were a tree of its own. `lower` must be aligned so
    /// that the stretch is one subtree of the whole, perhaps not full: 0, or a multiple of 2^n ≥ `count`.
    public var root: TreeHash {
        precondition(
            count <= 1 || lower.trailingZeroBitCount >= 64 - (count - 1).leadingZeroBitCount, "not one subtree")
        guard var hash = nodes.last?.hash else { return .emptyRoot }
        for node in nodes.dropLast().reversed() { hash = TreeHash.node(node.hash, hash) }
        return hash
    }
}
