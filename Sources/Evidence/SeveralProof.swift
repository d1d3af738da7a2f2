// One proof for many events: the hashes that are needed beside their leaves, each once. The tree of RFC 6962 (2.1) is
// walked from the root down; where a stretch holds none of the events its root is taken from the proof, where it is one
// of the events its leaf is taken from the event. A stretch of the log in one piece needs no more than 2 · 64 hashes.

import Primitives

extension TreeProofs {
    /// - Parameters:
    ///   - positions: rising, below `size`.
    ///   - range: gives the compact range of [lower, upper).
    /// - Returns: the hashes in the order in which a checker takes them.
    public static func several<E: Error>(
        _ positions: [UInt64], size: UInt64, range: (UInt64, UInt64) throws(E) -> CompactRange
    ) throws(E) -> [TreeHash] {
        precondition(zip(positions, positions.dropFirst()).allSatisfy { $0 < $1 }, "positions rise")
        precondition(positions.last ?? 0 < max(size, 1), "no such leaf")
        var hashes: [TreeHash] = []
        func walk(_ lower: UInt64, _ upper: UInt64, _ wanted: ArraySlice<UInt64>) throws(E) {
            if wanted.isEmpty {
                hashes.append(try range(lower, upper).root)
            } else if upper - lower > 1 {
                let middle = lower + split(upper - lower)
                let parts = divide(wanted, middle)
                try walk(lower, middle, parts.left)
                try walk(middle, upper, parts.right)
            }
        }
        if size > 0 { try walk(0, size, positions[...]) }
        return hashes
    }

    /// The root that leaves at these positions (rising) and the hashes lead to; nil when there are too few or too many.
    public static func root(
        of leaves: [(position: UInt64, leaf: TreeHash)], size: UInt64, hashes: [TreeHash]
    ) -> TreeHash? {
        guard size > 0 else { return leaves.isEmpty && hashes.isEmpty ? .emptyRoot : nil }
        guard zip(leaves, leaves.dropFirst()).allSatisfy({ $0.position < $1.position }),
            leaves.last.map({ $0.position < size }) ?? true
        else { return nil }
        let positions = leaves.map(\.position)
        var next = 0
        func walk(_ lower: UInt64, _ upper: UInt64, _ wanted: ArraySlice<UInt64>) -> TreeHash? {
            if wanted.isEmpty {
                guard next < hashes.count else { return nil }
                defer { next += 1 }
                return hashes[next]
            }
            if upper - lower == 1 { return leaves[wanted.startIndex].leaf }
            let middle = lower + split(upper - lower)
            let parts = divide(wanted, middle)
            guard let left = walk(lower, middle, parts.left), let right = walk(middle, upper, parts.right)
            else { return nil }
            return TreeHash.node(left, right)
        }
        let root = walk(0, size, positions[...])
        return next == hashes.count ? root : nil
    }

    /// Those below `middle`, and the others.
    private static func divide(
        _ positions: ArraySlice<UInt64>, _ middle: UInt64
    ) -> (left: ArraySlice<UInt64>, right: ArraySlice<UInt64>) {
        let index = positions.partitioningIndex { $0 >= middle }
        return (positions[..<index], positions[index...])
    }
}
