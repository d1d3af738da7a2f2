import Synchronization

/// How many of something there are at once: streams, requests that wait for an expensive answer.
final class Limiter: Sendable {
    let max: Int
    fileprivate let taken = Mutex(0)

    init(max: Int) { self.max = max }
}

/// One of them, as long as it lives.
final class LimitedSlot: Sendable {
    private let limiter: Limiter

    /// Nil when all are taken.
    init?(_ limiter: Limiter) {
        self.limiter = limiter
        let isFree = limiter.taken.withLock { taken in
            taken += 1
            return taken <= limiter.max
        }
        if !isFree { return nil }
    }

    // Also when the initializer has failed: every property was set.
    deinit { limiter.taken.withLock { $0 -= 1 } }
}
