/// Event rate over the last 5 full seconds.
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
