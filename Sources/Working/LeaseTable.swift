import Decisions
import EventModel
import Jobs

/// Until when attempts may run: leases of remote workers, which heartbeats extend, and the longest time that a kind
/// allows. Not on the record: after a restart every lease begins anew.
struct LeaseTable: Sendable {
    private struct Lease {
        let worker: String
        /// Nil: the worker is a part of the daemon.
        let microseconds: Int64?
        var end: Int64
        let timeOut: Int64

        var due: Int64 { min(end, timeOut) }
    }

    private var leases: [JobAttempt: Lease] = [:]

    /// Attempts whose time is over.
    struct Due: Equatable {
        var expired: [JobAttempt] = []
        var timedOut: [JobAttempt] = []
    }

    /// - Parameters:
    ///   - startedAt: of the attempt, which limits it as a whole.
    ///   - now: in microseconds of a clock that does not step, here and below.
    /// - Returns: when the attempt is over if nothing is heard.
    mutating func add(
        _ attempt: JobAttempt, worker: String, leaseSeconds: Int64?, timeoutSeconds: Int64, ranFor: Int64 = 0,
        now: Int64
    ) -> Int64 {
        let length = leaseSeconds.map { $0.saturatingMultiplied(by: 1_000_000) }
        let lease = Lease(
            worker: worker, microseconds: length, end: length.map { now.saturatingAdding($0) } ?? .max,
            timeOut: now.saturatingAdding(timeoutSeconds.saturatingMultiplied(by: 1_000_000))
                .saturatingSubtracting(max(0, ranFor)))
        leases[attempt] = lease
        return lease.due
    }

    mutating func remove(_ attempt: JobAttempt) { leases[attempt] = nil }

    /// Extends the leases of these attempts.
    /// - Returns: those that this worker no longer has.
    mutating func heartbeat(_ attempts: [JobAttempt], worker: String, now: Int64) -> [JobAttempt] {
        attempts.filter { attempt in
            guard let lease = leases[attempt], lease.worker == worker else { return true }
            leases[attempt]?.end = lease.microseconds.map { now.saturatingAdding($0) } ?? .max
            return false
        }
    }

    /// What is over. It stays until it is removed.
    func due(now: Int64) -> Due {
        var due = Due()
        for (attempt, lease) in leases where lease.due <= now {
            if lease.timeOut <= now { due.timedOut.append(attempt) } else { due.expired.append(attempt) }
        }
        due.expired.sort { $0.id < $1.id }
        due.timedOut.sort { $0.id < $1.id }
        return due
    }

    var nextDue: Int64? { leases.values.map(\.due).min() }
}

extension Int64 {
    func saturatingMultiplied(by other: Int64) -> Int64 {
        let (product, isOver) = multipliedReportingOverflow(by: other)
        return isOver ? ((self < 0) == (other < 0) ? .max : .min) : product
    }
}
