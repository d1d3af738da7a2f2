import Decoding
import EventModel
import Primitives

/// `mqtt_connection_status`: one row a broker connection of ours.
///
/// `messages_received` counts every message that came over it, whatever the gate said, those that the broker replayed
/// included; a rejection record stands for the messages that it lists.
struct MQTTConnectionStatus: KeyedProjection {
    static let descriptor = ProjectionDescriptor(
        name: "mqtt_connection_status", version: 1,
        tables: [
            Table(
                "mqtt_connection_status_v1", write: .upsert,
                [
                    .key("broker_name", .text), .value("connected", .bool), .value("last_connected_at", .timestamptz),
                    .value("last_disconnected_at", .timestamptz), .value("connection_error", .text),
                    .value("messages_received", .int8), .value("last_message_at", .timestamptz),
                    .value("subscribed_topics_count", .int8), .value("sessions_lost", .int8),
                    .value("client_id", .text),
                    .value("broker_info", .jsonb), .value("updated_at", .timestamptz), .value("last_position", .int8),
                ])
        ], minimumCommitInterval: .milliseconds(200))

    static let keysRepeat = true

    struct State: RowState {
        var messagesReceived: Int64 = 0
        var lastMessage = Moment()
        var updated = Moment()
        var lastPosition: Int64 = 0
        var connected = false
        var lastConnected = Moment()
        var lastDisconnected = Moment()
        var subscribedTopics: Int64 = 0
        var sessionsLost: Int64 = 0
        var error = ByteRef()
        var clientID = ByteRef()
        var brokerInfo = ByteRef()

        mutating func move(from old: borrowing ByteArena, to new: inout ByteArena) {
            old.move(&error, to: &new)
            old.move(&clientID, to: &new)
            old.move(&brokerInfo, to: &new)
        }
    }

    func key(of record: RecordView, topic: TopicParts) -> UnsafeRawBufferPointer? {
        switch record.kind {
        case .message, .rejection, .connection: record.broker
        case .decision, .system: nil
        }
    }

    func apply(
        _ record: RecordView, _ position: Position, _ topic: TopicParts, to state: inout State,
        in arena: inout ByteArena, decoder: FactDecoder
    ) -> Bool {
        if record.kind == .connection {
            guard case .broker(let schema, let event) = decoder.decodeInternal(record),
                apply(schema, event, record.receivedAt, to: &state, in: &arena)
            else { return false }
        } else {
            state.messagesReceived += record.kind == .message ? 1 : decoder.rejectedCount(record) ?? 1
            state.lastMessage = Moment(record.receivedAt)
        }
        state.updated = Moment(record.receivedAt)
        state.lastPosition = Int64(position.rawValue)
        return true
    }

    /// False for an event that is about the session rather than the connection: it changes no row.
    private func apply(
        _ schema: BrokerEvent.Schema, _ event: BrokerEvent, _ at: Timestamp, to state: inout State,
        in arena: inout ByteArena
    ) -> Bool {
        switch schema {
        case .connected:
            state.connected = true
            state.lastConnected = Moment(at)
            arena.free(&state.error)
            put(Self.info(event), in: &state.brokerInfo, &arena)
        case .disconnected:
            state.connected = false
            state.lastDisconnected = Moment(at)
            put(event.reason ?? "disconnected", in: &state.error, &arena)
        case .sessionLost:
            // Perhaps that of an earlier client id: the row keeps the current one.
            state.sessionsLost += 1
            return true
        case .connecting, .sessionUnknown, .sessionAdopted, .sessionResumed, .draining, .sessionDrained, .redelivered,
            .identified, .alarmRaised, .alarmsAcknowledged, .sessionState, .unsubscribing:
            return false
        case .subscribed: state.subscribedTopics = Int64(event.filters?.count ?? 0)
        case .subscriptionRefused:
            state.subscribedTopics = Int64(event.granted?.count { $0 < 128 } ?? 0)
            put(event.reason ?? "subscription refused", in: &state.error, &arena)
        }
        put(event.clientID, in: &state.clientID, &arena)
        return true
    }

    private func put(_ text: String, in ref: inout ByteRef, _ arena: inout ByteArena) {
        var text = text
        text.withUTF8 { arena.put(UnsafeRawBufferPointer($0), in: &ref) }
    }

    /// `{"address", "protocol_version", "session_present"}`, those that are known.
    private static func info(_ event: BrokerEvent) -> String {
        var members: [String] = []
        if let address = event.address { members.append("\"address\": \(JSONString.encode(address))") }
        if let version = event.protocolVersion { members.append("\"protocol_version\": \(JSONString.encode(version))") }
        if let present = event.sessionPresent { members.append("\"session_present\": \(present)") }
        return "{" + members.joined(separator: ", ") + "}"
    }

    // MARK: rows

    func encodeKey(_ key: UnsafeRawBufferPointer, into rows: inout RowBuffer) {
        rows.beginRow(fieldCount: 1)
        rows.text(key)
    }

    func encode(
        _ state: State, key: UnsafeRawBufferPointer, in arena: borrowing ByteArena, into rows: inout RowBuffer
    ) {
        rows.beginRow(fieldCount: 13)
        rows.text(key)
        rows.bool(state.connected)
        rows.moment(state.lastConnected)
        rows.moment(state.lastDisconnected)
        rows.text(state.error, in: arena)
        rows.int8(state.messagesReceived)
        rows.moment(state.lastMessage)
        rows.int8(state.subscribedTopics)
        rows.int8(state.sessionsLost)
        rows.text(state.clientID, in: arena)
        rows.jsonb(state.brokerInfo, in: arena)
        rows.moment(state.updated)
        rows.int8(state.lastPosition)
    }

    func decodeKey(_ row: RowReader, into key: inout [UInt8]) {
        if let name = row.bytes(0) { key.append(contentsOf: name) }
    }

    func decode(_ row: RowReader, into state: inout State, in arena: inout ByteArena) {
        state.connected = row.bool(1) ?? false
        state.lastConnected = row.moment(2)
        state.lastDisconnected = row.moment(3)
        row.text(4, into: &state.error, in: &arena)
        state.messagesReceived = row.int8(5) ?? 0
        state.lastMessage = row.moment(6)
        state.subscribedTopics = row.int8(7) ?? 0
        state.sessionsLost = row.int8(8) ?? 0
        row.text(9, into: &state.clientID, in: &arena)
        row.jsonb(10, into: &state.brokerInfo, in: &arena)
        state.updated = row.moment(11)
        state.lastPosition = row.int8(12) ?? 0
    }
}
