// What operators decided beside campaigns: firmware, groups of devices, tenants' settings.

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

/// Devices under one name: a list, or what a stored query finds.
public struct GroupCreated: Codable, Sendable, Equatable {
    public var id: Int64
    public var tenantID: String
    public var name: String
    public var description: String?
    /// Nil: the group is a list, and `group.members` says of whom.
    public var query: GroupQuery?
    public var actor: String
    public var idempotencyKey: String?
    public var requestDigest: String?

    public init(id: Int64, tenantID: String, name: String, actor: String) {
        self.id = id
        self.tenantID = tenantID
        self.name = name
        self.actor = actor
    }

    enum CodingKeys: String, CodingKey {
        case id, tenantID = "tenant_id", name, description, query, actor, idempotencyKey = "idempotency_key"
        case requestDigest = "request_sha256"
    }
}

/// Devices of the tenant that have all that is given. Resolved when a campaign is created, and its members recorded
/// with the campaign.
public struct GroupQuery: Codable, Sendable, Equatable {
    /// One of these sites.
    public var sites: [String]?
    /// One of these firmware versions.
    public var firmwareVersions: [String]?
    /// None of these firmware versions; devices that reported none are meant too.
    public var firmwareVersionsNot: [String]?
    /// A message within so many seconds before the resolution.
    public var seenWithinSeconds: Double?

    public init() {}

    enum CodingKeys: String, CodingKey {
        case sites, firmwareVersions = "firmware_versions", firmwareVersionsNot = "firmware_versions_not"
        case seenWithinSeconds = "seen_within_seconds"
    }
}

/// A list's members come and go: at most 5,000 devices a record, as many records in one commit as are needed.
public struct GroupMembers: Codable, Sendable, Equatable {
    public var groupID: Int64
    public var tenantID: String
    public var added: [String]?
    public var removed: [String]?
    public var actor: String
    public var idempotencyKey: String?
    public var requestDigest: String?

    public init(groupID: Int64, tenantID: String, actor: String) {
        self.groupID = groupID
        self.tenantID = tenantID
        self.actor = actor
    }

    enum CodingKeys: String, CodingKey {
        case groupID = "group_id", tenantID = "tenant_id", added, removed, actor, idempotencyKey = "idempotency_key"
        case requestDigest = "request_sha256"
    }
}

/// No campaign can name it any more. Those that did keep their targets.
public struct GroupDeleted: Codable, Sendable, Equatable {
    public var groupID: Int64
    public var tenantID: String
    public var actor: String
    public var idempotencyKey: String?
    public var requestDigest: String?

    public init(groupID: Int64, tenantID: String, actor: String) {
        self.groupID = groupID
        self.tenantID = tenantID
        self.actor = actor
    }

    enum CodingKeys: String, CodingKey {
        case groupID = "group_id", tenantID = "tenant_id", actor, idempotencyKey = "idempotency_key"
        case requestDigest = "request_sha256"
    }
}

/// What holds for all of a tenant.
public struct TenantConfigured: Codable, Sendable, Equatable {
    public var tenantID: String
    /// A name of the IANA time zone database: `Europe/Berlin`. Campaigns created from now on have their windows in it.
    public var timeZone: String
    public var before: String?
    public var actor: String
    public var idempotencyKey: String?
    public var requestDigest: String?

    public init(tenantID: String, timeZone: String, actor: String) {
        self.tenantID = tenantID
        self.timeZone = timeZone
        self.actor = actor
    }

    enum CodingKeys: String, CodingKey {
        case tenantID = "tenant_id", timeZone = "time_zone", before, actor, idempotencyKey = "idempotency_key"
        case requestDigest = "request_sha256"
    }
}

extension FirmwareAdded: CommandedDecision {
    public static var schemas: [String] { [CampaignSchema.firmwareAdded.rawValue] }
    public var envelope: Envelope { commandEnvelope(about: "firmware:\(id)") }
    public var summary: String { "added firmware \(id), version \(version)" }
}

extension GroupCreated: CommandedDecision {
    public static var schemas: [String] { [CampaignSchema.groupCreated.rawValue] }
    public var envelope: Envelope { commandEnvelope(about: "group:\(id)") }
    public var summary: String { "created group \(id) \"\(name)\"" }
}

extension GroupMembers: CommandedDecision {
    public static var schemas: [String] { [CampaignSchema.groupMembers.rawValue] }
    public var envelope: Envelope { commandEnvelope(about: "group:\(groupID)") }
    public var summary: String {
        "changed group \(groupID): \(counted(added?.count ?? 0, "device")) added, \(removed?.count ?? 0) removed"
    }
}

extension GroupDeleted: CommandedDecision {
    public static var schemas: [String] { [CampaignSchema.groupDeleted.rawValue] }
    public var envelope: Envelope { commandEnvelope(about: "group:\(groupID)") }
    public var summary: String { "deleted group \(groupID)" }
}

extension TenantConfigured: CommandedDecision {
    public static var schemas: [String] { [CampaignSchema.tenantConfigured.rawValue] }
    public var envelope: Envelope {
        var envelope = commandEnvelope(about: "tenant:\(tenantID)")
        envelope.before = before.map { Envelope.Before("time_zone", $0) }
        return envelope
    }
    public var summary: String { "set the time zone of tenant \(tenantID) to \(timeZone)" }
}
