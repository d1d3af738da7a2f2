import Glibc

/// Many readers or one writer. A waiting writer goes before new readers, so that no stream of readers starves it; a
/// thread that holds the lock must not lock it again.
/// `@unchecked Sendable`: a POSIX lock is made for it; the memory lives as long as the object.
package final class ReadWriteLock: @unchecked Sendable {
    private let lock = UnsafeMutablePointer<pthread_rwlock_t>.allocate(capacity: 1)

    package init() {
        var attributes = pthread_rwlockattr_t()
        pthread_rwlockattr_init(&attributes)
        pthread_rwlockattr_setkind_np(&attributes, Int32(PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP))
        let result = pthread_rwlock_init(lock, &attributes)
        pthread_rwlockattr_destroy(&attributes)
        precondition(result == 0, "pthread_rwlock_init failed: \(result)")
    }

    deinit {
        pthread_rwlock_destroy(lock)
        lock.deallocate()
    }

    package func lockForReading() { pthread_rwlock_rdlock(lock) }
    package func lockForWriting() { pthread_rwlock_wrlock(lock) }
    /// By the thread that locked it.
    package func unlock() { pthread_rwlock_unlock(lock) }
}
