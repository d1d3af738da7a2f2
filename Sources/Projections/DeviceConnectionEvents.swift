import Decoding
import EventModel

/// `device_connection_events`: what devices and their last wills said of their connections, in order.
struct DeviceConnectionEvents: AppendProjection {
    static let descriptor = ProjectionDescriptor(
        name: "device_connection_events", version: 1, tables: [Row.table])

    struct Row: TableRow {
        static let table = Table("device_connection_events_v1", write: .insert, Self.self)

        var position = Position(0), tenant = Bytes.none, device = Bytes.none
        var status = ConnectionReport.Status.connected, at = OptionalTime(), details = Bytes.none

        mutating func columns(_ row: inout some RowVisitor) {
            row.key("position", &position)
            row.value("tenant_id", &tenant)
            row.value("device_id", &device)
            row.value("event_type", &status)
            row.value("at", &at)
            row.jsonb("details", &details)
        }
    }

    static func mayGiveRow(_ mark: BlockScan.Mark) -> Bool { mark.kind == .message(.connection) }

    func append(_ record: RecordView, _ position: Position, decoder: FactDecoder, into rows: inout RowBuffer) {
        guard record.kind == .message, record.verdict == .accepted, !record.flags.contains(.retained),
            let topic = DeviceTopic(record.topic), topic.topicClass == .connection,
            case .connection(let report) = decoder.decode(record, topic: topic)
        else { return }
        rows.append(
            Row(
                position: position, tenant: Bytes(rebasing: record.topic[topic.tenant]),
                device: Bytes(rebasing: record.topic[topic.device]), status: report.status,
                at: OptionalTime(record.receivedAt), details: record.payload))
    }
}
