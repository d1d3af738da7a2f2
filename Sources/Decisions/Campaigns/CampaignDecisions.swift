// Campaigns on the record. An operator's decisions name the operator, the engine's are `engine`'s; all of them say what
// led to them. The fold of exactly these, and of what devices report, is what a campaign is.

import EventModel

/// What was decided of firmware, groups and campaigns (`EventKind.decision`): facts once recorded, never re-decided.
public enum CampaignSchema: String, Sendable, CaseIterable {
    case firmwareAdded = "firmware.added/1"
    case groupCreated = "group.created/1"
    case groupMembers = "group.members/1"
    case groupDeleted = "group.deleted/1"
    case tenantConfigured = "tenant.configured/1"
    case campaignCreated = "campaign.created/1"
    /// Follows `campaign.created` in the same commit, as often as needed: at most 5,000 devices each.
    case campaignTargets = "campaign.targets/1"
    case campaignStarted = "campaign.started/1"
    case campaignPaused = "campaign.paused/1"
    case campaignResumed = "campaign.resumed/1"
    case campaignAborted = "campaign.aborted/1"
    case campaignCompleted = "campaign.completed/1"
    /// While CREATED: it is as if it had never been, but on the record.
    case campaignDeleted = "campaign.deleted/1"
    /// Failed devices are to be tried again; a campaign that has ended runs again.
    case campaignRetried = "campaign.retried/1"
    case campaignStageBegun = "campaign.stage_begun/1"
    case campaignDispatched = "campaign.dispatched/2"
    case campaignPublished = "campaign.published/1"
    case campaignDevicesEnded = "campaign.devices_ended/1"
    case campaignArchived = "campaign.archived/1"
    /// A command of an operator was refused; nothing changed.
    case commandRejected = "command.rejected/1"

    /// The campaign's own status changed: the payload is a `CampaignStatusChanged`.
    public var changesStatus: Bool {
        switch self {
        case .campaignStarted, .campaignPaused, .campaignResumed, .campaignAborted, .campaignCompleted,
            .campaignDeleted, .campaignRetried:
            true
        default: false
        }
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
    /// How it goes about it; nil (recorded before there was an engine): as `CampaignPlan()` says.
    public var plan: CampaignPlan?
    public var totalDevices: Int64
    public var actor: String
    public var idempotencyKey: String?
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
        case rolloutStrategy = "rollout_strategy", rolloutRate = "rollout_rate"
        case abortThreshold = "abort_threshold", plan
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

/// Started, paused, resumed, aborted, completed, deleted, retried: by an operator or by the engine.
public struct CampaignStatusChanged: Codable, Sendable, Equatable {
    public var campaignID: Int64
    public var tenantID: String
    public var before: String
    public var after: String
    /// An operator, or `engine`.
    public var actor: String
    /// A sentence for people.
    public var reason: String?
    /// For programs, where the engine decided: `ABORT_THRESHOLD`, `CONSECUTIVE_FAILURES`, `STAGE_FAILED`,
    /// `ALL_ENDED`, `SHARE_REACHED`, `DEADLINE`.
    public var code: String?
    /// The event that led to it.
    public var cause: UInt64?
    /// Events that weigh in it: the last failures. At most 20.
    public var evidence: [UInt64]?
    /// How the devices stood.
    public var counts: CampaignCounts?
    /// `campaign.retried`: what has failed how is tried again; nil: all that failed.
    public var kinds: [String]?
    public var idempotencyKey: String?
    public var requestDigest: String?

    public init(campaignID: Int64, tenantID: String, before: String, after: String, actor: String) {
        self.campaignID = campaignID
        self.tenantID = tenantID
        self.before = before
        self.after = after
        self.actor = actor
    }

    enum CodingKeys: String, CodingKey {
        case campaignID = "campaign_id", tenantID = "tenant_id", before, after, actor, reason, code, cause, evidence
        case counts, kinds, idempotencyKey = "idempotency_key", requestDigest = "request_sha256"
    }
}

/// How many devices of a campaign stand where. Their sum is the campaign's devices, always.
public struct CampaignCounts: Codable, Sendable, Equatable {
    public var pending: Int64 = 0
    /// DOWNLOADING, INSTALLING, VERIFYING.
    public var inFlight: Int64 = 0
    public var succeeded: Int64 = 0
    /// FAILED, TIMED_OUT, UNREACHABLE.
    public var failed: Int64 = 0
    public var skipped: Int64 = 0

    public init() {}
    public var total: Int64 { pending + inFlight + succeeded + failed + skipped }
    public var open: Int64 { pending + inFlight }

    enum CodingKeys: String, CodingKey { case pending, inFlight = "in_flight", succeeded, failed, skipped }
}

/// A canary campaign goes on to its next stage. The first begins with the campaign.
public struct CampaignStageBegun: Codable, Sendable, Equatable {
    public var campaignID: Int64
    public var tenantID: String
    /// From 0.
    public var stage: Int
    /// So many of its devices may have been dispatched when the stage has come to its end.
    public var devicesMax: Int64
    public var actor: String
    /// The last result of the stage before.
    public var cause: UInt64?
    public var counts: CampaignCounts

    public init(campaignID: Int64, tenantID: String, stage: Int, devicesMax: Int64, counts: CampaignCounts) {
        self.campaignID = campaignID
        self.tenantID = tenantID
        self.stage = stage
        self.devicesMax = devicesMax
        self.counts = counts
        actor = EngineActor.name
    }

    enum CodingKeys: String, CodingKey {
        case campaignID = "campaign_id", tenantID = "tenant_id", stage, devicesMax = "devices_max", actor, cause, counts
    }
}

/// These devices are to update now: DOWNLOADING, and an attempt more for each. The position of this event is the
/// `command_id` of their commands. At most 500 devices.
public struct CampaignDispatched: Codable, Sendable, Equatable {
    public var campaignID: Int64
    public var tenantID: String
    public var stage: Int
    public var devices: [String]
    /// Beside each device: the last event about its part in the campaign that was known. If there has been a later one,
    /// the decision is void for this device.
    public var seen: [UInt64]
    /// The pace after this: so many devices since `paceFrom` (microseconds since 1970).
    public var paceFrom: Int64
    public var paceCount: Int64
    /// The event that allowed it: the start, the stage, the resumption.
    public var cause: UInt64
    /// What the devices are sent. Nil in `campaign.dispatched/1`, where only the firmware's own event has it.
    public var firmwareURL: String?
    public var version: String?
    /// SHA-256 in hex.
    public var checksum: String?

    public init(
        campaignID: Int64, tenantID: String, stage: Int, devices: [String], seen: [UInt64], paceFrom: Int64,
        paceCount: Int64, cause: UInt64
    ) {
        self.campaignID = campaignID
        self.tenantID = tenantID
        self.stage = stage
        self.devices = devices
        self.seen = seen
        self.paceFrom = paceFrom
        self.paceCount = paceCount
        self.cause = cause
    }

    enum CodingKeys: String, CodingKey {
        case campaignID = "campaign_id", tenantID = "tenant_id", stage, devices, seen, paceFrom = "pace_from"
        case paceCount = "pace_count", cause, firmwareURL = "firmware_url", version, checksum
    }
}

/// The broker has acknowledged these commands: they are sent no more after a restart, and the devices' time to answer
/// runs.
public struct CampaignPublished: Codable, Sendable, Equatable {
    public struct Batch: Codable, Sendable, Equatable {
        /// Position of the `campaign.dispatched`.
        public var command: UInt64
        /// Nil: all of its devices.
        public var devices: [String]?

        public init(command: UInt64, devices: [String]? = nil) {
            self.command = command
            self.devices = devices
        }
    }
    public var campaignID: Int64
    public var tenantID: String
    public var batches: [Batch]

    public init(campaignID: Int64, tenantID: String, batches: [Batch]) {
        self.campaignID = campaignID
        self.tenantID = tenantID
        self.batches = batches
    }

    enum CodingKeys: String, CodingKey { case campaignID = "campaign_id", tenantID = "tenant_id", batches }
}

/// The engine has decided how these devices' attempts ended, or that they have none: what no report of theirs says.
public struct CampaignDevicesEnded: Codable, Sendable, Equatable {
    public var campaignID: Int64
    public var tenantID: String
    /// SUCCESS (verified), FAILED (refused, not verified, rolled back), TIMED_OUT, UNREACHABLE, SKIPPED.
    public var status: String
    /// `OTAFailureKind`, for FAILED; for SKIPPED why: `ABORTED`, `DEADLINE`, `SHARE_REACHED`, `NOT_SENT`.
    public var kind: String?
    /// A sentence for people.
    public var reason: String?
    public var devices: [String]
    /// Beside each device: the last event about its part in the campaign that was known. If there has been a later one,
    /// the decision is void for this device.
    public var seen: [UInt64]
    /// Beside each device, where another event led to it than the one in `seen`: the refusal, the shadow.
    public var causes: [UInt64]?
    public var actor: String

    public init(
        campaignID: Int64, tenantID: String, status: String, kind: String? = nil, reason: String? = nil,
        devices: [String], seen: [UInt64]
    ) {
        self.campaignID = campaignID
        self.tenantID = tenantID
        self.status = status
        self.kind = kind
        self.reason = reason
        self.devices = devices
        self.seen = seen
        actor = EngineActor.name
    }

    enum CodingKeys: String, CodingKey {
        case campaignID = "campaign_id", tenantID = "tenant_id", status, kind, reason, devices, seen, causes, actor
    }
}

/// A day after its end the campaign has left the engine's memory: its failed devices can no longer be retried.
public struct CampaignArchived: Codable, Sendable, Equatable {
    public var campaignID: Int64
    public var tenantID: String

    public init(campaignID: Int64, tenantID: String) { (self.campaignID, self.tenantID) = (campaignID, tenantID) }

    enum CodingKeys: String, CodingKey { case campaignID = "campaign_id", tenantID = "tenant_id" }
}

/// Everything that the campaign decider decides.
let campaignDecisions: [any Decision.Type] = [
    FirmwareAdded.self, GroupCreated.self, GroupMembers.self, GroupDeleted.self, TenantConfigured.self,
    CampaignCreated.self, CampaignTargets.self, CampaignStatusChanged.self, CampaignStageBegun.self,
    CampaignDispatched.self, CampaignPublished.self, CampaignDevicesEnded.self, CampaignArchived.self,
    CommandRejected.self,
]

extension DecisionCatalog {
    public static let campaigns = DecisionCatalog(campaignDecisions)
}

extension Envelope {
    /// Of a decision that continues an earlier one about the campaign: the audit log has that one.
    fileprivate static func continuing(
        campaign: Int64, tenantID: String, actor: String?, devices: [String]?
    ) -> Envelope {
        var envelope = Envelope(tenantID: tenantID, actor: actor, subject: UpdateCommand.subject(campaign))
        envelope.devices = devices
        envelope.isAudited = false
        return envelope
    }
}

extension CampaignCreated: CommandedDecision {
    public static var schemas: [String] { [CampaignSchema.campaignCreated.rawValue] }
    public var envelope: Envelope {
        var envelope = commandEnvelope(about: UpdateCommand.subject(id))
        envelope.related = ["firmware:\(firmwareVersionID)"] + (targetGroupID.map { ["group:\($0)"] } ?? [])
        return envelope
    }
    public var summary: String {
        "created campaign \(id) \"\(name)\" with firmware \(firmwareVersionID) for "
            + counted(Int(clamping: totalDevices), "device")
    }
}

extension CampaignTargets: Decision {
    public static var schemas: [String] { [CampaignSchema.campaignTargets.rawValue] }
    public var envelope: Envelope {
        .continuing(campaign: campaignID, tenantID: tenantID, actor: nil, devices: devices)
    }
    public var summary: String {
        "targeted \(counted(devices.count, "device")) by campaign \(campaignID)"
    }
}

extension CampaignStatusChanged: CommandedDecision {
    public static var schemas: [String] { CampaignSchema.allCases.filter(\.changesStatus).map(\.rawValue) }
    public var envelope: Envelope {
        var envelope = commandEnvelope(about: UpdateCommand.subject(campaignID))
        envelope.before = Envelope.Before("status", before)
        return envelope
    }
    public var summary: String {
        "changed campaign \(campaignID) from \(before) to \(after)" + (reason.map { ": \($0)" } ?? "")
    }
}

extension CampaignStageBegun: Decision {
    public static var schemas: [String] { [CampaignSchema.campaignStageBegun.rawValue] }
    public var envelope: Envelope {
        Envelope(tenantID: tenantID, actor: actor, subject: UpdateCommand.subject(campaignID))
    }
    public var summary: String {
        "began stage \(stage) of campaign \(campaignID), up to \(counted(Int(clamping: devicesMax), "device"))"
    }
}

extension CampaignDispatched: Decision {
    public static var schemas: [String] { [CampaignSchema.campaignDispatched.rawValue, "campaign.dispatched/1"] }
    public var envelope: Envelope {
        .continuing(campaign: campaignID, tenantID: tenantID, actor: EngineActor.name, devices: devices)
    }
    public var summary: String {
        "dispatched commands to \(counted(devices.count, "device")) of campaign \(campaignID)"
    }
    public static var causesDeliveries: Bool { true }
    public func deliveries(at position: Position) -> [Delivery] {
        guard let firmwareURL, let version else { return [] }
        let update = UpdateCommand(
            campaignID: campaignID, firmwareURL: firmwareURL, version: version, checksum: checksum, command: position)
        let payload = update.payload, subject = envelope.subject
        return devices.map {
            Delivery(
                id: position, subject: subject, tenantID: tenantID, deviceID: $0, channel: UpdateCommand.channel,
                payload: payload)
        }
    }
}

extension CampaignPublished: Decision {
    public static var schemas: [String] { [CampaignSchema.campaignPublished.rawValue] }
    public var envelope: Envelope {
        .continuing(campaign: campaignID, tenantID: tenantID, actor: EngineActor.name, devices: nil)
    }
    public var summary: String {
        "recorded the broker's acknowledgement of \(counted(batches.count, "batch", "batches")) of commands of "
            + "campaign \(campaignID)"
    }
}

extension CampaignDevicesEnded: Decision {
    public static var schemas: [String] { [CampaignSchema.campaignDevicesEnded.rawValue] }
    public var envelope: Envelope {
        .continuing(campaign: campaignID, tenantID: tenantID, actor: actor, devices: devices)
    }
    public var summary: String {
        "ended \(counted(devices.count, "device")) of campaign \(campaignID) as \(status)"
            + (reason.map { ": \($0)" } ?? "")
    }
}

extension CampaignArchived: Decision {
    public static var schemas: [String] { [CampaignSchema.campaignArchived.rawValue] }
    public var envelope: Envelope {
        .continuing(campaign: campaignID, tenantID: tenantID, actor: EngineActor.name, devices: nil)
    }
    public var summary: String { "archived campaign \(campaignID)" }
}
