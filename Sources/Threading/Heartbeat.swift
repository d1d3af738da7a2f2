import Primitives
import Synchronization

/// A dead man's switch for one thread: each beat states within how many seconds the next one is due.
///
/// The owner beats before each piece of work, with the longest time that this piece may take; whoever judges the
/// process reads `overdueSeconds`. Steady time, so a step of the wall clock changes nothing.
public final class Heartbeat: Sendable {
    /// Microseconds of CLOCK_MONOTONIC; `Int64.max` while nothing is due.
    private let due = Atomic<Int64>(.max)

    public init() {}

    public func beat(within seconds: Int) {
        due.store(Self.now() + Int64(seconds) * 1_000_000, ordering: .relaxed)
    }

    /// Nothing is due until the next beat: the thread has finished, or waits for work.
    public func rest() { due.store(.max, ordering: .relaxed) }

    /// For how long the next beat has been due; nil while it is not.
    public var overdueSeconds: Double? {
        let due = due.load(ordering: .relaxed), now = Self.now()
        return now > due ? Double(now - due) / 1_000_000 : nil
    }

    private static func now() -> Int64 { SystemTime.monotonicMicroseconds() }
}
