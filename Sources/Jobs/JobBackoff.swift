import Primitives

/// Pause before the next attempt: exponential, with jitter from a hash, so that a replay gives the same times.
enum JobBackoff {
    private static let secondsMax: Int64 = 6 * 3_600
    private static let secondsMin: Int64 = 1

    /// - Parameters:
    ///   - failures: attempts that have failed, the last one included.
    ///   - base: pause after the first one, in seconds; it doubles with each.
    ///   - left: microseconds until the deadline; nil: there is none. A pause takes at most an eighth of it.
    static func microseconds(id: Int64, failures: Int64, base: Int64, left: Int64?) -> Int64 {
        var seconds = min(max(base, 0) << max(0, min(failures - 1, 16)), secondsMax)
        if let left, left > 0 { seconds = min(seconds, max(secondsMin, left / 8_000_000)) }
        // Up to a quarter more: jobs that failed together are not retried together.
        return seconds * 1_000_000 + Int64(hash(id, failures) % 1_024) * (seconds * 250_000) / 1_024
    }

    private static func hash(_ id: Int64, _ number: Int64) -> UInt64 {
        var hash = UInt64(bitPattern: id) &* 0x9e37_79b9_7f4a_7c15 ^ UInt64(bitPattern: number)
        hash = (hash ^ hash >> 33) &* 0xff51_afd7_ed55_8ccd  // the finalizer of MurmurHash3
        hash = (hash ^ hash >> 33) &* 0xc4ce_b9fe_1a85_ec53
        return hash ^ hash >> 33
    }
}
