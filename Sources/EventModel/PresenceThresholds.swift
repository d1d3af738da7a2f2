/// After how long without a message a device counts as away. The SQL function `refold.presence` is the same rule, with
/// thresholds that the daemon writes into `refold.presence_thresholds`.
public struct PresenceThresholds: Sendable, Equatable {
    public var staleSeconds: Double = 90
    /// Not less than `staleSeconds`.
    public var offlineSeconds: Double = 300

    public init() {}

    /// ONLINE, STALE or OFFLINE at `time`. `lastSeen` nil (no message yet): OFFLINE.
    public func status(lastSeen: Timestamp?, at time: Timestamp) -> String {
        guard let lastSeen else { return "OFFLINE" }
        let silence = time.microseconds.saturatingSubtracting(lastSeen.microseconds)
        return silence <= staleMicroseconds ? "ONLINE" : silence <= offlineMicroseconds ? "STALE" : "OFFLINE"
    }

    public var staleMicroseconds: Int64 { Int64(saturating: staleSeconds * 1e6) }
    public var offlineMicroseconds: Int64 { Int64(saturating: offlineSeconds * 1e6) }
}
