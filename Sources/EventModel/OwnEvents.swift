// The typed JSON of events that are not MQTT messages. A record's topic is the schema name and version
// (`campaign.created/1`); its payload is one of these structs in JSON, snake case, absent fields left out.

/// A connection of ours to a broker changed (`EventKind.connection`); the record's broker says which.
public struct BrokerEvent: Codable, Sendable, Equatable {
    public enum Schema: String, Sendable, CaseIterable {
        case connected = "broker.connected/1"
        /// `reason` says why; `held` when we hung up because the disk is full.
        case disconnected = "broker.disconnected/1"
        /// A session was expected and the broker has none: messages may have been lost there.
        case sessionLost = "broker.session_lost/1"
        case subscribed = "broker.subscribed/1"
        case subscriptionRefused = "broker.subscription_refused/1"
    }

    public var clientID: String
    /// `host:port`, never with credentials.
    public var address: String?
    /// `5.0` or `3.1.1`.
    public var protocolVersion: String?
    public var sessionPresent: Bool?
    public var reason: String?
    /// MQTT reason code (MQTT 5.0, 2.4), where the broker gave one.
    public var reasonCode: Int?
    public var filters: [String]?
    /// Granted QoS, or the refusing reason code (128 and up), one a filter.
    public var granted: [Int]?

    public init(clientID: String) { self.clientID = clientID }

    enum CodingKeys: String, CodingKey {
        case clientID = "client_id", address, protocolVersion = "protocol_version", sessionPresent = "session_present"
        case reason, reasonCode = "reason_code", filters, granted
    }
}
