import Decisions

/// Waiting jobs of one queue, kind and scope: rate limits apply to all of them or to none.
struct JobGroup: Sendable {
    struct Key: Hashable, Sendable {
        let queue: JobQueue
        let kind: UInt16
        let scope: UInt32
    }

    let key: Key
    /// Those whose time has come, by deadline.
    var ready = JobHeap()
    /// The others, by time.
    var delayed = JobHeap()

    init(_ key: Key) { self.key = key }
}

/// What a limit counts: a kind, and a scope where it is one of each scope.
struct JobLimitKey: Hashable, Sendable {
    let kind: UInt16
    /// `NameTable.none`: all scopes.
    let scope: UInt32
}

/// An attempt that has no result yet.
public struct RunningAttempt: Sendable, Equatable {
    public let token: UInt64
    public let number: Int64
    public let worker: String
    /// Nil: the worker is a part of the daemon.
    public let leaseSeconds: Int64?
    /// Microseconds since 1970.
    public internal(set) var startedAt: Int64
}
