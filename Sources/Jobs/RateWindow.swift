import Decisions
import DequeModule

/// Starts of the last period, for a limit that holds in every period (sliding window).
struct RateWindow: Sendable, Equatable {
    struct Starts: Sendable, Equatable {
        var at: Int64
        var count: Int64
    }

    private(set) var starts: Deque<Starts> = []
    private var total: Int64 = 0

    /// Starts that are possible at `now`. Costs as much as the starts that have left the period since the last one.
    func room(_ rate: JobRate, now: Int64) -> Int64 {
        var counted = total
        for entry in starts {
            guard Self.hasPassed(entry, rate, now) else { break }
            counted -= entry.count
        }
        return max(0, rate.count - counted)
    }

    /// When a start is possible; nil: at `now`.
    func opensAt(_ rate: JobRate, now: Int64) -> Int64? {
        var excess = 1 - room(rate, now: now)
        guard excess > 0 else { return nil }
        for entry in starts where !Self.hasPassed(entry, rate, now) {
            excess -= entry.count
            if excess <= 0 { return Self.end(entry, rate) }
        }
        return nil
    }

    mutating func add(_ count: Int64, at now: Int64, _ rate: JobRate) {
        while let first = starts.first, Self.hasPassed(first, rate, now) { total -= starts.removeFirst().count }
        total += count
        if let last = starts.last, last.at == now {
            starts[starts.count - 1].count += count
        } else {
            starts.append(Starts(at: now, count: count))
        }
    }

    mutating func restore(_ entry: Starts) {
        // From a file: a foreign number must not overflow.
        let count = max(0, min(entry.count, JobRate.countMax))
        starts.append(Starts(at: entry.at, count: count))
        total += count
    }

    mutating func move(by move: (Int64) -> Int64) {
        starts = Deque(starts.map { Starts(at: move($0.at), count: $0.count) })
    }

    private static func hasPassed(_ entry: Starts, _ rate: JobRate, _ now: Int64) -> Bool {
        now >= end(entry, rate)
    }

    private static func end(_ entry: Starts, _ rate: JobRate) -> Int64 {
        entry.at.saturatingAdding(rate.seconds.multipliedReportingOverflow(by: 1_000_000).partialValue)
    }
}
