import Decisions
import Decoding
import EventModel

/// `api_tokens`: who may use the API, from the decisions about it. A row a decision; the view puts a token's revocation
/// beside its creation. Secrets are in no table: their SHA-256 is.
struct APITokens: AppendProjection {
    static let descriptor = ProjectionDescriptor(
        name: "access", version: 1, tables: [Row.table])

    struct Row: TableRow {
        static let table = Table("api_token_events_v1", write: .insert, Self.self)

        var position = Position(0), id: Int64 = 0
        var type = "", name = ""
        var role: String?, tenant: String?, secretSHA256: String?
        var expiresAt = OptionalTime(), actor = "", at = OptionalTime()

        mutating func columns(_ row: inout some RowVisitor) {
            row.key("position", &position)
            row.value("token_id", &id)
            row.value("event_type", &type)
            row.value("name", &name)
            row.value("role", &role)
            row.value("tenant_id", &tenant)
            row.value("secret_sha256", &secretSHA256)
            row.value("expires_at", &expiresAt)
            row.value("actor", &actor)
            row.value("at", &at)
        }
    }

    static func mayGiveRow(_ mark: BlockScan.Mark) -> Bool { mark.kind == .decision }

    /// By schema: rows are independent of each other.
    static func key(of record: RecordView) -> UnsafeRawBufferPointer { record.topic }

    func append(_ record: RecordView, _ position: Position, decoder: FactDecoder, into rows: inout RowBuffer) {
        guard record.kind == .decision else { return }
        switch decoder.decodeInternal(record).decision {
        case let event as TokenCreated:
            rows.append(
                Row(
                    position: position, id: event.id, type: "created", name: event.name, role: event.role,
                    tenant: event.tenantID, secretSHA256: event.secretSHA256,
                    expiresAt: OptionalTime(event.expiresAt.map { Timestamp(microseconds: $0) }), actor: event.actor,
                    at: OptionalTime(record.receivedAt)))
        case let event as TokenRevoked:
            rows.append(
                Row(
                    position: position, id: event.id, type: "revoked", name: event.name, tenant: event.tenantID,
                    actor: event.actor, at: OptionalTime(record.receivedAt)))
        default: return
        }
    }
}
