import EventLog
import EventModel
import Primitives

/// Recognises messages that the broker delivers again after a reconnect although they are in the log: our
/// acknowledgement was lost on the way. Such a message is acknowledged again and not recorded again.
///
/// A packet id names a message only until it is acknowledged (MQTT 5.0, 2.2.1), so a match proves nothing by itself:
/// identical heartbeats under ids that begin again look the same. A message is suppressed only if all of this holds:
///
/// - DUP is set, QoS is 1, and packet id, topic and payload are those of a recorded delivery of this session.
/// - That delivery can still be unacknowledged: it is the last one under its id, among the last `deliveriesMax`,
///   and the broker has not resumed the session since without delivering it again.
/// - The broker is still redelivering: no new message and no SUBACK has come since the CONNACK, and fewer than
///   `redeliveriesMax` messages. Brokers redeliver first (MQTT 5.0, 4.4), so what comes later is new.
/// - The broker keeps packet ids over connections: it says that it is Mosquitto, or it speaks MQTT 5.0 and the first
///   message does not have the id 1. RabbitMQ counts ids anew in each connection. NATS, which speaks 3.1.1 only, does
///   so whenever nothing is pending, and gives pending messages other ids after a kill.
/// - No attempt to connect went unanswered since: a connection that recorded nothing may have been sent new messages.
///   For the same reason a resumed connection that ended before its SUBACK leaves only what it delivered itself.
///
/// In every other case the message is recorded: at-least-once allows a duplicate, nothing allows a loss.
///
/// Nothing is kept in steady state: the filter is read back from the log when the first DUP arrives after a resume,
/// which also covers a restart of the process.
package struct RedeliveryFilter: Sendable {
    private let limits: PacketIDLimits
    /// Recorded deliveries that can be unacknowledged, by packet id.
    private var deliveries: [UInt16: Digest]
    private(set) var isOpen: Bool
    private let isMosquitto: Bool
    private var isFirst = true
    private var redeliveries = 0

    var count: Int { deliveries.count }

    /// Reads the deliveries of the session `clientID` at `broker` back. Blocks on disk reads.
    /// - Parameter isV5: the connection that redelivers speaks MQTT 5.0.
    static func refill(
        from log: any LogSource, broker: String, clientID: String, isV5: Bool, limits: PacketIDLimits
    ) throws -> RedeliveryFilter {
        var walk = DeliveryWalk(clientID: clientID, limits: limits)
        try LogTail.scan(
            log, broker: broker, restart: { walk = DeliveryWalk(clientID: clientID, limits: limits) },
            isEnough: { walk.isEnough }
        ) { try walk.note($0) }
        return RedeliveryFilter(
            limits: limits, deliveries: walk.unacknowledged, isV5: isV5,
            isMosquitto: walk.version?.hasPrefix("mosquitto version") ?? false)
    }

    private init(limits: PacketIDLimits, deliveries: [UInt16: Digest], isV5: Bool, isMosquitto: Bool) {
        self.limits = limits
        self.deliveries = deliveries
        self.isMosquitto = isMosquitto || IngestFault.isPlanted(.trustsAnyPacketID)
        isOpen = isV5 || self.isMosquitto
    }

    /// What comes from now on is new.
    mutating func close() { isOpen = IngestFault.isPlanted(.matchesForEver) }

    /// Whether this arrival is a redelivery of a recorded message. Call it for each QoS 1 arrival, in order.
    mutating func recognises(_ record: RecordView) -> Bool {
        guard isOpen, note(record) else { return false }
        guard deliveries[record.packetID] == DeliveryKey.digest(of: record) else { return false }
        deliveries[record.packetID] = nil
        return true
    }

    /// For an arrival that is known by other means. False: it cannot be a redelivery.
    @discardableResult
    mutating func note(_ record: RecordView) -> Bool {
        guard isOpen, record.flags.qos == 1 else { return false }
        if isFirst {
            isFirst = false
            if record.packetID == 1, !isMosquitto { close() }
        }
        redeliveries += 1
        if !record.flags.contains(.duplicate) || redeliveries > limits.redeliveriesMax { close() }
        return isOpen
    }
}

/// How far packet ids prove something. Other numbers than MQTT's are for simulations, in which ids come round soon.
package struct PacketIDLimits: Sendable {
    /// Packet ids are 1 to this (MQTT 5.0, 2.2.1).
    package var ids = 65_535
    /// Deliveries that can be unacknowledged at once: the default Receive Maximum.
    package var deliveriesMax = 16_384
    /// Where a broker redelivers more than this, ids of the last `deliveriesMax` deliveries have come round.
    var redeliveriesMax: Int { ids - deliveriesMax }

    package init() {}
}

/// Walks one broker's records in the order of the log and keeps the deliveries that can be unacknowledged.
private struct DeliveryWalk {
    private struct Delivery {
        let digest: Digest
        /// Number of the delivery, of those walked over.
        var number: Int
    }

    private let clientID: String
    private var deliveries: [UInt16: Delivery] = [:]
    /// Those that the end of the redelivery made old. The event that says which of them came again stands behind the
    /// new messages of the same batch.
    private var settled: [UInt16: Delivery] = [:]
    /// Deliveries walked over, redeliveries included.
    private var total = 0
    /// `total` when the connection that is walked over began.
    private var connectionStart = 0
    private var isResuming = false
    private var hasUnansweredAttempt = false
    /// The records are those of another client id of ours.
    private var isOthers = false
    /// Sessions of earlier client ids that are being emptied. A restart does not end that, only the event of its end.
    private var draining: Set<String> = []
    private var reusesIDsEarly = false
    private var hasSeenConnection = false
    private var isComplete = false
    private(set) var version: String?

    private let limits: PacketIDLimits

    init(clientID: String, limits: PacketIDLimits) {
        self.clientID = clientID
        self.limits = limits
    }

    var isEnough: Bool { isComplete || hasSeenConnection && total >= limits.deliveriesMax }

    var unacknowledged: [UInt16: Digest] {
        // A broker that gives an id out again at once leaves nothing to tell an old message from a new one by.
        guard !reusesIDsEarly else { return [:] }
        let first = IngestFault.isPlanted(.matchesForEver) ? 0 : total - limits.deliveriesMax
        return deliveries.filter { $0.value.number >= first }.mapValues(\.digest)
    }

    mutating func note(_ record: RecordView) throws {
        switch record.kind {
        case .message where record.flags.qos == 1:
            guard isOwn(record) else { return }
            // Every redelivery is marked and comes before the first new message.
            if isResuming, !record.flags.contains(.duplicate) { resumed() }
            deliver(record.packetID, DeliveryKey.digest(of: record), record.flags.contains(.duplicate))
        case .rejection:
            // It does not say by which connection its messages came.
            guard !isOthers, draining.isEmpty else { return }
            for (id, digest) in try DeliveryKey.rejected(record) { deliver(id, digest, isResuming) }
        case .connection:
            if let (schema, event) = LogTail.event(record) { note(schema, event) }
        default: break
        }
    }

    private mutating func note(_ schema: BrokerEvent.Schema, _ event: BrokerEvent) {
        if schema == .identified { version = event.version }
        guard event.clientID == clientID else {
            switch schema {
            case .connected: isOthers = true
            case .disconnected: isOthers = false
            case .draining: draining.insert(event.clientID)
            case .sessionDrained: draining.remove(event.clientID)
            default: break
            }
            return
        }
        switch schema {
        case .connecting:
            // The connection before ended while the broker redelivered. What the broker sent behind that was never read
            // and may be new, under ids that began again.
            if isResuming { resumed() }
            if hasUnansweredAttempt, !IngestFault.isPlanted(.ignoresUnansweredAttempts) { forget() }
            hasUnansweredAttempt = true
            isOthers = false
            draining.remove(clientID)
        case .connected:
            isOthers = false
            answered(event)
        case .draining:
            draining.insert(clientID)
            guard event.sessionPresent == nil else { return answered(event) }
            if isResuming { resumed() }
            if hasUnansweredAttempt { forget() }
            hasUnansweredAttempt = true
        case .sessionDrained:
            draining.remove(clientID)
            forget()
        case .sessionLost, .sessionAdopted: forget()
        case .subscribed, .sessionResumed: if isResuming { resumed() }
        case .redelivered:
            for run in event.packetIDs ?? [] where run.count == 2 && run[0] <= run[1] {
                for id in run[0]...run[1] {
                    if deliveries[id] == nil { deliveries[id] = settled[id] }
                    deliveries[id]?.number = total
                    total += 1
                }
            }
        default: break
        }
    }

    /// A CONNACK was read.
    private mutating func answered(_ event: BrokerEvent) {
        hasUnansweredAttempt = false
        hasSeenConnection = true
        if event.sessionPresent == false || event.unseenAttempt == true { forget() }
        // A broker without our session may be another one behind the same address.
        if event.sessionPresent == false { version = nil }
        (connectionStart, isResuming, settled) = (total, event.sessionPresent == true, [:])
    }

    /// Whether it came over the session of `clientID`.
    private func isOwn(_ record: RecordView) -> Bool {
        if record.flags.contains(.drained) { return draining.count == 1 && draining.contains(clientID) }
        return !isOthers && !draining.contains(clientID)
    }

    private mutating func deliver(_ id: UInt16, _ digest: Digest, _ isRedelivery: Bool) {
        guard id != 0 else { return }
        if let last = deliveries[id], last.number >= connectionStart, !isRedelivery,
            total - last.number < limits.deliveriesMax
        {
            reusesIDsEarly = true
        }
        deliveries[id] = Delivery(digest: digest, number: total)
        total += 1
    }

    /// The broker has redelivered all that it held as unacknowledged: earlier deliveries are acknowledged.
    private mutating func resumed() {
        isResuming = false
        guard !IngestFault.isPlanted(.matchesForEver) else { return }
        let start = connectionStart
        settled = deliveries.filter { $0.value.number < start }
        deliveries = deliveries.filter { $0.value.number >= start }
    }

    /// Nothing before this matters.
    private mutating func forget() {
        (deliveries, settled) = ([:], [:])
        (total, connectionStart, reusesIDsEarly) = (0, 0, false)
        isComplete = true
    }
}

/// What makes two deliveries under one packet id the same message: topic and payload. Of a payload that was cut, the
/// first bytes and the length.
enum DeliveryKey {
    static func digest(of record: RecordView) -> Digest {
        let cut = record.flags.contains(.truncated) ? record.originalPayloadLength : 0
        return digest(record.topic, SHA256.digest(record.payload), cut: cut)
    }

    static func rejected(_ record: RecordView) throws -> [(UInt16, Digest)] {
        let payload = try record.decoded(RejectionPayload.self)
        return payload.rejected.compactMap { entry in
            guard entry.packetID != 0, let digest = Digest(hex: entry.sha256) else { return nil }
            return Array(entry.topic.utf8).withUnsafeBytes {
                (entry.packetID, self.digest($0, digest, cut: entry.payloadBytes ?? 0))
            }
        }
    }

    private static func digest(
        _ topic: UnsafeRawBufferPointer, _ payload: Digest, cut: Int
    ) -> Digest {
        var stream = SHA256.Stream()
        withUnsafeBytes(of: UInt64(truncatingIfNeeded: cut)) { stream.update($0) }
        withUnsafeBytes(of: payload) { stream.update($0) }
        stream.update(topic)
        return stream.finish()
    }
}
