/// How long things took: cumulative counts as Prometheus has them, without a lock of its own.
public struct DurationHistogram: Sendable, Equatable {
    /// Upper bounds in seconds, inclusive; what is longer counts in `count` only.
    public static let boundsSeconds = [
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5
    ]

    /// Observations at or below each bound.
    public private(set) var cumulativeCounts = [UInt64](repeating: 0, count: boundsSeconds.count)
    public private(set) var count: UInt64 = 0
    public private(set) var sumSeconds = 0.0

    public init() {}

    public mutating func observe(_ duration: Duration) {
        let seconds = duration / .seconds(1)
        count += 1
        sumSeconds += seconds
        for index in Self.boundsSeconds.indices.reversed() {
            guard seconds <= Self.boundsSeconds[index] else { break }
            cumulativeCounts[index] += 1
        }
    }
}

/// Events a second, over the last whole seconds.
struct RateMeter {
    private static let seconds = 5
    /// Slot `s % count` belongs to second `s`.
    private var slots = [(second: Int64, count: Int)](repeating: (-1, 0), count: seconds + 1)

    mutating func add(_ count: Int, at second: Int64) {
        let slot = Int(second % Int64(slots.count))
        slots[slot] = slots[slot].second == second ? (second, slots[slot].count + count) : (second, count)
    }

    func perSecond(at second: Int64) -> Double {
        let recent = slots.filter { $0.second < second && $0.second >= second - Int64(Self.seconds) }
        return Double(recent.reduce(0) { $0 + $1.count }) / Double(Self.seconds)
    }
}
