import EventLog
import EventModel
import Synchronization

/// A clock that only the world moves. Wall and steady time differ by what was set.
final class SimulatedClock: LogClock {
    private struct Times {
        var wall: Int64 = 1_790_000_000_000_000  // 2026-09-21
        var steady: Int64 = 0
        /// Part of `wall` that is an error and will be taken back.
        var error: Int64 = 0
        var latest: Int64 = 0

        mutating func note() { latest = max(latest, wall - error) }
    }
    private let times = Mutex(Times())
    private let start = ContinuousClock.now

    func now() -> Timestamp { Timestamp(microseconds: times.withLock { $0.wall }) }
    func steadyMicroseconds() -> Int64 { times.withLock { $0.steady } }

    /// For what takes its time as an instant.
    var instant: ContinuousClock.Instant { start + .microseconds(steadyMicroseconds()) }

    func advance(microseconds: Int) {
        times.withLock {
            $0.wall += Int64(microseconds)
            $0.steady += Int64(microseconds)
            $0.note()
        }
    }

    /// Somebody sets the wall clock.
    func set(by microseconds: Int) {
        times.withLock {
            $0.wall += Int64(microseconds)
            $0.note()
        }
    }

    /// The wall clock is wrong for a moment.
    func err(by microseconds: Int) {
        times.withLock {
            $0.wall += Int64(microseconds) - $0.error
            $0.error = Int64(microseconds)
        }
    }

    /// The latest time that the wall clock ever had, errors apart.
    var latest: Timestamp { Timestamp(microseconds: times.withLock { $0.latest }) }
}
