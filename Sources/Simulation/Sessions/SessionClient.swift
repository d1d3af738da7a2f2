import EventLog
import EventModel
import Ingest

/// One process of ours at one broker, as far as the session goes: the real keeper, gate and credit, over a model of the
/// connection. What the connection's thread does in the daemon is here in steps, so that anything may end in between.
final class SessionClient {
    enum Role { case main, drain, intruder }

    static let broker = "b1"
    let role: Role
    let clientID: String
    let log: ScratchLog
    let gate: Gate
    var keeper: SessionKeeper
    var absence = AbsenceCredit()
    /// The link, and whether its CONNACK was read.
    var link: Int?
    var isConnected = false
    private(set) var isResumed = false
    var isSubscribed = false
    /// The session was resumed, and neither a new message nor a SUBACK has been recorded since.
    var isRedelivering = false
    var isRefused = false
    var isFrozen = false
    /// The main client has sent its SUBSCRIBE on this connection.
    var hasAsked = false
    /// Subscribed; reads nothing until the old session has recorded its part.
    var awaitsMarker = false
    /// The drain has read the marker; everything before it is durable.
    var isBehindMarker = false
    /// Appended records are reported to it.
    var handover: Handover?
    /// Of a drain's connection.
    var unsubscribes = 0, unsubacks = 0, arrivals = 0, arrivalsThen = 0, connectedWait = 0
    private var lastPacketID: UInt16?
    private(set) var suppressed = 0

    init(_ role: Role, _ clientID: String, log: ScratchLog, gate: GateSettings, limits: PacketIDLimits) {
        (self.role, self.clientID, self.log) = (role, clientID, log)
        self.gate = Gate(gate)
        keeper = SessionKeeper(
            broker: Self.broker, clientID: clientID, history: log, adopts: role != .intruder, limits: limits)
    }

    func append(_ schema: BrokerEvent.Schema, _ event: BrokerEvent, at time: Timestamp) throws {
        var batch = RecordBatch()
        batch.append(schema, event, broker: Self.broker, at: time)
        _ = try log.append(&batch)
    }

    /// The event of the attempt is durable before its CONNECT leaves.
    func connect(to model: inout BrokerModel, at time: Timestamp) throws {
        if let event = keeper.willConnect() { try append(role == .drain ? .draining : .connecting, event, at: time) }
        let opened = model.open(clientID)
        model.links[opened]?.toBroker.append(.connect)
        (link, isConnected, isSubscribed) = (opened, false, false)
    }

    /// The connection is gone, from whichever end.
    func lose(at time: Timestamp) throws {
        if isConnected {
            keeper.disconnected(lastPacketID: lastPacketID)
            if role == .main { try append(.disconnected, BrokerEvent(clientID: clientID), at: time) }
        } else if link != nil {
            keeper.wentUnanswered()
        }
        (link, isConnected, isSubscribed, hasAsked) = (nil, false, false, false)
        (unsubscribes, unsubacks, arrivals) = (0, 0, 0)
        (awaitsMarker, isBehindMarker) = (false, false)
        handover?.close()
        handover = nil
    }

    func greet(sessionPresent: Bool, isMosquitto: Bool, at time: Timestamp, steady: Int64) throws {
        let known = try SessionHistory.read(from: log, broker: Self.broker, clientID: clientID)
        let (standing, unseen) = try keeper.connected(sessionPresent: sessionPresent, isV5: isMosquitto)
        guard standing != .unknown else {
            isRefused = true
            return
        }
        (isConnected, isResumed, isRedelivering) = (true, sessionPresent, sessionPresent)
        absence.connected(
            awayMicros: known.awaySince.map { time.microseconds - $0.microseconds } ?? 0, at: steady, gate)
        var event = BrokerEvent(clientID: clientID)
        event.sessionPresent = sessionPresent
        if unseen { event.unseenAttempt = true }
        try append(role == .drain ? .draining : .connected, event, at: time)
        guard role != .drain, isMosquitto else { return }
        event = BrokerEvent(clientID: clientID)
        event.version = "mosquitto version 2.0.11"
        try append(.identified, event, at: time)
    }

    /// What a batch of arrivals becomes in the log; the ids to acknowledge afterwards. Nil: none, and the connection
    /// must end.
    /// - Parameter isAppended: false loses the batch before it is durable, as a kill at that moment does.
    func record(
        _ arrivals: [(id: Int, isDuplicate: Bool, message: Int)], resumeEndsAt count: Int?, fleet: SessionFleet,
        at time: Timestamp, steady: Int64, isAppended: Bool
    ) throws -> [Int]? {
        var batch = RecordBatch(), outgoing = RecordBatch(), resumeEnd: Int?
        for (index, arrival) in arrivals.enumerated() {
            if index == count { resumeEnd = batch.byteCount }
            var flags = RecordFlags(qos: 1)
            if arrival.isDuplicate { flags.insert(.duplicate) }
            if role == .drain { flags.insert(.drained) }
            fleet.append(arrival.message, id: arrival.id, flags: flags, at: time, broker: Self.broker, to: &batch)
            lastPacketID = UInt16(truncatingIfNeeded: arrival.id)
        }
        if count == arrivals.count { resumeEnd = batch.byteCount }
        let lateCopy = keeper.lateCopy(in: batch), digests = handover.map { _ in Handover.digests(of: batch) } ?? []
        let tally = keeper.examine(
            batch, by: gate, hasDuplicates: arrivals.contains(where: \.isDuplicate), resumeEnd: resumeEnd,
            own: OwnMessages(), steadyMicros: steady, into: &outgoing, onUnreadable: { _ in })
        guard isAppended else { return [] }
        if !arrivals.allSatisfy(\.isDuplicate) { isRedelivering = false }
        suppressed += tally.redelivered.count
        if !tally.redelivered.isEmpty {
            var event = BrokerEvent(clientID: clientID)
            event.packetIDs = tally.redelivered.map { [$0, $0] }
            outgoing.append(.redelivered, event, broker: Self.broker, at: time)
        }
        if tally.untouched, !batch.isEmpty {
            _ = try log.append(&batch)
        } else if !outgoing.isEmpty {
            _ = try log.append(&outgoing)
        }
        if role == .drain {
            handover?.noteOld(digests)
        } else if tally.redelivered.isEmpty {
            handover?.noteNew(digests)
        } else {
            handover?.close()
        }
        return lateCopy == nil ? arrivals.map(\.id) : nil
    }
}

/// The devices' messages, by number. Payloads are identical, repeat, or are unique; the number travels in a user
/// property, which the redelivery filter does not look at.
struct SessionFleet {
    struct Message { let device: Int, payload: String }

    let payloadKinds: Int
    private(set) var messages: [Message] = []

    init(payloadKinds: Int) { self.payloadKinds = payloadKinds }

    mutating func publish(_ device: Int) -> Int {
        let kind = payloadKinds == .max ? messages.count : messages.count % payloadKinds
        messages.append(Message(device: device, payload: "{\"k\":\(kind)}"))
        return messages.count - 1
    }

    func append(
        _ number: Int, id: Int, flags: RecordFlags, at time: Timestamp, broker: String, to batch: inout RecordBatch
    ) {
        let message = messages[number], digits = Array(String(number).utf8)
        let property: [UInt8] = [0x26, 0, 1, 0x6E, 0, UInt8(digits.count)] + digits
        let parts = [
            Array(broker.utf8), Array("tenant/t/device/d\(message.device)/heartbeat".utf8), property,
            Array(message.payload.utf8),
        ]
        parts[0].withUnsafeBytes { broker in
            parts[1].withUnsafeBytes { topic in
                parts[2].withUnsafeBytes { properties in
                    parts[3].withUnsafeBytes { payload in
                        batch.append(
                            kind: .message, verdict: .accepted, flags: flags, receivedAt: time,
                            packetID: UInt16(truncatingIfNeeded: id), broker: broker, topic: topic,
                            properties: properties, payload: payload)
                    }
                }
            }
        }
    }

    /// The message that a record holds.
    static func number(of record: RecordView) -> Int? {
        guard record.kind == .message, record.properties.count > 6 else { return nil }
        return Int(String(decoding: record.properties[6...], as: UTF8.self))
    }
}
