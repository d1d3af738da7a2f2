/// Credits the devices' rate limits for the time in which nothing was read: the process was stopped, frozen or held, or
/// the broker away. What they sent meanwhile comes at once, at the rate of our reading and not at theirs.
package struct AbsenceCredit {
    /// Shorter pauses are covered by the burst.
    static let absenceMicrosMin: Int64 = 2_000_000
    /// A credit lasts for as long as the absence, but at least this.
    static let creditMicrosMin: Int64 = 60_000_000
    /// No message has come for so long behind the first one: the backlog is read. Brokers may begin with it late.
    static let idleMicrosMax: Int64 = 5_000_000

    private var lastRound: Int64?
    private var lastInput: Int64 = 0
    private var creditEnd: Int64?
    /// A message has come since the absence.
    private var hasBegun = false

    package init() {}

    /// - Parameter micros: since the last record of a process before this one.
    package mutating func begin(awayMicros micros: Int64, at now: Int64, _ gate: Gate) {
        guard lastRound == nil else { return }
        lastRound = now
        grant(micros, at: now, gate)
    }

    /// One round of the loop, at `now` in µs of a steady clock.
    /// - Parameter hasInput: messages have come since the last round, or are there to be read.
    package mutating func round(at now: Int64, hasInput: Bool, _ gate: Gate) {
        if let lastRound { grant(now - lastRound, at: now, gate) }
        lastRound = now
        if hasInput { (lastInput, hasBegun) = (now, true) }
        if let end = creditEnd, now >= end || hasBegun && now - lastInput >= Self.idleMicrosMax {
            gate.endCredit()
            creditEnd = nil
        }
    }

    private mutating func grant(_ micros: Int64, at now: Int64, _ gate: Gate) {
        guard micros >= Self.absenceMicrosMin, !IngestFaults.isPlanted(.chargesBacklogs) else { return }
        gate.creditAbsence(micros: micros)
        hasBegun = false
        creditEnd = max(creditEnd ?? 0, now + Self.lifetimeMicros(ofAbsence: micros))
    }

    static func lifetimeMicros(ofAbsence micros: Int64) -> Int64 {
        max(min(micros, RateLimiter.creditMicrosMax), creditMicrosMin)
    }
}
