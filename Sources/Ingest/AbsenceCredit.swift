/// Credits the devices' rate limits for the time in which nothing was read: the process was stopped, frozen or held, or
/// the broker away. What they sent meanwhile comes at once, at the rate of our reading and not at theirs.
package struct AbsenceCredit {
    /// Shorter pauses are covered by the burst.
    static let absenceMicrosMin: Int64 = 2_000_000
    /// A credit lasts for as long as the absence, but at least this.
    static let creditMicrosMin: Int64 = 60_000_000
    /// Nothing has come for so long: the backlog is read.
    static let idleMicrosMax: Int64 = 5_000_000

    private var lastRound: Int64?
    private var lastInput: Int64 = 0
    private var creditEnd: Int64?

    package init() {}

    /// - Parameter micros: since the last record of a process before this one.
    package mutating func begin(awayMicros micros: Int64, at now: Int64, _ gate: Gate) {
        guard lastRound == nil else { return }
        lastRound = now
        grant(micros, at: now, gate)
    }

    /// One round of the loop, at `now` in µs of a steady clock.
    package mutating func round(at now: Int64, hasInput: Bool, _ gate: Gate) {
        if let lastRound { grant(now - lastRound, at: now, gate) }
        lastRound = now
        if hasInput { lastInput = now }
        if let end = creditEnd, now >= end || now - lastInput >= Self.idleMicrosMax {
            gate.endCredit()
            creditEnd = nil
        }
    }

    private mutating func grant(_ micros: Int64, at now: Int64, _ gate: Gate) {
        guard micros >= Self.absenceMicrosMin, !IngestFaults.isPlanted(.chargesBacklogs) else { return }
        gate.creditAbsence(micros: micros)
        lastInput = now
        creditEnd = max(creditEnd ?? 0, now + Self.lifetimeMicros(ofAbsence: micros))
    }

    static func lifetimeMicros(ofAbsence micros: Int64) -> Int64 {
        max(min(micros, RateLimiter.creditMicrosMax), creditMicrosMin)
    }
}
