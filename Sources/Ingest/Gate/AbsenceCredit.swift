/// Credits the devices' rate limits for the time in which nothing was read: the process was stopped, frozen or held, or
/// the broker away. What they sent meanwhile comes at once, at the rate of our reading and not at theirs.
///
/// A broker may begin late with what it held (RabbitMQ after a start; NATS when `ack_wait` is over): an absence lasts
/// until the first message of the connection, or `lateMicrosMax`.
package struct AbsenceCredit {
    /// Shorter pauses are covered by the burst.
    static let absenceMicrosMin: Int64 = 2_000_000
    /// A credit lasts for as long as the absence, but at least this.
    static let creditMicrosMin: Int64 = 60_000_000
    /// Without a message for so long behind the first one, the backlog is read.
    static let idleMicrosMax: Int64 = 5_000_000
    /// After so long behind an absence a message counts as sent when it arrives, although the credit lasts: on a busy
    /// broker that is as long as the absence was.
    static let backlogMicrosMax: Int64 = 600_000_000
    /// A connection that brings no message for so long has no backlog.
    static let lateMicrosMax: Int64 = 60_000_000

    private var lastRound: Int64?
    private var lastInput: Int64 = 0
    private var creditEnd: Int64?
    private var backlogEnd: Int64?
    /// A message has come since the absence.
    private var hasBegun = false
    /// The present absence so far, and how much of it is credited.
    private var absentMicros: Int64 = 0, creditedMicros: Int64 = 0
    /// End of the wait for the connection's first message; nil: it is not awaited.
    private var awaitsFirstUntil: Int64?

    package init() {}

    /// The broker has accepted a connection.
    /// - Parameter micros: since the last record of a process before this one.
    package mutating func connected(awayMicros micros: Int64, at now: Int64, _ gate: Gate) {
        awaitsFirstUntil = now + Self.lateMicrosMax
        guard lastRound == nil else { return }
        lastRound = now
        extend(by: micros, at: now, gate)
    }

    /// One round of the loop, at `now` in µs of a steady clock, before what it reads is put through the gate.
    /// - Parameter hasInput: messages have come since the last round, or are there to be read.
    package mutating func round(at now: Int64, hasInput: Bool, _ gate: Gate) {
        if let lastRound { extend(by: now - lastRound, at: now, gate) }
        lastRound = now
        if hasInput { (lastInput, hasBegun, awaitsFirstUntil) = (now, true, nil) }
        if let until = awaitsFirstUntil, now >= until { awaitsFirstUntil = nil }
        if awaitsFirstUntil == nil { (absentMicros, creditedMicros) = (0, 0) }
        if let end = creditEnd, now >= end || hasBegun && now - lastInput >= Self.idleMicrosMax {
            gate.endCredit()
            (creditEnd, backlogEnd) = (nil, nil)
        }
        if let end = backlogEnd, now >= end {
            gate.endBacklog()
            backlogEnd = nil
        }
    }

    private mutating func extend(by micros: Int64, at now: Int64, _ gate: Gate) {
        absentMicros = absentMicros.saturatingAdding(micros)
        guard absentMicros >= Self.absenceMicrosMin, absentMicros > creditedMicros,
            !IngestFault.isPlanted(.chargesBacklogs)
        else { return }
        gate.creditAbsence(micros: absentMicros - creditedMicros)
        creditedMicros = absentMicros
        hasBegun = false
        backlogEnd = now + Self.backlogMicrosMax
        creditEnd = max(creditEnd ?? 0, now + Self.lifetimeMicros(ofAbsence: absentMicros))
    }

    static func lifetimeMicros(ofAbsence micros: Int64) -> Int64 {
        max(min(micros, RateLimiter.creditMicrosMax), creditMicrosMin)
    }
}
