extension RandomAccessCollection {
    /// The first index whose element `isBehind` holds for; the end where there is none. `isBehind` must hold for an end
    /// of the elements and no others. Takes O(log n) calls.
    @inlinable
    public func partitioningIndex(where isBehind: (Element) throws -> Bool) rethrows -> Index {
        var low = startIndex, count = count
        while count > 0 {
            let half = count / 2, middle = index(low, offsetBy: half)
            if try isBehind(self[middle]) {
                count = half
            } else {
                low = index(after: middle)
                count -= half + 1
            }
        }
        return low
    }
}
