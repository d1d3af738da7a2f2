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

/// What operators did to firmware and campaigns (`EventKind.decision`): facts once recorded, never re-decided.
public enum CampaignSchema: String, Sendable, CaseIterable {
    case firmwareAdded = "firmware.added/1"
    case campaignCreated = "campaign.created/1"
    /// Follows `campaign.created` in the same commit, as often as needed: at most 5,000 devices each.
    case campaignTargets = "campaign.targets/1"
    case campaignStarted = "campaign.started/1"
    case campaignPaused = "campaign.paused/1"
    case campaignResumed = "campaign.resumed/1"
    case campaignAborted = "campaign.aborted/1"
    /// A command of an operator was refused; nothing changed.
    case commandRejected = "command.rejected/1"
}

public struct FirmwareAdded: Codable, Sendable, Equatable {
    public var id: Int64
    public var tenantID: String
    public var version: String
    public var description: String?
    public var fileURL: String
    public var fileSizeBytes: Int64?
    public var checksumSHA256: String?
    public var deviceType: String?
    public var actor: String
    public var idempotencyKey: String?
    /// SHA-256 of the command, in hex: the same key with another command is refused.
    public var requestDigest: String?

    public init(id: Int64, tenantID: String, version: String, fileURL: String, actor: String) {
        self.id = id
        self.tenantID = tenantID
        self.version = version
        self.fileURL = fileURL
        self.actor = actor
    }

    enum CodingKeys: String, CodingKey {
        case id, tenantID = "tenant_id", version, description, fileURL = "file_url", fileSizeBytes = "file_size_bytes"
        case checksumSHA256 = "checksum_sha256", deviceType = "device_type", actor, idempotencyKey = "idempotency_key"
        case requestDigest = "request_sha256"
    }
}

public struct CampaignCreated: Codable, Sendable, Equatable {
    public var id: Int64
    public var tenantID: String
    public var name: String
    public var firmwareVersionID: Int64
    public var targetGroupID: Int64?
    public var rolloutStrategy: String
    public var rolloutRate: Int64?
    /// Share of failed devices, 0 to 1.
    public var abortThreshold: Double?
    public var totalDevices: Int64
    public var actor: String
    public var idempotencyKey: String?
    /// SHA-256 of the command, in hex: the same key with another command is refused.
    public var requestDigest: String?

    public init(
        id: Int64, tenantID: String, name: String, firmwareVersionID: Int64, rolloutStrategy: String,
        totalDevices: Int64,
        actor: String
    ) {
        self.id = id
        self.tenantID = tenantID
        self.name = name
        self.firmwareVersionID = firmwareVersionID
        self.rolloutStrategy = rolloutStrategy
        self.totalDevices = totalDevices
        self.actor = actor
    }

    enum CodingKeys: String, CodingKey {
        case id, tenantID = "tenant_id", name, firmwareVersionID = "firmware_version_id", targetGroupID =
            "target_group_id"
        case rolloutStrategy = "rollout_strategy", rolloutRate = "rollout_rate", abortThreshold = "abort_threshold"
        case totalDevices = "total_devices", actor, idempotencyKey = "idempotency_key"
        case requestDigest = "request_sha256"
    }
}

public struct CampaignTargets: Codable, Sendable, Equatable {
    public var campaignID: Int64
    public var tenantID: String
    /// Row id of the first device; the others follow by one each.
    public var firstID: Int64
    public var devices: [String]

    public init(campaignID: Int64, tenantID: String, firstID: Int64, devices: [String]) {
        self.campaignID = campaignID
        self.tenantID = tenantID
        self.firstID = firstID
        self.devices = devices
    }

    enum CodingKeys: String, CodingKey {
        case campaignID = "campaign_id", tenantID = "tenant_id", firstID = "first_id", devices
    }
}

/// Started, paused, resumed, aborted.
public struct CampaignStatusChanged: Codable, Sendable, Equatable {
    public var campaignID: Int64
    public var tenantID: String
    public var before: String
    public var after: String
    public var actor: String
    public var reason: String?
    public var idempotencyKey: String?
    /// SHA-256 of the command, in hex: the same key with another command is refused.
    public var requestDigest: String?

    public init(campaignID: Int64, tenantID: String, before: String, after: String, actor: String) {
        self.campaignID = campaignID
        self.tenantID = tenantID
        self.before = before
        self.after = after
        self.actor = actor
    }

    enum CodingKeys: String, CodingKey {
        case campaignID = "campaign_id", tenantID = "tenant_id", before, after, actor, reason
        case idempotencyKey = "idempotency_key"
        case requestDigest = "request_sha256"
    }
}

public struct CommandRejected: Codable, Sendable, Equatable {
    /// `campaign.start`, `firmware.add`, …
    public var command: String
    /// `campaign:7`, `firmware:3`; empty when it was to be created.
    public var subject: String
    public var tenantID: String
    public var actor: String
    /// For programs: `not_found`, `illegal_transition`, …
    public var code: String?
    /// A sentence for people.
    public var reason: String
    public var idempotencyKey: String?
    /// SHA-256 of the command, in hex: the same key with another command is refused.
    public var requestDigest: String?

    public init(command: String, subject: String, tenantID: String, actor: String, reason: String) {
        self.command = command
        self.subject = subject
        self.tenantID = tenantID
        self.actor = actor
        self.reason = reason
    }

    enum CodingKeys: String, CodingKey {
        case command, subject, tenantID = "tenant_id", actor, code, reason, idempotencyKey = "idempotency_key"
        case requestDigest = "request_sha256"
    }
}
