/// A point in the life of a log, as people name it.
public enum PointInTime: Sendable, Equatable {
    /// The state behind this event.
    case position(UInt64)
    /// The state behind all events received at or before this time.
    case time(Timestamp)

    /// A position in digits, or a time in RFC 3339; nil when it is neither.
    public init?(_ text: String) {
        if let position = UInt64(text), text.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }) {
            self = .position(position)
        } else if let time = Timestamp(rfc3339: text) {
            self = .time(time)
        } else {
            return nil
        }
    }
}
