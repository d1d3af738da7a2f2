import EventModel
import Projecting
import Projections

/// The rows that must stand in the tables, folded from what the world knows of the messages: no decoder, no cache, no
/// loading, one event after the other.
struct NaiveFold {
    struct Device: Equatable {
        var messages: Int64 = 0, telemetry: Int64 = 0, heartbeats: Int64 = 0
        var firstSeen: Timestamp?, lastSeen: Timestamp?, lastTelemetry: Timestamp?
        var lastSequence: Int64?
        var connected: Bool?
        var lastPosition: Int64 = 0
    }

    /// Of the next event to be folded.
    private(set) var position = 0
    private var devices: [String: Device] = [:]
    private var connections: [Int64: String] = [:]
    private var deadLetters: [Int64: String] = [:]

    static let projections = ["device_status", "device_connection_events", "dead_letters"]

    mutating func advance(to end: Int, _ truth: Truth, _ fleet: Fleet) {
        if end < position { self = NaiveFold() }
        while position < end {
            fold(truth.events[position], Int64(position), fleet)
            position += 1
        }
    }

    private mutating func fold(_ event: Truth.Event, _ position: Int64, _ fleet: Fleet) {
        guard let number = event.message else { return }
        let message = fleet.messages[number]
        let name = "\(Fleet.tenant(message.device))/\(Fleet.name(message.device))"
        var device = devices[name] ?? Device()
        device.messages += 1
        device.firstSeen = device.firstSeen ?? event.receivedAt
        device.lastSeen = event.receivedAt
        device.lastPosition = position
        switch message.kind {
        case .telemetry:
            device.telemetry += 1
            device.lastTelemetry = event.receivedAt
            device.lastSequence = Int64(message.sequence)
        case .heartbeat:
            device.heartbeats += 1
            device.lastSequence = Int64(message.sequence)
        case .connection:
            device.connected = message.sequence % 2 == 0
            connections[position] = name + (message.sequence % 2 == 0 ? " CONNECTED" : " DISCONNECTED")
        case .undecodable: deadLetters[position] = name + " INVALID_JSON"
        case .otherTopic: break
        }
        devices[name] = device
    }

    /// Compares with the tables of one projection.
    func compare(_ projection: ProjectionDescriptor, _ tables: MemoryTables) throws {
        switch projection.name {
        case "device_status":
            var found: [String: Device] = [:]
            let columns = [
                "tenant_id", "device_id", "message_count", "telemetry_count", "heartbeat_count", "first_seen_at",
                "last_seen_at", "last_telemetry_at", "last_seq", "connected", "last_position",
            ]
            tables.forEachRow(of: projection.tables[0], columns: columns) { row in
                found["\(row.text(0) ?? "")/\(row.text(1) ?? "")"] = Device(
                    messages: row.int8(2) ?? 0, telemetry: row.int8(3) ?? 0, heartbeats: row.int8(4) ?? 0,
                    firstSeen: row.timestamptz(5), lastSeen: row.timestamptz(6), lastTelemetry: row.timestamptz(7),
                    lastSequence: row.int8(8), connected: row.bool(9), lastPosition: row.int8(10) ?? -1)
            }
            try differ(projection.name, found, devices)
        case "device_connection_events":
            var found: [Int64: String] = [:]
            let columns = ["position", "tenant_id", "device_id", "event_type"]
            tables.forEachRow(of: projection.tables[0], columns: columns) { row in
                found[row.int8(0) ?? -1] = "\(row.text(1) ?? "")/\(row.text(2) ?? "") \(row.text(3) ?? "")"
            }
            try differ(projection.name, found, connections)
        default:
            var found: [Int64: String] = [:]
            let columns = ["position", "tenant_id", "device_id", "reason"]
            tables.forEachRow(of: projection.tables[0], columns: columns) { row in
                found[row.int8(0) ?? -1] = "\(row.text(1) ?? "")/\(row.text(2) ?? "") \(row.text(3) ?? "")"
            }
            try differ(projection.name, found, deadLetters)
        }
    }

    private func differ<K: Comparable, V: Equatable>(_ name: String, _ found: [K: V], _ expected: [K: V]) throws {
        guard found != expected else { return }
        let keys = Set(found.keys).union(expected.keys).filter { found[$0] != expected[$0] }.sorted()
        let first = keys[0]
        throw Violation(
            "\(name) at checkpoint \(position - 1) differs from the naive fold in \(keys.count) rows, "
                + "first \(first): it has \(found[first].map { "\($0)" } ?? "no row"), expected "
                + "\(expected[first].map { "\($0)" } ?? "no row")")
    }
}
