import Decoding
import EventModel

/// `device_status`: the latest of every device, and how often it spoke.
///
/// Activity is every accepted message that the broker did not replay, undecodable ones included. Replayed (retained)
/// messages count for the shadow only.
struct DeviceStatus: KeyedProjection {
    static let descriptor = ProjectionDescriptor(
        name: "device_status", version: 1, tables: [State.table])

    struct State: RowState {
        static let table = Table("device_status_v1", write: .upsert, State.self)

        var messageCount: Int64 = 0
        var lastSeen = OptionalTime()
        var lastPosition: Int64 = 0
        var telemetryCount: Int64 = 0
        var lastTelemetry = OptionalTime()
        var lastSequence: Int64 = 0
        var metrics = DeviceMetrics()
        var site = ByteRef()
        var hasSequence = false
        var hasVersion = false
        var connected: Bool?
        var firstSeen = OptionalTime()
        var heartbeatCount: Int64 = 0
        var lastHeartbeat = OptionalTime()
        var ackCount: Int64 = 0
        var rejectedCount: Int64 = 0
        var reported = ByteRef()
        var reportedVersion: Int64 = 0
        /// The last shadow report whose version was not higher; −1 when there was none.
        var reportedRejectedPosition: Int64 = -1
        var commandID = ByteRef()
        var commandStatus = ByteRef()
        var lastAck = OptionalTime()
        var lastConnected = OptionalTime()
        var lastDisconnected = OptionalTime()

        mutating func columns(_ row: inout some RowVisitor, _ key: inout DeviceAddress, _ arena: inout ByteArena) {
            row.key("tenant_id", &key.tenant)
            row.key("device_id", &key.device)
            row.text("site_id", &site, &arena)
            row.value("first_seen_at", &firstSeen)
            row.value("last_seen_at", &lastSeen)
            row.value("last_telemetry_at", &lastTelemetry)
            row.value("last_heartbeat_at", &lastHeartbeat)
            row.value("message_count", &messageCount)
            row.value("telemetry_count", &telemetryCount)
            row.value("heartbeat_count", &heartbeatCount)
            row.value("ack_count", &ackCount)
            row.value("rejected_count", &rejectedCount)
            row.value("last_seq", &lastSequence, if: &hasSequence)
            row.jsonb("last_metrics", &metrics.merged, &arena)
            row.unstored(&metrics.waiting, &arena)
            row.jsonb("reported_state", &reported, &arena)
            row.value("reported_version", &reportedVersion, if: &hasVersion)
            row.value("reported_rejected_position", &reportedRejectedPosition, none: -1)
            row.text("last_command_id", &commandID, &arena)
            row.text("last_command_status", &commandStatus, &arena)
            row.value("last_ack_at", &lastAck)
            row.value("connected", &connected)
            row.value("last_connected_at", &lastConnected)
            row.value("last_disconnected_at", &lastDisconnected)
            row.value("last_position", &lastPosition)
        }
    }

    func key(of record: RecordView, topic: TopicParts) -> UnsafeRawBufferPointer? {
        guard let topic = topic.topic else { return nil }
        if record.flags.contains(.retained) && (topic.topicClass != .shadowReported || record.verdict != .accepted) {
            return nil
        }
        return UnsafeRawBufferPointer(rebasing: record.topic[topic.address])
    }

    func apply(
        _ record: RecordView, _ position: Position, _ topic: TopicParts, to state: inout State,
        in arena: inout ByteArena, decoder: FactDecoder
    ) -> Bool {
        if record.kind == .rejection {
            state.rejectedCount += decoder.rejectedCount(record) ?? 1
        } else if record.verdict != .accepted {
            state.rejectedCount += 1
        } else if let topic = topic.topic {
            let fact = decoder.decode(record, topic: topic)
            if case .undecodable = fact {} else { decoder.noteSound(position) }
            if record.flags.contains(.retained) {
                guard case .shadow(let shadow) = fact else { return false }
                apply(shadow, position, to: &state, in: &arena)
            } else {
                state.messageCount += 1
                state.lastSeen = OptionalTime(record.receivedAt)
                if state.messageCount == 1 { state.firstSeen = state.lastSeen }
                apply(fact, record.receivedAt, position, to: &state, in: &arena, decoder)
            }
        }
        state.lastPosition = Int64(position.rawValue)
        return true
    }

    private func apply(
        _ fact: MessageFact, _ at: Timestamp, _ position: Position, to state: inout State, in arena: inout ByteArena,
        _ decoder: FactDecoder
    ) {
        switch fact {
        case .telemetry(let telemetry):
            state.telemetryCount += 1
            state.lastTelemetry = OptionalTime(at)
            note(telemetry.siteID, telemetry.sequence, in: &state, &arena)
            state.metrics.add(telemetry, in: &arena, decoder)
        case .heartbeat(let heartbeat):
            state.heartbeatCount += 1
            state.lastHeartbeat = OptionalTime(at)
            note(heartbeat.siteID, heartbeat.sequence, in: &state, &arena)
        case .shadow(let shadow):
            apply(shadow, position, to: &state, in: &arena)
        case .commandAck(let ack):
            state.ackCount += 1
            state.lastAck = OptionalTime(at)
            arena.put(ack.commandID, in: &state.commandID)
            arena.put(ack.status, in: &state.commandStatus)
        case .connection(let report):
            if report.status == .connected {
                state.connected = true
                state.lastConnected = OptionalTime(at)
            } else {
                state.connected = false
                state.lastDisconnected = OptionalTime(at)
            }
        case .otaStatus, .none, .undecodable: break
        }
    }

    @inline(__always)
    private func note(_ site: Bytes?, _ sequence: Int64?, in state: inout State, _ arena: inout ByteArena) {
        if let site { arena.put(site, in: &state.site) }
        if let sequence {
            state.lastSequence = sequence
            state.hasSequence = true
        }
    }

    private func apply(_ shadow: Shadow, _ position: Position, to state: inout State, in arena: inout ByteArena) {
        if state.hasVersion && shadow.version <= state.reportedVersion {
            state.reportedRejectedPosition = Int64(position.rawValue)
            return
        }
        state.hasVersion = true
        state.reportedVersion = shadow.version
        arena.put(shadow.reported, in: &state.reported)
    }

    func settle(_ state: inout State, in arena: inout ByteArena, decoder: FactDecoder) {
        state.metrics.settle(in: &arena, decoder)
    }
}
