/// Bugs that a test can plant, to prove that the simulation would find them. Set around a piece of synchronous code by
/// `LogFaults.$planted.withValue`; empty for everybody else. Each is one place in the code, named there.
package struct LogFaults: OptionSet, Sendable {
    package let rawValue: Int
    package init(rawValue: Int) { self.rawValue = rawValue }

    /// A group is published, and acknowledged, before its fdatasync.
    package static let acknowledgeBeforeSync = LogFaults(rawValue: 1 << 0)
    /// A new segment's name is not synced.
    package static let folderNotSynced = LogFaults(rawValue: 1 << 1)
    /// An fdatasync that failed is tried again, and believed.
    package static let syncRetried = LogFaults(rawValue: 1 << 2)
    /// Stored bytes are not compared with their checksum.
    package static let checksumIgnored = LogFaults(rawValue: 1 << 3)
    /// A block of another segment passes as one of this.
    package static let saltIgnored = LogFaults(rawValue: 1 << 4)
    /// A segment that is rolled is cut one page too short.
    package static let rollCutsOnePageTooMuch = LogFaults(rawValue: 1 << 5)
    /// Packing removes a live segment before the packed copy is synced.
    package static let unlinkBeforeSync = LogFaults(rawValue: 1 << 6)
    /// What opening finds behind the last proven group is believed without being written again.
    package static let unprovenTailKept = LogFaults(rawValue: 1 << 7)
    /// A step of the wall clock is believed at once.
    package static let clockBelieved = LogFaults(rawValue: 1 << 8)
    /// Received-at stays where a clock was that was ahead, until the wall clock gets there.
    package static let receivedAtPinned = LogFaults(rawValue: 1 << 9)

    @TaskLocal package static var planted: LogFaults = []

    static func isPlanted(_ fault: LogFaults) -> Bool { planted.contains(fault) }
}
