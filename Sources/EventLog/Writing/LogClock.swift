import CPlatform
import EventModel
import Primitives

/// Where the log takes its time from.
public protocol LogClock: Sendable {
    /// The wall clock.
    func now() -> Timestamp
    /// Microseconds of a clock that nobody sets, suspension included.
    func steadyMicroseconds() -> Int64
    /// A time service disciplines the wall clock: it can be believed sooner.
    var isSynchronised: Bool { get }
    /// Changes when the steady clock begins again; nil: not known.
    var bootID: String? { get }
}

extension LogClock {
    public var isSynchronised: Bool { false }
    public var bootID: String? { nil }
}

public struct SystemClock: LogClock {
    public init() {}

    public func now() -> Timestamp { Timestamp(microseconds: SystemTime.wallMicroseconds()) }
    /// The clock that counts suspension: a machine that slept has not had its clock set.
    public func steadyMicroseconds() -> Int64 { SystemTime.bootMicroseconds() }
    public var isSynchronised: Bool { refold_clock_is_synchronised() != 0 }
}
