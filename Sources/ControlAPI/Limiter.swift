import Synchronization

/// Limits the number of concurrent streams or expensive requests.
final class Limiter: Sendable {
    let max: Int
    fileprivate let taken = Mutex(0)

    init(max: Int) { self.max = max }
}

/// A slot of a `Limiter`, released when it is deallocated.
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
