import EventModel

/// When the next message may leave: at so many times the speed at which they came, and at most so many a second.
struct PublishPace {
    /// Times the original speed; nil: as fast as it goes.
    let speed: Double?
    /// Messages a second; nil: no limit.
    let rate: Double?
    private var first: (received: Timestamp, sentMicros: Int64)?
    private var last: Timestamp?
    private var tokens: Double
    private var lastMicros: Int64?

    init(speed: Double?, rate: Double?) {
        self.speed = speed
        self.rate = rate
        tokens = Self.burst(rate)
    }

    /// A fiftieth of a second's worth at once, so that high rates need no clock finer than a millisecond.
    private static func burst(_ rate: Double?) -> Double { max(1, (rate ?? 0) / 50) }

    /// Microseconds to wait before a message that was received then; 0: now, and it counts as sent.
    mutating func wait(for received: Timestamp, now: Int64) -> Int64 {
        if let speed {
            // An era of the log begins: its times have nothing to do with those before.
            if let last, received < last { first = nil }
            last = received
            if let first {
                let due =
                    first.sentMicros
                    + Int64(Double(received.microseconds - first.received.microseconds) / speed)
                if due > now { return due - now }
            } else {
                first = (received, now)
            }
        }
        guard let rate else { return 0 }
        if let lastMicros { tokens = min(Self.burst(rate), tokens + Double(now - lastMicros) / 1_000_000 * rate) }
        lastMicros = now
        guard tokens >= 1 else { return max(1, Int64((1 - tokens) / rate * 1_000_000)) }
        tokens -= 1
        return 0
    }
}
