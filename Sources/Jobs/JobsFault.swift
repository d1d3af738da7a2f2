/// Bugs that a test can plant, to prove that the simulation finds them. Each is one place in the code, named there.
///
/// Only a build with the condition `PLANTED_BUGS` can plant them: see Package.swift. In any other build `isPlanted` is
/// constant, so that the optimiser removes the bugs and this type. packaging/find-planted-bugs checks an executable.
enum JobsFault: String {
    /// The result of any attempt of a job ends the running one.
    case ignoresTokens
    /// A job is rescued without end.
    case neverPoisons
    /// No start is for the queue that waits longest.
    case startsByPriorityOnly
    /// The lowest id is first, whatever the deadlines.
    case ignoresDeadlines
    /// A snapshot lacks the starts that rate limits count.
    case forgetsStartsInSnapshots
    /// A lease starts jobs beside a pause in the same commit.
    case startsBesideAPause
    /// Two commands of a commit queue jobs with the same key.
    case queuesAKeyTwice
    /// A tick is not remembered where the job before it has not ended.
    case forgetsTicks
}

#if PLANTED_BUGS
extension JobsFault {
    @TaskLocal private static var planted: JobsFault?

    static func isPlanted(_ fault: JobsFault) -> Bool { planted == fault }

    fileprivate static func plant<R>(_ name: String, _ body: () throws -> R) rethrows -> R {
        guard let fault = JobsFault(rawValue: name) else {
            preconditionFailure("no planted bug is named \(name)")
        }
        return try $planted.withValue(fault, operation: body)
    }
}

/// Runs `body`, which must be synchronous, with the bug of that name (a case of `JobsFault`) in the decider of jobs.
package func withJobsFault<R>(_ name: String, _ body: () throws -> R) rethrows -> R {
    try JobsFault.plant(name, body)
}
#else
extension JobsFault {
    @inline(__always) static func isPlanted(_ fault: JobsFault) -> Bool { false }
}
#endif
