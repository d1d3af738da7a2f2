/// Counts of what happened in a world, which worlds are summed by.
public protocol WorldCounts {
    static var counts: [WritableKeyPath<Self, Int>] { get }
}

extension WorldCounts {
    public static func + (a: Self, b: Self) -> Self {
        var sum = a
        for count in counts { sum[keyPath: count] += b[keyPath: count] }
        return sum
    }
}
