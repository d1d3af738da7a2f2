import EventModel
import Foundation
@testable import Ingest

/// One session as a trace of what the wire brings, against the real keeper, gate, filter and a log in memory. `restart`
/// is a kill -9: only the log survives.
final class SessionTrace {
    let log = MemoryLog()
    let gate: Gate
    private(set) var keeper: SessionKeeper
    private(set) var standings: [SessionKeeper.Standing] = []
    private(set) var suppressed = 0
    private let clientID: String
    private var steady: Int64 = 0
    private var lastPacketID: UInt16?

    init(clientID: String = "refold-a", gate: GateSettings = GateSettings()) {
        self.clientID = clientID
        self.gate = Gate(gate)
        keeper = SessionKeeper(broker: "b1", clientID: clientID, history: log)
    }

    func restart() { keeper = SessionKeeper(broker: "b1", clientID: clientID, history: log) }

    /// CONNECT leaves; nothing comes back.
    func attemptUnanswered() throws {
        if let event = keeper.willConnect() { try append(.connecting, event) }
        keeper.wentUnanswered()
    }

    func connect(present: Bool, isV5: Bool = true) throws {
        if let event = keeper.willConnect() { try append(.connecting, event) }
        let (standing, unseen) = try keeper.connected(sessionPresent: present, isV5: isV5)
        standings.append(standing)
        guard standing != .unknown else { return }
        var event = BrokerEvent(clientID: clientID)
        event.sessionPresent = present
        if unseen { event.unseenAttempt = true }
        try append(.connected, event)
    }

    /// The broker names itself: Mosquitto keeps packet ids.
    func identify(_ version: String = "mosquitto version 2.0.11") throws {
        var event = BrokerEvent(clientID: clientID)
        event.version = version
        try append(.identified, event)
    }

    func suback() throws {
        if keeper.redeliveryEnded() { try append(.sessionResumed, BrokerEvent(clientID: clientID)) }
        var event = BrokerEvent(clientID: clientID)
        event.filters = ["tenant/+/device/+/#"]
        try append(.subscribed, event)
    }

    func disconnect() throws {
        keeper.disconnected(lastPacketID: lastPacketID)
        try append(.disconnected, BrokerEvent(clientID: clientID))
    }

    /// QoS 1 messages of one device, one batch.
    func receive(
        _ ids: some Sequence<Int>, _ payload: (Int) -> String = { _ in "{}" }, duplicate: Bool = false
    ) throws {
        var batch = RecordBatch(), outgoing = RecordBatch()
        for id in ids {
            var flags = RecordFlags(qos: 1)
            if duplicate { flags.insert(.duplicate) }
            lastPacketID = UInt16(id)
            withBytes("b1", device("d"), payload(id)) { broker, topic, payload in
                batch.append(
                    kind: .message, verdict: .accepted, flags: flags, receivedAt: Timestamp(microseconds: 1),
                    packetID: UInt16(id), broker: broker, topic: topic,
                    properties: UnsafeRawBufferPointer(start: nil, count: 0), payload: payload)
            }
        }
        steady += 1_000_000
        let tally = keeper.examine(
            batch, by: gate, hasDuplicates: duplicate, resumeEnd: nil, own: OwnMessages(), steadyMicros: steady,
            into: &outgoing, onUnreadable: { _ in })
        suppressed += tally.redelivered.count
        if !tally.redelivered.isEmpty {
            var event = BrokerEvent(clientID: clientID)
            event.packetIDs = packetIDRuns(tally.redelivered)
            outgoing.append(.redelivered, event, broker: "b1", at: Timestamp(microseconds: 1))
        }
        if tally.untouched { _ = try log.append(&batch) } else if !outgoing.isEmpty { _ = try log.append(&outgoing) }
    }

    private func append(_ schema: BrokerEvent.Schema, _ event: BrokerEvent) throws {
        var batch = RecordBatch()
        batch.append(schema, event, broker: "b1", at: Timestamp(microseconds: 1))
        _ = try log.append(&batch)
    }
}

func withBytes(
    _ a: String, _ b: String, _ c: String,
    _ body: (UnsafeRawBufferPointer, UnsafeRawBufferPointer, UnsafeRawBufferPointer) -> Void
) {
    Array(a.utf8).withUnsafeBytes { a in
        Array(b.utf8).withUnsafeBytes { b in Array(c.utf8).withUnsafeBytes { c in body(a, b, c) } }
    }
}
