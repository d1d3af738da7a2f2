import Decoding
import EventModel

/// `audit_logs`: who decided what, and what was refused. One row a decision, from the decisions themselves.
struct AuditLogs: AppendProjection {
    static let descriptor = ProjectionDescriptor(name: "audit_logs", version: 1, tables: [
        Table("audit_logs_v1", write: .insert, [
            .key("position", .int8), .value("tenant_id", .text), .value("at", .timestamptz), .value("actor", .text),
            .value("action", .text), .value("subject", .text), .value("before", .jsonb), .value("after", .jsonb),
        ]),
    ])

    func append(_ record: RecordView, _ position: Position, decoder: FactDecoder, into rows: inout RowBuffer) {
        guard record.kind == .decision else { return }
        let tenant: String, actor: String, subject: String
        var before: String?
        switch decoder.decodeOwn(record) {
        case .firmwareAdded(let event):
            (tenant, actor, subject) = (event.tenantID, event.actor, "firmware:\(event.id)")
        case .campaignCreated(let event):
            (tenant, actor, subject) = (event.tenantID, event.actor, "campaign:\(event.id)")
        case .campaignStatusChanged(_, let event):
            (tenant, actor, subject) = (event.tenantID, event.actor, "campaign:\(event.campaignID)")
            before = event.before
        case .commandRejected(let event):
            (tenant, actor, subject) = (event.tenantID, event.actor, event.subject)
        // The targets belong to the decision before them.
        case .campaignTargets, .broker, .none, .undecodable: return
        }
        rows.beginRow(fieldCount: 8)
        rows.position(position)
        rows.text(tenant)
        rows.timestamptz(record.receivedAt)
        rows.text(actor)
        rows.text(Self.action(record.topicString))
        rows.text(subject)
        rows.optional(before) { $0.jsonb("{\"status\": \(jsonString($1))}".utf8) }
        rows.jsonb(record.payload)
    }

    /// The schema's name without its version: `campaign.created/1` is `campaign.created`.
    private static func action(_ schema: String) -> Substring.UTF8View {
        (schema.split(separator: "/").first ?? "").utf8
    }
}
