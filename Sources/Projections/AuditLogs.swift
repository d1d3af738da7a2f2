import Decisions
import Decoding
import EventModel
import Primitives

/// `audit_logs`: who decided what, and what was refused. One row a decision, from the decisions themselves, and one for
/// each gap in the log that somebody signed for or that the retention rules made. Those concern every tenant: their
/// tenant is `*`, which is no tenant's id, so that only who sees all tenants sees them.
struct AuditLogs: AppendProjection {
    static let descriptor = ProjectionDescriptor(
        name: "audit_logs", version: 1,
        tables: [
            Table(
                "audit_logs_v1", write: .insert,
                [
                    .key("position", .int8), .value("tenant_id", .text), .value("at", .timestamptz),
                    .value("actor", .text),
                    .value("action", .text), .value("subject", .text), .value("before", .jsonb),
                    .value("after", .jsonb),
                ])
        ])

    static func mayGiveRow(_ mark: BlockScan.Mark) -> Bool { mark.kind == .decision || mark.kind == .system }

    /// By schema: rows are independent of each other, and one that cannot be written need not hold back the others.
    static func key(of record: RecordView) -> UnsafeRawBufferPointer { record.topic }

    func append(_ record: RecordView, _ position: Position, decoder: FactDecoder, into rows: inout RowBuffer) {
        guard record.kind == .decision || record.kind == .system else { return }
        let tenant: String, actor: String, subject: String
        var before: Envelope.Before?
        switch decoder.decodeInternal(record) {
        case .decision(let decision):
            let envelope = decision.envelope
            guard envelope.isAudited else { return }
            (tenant, actor, subject) = (envelope.tenantID, envelope.actor ?? EngineActor.name, envelope.subject)
            before = envelope.before
        case .lossAccepted(let event):
            (tenant, actor, subject) = (Envelope.everyTenant, event.operatorName, "log:\(event.from)-\(event.to)")
        case .segmentsRemoved(let event):
            (tenant, actor, subject) = (Envelope.everyTenant, "retention", "log:\(event.from)-\(event.to)")
        case .broker, .none, .undecodable: return
        }
        rows.beginRow(fieldCount: 8)
        rows.position(position)
        rows.text(tenant)
        rows.timestamptz(record.receivedAt)
        rows.text(actor)
        rows.text(Self.action(record.topicString))
        rows.text(subject)
        rows.optional(before) { $0.jsonb("{\"\($1.property)\": \(JSONString.encode($1.value))}".utf8) }
        rows.jsonb(record.payload)
    }

    /// The schema's name without its version: `campaign.created/1` is `campaign.created`.
    private static func action(_ schema: String) -> Substring.UTF8View {
        (schema.split(separator: "/").first ?? "").utf8
    }
}
