import Decoding
import EventModel

/// `dead_letters`: what the gate refused (`ingest`) and what decoding could not understand (`decoding`), with its
/// reason.
struct DeadLetters: AppendProjection {
    static let descriptor = ProjectionDescriptor(
        name: "dead_letters", version: 1, tables: [Row.table])

    struct Row: TableRow {
        static let table = Table("dead_letters_v1", write: .insert, Self.self)

        var position = Position(0), projection = ""
        var tenant: Bytes?, device: Bytes?
        var topic = "", reason = "", details = ""
        var payload = Bytes.none, at = OptionalTime(), status = "NEW"

        mutating func columns(_ row: inout some RowVisitor) {
            row.key("position", &position)
            row.key("projection", &projection)
            row.value("tenant_id", &tenant)
            row.value("device_id", &device)
            row.value("topic", &topic)
            row.value("reason", &reason)
            row.value("details", &details)
            row.bytea("payload", &payload)
            row.value("at", &at)
            row.value("status", &status)
        }
    }

    /// All but what was found sound already, and what nobody decodes.
    static func mayGiveRow(_ mark: BlockScan.Mark) -> Bool {
        !mark.isSound && !mark.isOpaque
    }

    func append(_ record: RecordView, _ position: Position, decoder: FactDecoder, into rows: inout RowBuffer) {
        switch record.kind {
        case .message:
            guard record.verdict == .accepted else {
                return append(record, position, "ingest", record.verdict.name, Self.details(of: record), into: &rows)
            }
            guard let topic = DeviceTopic(record.topic),
                case .undecodable(let why) = decoder.decode(record, topic: topic)
            else { return }
            append(record, position, "decoding", why.reason.rawValue, why.details, into: &rows)
        case .rejection:
            let count = decoder.rejectedCount(record) ?? 1
            append(
                record, position, "ingest", record.verdict.name,
                "\(count) message\(count == 1 ? "" : "s") beyond the device's rate limit; "
                    + "the payload lists them by digest.",
                into: &rows)
        case .connection, .decision:
            guard case .undecodable(let why) = decoder.decodeInternal(record) else { return }
            append(record, position, "decoding", why.reason.rawValue, why.details, into: &rows)
        case .system: break
        }
    }

    private func append(
        _ record: RecordView, _ position: Position, _ projection: String, _ reason: String, _ details: String,
        into rows: inout RowBuffer
    ) {
        let topic = DeviceTopic(record.topic)
        rows.append(
            Row(
                position: position, projection: projection,
                tenant: topic.map { Bytes(rebasing: record.topic[$0.tenant]) },
                device: topic.map { Bytes(rebasing: record.topic[$0.device]) },
                topic: Self.storable(record.topicString), reason: reason, details: details, payload: record.payload,
                at: OptionalTime(record.receivedAt)))
    }

    /// A refused topic may be anything; text in PostgreSQL holds no U+0000. `topicString` has repaired the UTF-8.
    private static func storable(_ text: String) -> String {
        text.utf8.contains(0) ? String(text.unicodeScalars.map { $0.value == 0 ? "\u{FFFD}" : Character($0) }) : text
    }

    private static func details(of record: RecordView) -> String {
        switch record.verdict {
        case .accepted: ""
        case .badTopicFormat: "The topic is not tenant/{tenant}/device/{device}/{…}."
        case .payloadTooLarge:
            "\(record.originalPayloadLength) bytes arrived; the first \(record.payload.count) of them are kept."
        case .rateLimited: "Beyond the device's rate limit."
        case .foreignCommand: "Somebody else published on a command topic."
        case .certMismatch: "The device had no live certificate."
        case .unregisteredDevice: "The device is not registered."
        }
    }
}
