// Campaigns: operators' commands about firmware, groups and campaigns, and the rollout of campaigns.
//
//     State                 `CampaignState`, the `Decider`: events and devices' reports → state
//     Deciding              state and time → decisions and deliveries
//
// Steps and invariants of a decision: Sources/Deciding/Decider.swift. Ids are allocated here and carried in the events;
// no database takes part, so commands work while PostgreSQL is down. One idempotency key has one answer for 24 hours of
// event time.
import CampaignRules
import Decisions
import EventModel

/// What an operator asks for.
public enum CampaignCommand: Sendable, Equatable {
    case addFirmware(FirmwareSpec)
    case createGroup(GroupSpec)
    /// Of a group that is a list.
    case changeMembers(group: Int64, add: [String], remove: [String])
    case deleteGroup(Int64)
    /// A name of the IANA time zone database.
    case configureTenant(timeZone: String)
    case createCampaign(CampaignSpec)
    case start(campaign: Int64)
    case pause(campaign: Int64, reason: String?)
    case resume(campaign: Int64)
    case abort(campaign: Int64, reason: String?)
    /// Nil: whatever they failed of.
    case retryFailed(campaign: Int64, kinds: [OTAFailureKind]?)
    /// While it is CREATED.
    case delete(campaign: Int64)

    /// The name on the record (`command.rejected/1`).
    public var name: String {
        switch self {
        case .addFirmware: "firmware.add"
        case .createGroup: "group.create"
        case .changeMembers: "group.members"
        case .deleteGroup: "group.delete"
        case .configureTenant: "tenant.configure"
        case .createCampaign: "campaign.create"
        case .start: "campaign.start"
        case .pause: "campaign.pause"
        case .resume: "campaign.resume"
        case .abort: "campaign.abort"
        case .retryFailed: "campaign.retry"
        case .delete: "campaign.delete"
        }
    }

    /// What it is done to; empty when that is still to be created.
    public var subject: String {
        switch self {
        case .addFirmware, .createCampaign, .createGroup, .configureTenant: ""
        case .changeMembers(let id, _, _), .deleteGroup(let id): "group:\(id)"
        case .start(let id), .pause(let id, _), .resume(let id), .abort(let id, _), .retryFailed(let id, _),
            .delete(let id):
            "campaign:\(id)"
        }
    }
}

/// Devices under one name: either a list, or a query.
public struct GroupSpec: Sendable, Equatable {
    public var name: String
    public var description: String?
    public var devices: [String]?
    public var query: GroupQuery?

    public init(name: String, description: String? = nil, devices: [String]? = nil, query: GroupQuery? = nil) {
        self.name = name
        self.description = description
        self.devices = devices
        self.query = query
    }
}

/// A firmware image as the operator describes it; devices fetch it from `fileURL` themselves.
public struct FirmwareSpec: Sendable, Equatable {
    public var version: String
    public var fileURL: String
    public var description: String?
    public var fileSizeBytes: Int64?
    /// 64 hex digits.
    public var checksumSHA256: String?
    public var deviceType: String?

    public init(
        version: String, fileURL: String, description: String? = nil, fileSizeBytes: Int64? = nil,
        checksumSHA256: String? = nil, deviceType: String? = nil
    ) {
        self.version = version
        self.fileURL = fileURL
        self.description = description
        self.fileSizeBytes = fileSizeBytes
        self.checksumSHA256 = checksumSHA256
        self.deviceType = deviceType
    }
}

/// A campaign as the operator describes it.
public struct CampaignSpec: Sendable, Equatable {
    public var name: String
    public var firmwareVersionID: Int64
    /// Its targets. With a group that is a list, empty: the group's members are taken; with one that is a query, what
    /// the query found.
    public var devices: [String]
    public var targetGroupID: Int64?
    public var rolloutStrategy: String
    /// Devices a tick.
    public var rolloutRate: Int64?
    /// Share of failed devices, 0 to 1.
    public var abortThreshold: Double?
    public var plan: CampaignPlan
    /// The windows are in this time zone; nil: the tenant's.
    public var timeZone: String?

    public static let strategies = ["linear", "canary"]

    public init(
        name: String, firmwareVersionID: Int64, devices: [String], targetGroupID: Int64? = nil,
        rolloutStrategy: String = "linear", rolloutRate: Int64? = nil, abortThreshold: Double? = nil,
        plan: CampaignPlan = CampaignPlan(), timeZone: String? = nil
    ) {
        self.name = name
        self.firmwareVersionID = firmwareVersionID
        self.devices = devices
        self.targetGroupID = targetGroupID
        self.rolloutStrategy = rolloutStrategy
        self.rolloutRate = rolloutRate
        self.abortThreshold = abortThreshold
        self.plan = plan
        self.timeZone = timeZone
    }
}

/// A command with who gives it, for which tenant, and under which idempotency key.
public struct CommandRequest: Sendable, Equatable {
    public var tenantID: String
    public var actor: String
    /// At most 255 characters; the same key gets the same answer for 24 hours.
    public var idempotencyKey: String?
    public var command: CampaignCommand

    public init(tenantID: String, actor: String, idempotencyKey: String? = nil, command: CampaignCommand) {
        self.tenantID = tenantID
        self.actor = actor
        self.idempotencyKey = idempotencyKey
        self.command = command
    }
}

/// The result of a command, returned once its events are durable.
public enum CommandAnswer: Sendable, Equatable {
    /// `position` is that of the command's last event, so that a read with `min_position` sees all of it.
    /// `id` is the firmware's, the group's or the campaign's, 0 for a tenant's settings; `status` the campaign's.
    case accepted(position: Position, id: Int64, status: CampaignStatus?)
    case rejected(position: Position, code: RejectionCode, reason: String)
}

/// Why a command was refused; the raw values are on record (`command.rejected/1`, `code`).
public enum RejectionCode: String, Sendable, CaseIterable {
    /// What the command names does not exist, or not in this tenant.
    case notFound = "not_found"
    /// The campaign's status does not allow it.
    case illegalTransition = "illegal_transition"
    /// A value is outside what its field may hold.
    case invalidValue = "invalid_value"
    /// The idempotency key was used for another command.
    case keyReused = "idempotency_key_reused"
}
