/// Inclusion and consistency (RFC 6962, 2.1.1 and 2.1.2), made from compact ranges, verified as RFC 9162 says.
public enum TreeProofs {
    /// Longer than a proof of any tree with 64-bit sizes.
    public static let hashesMax = 64

    /// PATH(index, D[size]): from the leaf's sibling up. `range` gives the compact range of [lower, upper), for ranges
    /// below `size` that are one subtree each.
    public static func inclusion<E: Error>(
        of index: UInt64, size: UInt64, range: (UInt64, UInt64) throws(E) -> CompactRange
    ) throws(E) -> [TreeHash] {
        precondition(index < size, "no such leaf")
        var path: [TreeHash] = []
        // From the root down; the proof goes the other way.
        var lower: UInt64 = 0, upper = size
        while upper - lower > 1 {
            let middle = lower + split(upper - lower)
            if index < middle {
                path.append(try range(middle, upper).root)
                upper = middle
            } else {
                path.append(try range(lower, middle).root)
                lower = middle
            }
        }
        return path.reversed()
    }

    /// PROOF(first, D[second]). Empty when the sizes are equal, or the first is 0.
    public static func consistency<E: Error>(
        from first: UInt64, to second: UInt64, range: (UInt64, UInt64) throws(E) -> CompactRange
    ) throws(E) -> [TreeHash] {
        precondition(first <= second, "a tree does not shrink")
        guard first > 0, first < second else { return [] }
        var path: [TreeHash] = []
        var lower: UInt64 = 0, upper = second
        // SUBPROOF(m, D[lower:upper], whole): whole as long as nothing on the left was dropped.
        var isWhole = true
        while upper != first {
            let middle = lower + split(upper - lower)
            if first <= middle {
                path.append(try range(middle, upper).root)
                upper = middle
            } else {
                path.append(try range(lower, middle).root)
                lower = middle
                isWhole = false
            }
        }
        if !isWhole { path.append(try range(lower, upper).root) }
        return path.reversed()
    }

    /// The largest power of two below `count`, which is at least 2.
    static func split(_ count: UInt64) -> UInt64 { 1 << UInt64(63 - (count - 1).leadingZeroBitCount) }

    /// The root that a path leads to (RFC 9162, 2.1.3.2), or nil when it has the wrong length.
    public static func root(leaf: TreeHash, index: UInt64, size: UInt64, path: [TreeHash]) -> TreeHash? {
        guard index < size else { return nil }
        var fn = index, sn = size - 1, hash = leaf
        for sibling in path {
            guard sn != 0 else { return nil }
            if fn & 1 == 1 || fn == sn {
                hash = TreeHash.node(sibling, hash)
                while fn & 1 == 0, fn != 0 {
                    fn >>= 1
                    sn >>= 1
                }
            } else {
                hash = TreeHash.node(hash, sibling)
            }
            fn >>= 1
            sn >>= 1
        }
        return sn == 0 ? hash : nil
    }

    /// Whether the tree of `second` leaves begins with that of `first` (RFC 9162, 2.1.4.2). A tree of nothing is the
    /// beginning of every tree.
    public static func isConsistent(
        first: UInt64, firstRoot: TreeHash, second: UInt64, secondRoot: TreeHash, path: [TreeHash]
    ) -> Bool {
        if first == second { return path.isEmpty && firstRoot == secondRoot }
        guard first < second else { return false }
        if first == 0 { return path.isEmpty && firstRoot == .emptyRoot }
        var path = path[...]
        if first & (first - 1) == 0 { path = [firstRoot] + path }
        guard let start = path.popFirst() else { return false }
        var fn = first - 1, sn = second - 1
        while fn & 1 == 1 {
            fn >>= 1
            sn >>= 1
        }
        var fr = start, sr = start
        for hash in path {
            guard sn != 0 else { return false }
            if fn & 1 == 1 || fn == sn {
                fr = TreeHash.node(hash, fr)
                sr = TreeHash.node(hash, sr)
                while fn & 1 == 0, fn != 0 {
                    fn >>= 1
                    sn >>= 1
                }
            } else {
                sr = TreeHash.node(sr, hash)
            }
            fn >>= 1
            sn >>= 1
        }
        return sn == 0 && fr == firstRoot && sr == secondRoot
    }
}
