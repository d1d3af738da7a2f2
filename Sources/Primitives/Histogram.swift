/// A histogram as Prometheus has them. Not thread-safe.
public struct Histogram: Sendable, Equatable {
    /// Upper bounds, inclusive and ascending.
    public let bounds: [Double]
    /// `counts[i]`: observations above `bounds[i - 1]` and at most `bounds[i]`; the last: above all bounds.
    public private(set) var counts: [UInt64]
    public private(set) var sum: Double

    public init(bounds: [Double]) {
        self.init(bounds: bounds, counts: [UInt64](repeating: 0, count: bounds.count + 1), sum: 0)
    }

    public init(bounds: [Double], counts: [UInt64], sum: Double) {
        precondition(counts.count == bounds.count + 1, "a bucket for each bound, and one above")
        (self.bounds, self.counts, self.sum) = (bounds, counts, sum)
    }

    public var count: UInt64 { counts.reduce(0, +) }

    public mutating func record(_ value: Double) {
        var index = 0
        while index < bounds.count, value > bounds[index] { index += 1 }
        counts[index] += 1
        sum += value
    }
}
