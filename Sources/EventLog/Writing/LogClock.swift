import EventModel
import Glibc

/// Where the log takes its time from.
public protocol LogClock: Sendable {
    /// The wall clock.
    func now() -> Timestamp
    /// Microseconds of a clock that nobody sets, suspension included.
    func steadyMicroseconds() -> Int64
}

public struct SystemClock: LogClock {
    public init() {}

    public func now() -> Timestamp { Timestamp(microseconds: Self.read(CLOCK_REALTIME)) }
    /// CLOCK_BOOTTIME, not CLOCK_MONOTONIC: a machine that slept has not had its clock set.
    public func steadyMicroseconds() -> Int64 { Self.read(CLOCK_BOOTTIME) }

    private static func read(_ clock: clockid_t) -> Int64 {
        var time = timespec()
        clock_gettime(clock, &time)
        return Int64(time.tv_sec) * 1_000_000 + Int64(time.tv_nsec) / 1000
    }
}

/// Notices when the wall clock was set: back by more than a second, or forward by more than five minutes.
struct ClockWatch {
    static let backMicrosMax: Int64 = 1_000_000
    static let forwardMicrosMax: Int64 = 300_000_000

    struct Step: Equatable {
        /// What the clock would have said, and what it says.
        let before: Timestamp
        let after: Timestamp

        /// The payload of `log.clock_stepped/1`.
        var json: [UInt8] {
            let micros = after.microseconds - before.microseconds
            return Array(#"{"before":"\#(before)","after":"\#(after)","step_microseconds":\#(micros)}"#.utf8)
        }
    }

    static let schema = "log.clock_stepped/1"
    private let clock: any LogClock
    private var offset: Int64

    init(_ clock: any LogClock) {
        self.clock = clock
        offset = clock.now().microseconds - clock.steadyMicroseconds()
    }

    /// Compares with the call before. Small changes (slewing, a leap second) become the new normal.
    mutating func check() -> Step? {
        let now = clock.now()
        let newOffset = now.microseconds - clock.steadyMicroseconds()
        let step = newOffset - offset
        let before = now.adding(microseconds: -step)
        offset = newOffset
        return step < -Self.backMicrosMax || step > Self.forwardMicrosMax ? Step(before: before, after: now) : nil
    }
}
