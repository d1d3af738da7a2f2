import Decoding
import EventModel

/// `device_status`: the latest of every device, and how often it spoke.
///
/// Activity is every accepted message that the broker did not replay, undecodable ones included. Replayed (retained)
/// messages count for the shadow only.
struct DeviceStatus: KeyedProjection {
    static let descriptor = ProjectionDescriptor(
        name: "device_status", version: 1,
        tables: [
            Table(
                "device_status_v1", write: .upsert,
                [
                    .key("tenant_id", .text), .key("device_id", .text), .value("site_id", .text),
                    .value("first_seen_at", .timestamptz), .value("last_seen_at", .timestamptz),
                    .value("last_telemetry_at", .timestamptz), .value("last_heartbeat_at", .timestamptz),
                    .value("message_count", .int8), .value("telemetry_count", .int8), .value("heartbeat_count", .int8),
                    .value("ack_count", .int8), .value("rejected_count", .int8), .value("last_seq", .int8),
                    .value("last_metrics", .jsonb), .value("reported_state", .jsonb), .value("reported_version", .int8),
                    .value("reported_rejected_position", .int8), .value("last_command_id", .text),
                    .value("last_command_status", .text), .value("last_ack_at", .timestamptz),
                    .value("connected", .bool),
                    .value("last_connected_at", .timestamptz), .value("last_disconnected_at", .timestamptz),
                    .value("last_position", .int8),
                ])
        ])

    struct State: RowState {
        var messageCount: Int64 = 0
        var lastSeen = Moment()
        var lastPosition: Int64 = 0
        var telemetryCount: Int64 = 0
        var lastTelemetry = Moment()
        var lastSequence: Int64 = 0
        var metrics = DeviceMetrics()
        var site = ByteRef()
        var hasSequence = false
        var hasVersion = false
        var connected = Maybe.unknown
        var firstSeen = Moment()
        var heartbeatCount: Int64 = 0
        var lastHeartbeat = Moment()
        var ackCount: Int64 = 0
        var rejectedCount: Int64 = 0
        var reported = ByteRef()
        var reportedVersion: Int64 = 0
        /// The last shadow report whose version was not higher; −1 when there was none.
        var reportedRejectedPosition: Int64 = -1
        var commandID = ByteRef()
        var commandStatus = ByteRef()
        var lastAck = Moment()
        var lastConnected = Moment()
        var lastDisconnected = Moment()

        mutating func move(from old: borrowing ByteArena, to new: inout ByteArena) {
            metrics.move(from: old, to: &new)
            old.move(&site, to: &new)
            old.move(&reported, to: &new)
            old.move(&commandID, to: &new)
            old.move(&commandStatus, to: &new)
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
                state.lastSeen = Moment(record.receivedAt)
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
            state.lastTelemetry = Moment(at)
            note(telemetry.siteID, telemetry.sequence, in: &state, &arena)
            state.metrics.add(telemetry, in: &arena, decoder)
        case .heartbeat(let heartbeat):
            state.heartbeatCount += 1
            state.lastHeartbeat = Moment(at)
            note(heartbeat.siteID, heartbeat.sequence, in: &state, &arena)
        case .shadow(let shadow):
            apply(shadow, position, to: &state, in: &arena)
        case .commandAck(let ack):
            state.ackCount += 1
            state.lastAck = Moment(at)
            arena.put(ack.commandID, in: &state.commandID)
            arena.put(ack.status, in: &state.commandStatus)
        case .connection(let report):
            if report.status == .connected {
                state.connected = .yes
                state.lastConnected = Moment(at)
            } else {
                state.connected = .no
                state.lastDisconnected = Moment(at)
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

    // MARK: rows

    func encodeKey(_ key: UnsafeRawBufferPointer, into rows: inout RowBuffer) {
        let (tenant, device) = DeviceAddress.split(key)
        rows.beginRow(fieldCount: 2)
        rows.text(tenant)
        rows.text(device)
    }

    func settle(_ state: inout State, in arena: inout ByteArena, decoder: FactDecoder) {
        state.metrics.settle(in: &arena, decoder)
    }

    func encode(
        _ state: State, key: UnsafeRawBufferPointer, in arena: borrowing ByteArena, into rows: inout RowBuffer
    ) {
        let (tenant, device) = DeviceAddress.split(key)
        rows.beginRow(fieldCount: 24)
        rows.text(tenant)
        rows.text(device)
        rows.text(state.site, in: arena)
        rows.moment(state.firstSeen)
        rows.moment(state.lastSeen)
        rows.moment(state.lastTelemetry)
        rows.moment(state.lastHeartbeat)
        rows.int8(state.messageCount)
        rows.int8(state.telemetryCount)
        rows.int8(state.heartbeatCount)
        rows.int8(state.ackCount)
        rows.int8(state.rejectedCount)
        rows.optional(state.hasSequence ? state.lastSequence : nil) { $0.int8($1) }
        rows.jsonb(state.metrics.merged, in: arena)
        rows.jsonb(state.reported, in: arena)
        rows.optional(state.hasVersion ? state.reportedVersion : nil) { $0.int8($1) }
        rows.optional(state.reportedRejectedPosition < 0 ? nil : state.reportedRejectedPosition) { $0.int8($1) }
        rows.text(state.commandID, in: arena)
        rows.text(state.commandStatus, in: arena)
        rows.moment(state.lastAck)
        rows.optional(state.connected.value) { $0.bool($1) }
        rows.moment(state.lastConnected)
        rows.moment(state.lastDisconnected)
        rows.int8(state.lastPosition)
    }

    func decodeKey(_ row: RowReader, into key: inout [UInt8]) {
        guard let tenant = row.bytes(0), let device = row.bytes(1) else { return }
        DeviceAddress.join(tenant: tenant, device: device, into: &key)
    }

    func decode(_ row: RowReader, into state: inout State, in arena: inout ByteArena) {
        row.text(2, into: &state.site, in: &arena)
        state.firstSeen = row.moment(3)
        state.lastSeen = row.moment(4)
        state.lastTelemetry = row.moment(5)
        state.lastHeartbeat = row.moment(6)
        state.messageCount = row.int8(7) ?? 0
        state.telemetryCount = row.int8(8) ?? 0
        state.heartbeatCount = row.int8(9) ?? 0
        state.ackCount = row.int8(10) ?? 0
        state.rejectedCount = row.int8(11) ?? 0
        state.hasSequence = !row.isNull(12)
        state.lastSequence = row.int8(12) ?? 0
        state.metrics.load(row, 13, in: &arena)
        row.jsonb(14, into: &state.reported, in: &arena)
        state.hasVersion = !row.isNull(15)
        state.reportedVersion = row.int8(15) ?? 0
        state.reportedRejectedPosition = row.int8(16) ?? -1
        row.text(17, into: &state.commandID, in: &arena)
        row.text(18, into: &state.commandStatus, in: &arena)
        state.lastAck = row.moment(19)
        state.connected = Maybe(row.bool(20))
        state.lastConnected = row.moment(21)
        state.lastDisconnected = row.moment(22)
        state.lastPosition = row.int8(23) ?? 0
    }
}
