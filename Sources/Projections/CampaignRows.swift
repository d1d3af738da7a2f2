import CampaignRules
import Decisions
import EventModel
import Foundation

// The rows of the campaigns projection: what they hold, and how they are written and read. The rules are in
// Campaigns.swift.

enum CampaignTables {
    static let firmware = 0, campaigns = 1, counts = 2, devices = 3, progress = 4, unmatched = 5

    static let descriptor = ProjectionDescriptor(
        name: "campaigns", version: 2,
        tables: [
            Table(
                "firmware_versions_v1", write: .upsert,
                [
                    .key("id", .int8), .value("tenant_id", .text), .value("version", .text),
                    .value("description", .text),
                    .value("file_url", .text), .value("file_size_bytes", .int8), .value("checksum_sha256", .text),
                    .value("device_type", .text), .value("created_at", .timestamptz), .value("created_by", .text),
                ]),
            Table(
                "ota_campaigns_v2", write: .upsert,
                [
                    .key("id", .int8), .value("tenant_id", .text), .value("name", .text),
                    .value("firmware_version_id", .int8),
                    .value("target_group_id", .int8), .value("rollout_strategy", .text), .value("rollout_rate", .int8),
                    .value("abort_threshold", .float8), .value("plan", .jsonb), .value("status", .text),
                    .value("total_devices", .int8), .value("stage", .int8), .value("stage_devices_max", .int8),
                    .value("stage_begun_at", .timestamptz), .value("status_at", .timestamptz),
                    .value("status_by", .text),
                    .value("status_code", .text), .value("status_reason", .text), .value("status_cause", .int8),
                    .value("started_at", .timestamptz), .value("completed_at", .timestamptz),
                    .value("created_at", .timestamptz), .value("created_by", .text), .value("last_position", .int8),
                    .value("created_position", .int8), .value("deleted_position", .int8),
                ]),
            // The same table again: devices add to the counts of a campaign, whoever folds it.
            Table(
                "ota_campaigns_v2", write: .addDeltas,
                [
                    .key("id", .int8), .delta("in_flight"), .delta("succeeded"), .delta("failed"), .delta("skipped"),
                    .delta("dispatched"), .delta("void_count"),
                ]),
            Table(
                "ota_device_status_v2", write: .upsert,
                [
                    .key("campaign_id", .int8), .key("device_id", .text), .value("id", .int8),
                    .value("tenant_id", .text),
                    .value("status", .text), .value("failure_kind", .text), .value("skip_kind", .text),
                    .value("attempt", .int8), .value("command_id", .int8), .value("progress_pct", .float8),
                    .value("error_message", .text), .value("started_at", .timestamptz),
                    .value("dispatched_at", .timestamptz),
                    .value("acknowledged_at", .timestamptz), .value("completed_at", .timestamptz),
                    .value("created_at", .timestamptz), .value("report_count", .int8),
                    .value("late_report_count", .int8),
                    .value("last_report_at", .timestamptz), .value("ended_position", .int8), .value("has_begun", .bool),
                    .value("last_position", .int8),
                ]),
            Table(
                "campaign_progress_v1", write: .upsert,
                [
                    .key("campaign_id", .int8), .key("minute", .int8), .value("tenant_id", .text), .delta("dispatched"),
                    .delta("succeeded"), .delta("failed"), .delta("skipped"),
                ]),
            Table(
                "ota_unmatched_reports_v1", write: .insert,
                [
                    .key("position", .int8), .value("tenant_id", .text), .value("device_id", .text),
                    .value("campaign_id", .int8), .value("status", .text), .value("reason", .text),
                    .value("at", .timestamptz),
                ]),
        ])
}

struct CampaignState: RowState {
    /// Nil while no `campaign.created` was seen.
    var created: CampaignCreated?
    /// As recorded: a setting that a later program knows does not change the row.
    var plan: [UInt8]?
    var createdAt = Moment()
    var status = ""
    var statusAt = Moment()
    var statusBy = ""
    var statusCode: String?
    var statusReason: String?
    var statusCause: Int64?
    var stage: Int64?
    var stageDevicesMax: Int64?
    var stageBegunAt = Moment()
    var startedAt = Moment()
    var completedAt = Moment()
    var lastPosition = Position(0)
    /// Of its creation, and its deletion. A row may be newer than the event that is being judged by it: what came
    /// before the one or after the other is unmatched.
    var createdPosition = Position(0)
    var deletedPosition: Position?

    /// As it was when an event at `position` came; nil when there was none then.
    func created(asOf position: Position) -> CampaignCreated? {
        guard createdPosition < position else { return nil }
        if let deletedPosition, deletedPosition < position { return nil }
        return created
    }

    /// Whether the campaign's own event at `position` is to be applied. A row that is newer has it already, or ignored
    /// it because there was no campaign then.
    func takes(_ position: Position) -> Bool { created != nil && lastPosition < position }

    mutating func move(from old: borrowing ByteArena, to new: inout ByteArena) {}
}

/// One device's part in one campaign.
struct CampaignDeviceState: RowState {
    var isTarget = false
    var part = DevicePart(targetedAt: Position(0))
    var id: Int64 = 0
    var tenant = ByteRef()
    var error = ByteRef()
    var skipKind = ByteRef()
    /// Below 0: none was reported.
    var progress = -1.0
    var startedAt = Moment()
    var dispatchedAt = Moment()
    /// Of the first report of the attempt: there is one when `part.hasReported`.
    var acknowledgedAt = Moment()
    var completedAt = Moment()
    var createdAt = Moment()
    var lastReportAt = Moment()
    var reportCount: Int64 = 0
    var lateReportCount: Int64 = 0
    var endedPosition: Position?

    mutating func move(from old: borrowing ByteArena, to new: inout ByteArena) {
        old.move(&tenant, to: &new)
        old.move(&error, to: &new)
        old.move(&skipKind, to: &new)
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

    func encode(campaign: Int64, into rows: inout RowBuffer) {
        rows.beginRow(fieldCount: 7)
        rows.int8(campaign)
        for count in [inFlight, succeeded, failed, skipped, dispatched, void] { rows.int8(count) }
    }

    func encode(_ minute: CampaignMinute, tenant: String, into rows: inout RowBuffer) {
        rows.beginRow(fieldCount: 7)
        rows.int8(minute.campaign)
        rows.int8(minute.minute)
        rows.text(tenant)
        for count in [dispatched, succeeded, failed, skipped] { rows.int8(count) }
    }
}

struct CampaignMinute: Hashable, Comparable {
    let campaign: Int64
    /// Since 1970.
    let minute: Int64

    init(_ campaign: Int64, at time: Timestamp) {
        self.campaign = campaign
        let (minute, rest) = time.microseconds.quotientAndRemainder(dividingBy: 60_000_000)
        self.minute = rest < 0 ? minute - 1 : minute
    }

    static func < (a: CampaignMinute, b: CampaignMinute) -> Bool {
        (a.campaign, a.minute) < (b.campaign, b.minute)
    }
}

/// Keys in memory: a campaign's id in eight bytes, and for a device its own id behind it.
enum CampaignKey {
    /// The campaign's `FoldKey`.
    static func name(_ campaign: Int64) -> String { "campaign/\(campaign)" }

    static func make(_ campaign: Int64, _ device: some Collection<UInt8>, into key: inout [UInt8]) {
        key.removeAll(keepingCapacity: true)
        withUnsafeBytes(of: campaign.bigEndian) { key.append(contentsOf: $0) }
        key.append(contentsOf: device)
    }

    static func campaign(_ key: UnsafeRawBufferPointer) -> Int64 { Int64(bigEndian: key.loadUnaligned(as: Int64.self)) }

    static func encodeCampaign(_ key: UnsafeRawBufferPointer, into rows: inout RowBuffer) {
        rows.beginRow(fieldCount: 1)
        rows.int8(campaign(key))
    }

    static func encodeDevice(_ key: UnsafeRawBufferPointer, into rows: inout RowBuffer) {
        rows.beginRow(fieldCount: 2)
        rows.int8(campaign(key))
        rows.text(key.dropFirst(8))
    }
}

/// A value of ours as JSON, members in the order of their names.
func jsonBytes(_ value: some Encodable) -> Data {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    // JSON has no other numbers; a column that an administrator changed may hold one.
    encoder.nonConformingFloatEncodingStrategy = .convertToString(
        positiveInfinity: "Infinity", negativeInfinity: "-Infinity", nan: "NaN")
    guard let json = try? encoder.encode(value) else { preconditionFailure("a value that is no JSON: \(value)") }
    return json
}

extension CampaignState {
    func encode(into rows: inout RowBuffer) {
        guard let created else { return }
        rows.beginRow(fieldCount: 26)
        rows.int8(created.id)
        rows.text(created.tenantID)
        rows.text(created.name)
        rows.int8(created.firmwareVersionID)
        rows.optional(created.targetGroupID) { $0.int8($1) }
        rows.text(created.rolloutStrategy)
        rows.optional(created.rolloutRate) { $0.int8($1) }
        rows.optional(created.abortThreshold) { $0.float8($1) }
        rows.optional(plan) { $0.jsonb($1) }
        rows.text(status)
        rows.int8(created.totalDevices)
        rows.optional(stage) { $0.int8($1) }
        rows.optional(stageDevicesMax) { $0.int8($1) }
        rows.moment(stageBegunAt)
        rows.moment(statusAt)
        rows.text(statusBy)
        rows.optional(statusCode) { $0.text($1) }
        rows.optional(statusReason) { $0.text($1) }
        rows.optional(statusCause) { $0.int8($1) }
        rows.moment(startedAt)
        rows.moment(completedAt)
        rows.moment(createdAt)
        rows.text(created.actor)
        rows.position(lastPosition)
        rows.position(createdPosition)
        rows.optional(deletedPosition) { $0.position($1) }
    }

    mutating func decode(_ row: RowReader) {
        var created = CampaignCreated(
            id: row.int8(0) ?? 0, tenantID: row.text(1) ?? "", name: row.text(2) ?? "",
            firmwareVersionID: row.int8(3) ?? 0, rolloutStrategy: row.text(5) ?? "", totalDevices: row.int8(10) ?? 0,
            actor: row.text(22) ?? "")
        created.targetGroupID = row.int8(4)
        created.rolloutRate = row.int8(6)
        created.abortThreshold = row.float8(7)
        plan = row.jsonb(8).map { Array($0) }
        created.plan = plan.flatMap { try? JSONDecoder().decode(CampaignPlan.self, from: Data($0)) }
        self.created = created
        status = row.text(9) ?? ""
        stage = row.int8(11)
        stageDevicesMax = row.int8(12)
        stageBegunAt = row.moment(13)
        statusAt = row.moment(14)
        statusBy = row.text(15) ?? ""
        statusCode = row.text(16)
        statusReason = row.text(17)
        statusCause = row.int8(18)
        startedAt = row.moment(19)
        completedAt = row.moment(20)
        createdAt = row.moment(21)
        lastPosition = Position(stored: row.int8(23) ?? 0)
        createdPosition = Position(stored: row.int8(24) ?? 0)
        deletedPosition = row.int8(25).map { Position(stored: $0) }
    }
}

extension CampaignDeviceState {
    func encode(key: UnsafeRawBufferPointer, in arena: borrowing ByteArena, into rows: inout RowBuffer) {
        rows.beginRow(fieldCount: 22)
        rows.int8(CampaignKey.campaign(key))
        rows.text(key.dropFirst(8))
        rows.int8(id)
        rows.text(tenant, in: arena)
        rows.text(part.status.rawValue)
        rows.optional(part.kind) { $0.text($1.rawValue) }
        rows.text(skipKind, in: arena)
        rows.int8(Int64(part.attempt))
        rows.optional(part.command) { $0.position($1) }
        rows.optional(progress < 0 ? nil : progress) { $0.float8($1) }
        rows.text(error, in: arena)
        rows.moment(startedAt)
        rows.moment(dispatchedAt)
        rows.moment(acknowledgedAt)
        rows.moment(completedAt)
        rows.moment(createdAt)
        rows.int8(reportCount)
        rows.int8(lateReportCount)
        rows.moment(lastReportAt)
        rows.optional(endedPosition) { $0.position($1) }
        rows.bool(part.hasBegun)
        rows.position(part.last)
    }

    mutating func decode(_ row: RowReader, in arena: inout ByteArena) {
        isTarget = true
        id = row.int8(2) ?? 0
        row.text(3, into: &tenant, in: &arena)
        part.status = row.text(4).flatMap(OTADeviceStatus.init) ?? .pending
        part.kind = row.text(5).flatMap(OTAFailureKind.init)
        row.text(6, into: &skipKind, in: &arena)
        part.attempt = Int32(clamping: row.int8(7) ?? 0)
        part.command = row.int8(8).map { Position(stored: $0) }
        progress = row.float8(9) ?? -1
        row.text(10, into: &error, in: &arena)
        startedAt = row.moment(11)
        dispatchedAt = row.moment(12)
        acknowledgedAt = row.moment(13)
        part.hasReported = acknowledgedAt.value != nil
        completedAt = row.moment(14)
        createdAt = row.moment(15)
        reportCount = row.int8(16) ?? 0
        lateReportCount = row.int8(17) ?? 0
        lastReportAt = row.moment(18)
        endedPosition = row.int8(19).map { Position(stored: $0) }
        part.hasBegun = row.bool(20) ?? false
        part.last = Position(stored: row.int8(21) ?? 0)
    }
}
