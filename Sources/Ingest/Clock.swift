#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// For durations: nobody sets it, and it goes on while the machine is suspended.
@inline(__always)
func steadyMicros() -> Int64 {
    var time = timespec()
    clock_gettime(CLOCK_BOOTTIME, &time)
    return Int64(time.tv_sec) * 1_000_000 + Int64(time.tv_nsec) / 1_000
}
