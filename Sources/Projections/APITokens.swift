import Decisions
import Decoding
import EventModel

/// `api_tokens`: who may use the API, from the decisions about it. A row a decision; the view puts a token's revocation
/// beside its creation. Secrets are in no table: their SHA-256 is.
struct APITokens: AppendProjection {
    static let descriptor = ProjectionDescriptor(
        name: "access", version: 1,
        tables: [
            Table(
                "api_token_events_v1", write: .insert,
                [
                    .key("position", .int8), .value("token_id", .int8), .value("event_type", .text),
                    .value("name", .text),
                    .value("role", .text), .value("tenant_id", .text), .value("secret_sha256", .text),
                    .value("expires_at", .timestamptz), .value("actor", .text), .value("at", .timestamptz),
                ])
        ])

    static func mayGiveRow(_ mark: BlockScan.Mark) -> Bool { mark.kind == .decision }

    /// By schema: rows are independent of each other.
    static func key(of record: RecordView) -> UnsafeRawBufferPointer { record.topic }

    func append(_ record: RecordView, _ position: Position, decoder: FactDecoder, into rows: inout RowBuffer) {
        guard record.kind == .decision else { return }
        switch decoder.decodeInternal(record).decision {
        case let event as TokenCreated:
            begin(position, event.id, "created", event.name, into: &rows)
            rows.text(event.role)
            rows.text(event.tenantID)
            rows.text(event.secretSHA256)
            rows.optional(event.expiresAt) { $0.timestamptz(Timestamp(microseconds: $1)) }
            rows.text(event.actor)
        case let event as TokenRevoked:
            begin(position, event.id, "revoked", event.name, into: &rows)
            rows.null()
            rows.text(event.tenantID)
            rows.null()
            rows.null()
            rows.text(event.actor)
        default: return
        }
        rows.timestamptz(record.receivedAt)
    }

    private func begin(_ position: Position, _ id: Int64, _ what: String, _ name: String, into rows: inout RowBuffer) {
        rows.beginRow(fieldCount: 10)
        rows.position(position)
        rows.int8(id)
        rows.text(what)
        rows.text(name)
    }
}
