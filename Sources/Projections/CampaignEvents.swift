import Decisions
import Decoding
import EventModel
import Foundation

/// `campaign_events`: a campaign's timeline. One row a decision about it, with what led to it; what devices report
/// stands in their own rows.
struct CampaignEvents: AppendProjection {
    static let descriptor = ProjectionDescriptor(
        name: "campaign_events", version: 1, tables: [Row.table])

    /// As many devices, or events, stand in `evidence`; all of them stand in the log.
    static let evidenceMax = 20

    static func mayGiveRow(_ mark: BlockScan.Mark) -> Bool { mark.kind == .decision }

    /// By schema: rows are independent of each other.
    static func key(of record: RecordView) -> UnsafeRawBufferPointer { record.topic }

    func append(_ record: RecordView, _ position: Position, decoder: FactDecoder, into rows: inout RowBuffer) {
        guard record.kind == .decision else { return }
        var row: Row
        switch decoder.decodeInternal(record).decision {
        case let event as CampaignCreated: row = Row(event)
        case let event as CampaignStatusChanged: row = Row(event)
        case let event as CampaignStageBegun: row = Row(event)
        case let event as CampaignDispatched: row = Row(event)
        case let event as CampaignPublished: row = Row(event)
        case let event as CampaignDevicesEnded: row = Row(event)
        default: return
        }
        row.position = position
        row.at = OptionalTime(record.receivedAt)
        row.type = Self.type(record.topicString)
        row.counts = jsonMember("counts", of: record.payload)
        rows.append(row)
    }

    /// `campaign.stage_begun/1` is `stage_begun`.
    private static func type(_ schema: String) -> String {
        String((schema.split(separator: "/").first ?? "").dropFirst("campaign.".count))
    }

    private struct Evidence: Encodable {
        var deviceID: String?
        let position: UInt64
        enum CodingKeys: String, CodingKey { case deviceID = "device_id", position }

        /// The first of them as JSON; nil when there are none.
        static func json(_ all: some Sequence<Evidence>) -> [UInt8]? {
            let first = Array(all.prefix(evidenceMax)), encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
            return first.isEmpty ? nil : (try? encoder.encode(first)).map { Array($0) }
        }
    }

    struct Row: TableRow {
        static let table = Table("campaign_events_v1", write: .insert, Self.self)

        var position = Position(0), tenant = "", campaign: Int64 = 0
        var at = OptionalTime(), type = "", actor = EngineActor.name
        var before: String?, after: String?, stage: Int64?, devices: Int64?, code: String?, reason: String?
        var cause: Position?
        var counts: Bytes?, evidence: [UInt8]?

        mutating func columns(_ row: inout some RowVisitor) {
            row.key("position", &position)
            row.value("tenant_id", &tenant)
            row.value("campaign_id", &campaign)
            row.value("at", &at)
            row.value("event_type", &type)
            row.value("actor", &actor)
            row.value("status_before", &before)
            row.value("status_after", &after)
            row.value("stage", &stage)
            row.value("devices", &devices)
            row.value("code", &code)
            row.value("reason", &reason)
            row.value("cause", &cause)
            row.jsonb("counts", &counts)
            row.jsonb("evidence", &evidence)
        }

        init() {}

        init(_ event: CampaignCreated) {
            (tenant, campaign, actor) = (event.tenantID, event.id, event.actor)
            after = "CREATED"
            devices = event.totalDevices
        }

        init(_ event: CampaignStatusChanged) {
            (tenant, campaign, actor) = (event.tenantID, event.campaignID, event.actor)
            (before, after) = (event.before, event.after)
            (code, reason, cause) = (event.code, event.reason, event.cause.map { Position($0) })
            if let kinds = event.kinds { code = code ?? kinds.joined(separator: ",") }
            evidence = Evidence.json((event.evidence ?? []).lazy.map { Evidence(position: $0) })
        }

        init(_ event: CampaignStageBegun) {
            (tenant, campaign, actor) = (event.tenantID, event.campaignID, event.actor)
            (stage, devices) = (Int64(event.stage), event.devicesMax)
            cause = event.cause.map { Position($0) }
        }

        init(_ event: CampaignDispatched) {
            (tenant, campaign) = (event.tenantID, event.campaignID)
            (stage, devices, cause) = (Int64(event.stage), Int64(event.devices.count), Position(event.cause))
            evidence = Evidence.json(zip(event.devices, event.seen).lazy.map { Evidence(deviceID: $0, position: $1) })
        }

        init(_ event: CampaignPublished) {
            (tenant, campaign) = (event.tenantID, event.campaignID)
            let named = event.batches.map(\.devices?.count)
            if !named.contains(nil) { devices = named.reduce(0) { $0 + Int64($1 ?? 0) } }
            cause = (event.batches.first?.command).map { Position($0) }
            evidence = Evidence.json(event.batches.lazy.map { Evidence(position: $0.command) })
        }

        init(_ event: CampaignDevicesEnded) {
            (tenant, campaign, actor) = (event.tenantID, event.campaignID, event.actor)
            (after, code, reason) = (event.status, event.kind, event.reason)
            devices = Int64(event.devices.count)
            let causes = event.causes ?? event.seen
            evidence = Evidence.json(zip(event.devices, causes).lazy.map { Evidence(deviceID: $0, position: $1) })
        }
    }
}
