import Glibc

/// The system's clocks, in microseconds.
public enum SystemTime {
    /// Since 1970 in UTC. Steps when the clock is set.
    public static func wallMicroseconds() -> Int64 { read(CLOCK_REALTIME) }

    /// For durations. Never set; stops while the machine is suspended.
    public static func monotonicMicroseconds() -> Int64 { read(CLOCK_MONOTONIC) }

    /// For durations. Never set; includes the time of suspension.
    public static func bootMicroseconds() -> Int64 { read(CLOCK_BOOTTIME) }

    private static func read(_ clock: clockid_t) -> Int64 {
        var time = timespec()
        clock_gettime(clock, &time)
        return Int64(time.tv_sec) * 1_000_000 + Int64(time.tv_nsec) / 1_000
    }
}
