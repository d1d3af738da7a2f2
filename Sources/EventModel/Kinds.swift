// EventModel: what an event is: record, position, kind and verdict, topic, time, and the JSON of events that Refold
// itself writes into the log. Pure.
//
// Invariants. A record is read where it is, without a copy (`RecordView`), and written by one type (`RecordBatch`).
// Raw values and field names are on disk: they are never renumbered or renamed.

/// What kind of thing happened. The raw values are on disk: never renumber them.
public enum EventKind: UInt8, Sendable, CaseIterable {
    /// An MQTT message from a device (or claiming to be from one).
    case message = 1
    /// A device's messages beyond its rate limit: one record a device and commit, JSON payload
    /// `{"count", "rejected": [{"packet_id", "topic", "sha256"}]}`; the payloads themselves are not kept.
    case rejection = 2
    /// A connection of ours to a broker changed. `topic` is the schema name, e.g. `broker.connected/1`; JSON payload.
    case connection = 3
    /// A decider decided, or refused an operator's command. `topic` is the schema name, e.g. `campaign.created/1`.
    case decision = 4
    /// The log about itself. `topic` is the schema name, e.g. `log.clock_stepped/1`.
    case system = 5

    /// The word in command lines and JSON.
    public var name: String {
        switch self {
        case .message: "message"
        case .rejection: "rejection"
        case .connection: "connection"
        case .decision: "decision"
        case .system: "system"
        }
    }

    public init?(name: String) {
        guard let kind = Self.allCases.first(where: { $0.name == name }) else { return nil }
        self = kind
    }
}

/// What the gate said of a message when it arrived. Taken live, stored, never re-decided by replay.
/// The raw values are on disk: never renumber them.
public enum Verdict: UInt8, Sendable, CaseIterable {
    case accepted = 0
    case badTopicFormat = 1
    /// The payload was beyond the limit: its first bytes and its length are kept.
    case payloadTooLarge = 2
    case rateLimited = 3
    /// A command topic on which somebody else published.
    case foreignCommand = 4
    /// The device of the topic had no live certificate (`certificates.enforce`).
    case certMismatch = 5
    /// Reserved: the device is not registered.
    case unregisteredDevice = 6

    /// The word in tables, command lines and JSON.
    public var name: String {
        switch self {
        case .accepted: "ACCEPTED"
        case .badTopicFormat: "BAD_TOPIC_FORMAT"
        case .payloadTooLarge: "PAYLOAD_TOO_LARGE"
        case .rateLimited: "RATE_LIMITED"
        case .foreignCommand: "FOREIGN_COMMAND"
        case .certMismatch: "CERT_MISMATCH"
        case .unregisteredDevice: "UNREGISTERED_DEVICE"
        }
    }

    public init?(name: String) {
        guard let verdict = Self.allCases.first(where: { $0.name == name }) else { return nil }
        self = verdict
    }
}

/// MQTT facts of a record that fit in one byte. The bits are on disk.
@frozen
public struct RecordFlags: OptionSet, Hashable, Sendable {
    public let rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }
    @inlinable public init(qos: UInt8) { self.init(rawValue: qos & 0b11) }

    /// Replayed by the broker as its retained message: no activity of the device (Retain As Published is off).
    public static let retained = RecordFlags(rawValue: 1 << 2)
    /// The broker marked it as possibly delivered before (MQTT 5.0, 3.3.1.1).
    public static let duplicate = RecordFlags(rawValue: 1 << 3)
    /// The payload was cut: `RecordView.originalPayloadLength` is what arrived.
    public static let truncated = RecordFlags(rawValue: 1 << 4)
    /// It came over the session of an earlier client id, which is being emptied (`broker.draining/1`).
    public static let drained = RecordFlags(rawValue: 1 << 5)

    @inlinable public var qos: UInt8 { rawValue & 0b11 }
}
