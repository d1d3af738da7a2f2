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
        tables: [State.table], minimumCommitInterval: .milliseconds(200))

    static let keysRepeat = true

    struct State: RowState {
        static let table = Table("mqtt_connection_status_v1", write: .upsert, State.self)

        var messagesReceived: Int64 = 0
        var lastMessage = OptionalTime()
        var updated = OptionalTime()
        var lastPosition: Int64 = 0
        var connected = false
        var lastConnected = OptionalTime()
        var lastDisconnected = OptionalTime()
        var subscribedTopics: Int64 = 0
        var sessionsLost: Int64 = 0
        var error = ByteRef()
        var clientID = ByteRef()
        var brokerInfo = ByteRef()

        mutating func columns(_ row: inout some RowVisitor, _ key: inout Bytes, _ arena: inout ByteArena) {
            row.key("broker_name", &key)
            row.value("connected", &connected)
            row.value("last_connected_at", &lastConnected)
            row.value("last_disconnected_at", &lastDisconnected)
            row.text("connection_error", &error, &arena)
            row.value("messages_received", &messagesReceived)
            row.value("last_message_at", &lastMessage)
            row.value("subscribed_topics_count", &subscribedTopics)
            row.value("sessions_lost", &sessionsLost)
            row.text("client_id", &clientID, &arena)
            row.jsonb("broker_info", &brokerInfo, &arena)
            row.value("updated_at", &updated)
            row.value("last_position", &lastPosition)
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
            state.lastMessage = OptionalTime(record.receivedAt)
        }
        state.updated = OptionalTime(record.receivedAt)
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
            state.lastConnected = OptionalTime(at)
            arena.free(&state.error)
            arena.put(Self.info(event), in: &state.brokerInfo)
        case .disconnected:
            state.connected = false
            state.lastDisconnected = OptionalTime(at)
            arena.put(event.reason ?? "disconnected", in: &state.error)
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
            arena.put(event.reason ?? "subscription refused", in: &state.error)
        }
        arena.put(event.clientID, in: &state.clientID)
        return true
    }

    /// `{"address", "protocol_version", "session_present"}`, those that are known.
    private static func info(_ event: BrokerEvent) -> String {
        var members: [String] = []
        if let address = event.address { members.append("\"address\": \(JSONString.encode(address))") }
        if let version = event.protocolVersion { members.append("\"protocol_version\": \(JSONString.encode(version))") }
        if let present = event.sessionPresent { members.append("\"session_present\": \(present)") }
        return "{" + members.joined(separator: ", ") + "}"
    }
}
