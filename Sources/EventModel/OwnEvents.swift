// The typed JSON of events that are not MQTT messages. A record's topic is the schema name and version
// (`broker.connected/1`); its payload is one of these structs in JSON, snake case, absent fields left out.

/// A change of one of our broker connections (`EventKind.connection`). The record's broker field names the broker.
public struct BrokerEvent: Codable, Sendable, Equatable {
    public enum Schema: String, Sendable, CaseIterable {
        /// A CONNECT is about to be sent. Durable before the first one after each connection, so that a later process
        /// knows that the broker may have delivered messages to a connection that recorded nothing.
        case connecting = "broker.connecting/1"
        case connected = "broker.connected/1"
        /// `reason` is the cause; `held` when we closed the connection because the disk is full.
        case disconnected = "broker.disconnected/1"
        /// A session was expected and the broker has none: messages may have been lost there.
        case sessionLost = "broker.session_lost/1"
        /// The broker has a session under our client id that this log never created. Nothing was acknowledged.
        case sessionUnknown = "broker.session_unknown/1"
        /// An operator accepted such a session with `--adopt-session`.
        case sessionAdopted = "broker.session_adopted/1"
        /// The broker has redelivered everything that it held as unacknowledged in a resumed session.
        case sessionResumed = "broker.session_resumed/1"
        /// The session of an earlier client id is being emptied into this log, beside the current one. Written before
        /// the CONNECT, and again with `session_present` when the broker answers.
        case draining = "broker.draining/1"
        /// Its UNSUBSCRIBE is about to be sent. Durable before: a process that has this client id again must subscribe.
        case unsubscribing = "broker.unsubscribing/1"
        /// That session is empty, unsubscribed and ended, or the broker no longer had it.
        case sessionDrained = "broker.session_drained/1"
        case subscribed = "broker.subscribed/1"
        case subscriptionRefused = "broker.subscription_refused/1"
        /// Messages that are in the log already and were acknowledged without a second record: redeliveries, with their
        /// packet ids, or what two sessions of this log both received.
        case redelivered = "broker.redelivered/1"
        /// What the broker says it is (`$SYS/broker/version`).
        case identified = "broker.identified/1"
        /// An alarm that stays until an operator acknowledges it.
        case alarmRaised = "broker.alarm_raised/1"
        case alarmsAcknowledged = "broker.alarms_acknowledged/1"
        /// What a later process must know of the broker, in one event: written with each connection and at least every
        /// `BrokerEvent.stateEveryEvents` events, so that nobody has to read further back.
        case sessionState = "broker.session_state/1"
    }

    /// Distance of two `session_state` events in the log, in events of any kind.
    public static let stateEveryEvents: UInt64 = 1 << 20

    /// A session of ours that the broker may hold.
    public struct Session: Codable, Sendable, Equatable {
        public var clientID: String
        /// What it is subscribed to; nil: nothing.
        public var filters: [String]?

        public init(clientID: String, filters: [String]?) { (self.clientID, self.filters) = (clientID, filters) }

        enum CodingKeys: String, CodingKey { case clientID = "client_id", filters }
    }

    /// An alarm that waits for an operator.
    public struct Alarm: Codable, Sendable, Equatable {
        public var code: String
        /// First observed, in microseconds since 1970.
        public var sinceMicroseconds: Int64
        public var evidence: String?

        public init(code: String, sinceMicroseconds: Int64, evidence: String?) {
            (self.code, self.sinceMicroseconds, self.evidence) = (code, sinceMicroseconds, evidence)
        }

        enum CodingKeys: String, CodingKey { case code, sinceMicroseconds = "since_us", evidence }
    }

    public var clientID: String
    /// `host:port`, never with credentials.
    public var address: String?
    /// `5.0` or `3.1.1`.
    public var protocolVersion: String?
    public var sessionPresent: Bool?
    /// Of `connected`: an earlier attempt may have reached the broker although no CONNACK was read.
    public var unseenAttempt: Bool?
    /// Of `connected`: seconds that the broker keeps our session, where it said so (MQTT 5.0, 3.2.2.3.2).
    public var sessionExpirySeconds: UInt32?
    public var reason: String?
    /// MQTT reason code (MQTT 5.0, 2.4), where the broker gave one.
    public var reasonCode: Int?
    public var filters: [String]?
    /// Granted QoS, or the refusing reason code (128 and up), one a filter.
    public var granted: [Int]?
    /// Of `redelivered`: first and last packet id of each run, in the order of delivery.
    public var packetIDs: [[UInt16]]?
    /// Of `disconnected`: of the connection's last QoS 1 message, recorded or not. The next one follows it where the
    /// broker keeps packet ids.
    public var lastPacketID: UInt16?
    /// Of `identified`.
    public var version: String?
    /// Of `alarm_raised`: the alarm's code; of `alarms_acknowledged`: the codes, separated by commas.
    public var alarm: String?
    /// Number of messages that the event is about.
    public var count: UInt64?
    /// Of `alarms_acknowledged` and `session_adopted`: who did it.
    public var operatorName: String?
    /// Of `session_state`: current and earlier client ids.
    public var sessions: [Session]?
    /// Of `session_state`: those that wait for an operator. Of `alarm_raised` and `session_lost`: the alarm. Of
    /// `alarms_acknowledged`: those that end.
    public var alarms: [Alarm]?
    /// `$SYS/broker/publish/messages/dropped`, as last seen.
    public var droppedByBroker: UInt64?
    /// Of `session_state`: an operator has accepted that the broker keeps our session for so many seconds only.
    public var acceptedExpirySeconds: UInt32?

    public init(clientID: String) { self.clientID = clientID }

    enum CodingKeys: String, CodingKey {
        case clientID = "client_id", address, protocolVersion = "protocol_version", sessionPresent = "session_present"
        case unseenAttempt = "unseen_attempt", sessionExpirySeconds = "session_expiry_seconds"
        case reason, reasonCode = "reason_code", filters, granted, packetIDs = "packet_ids", version, alarm, count
        case lastPacketID = "last_packet_id"
        case operatorName = "operator", sessions, alarms, droppedByBroker = "dropped_by_broker"
        case acceptedExpirySeconds = "accepted_expiry_seconds"
    }
}
