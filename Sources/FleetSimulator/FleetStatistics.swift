/// What a fleet has done so far. A snapshot: counts of one moment, taken between two turns of the loop.
public struct FleetStatistics: Sendable, Equatable {
    /// Messages that the generator has given out.
    public var generated = 0
    /// Publishes handed to the connection: generated ones, births, farewells and OTA reports. Repeats of the same
    /// publish after a reconnect do not count again.
    public var published = 0
    public var acknowledged = 0
    /// Births, farewells and OTA reports among the published.
    public var onTheSide = 0
    public var malformed = 0
    public var duplicates = 0
    /// Commands received on `…/ota` and `…/certificate`.
    public var commands = 0
    /// Those of them that the device had dealt with before.
    public var repeatedCommands = 0
    /// Certificates that devices have got over MQTT and connect with.
    public var certificatesInstalled = 0
    /// Connections that stand now, that were made, and that ended otherwise than by a farewell.
    public var connected = 0
    public var connectionsMade = 0
    public var connectionsLost = 0
    /// Devices that went away without DISCONNECT: as many last wills may be expected of the broker.
    public var ungracefulLeaves = 0
    /// Waiting for their connection or its window, and published without an acknowledgement so far.
    public var waiting = 0
    public var inFlight = 0
    public var seconds = 0.0
    /// From publish to PUBACK.
    public var ackMicrosP50: Int64 = 0
    public var ackMicrosP99: Int64 = 0

    public var unacknowledged: Int { published - acknowledged }
    public var acknowledgedPerSecond: Double { seconds > 0 ? Double(acknowledged) / seconds : 0 }
}
