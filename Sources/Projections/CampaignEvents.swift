import Decisions
import Decoding
import EventModel

/// `campaign_events`: a campaign's timeline. One row a decision about it, with what led to it; what devices report
/// stands in their own rows.
struct CampaignEvents: AppendProjection {
    static let descriptor = ProjectionDescriptor(
        name: "campaign_events", version: 1,
        tables: [
            Table(
                "campaign_events_v1", write: .insert,
                [
                    .key("position", .int8), .value("tenant_id", .text), .value("campaign_id", .int8),
                    .value("at", .timestamptz), .value("event_type", .text), .value("actor", .text),
                    .value("status_before", .text), .value("status_after", .text), .value("stage", .int8),
                    .value("devices", .int8), .value("code", .text), .value("reason", .text), .value("cause", .int8),
                    .value("counts", .jsonb), .value("evidence", .jsonb),
                ])
        ])

    /// As many devices, or events, stand in `evidence`; all of them stand in the log.
    static let evidenceMax = 20

    static func mayGiveRow(_ mark: BlockScan.Mark) -> Bool { mark.kind == .decision }

    /// By schema: rows are independent of each other.
    static func key(of record: RecordView) -> UnsafeRawBufferPointer { record.topic }

    func append(_ record: RecordView, _ position: Position, decoder: FactDecoder, into rows: inout RowBuffer) {
        guard record.kind == .decision else { return }
        let row: Row
        switch decoder.decodeInternal(record).decision {
        case let event as CampaignCreated: row = Row(event)
        case let event as CampaignStatusChanged: row = Row(event)
        case let event as CampaignStageBegun: row = Row(event)
        case let event as CampaignDispatched: row = Row(event)
        case let event as CampaignPublished: row = Row(event)
        case let event as CampaignDevicesEnded: row = Row(event)
        default: return
        }
        rows.beginRow(fieldCount: 15)
        rows.position(position)
        rows.text(row.tenant)
        rows.int8(row.campaign)
        rows.timestamptz(record.receivedAt)
        rows.text(Self.type(record.topicString))
        rows.text(row.actor)
        rows.optional(row.before) { $0.text($1) }
        rows.optional(row.after) { $0.text($1) }
        rows.optional(row.stage) { $0.int8($1) }
        rows.optional(row.devices) { $0.int8($1) }
        rows.optional(row.code) { $0.text($1) }
        rows.optional(row.reason) { $0.text($1) }
        rows.optional(row.cause) { $0.int8(Int64(clamping: $1)) }
        rows.optional(jsonMember("counts", of: record.payload)) { $0.jsonb($1) }
        rows.optional(row.evidence.isEmpty ? nil : row.evidence) { $0.jsonb(jsonBytes($1)) }
    }

    /// `campaign.stage_begun/1` is `stage_begun`.
    private static func type(_ schema: String) -> Substring.UTF8View {
        let name = schema.split(separator: "/").first ?? ""
        return name.dropFirst("campaign.".count).utf8
    }

    private struct Evidence: Encodable {
        var deviceID: String?
        let position: UInt64
        enum CodingKeys: String, CodingKey { case deviceID = "device_id", position }
    }

    private struct Row {
        let tenant: String, campaign: Int64
        var actor = EngineActor.name
        var before: String?, after: String?, stage: Int64?, devices: Int64?, code: String?, reason: String?
        var cause: UInt64?
        var evidence: [Evidence] = []

        init(_ event: CampaignCreated) {
            (tenant, campaign, actor) = (event.tenantID, event.id, event.actor)
            after = "CREATED"
            devices = event.totalDevices
        }

        init(_ event: CampaignStatusChanged) {
            (tenant, campaign, actor) = (event.tenantID, event.campaignID, event.actor)
            (before, after) = (event.before, event.after)
            (code, reason, cause) = (event.code, event.reason, event.cause)
            if let kinds = event.kinds { code = code ?? kinds.joined(separator: ",") }
            evidence = (event.evidence ?? []).prefix(evidenceMax).map { Evidence(position: $0) }
        }

        init(_ event: CampaignStageBegun) {
            (tenant, campaign, actor) = (event.tenantID, event.campaignID, event.actor)
            (stage, devices) = (Int64(event.stage), event.devicesMax)
            cause = event.cause
        }

        init(_ event: CampaignDispatched) {
            (tenant, campaign) = (event.tenantID, event.campaignID)
            (stage, devices, cause) = (Int64(event.stage), Int64(event.devices.count), event.cause)
            evidence = zip(event.devices, event.seen).prefix(evidenceMax).map { Evidence(deviceID: $0, position: $1) }
        }

        init(_ event: CampaignPublished) {
            (tenant, campaign) = (event.tenantID, event.campaignID)
            let named = event.batches.map(\.devices?.count)
            if !named.contains(nil) { devices = named.reduce(0) { $0 + Int64($1 ?? 0) } }
            cause = event.batches.first?.command
            evidence = event.batches.prefix(evidenceMax).map { Evidence(position: $0.command) }
        }

        init(_ event: CampaignDevicesEnded) {
            (tenant, campaign, actor) = (event.tenantID, event.campaignID, event.actor)
            (after, code, reason) = (event.status, event.kind, event.reason)
            devices = Int64(event.devices.count)
            let causes = event.causes ?? event.seen
            evidence = zip(event.devices, causes).prefix(evidenceMax).map { Evidence(deviceID: $0, position: $1) }
        }
    }
}
