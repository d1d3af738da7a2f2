/// Bugs that a test can plant, to prove that the simulation finds them. Each is one place in the code, named there.
///
/// Only a build with the condition `PLANTED_BUGS` can plant them: see Package.swift. In any other build `isPlanted` is
/// constant, so that the optimiser removes the bugs and this type. packaging/find-planted-bugs checks an executable.
enum LogFault: String {
    /// A group is published, and acknowledged, before its fdatasync.
    case acknowledgeBeforeSync
    /// A new segment's name is not synced.
    case folderNotSynced
    /// An fdatasync that failed is tried again, and believed.
    case syncRetried
    /// Stored bytes are not compared with their checksum.
    case checksumIgnored
    /// A block of another segment passes as one of this.
    case saltIgnored
    /// A segment that is rolled is cut one page too short.
    case rollCutsOnePageTooMuch
    /// Packing removes a live segment before the packed copy is synced.
    case unlinkBeforeSync
    /// What opening finds behind the last proven group is believed without being written again.
    case unprovenTailKept
    /// A step of the wall clock is believed at once.
    case clockBelieved
    /// Received-at stays where a clock was that was ahead, until the wall clock gets there.
    case receivedAtPinned
}

#if PLANTED_BUGS
extension LogFault {
    @TaskLocal private static var planted: LogFault?

    static func isPlanted(_ fault: LogFault) -> Bool { planted == fault }

    fileprivate static func plant<R>(_ name: String, _ body: () throws -> R) rethrows -> R {
        guard let fault = LogFault(rawValue: name) else { preconditionFailure("no planted bug is named \(name)") }
        return try $planted.withValue(fault, operation: body)
    }
}

/// Runs `body`, which must be synchronous, with the bug of that name (a case of `LogFault`) in the log.
package func withLogFault<R>(_ name: String, _ body: () throws -> R) rethrows -> R {
    try LogFault.plant(name, body)
}
#else
extension LogFault {
    @inline(__always) static func isPlanted(_ fault: LogFault) -> Bool { false }
}
#endif
