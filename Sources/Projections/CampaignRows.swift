import Decoding
import EventModel

// The rows of the campaigns projection: what they hold, and how they are written and read. The rules are in
// Campaigns.swift.

enum CampaignTables {
    static let firmware = 0, campaigns = 1, deltas = 2, devices = 3, unmatched = 4

    static let descriptor = ProjectionDescriptor(name: "campaigns", version: 1, tables: [
        Table("firmware_versions_v1", write: .upsert, [
            .key("id", .int8), .value("tenant_id", .text), .value("version", .text), .value("description", .text),
            .value("file_url", .text), .value("file_size_bytes", .int8), .value("checksum_sha256", .text),
            .value("device_type", .text), .value("created_at", .timestamptz), .value("created_by", .text),
        ]),
        Table("ota_campaigns_v1", write: .upsert, [
            .key("id", .int8), .value("tenant_id", .text), .value("name", .text), .value("firmware_version_id", .int8),
            .value("target_group_id", .int8), .value("rollout_strategy", .text), .value("rollout_rate", .int8),
            .value("abort_threshold", .float8), .value("status", .text), .value("total_devices", .int8),
                    .value("started_at", .timestamptz), .value("completed_at", .timestamptz),
                    .value("created_at", .timestamptz),
            .value("created_by", .text), .value("last_position", .int8), .value("created_position", .int8),
        ]),
        // The same table again: devices add to the counts of a campaign, whoever folds it.
        Table("ota_campaigns_v1", write: .addDeltas, [
            .key("id", .int8), .delta("succeeded"), .delta("failed"), .delta("skipped"),
        ]),
        Table("ota_device_status_v1", write: .upsert, [
            .key("campaign_id", .int8), .key("device_id", .text), .value("id", .int8), .value("tenant_id", .text),
            .value("status", .text), .value("progress_pct", .float8), .value("error_message", .text),
                    .value("started_at", .timestamptz), .value("completed_at", .timestamptz),
                    .value("created_at", .timestamptz),
            .value("report_count", .int8), .value("late_report_count", .int8), .value("last_report_at", .timestamptz),
            .value("last_position", .int8),
        ]),
        Table("ota_unmatched_reports_v1", write: .insert, [
                    .key("position", .int8), .value("tenant_id", .text), .value("device_id", .text),
                    .value("campaign_id", .int8),
            .value("status", .text), .value("reason", .text), .value("at", .timestamptz),
        ]),
    ])
}

struct CampaignState: RowState {
    /// Nil while no `campaign.created` was seen.
    var created: CampaignCreated?
    var createdAt = Moment()
    var status = ""
    var startedAt = Moment()
    var completedAt = Moment()
    var lastPosition = Position(0)
    /// Of its creation. A row may be newer than the event that is being judged by it: what came before is unmatched.
    var createdPosition = Position(0)

    mutating func move(from old: borrowing ByteArena, to new: inout ByteArena) {}
}

/// One device's part in one campaign.
struct CampaignDeviceState: RowState {
    enum Status: UInt8, CaseIterable {
        case pending, downloading, installing, success, failed

        var name: String {
            switch self {
            case .pending: "PENDING"
            case .downloading: "DOWNLOADING"
            case .installing: "INSTALLING"
            case .success: "SUCCESS"
            case .failed: "FAILED"
            }
        }

        init(_ report: OTAReport.Status) {
            switch report {
            case .downloading: self = .downloading
            case .installing: self = .installing
            case .success: self = .success
            case .failed: self = .failed
            }
        }

        var isTerminal: Bool { self == .success || self == .failed }
    }

    var isTarget = false
    var status = Status.pending
    var id: Int64 = 0
    var tenant = ByteRef()
    var error = ByteRef()
    /// Below 0: none was reported.
    var progress = -1.0
    var startedAt = Moment()
    var completedAt = Moment()
    var createdAt = Moment()
    var lastReportAt = Moment()
    var reportCount: Int64 = 0
    var lateReportCount: Int64 = 0
    var lastPosition = Position(0)

    mutating func move(from old: borrowing ByteArena, to new: inout ByteArena) {
        old.move(&tenant, to: &new)
        old.move(&error, to: &new)
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

extension CampaignState {
    func encode(into rows: inout RowBuffer) {
        guard let created else { return }
        rows.beginRow(fieldCount: 16)
        rows.int8(created.id)
        rows.text(created.tenantID)
        rows.text(created.name)
        rows.int8(created.firmwareVersionID)
        rows.optional(created.targetGroupID) { $0.int8($1) }
        rows.text(created.rolloutStrategy)
        rows.optional(created.rolloutRate) { $0.int8($1) }
        rows.optional(created.abortThreshold) { $0.float8($1) }
        rows.text(status)
        rows.int8(created.totalDevices)
        rows.moment(startedAt)
        rows.moment(completedAt)
        rows.moment(createdAt)
        rows.text(created.actor)
        rows.position(lastPosition)
        rows.position(createdPosition)
    }

    mutating func decode(_ row: RowReader) {
        var created = CampaignCreated(
            id: row.int8(0) ?? 0, tenantID: row.text(1) ?? "", name: row.text(2) ?? "",
            firmwareVersionID: row.int8(3) ?? 0, rolloutStrategy: row.text(5) ?? "", totalDevices: row.int8(9) ?? 0,
            actor: row.text(13) ?? "")
        created.targetGroupID = row.int8(4)
        created.rolloutRate = row.int8(6)
        created.abortThreshold = row.float8(7)
        self.created = created
        status = row.text(8) ?? ""
        startedAt = row.moment(10)
        completedAt = row.moment(11)
        createdAt = row.moment(12)
        lastPosition = Position(UInt64(row.int8(14) ?? 0))
        createdPosition = Position(UInt64(row.int8(15) ?? 0))
    }
}

extension CampaignDeviceState {
    func encode(key: UnsafeRawBufferPointer, in arena: borrowing ByteArena, into rows: inout RowBuffer) {
        rows.beginRow(fieldCount: 14)
        rows.int8(CampaignKey.campaign(key))
        rows.text(key.dropFirst(8))
        rows.int8(id)
        rows.text(tenant, in: arena)
        rows.text(status.name)
        rows.optional(progress < 0 ? nil : progress) { $0.float8($1) }
        rows.text(error, in: arena)
        rows.moment(startedAt)
        rows.moment(completedAt)
        rows.moment(createdAt)
        rows.int8(reportCount)
        rows.int8(lateReportCount)
        rows.moment(lastReportAt)
        rows.position(lastPosition)
    }

    mutating func decode(_ row: RowReader, in arena: inout ByteArena) {
        isTarget = true
        id = row.int8(2) ?? 0
        row.text(3, into: &tenant, in: &arena)
        let name = row.text(4)
        status = Status.allCases.first { $0.name == name } ?? .pending
        progress = row.float8(5) ?? -1
        row.text(6, into: &error, in: &arena)
        startedAt = row.moment(7)
        completedAt = row.moment(8)
        createdAt = row.moment(9)
        reportCount = row.int8(10) ?? 0
        lateReportCount = row.int8(11) ?? 0
        lastReportAt = row.moment(12)
        lastPosition = Position(UInt64(row.int8(13) ?? 0))
    }
}
