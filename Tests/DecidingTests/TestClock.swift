import EventModel
import Synchronization

/// A clock that tests move.
final class TestClock: Sendable {
    private let time = Mutex(Timestamp(microseconds: 1_800_000_000_000_000))
    var now: Timestamp { time.withLock { $0 } }
    func advance(microseconds: Int64) { time.withLock { $0 = $0.adding(microseconds: microseconds) } }
}
