import Decisions
import Decoding
import EventModel
import Primitives

/// `audit_logs`: who decided what, and what was refused. One row a decision, from the decisions themselves, and one for
/// each gap in the log that somebody signed for or that the retention rules made. Those concern every tenant: their
/// tenant is `*`, which is no tenant's id, so that only who sees all tenants sees them.
struct AuditLogs: AppendProjection {
    static let descriptor = ProjectionDescriptor(
        name: "audit_logs", version: 1, tables: [Row.table])

    struct Row: TableRow {
        static let table = Table("audit_logs_v1", write: .insert, Self.self)

        var position = Position(0), tenant = "", at = OptionalTime()
        var actor = "", action = "", subject = ""
        var before: [UInt8]?, after = Bytes.none

        mutating func columns(_ row: inout some RowVisitor) {
            row.key("position", &position)
            row.value("tenant_id", &tenant)
            row.value("at", &at)
            row.value("actor", &actor)
            row.value("action", &action)
            row.value("subject", &subject)
            row.jsonb("before", &before)
            row.jsonb("after", &after)
        }
    }

    static func mayGiveRow(_ mark: BlockScan.Mark) -> Bool { mark.kind == .decision || mark.kind == .system }

    /// By schema: rows are independent of each other, and one that cannot be written need not hold back the others.
    static func key(of record: RecordView) -> UnsafeRawBufferPointer { record.topic }

    func append(_ record: RecordView, _ position: Position, decoder: FactDecoder, into rows: inout RowBuffer) {
        guard record.kind == .decision || record.kind == .system else { return }
        // The schema's name without its version: `campaign.created/1` is `campaign.created`.
        let action = record.topicString.split(separator: "/").first ?? ""
        var row = Row(
            position: position, at: OptionalTime(record.receivedAt), action: String(action), after: record.payload)
        switch decoder.decodeInternal(record) {
        case .decision(let decision):
            let envelope = decision.envelope
            guard envelope.isAudited else { return }
            (row.tenant, row.actor) = (envelope.tenantID, envelope.actor ?? EngineActor.name)
            row.subject = envelope.subject
            row.before = envelope.before.map {
                Array("{\"\($0.property)\": \(JSONString.encode($0.value))}".utf8)
            }
        case .lossAccepted(let event):
            (row.tenant, row.actor) = (Envelope.everyTenant, event.operatorName)
            row.subject = "log:\(event.from)-\(event.to)"
        case .segmentsRemoved(let event):
            (row.tenant, row.actor) = (Envelope.everyTenant, "retention")
            row.subject = "log:\(event.from)-\(event.to)"
        case .broker, .none, .undecodable: return
        }
        rows.append(row)
    }
}
