import Decoding
import EventModel

/// `device_connection_events`: what devices and their last wills said of their connections, in order.
struct DeviceConnectionEvents: AppendProjection {
    static let descriptor = ProjectionDescriptor(
        name: "device_connection_events", version: 1,
        tables: [
            Table(
                "device_connection_events_v1", write: .insert,
                [
                    .key("position", .int8), .value("tenant_id", .text), .value("device_id", .text),
                    .value("event_type", .text), .value("at", .timestamptz), .value("details", .jsonb),
                ])
        ])

    static func mayGiveRow(_ mark: BlockScan.Mark) -> Bool { mark.kind == .message(.connection) }

    func append(_ record: RecordView, _ position: Position, decoder: FactDecoder, into rows: inout RowBuffer) {
        guard record.kind == .message, record.verdict == .accepted, !record.flags.contains(.retained),
            let topic = DeviceTopic(record.topic), topic.topicClass == .connection,
            case .connection(let report) = decoder.decode(record, topic: topic)
        else { return }
        rows.beginRow(fieldCount: 6)
        rows.position(position)
        rows.text(record.topic[topic.tenant])
        rows.text(record.topic[topic.device])
        rows.text(report.status.rawValue)
        rows.timestamptz(record.receivedAt)
        rows.jsonb(record.payload)
    }
}
