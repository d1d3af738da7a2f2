import EventModel

/// Changes of presence and their durations, of one device or of all, over a stretch of history.
public struct PresenceTally: Sendable, Equatable {
    /// How often it became STALE, and OFFLINE.
    public var timesStale = 0
    public var timesOffline = 0
    /// For how long it was each.
    public var staleMicroseconds: Int64 = 0
    public var offlineMicroseconds: Int64 = 0

    /// Adds the time between two messages, or between the last one and the end.
    mutating func silence(_ microseconds: Int64, _ thresholds: PresenceThresholds) {
        guard microseconds > thresholds.staleMicroseconds else { return }
        timesStale += 1
        staleMicroseconds += min(microseconds, thresholds.offlineMicroseconds) - thresholds.staleMicroseconds
        guard microseconds > thresholds.offlineMicroseconds else { return }
        timesOffline += 1
        offlineMicroseconds += microseconds - thresholds.offlineMicroseconds
    }

    static func += (a: inout PresenceTally, b: PresenceTally) {
        a.timesStale += b.timesStale
        a.timesOffline += b.timesOffline
        a.staleMicroseconds += b.staleMicroseconds
        a.offlineMicroseconds += b.offlineMicroseconds
    }
}

/// Every device's silences under two rules side by side. Activity is what it is for `device_status`: an accepted
/// message that the broker did not replay.
struct PresenceHistory {
    struct Device {
        var lastSeen: Timestamp
        var before = PresenceTally()
        var after = PresenceTally()
    }

    let before: PresenceThresholds
    let after: PresenceThresholds
    private(set) var devices: [[UInt8]: Device] = [:]

    mutating func apply(_ record: RecordView) {
        guard record.kind == .message, record.verdict == .accepted, !record.flags.contains(.retained),
            let topic = DeviceTopic(record.topic)
        else { return }
        let address = Array(record.topic[topic.address]), at = record.receivedAt
        guard devices[address] != nil else { return devices[address] = Device(lastSeen: at) }
        pass(&devices[address]!, until: at)
    }

    private func pass(_ device: inout Device, until: Timestamp) {
        let silence = until.microseconds - device.lastSeen.microseconds
        device.before.silence(silence, before)
        device.after.silence(silence, after)
        device.lastSeen = until
    }

    /// The silence until the end of the history counts too.
    mutating func end(at end: Timestamp) {
        for address in devices.keys.sorted(by: { $0.lexicographicallyPrecedes($1) }) {
            pass(&devices[address]!, until: max(end, devices[address]!.lastSeen))
        }
    }
}
