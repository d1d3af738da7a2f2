import EventModel

/// Notices redeliveries that must not be acknowledged: the PUBACK for their packet id was sent on this connection.
///
/// Brokers of MQTT 3.1.1 may redeliver on a live connection (NATS when `ack_wait` is over, EMQX by `retry_interval`),
/// also while a PUBACK is on its way. That PUBACK frees the packet id, and NATS gives it to the next message at once:
/// it counts from 1 whenever nothing is pending. A PUBACK for the late copy would end that message before it was read
/// (MQTT 3.1.1, 4.3.2: after the PUBACK the id names a new message).
///
/// A copy is late when it has DUP, and topic and payload of the last delivery under its id on this connection. A match
/// by chance, of equal payloads or hashes, costs a reconnect and nothing else.
struct LateCopies: Sendable {
    /// By packet id, the hash of the last delivery's topic and payload; 0: none. Empty until the first message.
    private var deliveries: [Int] = []

    /// Takes the arrivals of a connection in order; returns the packet id of the first late copy among them.
    mutating func note(_ incoming: borrowing RecordBatch) -> UInt16? {
        var late: UInt16?
        if deliveries.isEmpty { deliveries = Array(repeating: 0, count: 1 << 16) }
        incoming.withUnsafeBytes { bytes in
            var offset = 0
            while offset < bytes.count {
                let record = RecordView(unchecked: bytes.baseAddress! + offset)
                offset += record.length
                guard record.kind == .message, record.flags.qos == 1 else { continue }
                let hash = Self.hash(record), index = Int(record.packetID)
                if late == nil, deliveries[index] == hash, record.flags.contains(.duplicate) { late = record.packetID }
                deliveries[index] = hash
            }
        }
        return late
    }

    private static func hash(_ record: RecordView) -> Int {
        var hasher = Hasher()
        hasher.combine(bytes: record.topic)
        hasher.combine(bytes: record.payload)
        return hasher.finalize() | 1
    }
}
