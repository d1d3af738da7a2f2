import EventModel
import MQTT

/// How a broker connection is doing: a copy, taken under a lock.
public struct BrokerStatus: Sendable, Equatable {
    public enum State: String, Sendable {
        case connecting, connected, waiting
        /// The disk is full: nothing is read from the socket and nothing acknowledged.
        case held
        /// The broker's session under our client id is not this log's: nothing is read until a restart.
        case refused
        case stopped
    }

    public let name: String
    public let address: String
    public let clientID: String
    public var state = State.connecting
    public var sessionPresent = false
    public var subscribed = false
    /// Granted QoS, or the refusing reason code (128 and up), one a filter.
    public var granted: [Int] = []
    /// `5.0` or `3.1.1`; nil before the first connection.
    public var protocolVersion: String?
    /// Why it is not connected, or what went wrong last.
    public var lastError: String?
    /// Oldest first, each code once.
    public private(set) var alarms: [BrokerAlarm] = []

    /// Messages from the broker, before the gate; without `$SYS`.
    public var received: UInt64 = 0
    /// Payload and topic bytes of them.
    public var bytesReceived: UInt64 = 0
    /// Records made durable, our own events included.
    public var appended: UInt64 = 0
    /// QoS 1 messages whose acknowledgement was written to the socket.
    public var acknowledged: UInt64 = 0
    public var duplicatesSuppressed: UInt64 = 0
    /// Our own commands that came back to us; not recorded again.
    public var echoes: UInt64 = 0
    /// Messages that `refold replay publish` took out of our log and that came back; not recorded again.
    public var replays: UInt64 = 0
    /// By raw value of `Verdict`.
    public var verdicts = [UInt64](repeating: 0, count: Verdict.allCases.count)
    /// Messages of devices without a live certificate, whether they passed or not.
    public var withoutCertificate: UInt64 = 0
    public var reconnects: UInt64 = 0
    /// Connections at which the broker had lost a session that was expected.
    public var sessionsLost: UInt64 = 0
    /// Takeover alarms: another client used our session, or packet ids have a gap.
    public var takeovers: UInt64 = 0
    /// Seconds that the broker keeps our session, where it keeps it for less than we asked.
    public var sessionExpirySeconds: UInt32?
    /// An operator has accepted that.
    var acceptedExpirySeconds: UInt32?
    /// What the broker says it is.
    public var version: String?
    public var lastMessageAt: Timestamp?
    /// `$SYS/broker/publish/messages/dropped`, where the broker publishes it.
    public var droppedByBroker: UInt64?
    /// Seconds since the heartbeat of the connection's thread was due; nil when on time.
    public var overdueSeconds: Double?

    public var connected: Bool { state == .connected }
    /// Connected, and every filter is granted at QoS 1.
    public var isSubscribed: Bool { connected && subscribed }

    init(_ settings: BrokerSettings) {
        name = settings.name
        address = settings.address
        clientID = settings.clientID
    }

    public func has(_ code: BrokerAlarm.Code) -> Bool { alarms.contains { $0.code == code } }

    /// The first observation stays: it says since when. True when the alarm is new.
    @discardableResult
    mutating func raise(_ alarm: BrokerAlarm) -> Bool {
        guard !has(alarm.code) else { return false }
        alarms.append(alarm)
        return true
    }

    mutating func clear(_ code: BrokerAlarm.Code) { alarms.removeAll { $0.code == code } }

    /// Those that wait for an operator.
    var outstanding: [BrokerAlarm] { alarms.filter(\.code.needsAcknowledgement) }

    /// An operator has acknowledged exactly these; one that was raised since stays.
    mutating func acknowledge(_ acknowledged: [BrokerAlarm]) {
        alarms.removeAll { alarm in acknowledged.contains { $0.code == alarm.code && $0.since == alarm.since } }
        if acknowledged.contains(where: { $0.code == .sessionExpiryCapped }) {
            acceptedExpirySeconds = sessionExpirySeconds
        }
    }
}

/// Something worth a line in the program's log.
public struct IngestNotice: Sendable {
    public enum Level: Sendable { case info, warning, error }
    public let level: Level
    public let broker: String
    public let text: String

    public init(level: Level, broker: String, text: String) {
        self.level = level
        self.broker = broker
        self.text = text
    }
}
