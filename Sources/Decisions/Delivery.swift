import EventModel

/// One message that a decision sends to one device. It is sent at least once, each time with the same id.
public struct Delivery: Sendable, Hashable {
    /// Position of the decision, which all of its deliveries share; devices see it as `command_id`.
    public let id: Position
    /// What the decision changes (`Envelope.subject`), such as `campaign:7`. Deliveries of a subject are withdrawn
    /// together.
    public let subject: String
    public let tenantID: String
    public let deviceID: String
    /// The last level of the topic, such as `ota`.
    public let channel: String
    /// Empty: removes the message that the broker retains (MQTT 5.0, section 3.3.1.3).
    public let payload: [UInt8]
    /// The broker keeps it for the device, in place of the one before.
    public let isRetained: Bool

    public init(
        id: Position, subject: String, tenantID: String, deviceID: String, channel: String, payload: [UInt8],
        isRetained: Bool = false
    ) {
        self.id = id
        self.subject = subject
        self.tenantID = tenantID
        self.deviceID = deviceID
        self.channel = channel
        self.payload = payload
        self.isRetained = isRetained
    }

    public var topic: String { "tenant/\(tenantID)/device/\(deviceID)/\(channel)" }

    /// It removes a retained message. Its acknowledgement is not recorded.
    public var isRemoval: Bool { payload.isEmpty }
}
