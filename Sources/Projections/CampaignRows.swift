import CampaignRules
import Decisions
import Decoding
import EventModel
import Foundation

// The rows of the campaigns projection: what they hold, and how they are written and read. The rules are in
// Campaigns.swift.

enum CampaignTables {
    static let firmware = 0, campaigns = 1, counts = 2, devices = 3, progress = 4, unmatched = 5

    static let descriptor = ProjectionDescriptor(
        name: "campaigns", version: 2,
        tables: [
            FirmwareRow.table, CampaignRowState.table, CampaignCountsRow.table, CampaignDeviceState.table,
            CampaignProgressRow.table, UnmatchedReportRow.table,
        ])
}

struct FirmwareRow: TableRow {
    static let table = Table("firmware_versions_v1", write: .upsert, Self.self)

    var event = FirmwareAdded(id: 0, tenantID: "", version: "", fileURL: "", actor: "")
    var createdAt = OptionalTime()

    mutating func columns(_ row: inout some RowVisitor) {
        row.key("id", &event.id)
        row.value("tenant_id", &event.tenantID)
        row.value("version", &event.version)
        row.value("description", &event.description)
        row.value("file_url", &event.fileURL)
        row.value("file_size_bytes", &event.fileSizeBytes)
        row.value("checksum_sha256", &event.checksumSHA256)
        row.value("device_type", &event.deviceType)
        row.value("created_at", &createdAt)
        row.value("created_by", &event.actor)
    }
}

struct CampaignRowState: RowState {
    static let table = Table("ota_campaigns_v2", write: .upsert, Self.self)

    /// `campaign.created` was seen: `created`.
    var isCreated = false
    var created = CampaignCreated(
        id: 0, tenantID: "", name: "", firmwareVersionID: 0, rolloutStrategy: "", totalDevices: 0, actor: "")
    /// As recorded: a setting that a later program knows does not change the row.
    var plan: [UInt8]?
    var createdAt = OptionalTime()
    var status = ""
    var statusAt = OptionalTime()
    var statusBy = ""
    var statusCode: String?
    var statusReason: String?
    var statusCause: Int64?
    var stage: Int64?
    var stageDevicesMax: Int64?
    var stageBegunAt = OptionalTime()
    var startedAt = OptionalTime()
    var completedAt = OptionalTime()
    var lastPosition = Position(0)
    /// Of its creation, and its deletion. A row may be newer than the event that is being judged by it: what came
    /// before the one or after the other is unmatched.
    var createdPosition = Position(0)
    var deletedPosition: Position?

    mutating func columns(_ row: inout some RowVisitor, _ key: inout CampaignKey, _ arena: inout ByteArena) {
        row.key("id", &key.id)
        row.value("tenant_id", &created.tenantID)
        row.value("name", &created.name)
        row.value("firmware_version_id", &created.firmwareVersionID)
        row.value("target_group_id", &created.targetGroupID)
        row.value("rollout_strategy", &created.rolloutStrategy)
        row.value("rollout_rate", &created.rolloutRate)
        row.value("abort_threshold", &created.abortThreshold)
        row.jsonb("plan", &plan)
        row.value("status", &status)
        row.value("total_devices", &created.totalDevices)
        row.value("stage", &stage)
        row.value("stage_devices_max", &stageDevicesMax)
        row.value("stage_begun_at", &stageBegunAt)
        row.value("status_at", &statusAt)
        row.value("status_by", &statusBy)
        row.value("status_code", &statusCode)
        row.value("status_reason", &statusReason)
        row.value("status_cause", &statusCause)
        row.value("started_at", &startedAt)
        row.value("completed_at", &completedAt)
        row.value("created_at", &createdAt)
        row.value("created_by", &created.actor)
        row.value("last_position", &lastPosition)
        row.value("created_position", &createdPosition)
        row.value("deleted_position", &deletedPosition)
    }

    mutating func didLoad(_ key: CampaignKey) {
        isCreated = true
        created.id = key.id
        created.plan = plan.flatMap { try? JSONDecoder().decode(CampaignPlan.self, from: Data($0)) }
    }

    /// As it was when an event at `position` came; nil when there was none then.
    func created(asOf position: Position) -> CampaignCreated? {
        guard isCreated, createdPosition < position else { return nil }
        if let deletedPosition, deletedPosition < position { return nil }
        return created
    }

    /// Whether the campaign's own event at `position` is to be applied. A row that is newer has it already, or ignored
    /// it because there was no campaign then.
    func takes(_ position: Position) -> Bool { isCreated && lastPosition < position }
}

/// One device's part in one campaign.
struct CampaignDeviceState: RowState {
    static let table = Table("ota_device_status_v2", write: .upsert, Self.self)

    var isTarget = false
    var part = TargetProgress(targetedAt: Position(0))
    var id: Int64 = 0
    var tenant = ByteRef()
    var error = ByteRef()
    var skipKind = ByteRef()
    /// −1: none was reported.
    var progress = -1.0
    var startedAt = OptionalTime()
    var dispatchedAt = OptionalTime()
    /// Of the first report of the attempt: there is one when `part.hasReported`.
    var acknowledgedAt = OptionalTime()
    var completedAt = OptionalTime()
    var createdAt = OptionalTime()
    var lastReportAt = OptionalTime()
    var reportCount: Int64 = 0
    var lateReportCount: Int64 = 0
    var endedPosition: Position?

    mutating func columns(_ row: inout some RowVisitor, _ key: inout CampaignKey, _ arena: inout ByteArena) {
        row.key("campaign_id", &key.id)
        row.key("device_id", &key.device)
        row.value("id", &id)
        row.text("tenant_id", &tenant, &arena)
        row.value("status", &part.status)
        row.value("failure_kind", &part.kind)
        row.text("skip_kind", &skipKind, &arena)
        row.value("attempt", &part.attempt)
        row.value("command_id", &part.command)
        row.value("progress_pct", &progress, none: -1)
        row.text("error_message", &error, &arena)
        row.value("started_at", &startedAt)
        row.value("dispatched_at", &dispatchedAt)
        row.value("acknowledged_at", &acknowledgedAt)
        row.value("completed_at", &completedAt)
        row.value("created_at", &createdAt)
        row.value("report_count", &reportCount)
        row.value("late_report_count", &lateReportCount)
        row.value("last_report_at", &lastReportAt)
        row.value("ended_position", &endedPosition)
        row.value("has_begun", &part.hasBegun)
        row.value("last_position", &part.last)
    }

    mutating func didLoad(_ key: CampaignKey) {
        isTarget = true
        part.hasReported = acknowledgedAt.value != nil
    }
}

/// A report that fits no target.
struct UnmatchedReportRow: TableRow {
    static let table = Table("ota_unmatched_reports_v1", write: .insert, Self.self)

    var position = Position(0), tenant = Bytes.none, device = Bytes.none
    var campaign: Int64 = 0, status = OTAReport.Status.downloading, reason = "", at = OptionalTime()

    mutating func columns(_ row: inout some RowVisitor) {
        row.key("position", &position)
        row.value("tenant_id", &tenant)
        row.value("device_id", &device)
        row.value("campaign_id", &campaign)
        row.value("status", &status)
        row.value("reason", &reason)
        row.value("at", &at)
    }
}

/// What devices add to their campaign's counts.
struct CampaignDeltas: Equatable {
    var inFlight: Int64 = 0, succeeded: Int64 = 0, failed: Int64 = 0, skipped: Int64 = 0
    var dispatched: Int64 = 0, void: Int64 = 0

    mutating func move(from before: OTADeviceStatus, to after: OTADeviceStatus) {
        add(-1, to: before)
        add(1, to: after)
    }

    private mutating func add(_ number: Int64, to status: OTADeviceStatus) {
        switch status.count {
        case .pending: break
        case .inFlight: inFlight += number
        case .succeeded: succeeded += number
        case .failed: failed += number
        case .skipped: skipped += number
        }
    }

    static func += (a: inout CampaignDeltas, b: CampaignDeltas) {
        a.inFlight += b.inFlight
        a.succeeded += b.succeeded
        a.failed += b.failed
        a.skipped += b.skipped
        a.dispatched += b.dispatched
        a.void += b.void
    }
}

/// Devices add to the counts of a campaign, whoever folds it: the table of `CampaignRowState` again.
struct CampaignCountsRow: TableRow {
    static let table = Table(CampaignRowState.table.name, write: .addDeltas, Self.self)

    var campaign: Int64 = 0, deltas = CampaignDeltas()

    mutating func columns(_ row: inout some RowVisitor) {
        row.key("id", &campaign)
        row.delta("in_flight", &deltas.inFlight)
        row.delta("succeeded", &deltas.succeeded)
        row.delta("failed", &deltas.failed)
        row.delta("skipped", &deltas.skipped)
        row.delta("dispatched", &deltas.dispatched)
        row.delta("void_count", &deltas.void)
    }
}

/// What was added to a campaign's counts in a minute.
struct CampaignProgressRow: TableRow {
    static let table = Table("campaign_progress_v1", write: .upsert, Self.self)

    var at = CampaignMinute(), tenant = "", deltas = CampaignDeltas()

    mutating func columns(_ row: inout some RowVisitor) {
        row.key("campaign_id", &at.campaign)
        row.key("minute", &at.minute)
        row.value("tenant_id", &tenant)
        row.delta("dispatched", &deltas.dispatched)
        row.delta("succeeded", &deltas.succeeded)
        row.delta("failed", &deltas.failed)
        row.delta("skipped", &deltas.skipped)
    }
}

struct CampaignMinute: Hashable, Comparable {
    var campaign: Int64 = 0
    /// Since 1970.
    var minute: Int64 = 0

    init() {}
    init(_ campaign: Int64, at time: Timestamp) {
        self.campaign = campaign
        let (minute, rest) = time.microseconds.quotientAndRemainder(dividingBy: 60_000_000)
        self.minute = rest < 0 ? minute - 1 : minute
    }

    static func < (a: CampaignMinute, b: CampaignMinute) -> Bool {
        (a.campaign, a.minute) < (b.campaign, b.minute)
    }
}

/// The key of a campaign's or a group's row, or of a device's in it. In memory it is the id in eight bytes, and for a
/// device its own id behind it.
struct CampaignKey: RowKey {
    var id: Int64 = 0, device = Bytes.none

    init() {}
    init(_ bytes: Bytes) {
        id = Int64(bigEndian: bytes.loadUnaligned(as: Int64.self))
        device = Bytes(rebasing: bytes.dropFirst(8))
    }

    func append(to key: inout [UInt8]) { Self.make(id, device, into: &key) }

    /// The campaign's `FoldKey`.
    static func name(_ campaign: Int64) -> String { "campaign/\(campaign)" }

    static func make(_ id: Int64, _ device: some Collection<UInt8>, into key: inout [UInt8]) {
        key.removeAll(keepingCapacity: true)
        withUnsafeBytes(of: id.bigEndian) { key.append(contentsOf: $0) }
        key.append(contentsOf: device)
    }
}
