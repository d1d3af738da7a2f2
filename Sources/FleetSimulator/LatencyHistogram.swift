/// Latencies in buckets of about 9 % width, from 1 µs to over an hour: bounded memory, whatever the run's length.
struct LatencyHistogram: Sendable {
    /// Eight buckets to a power of two.
    private var counts = Array(repeating: 0, count: 34 * 8)
    private(set) var total = 0

    mutating func add(micros: Int64) {
        counts[Self.bucket(UInt64(max(1, micros)))] += 1
        total += 1
    }

    /// The upper end of the bucket in which the share `quantile` of all latencies is reached; 0 when there is none.
    func micros(atQuantile quantile: Double) -> Int64 {
        guard total > 0 else { return 0 }
        let rank = max(1, Int((Double(total) * quantile).rounded(.up)))
        var seen = 0
        for (bucket, count) in counts.enumerated() {
            seen += count
            if seen >= rank { return Self.upperEnd(bucket) }
        }
        return Self.upperEnd(counts.count - 1)
    }

    private static func bucket(_ micros: UInt64) -> Int {
        guard micros >= 8 else { return Int(micros) }
        let power = 63 - micros.leadingZeroBitCount
        let eighth = Int(micros >> UInt64(power - 3)) & 7
        return min((power - 2) * 8 + eighth, 34 * 8 - 1)
    }

    private static func upperEnd(_ bucket: Int) -> Int64 {
        guard bucket >= 8 else { return Int64(bucket) }
        return Int64(8 + bucket % 8 + 1) << Int64(bucket / 8 - 1)
    }
}
