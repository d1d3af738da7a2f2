/// Says when a disk will be full, from how much room it had over the last minutes. A plain object: whoever owns it
/// adds a sample now and then.
public struct DiskForecast: Sendable {
    /// What is older than this says nothing of the rate now.
    static let windowSeconds = 300.0
    /// A rate needs this much time between its first and its last sample: space is taken in steps.
    static let spanSecondsMin = 20.0

    private var samples: [(at: Double, free: Double)] = []

    public init() {}

    /// Bytes free at the last sample; nil before the first.
    public var freeBytes: UInt64? { samples.last.map { UInt64($0.free) } }

    /// - Parameter seconds: of a clock that nobody sets.
    public mutating func add(freeBytes: UInt64, at seconds: Double) {
        // Much space has come back: what was taken before says nothing of the rate now.
        if let last = samples.last, Double(freeBytes) > last.free * 1.5 { samples.removeAll() }
        samples.append((seconds, Double(freeBytes)))
        samples.removeAll { seconds - $0.at > Self.windowSeconds }
    }

    /// Bytes a second that the free space shrinks by: the slope of the straight line through the samples (least
    /// squares). Nil while there are too few; negative when space comes back.
    public var bytesPerSecond: Double? {
        guard let first = samples.first, let last = samples.last, last.at - first.at >= Self.spanSecondsMin else {
            return nil
        }
        let count = Double(samples.count)
        let meanAt = samples.reduce(0) { $0 + $1.at } / count, meanFree = samples.reduce(0) { $0 + $1.free } / count
        var covariance = 0.0, variance = 0.0
        for sample in samples {
            covariance += (sample.at - meanAt) * (sample.free - meanFree)
            variance += (sample.at - meanAt) * (sample.at - meanAt)
        }
        return variance > 0 ? -covariance / variance : nil
    }

    /// Seconds until nothing is free at this rate; nil when the rate is not known or the space does not shrink, or not
    /// within ten years.
    public var secondsUntilFull: Double? {
        guard let last = samples.last else { return nil }
        if last.free <= 0 { return 0 }
        guard let rate = bytesPerSecond, rate > 0 else { return nil }
        let seconds = last.free / rate
        return seconds < 315_360_000 ? seconds : nil
    }
}
