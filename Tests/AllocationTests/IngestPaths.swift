import CMosquitto
import EventLog
import EventModel

@testable import MQTT
@testable import Ingest

/// Ingest's hot paths, without a network: the messages come from memory, as libmosquitto hands them to its callback.
enum IngestPaths {
    private static let clientID = "refold-test"

    /// 1,000 messages: message callback, deduplication checks, gate with certificates, durable append. libmosquitto's
    /// own allocations are not part of it.
    @Sendable static func ingest() throws -> HotPath.Round {
        let log = try MeasuredLog(), messages = ReceivedMessages()
        MQTTLibrary.load()
        let settings = BrokerSettings(name: FleetRecords.broker, host: "127.0.0.1", port: 1, clientID: clientID)
        let check = CertificateCheck(refuses: true)
        check.load(certificates())
        let connection = BrokerConnection(
            settings, gate: Gate(GateSettings(), certificates: check), log: log.log, history: log.log,
            logID: log.log.report.logID.description, notify: { _ in }, onFatal: { _ in })
        _ = try connection.keeper.connected(sessionPresent: false, isV5: true)
        let clock = log.log.clock
        guard
            let session = MQTTSession(
                settings, gate: connection.gate.settings, isV5: true, clock: { clock.now() }, inbox: RecordBatch())
        else { throw PathError("no MQTT client") }
        return { meter in
            let before = log.log.durableCount
            let allocations = try log.allocations(meter) {
                connection.noteRound()
                for index in 0..<messages.all.count { session.arrived(messages.all[index], nil) }
                if let ending = connection.commit(session) { throw PathError("\(ending)") }
                connection.acknowledged(session)
            }
            guard log.log.durableCount == before + UInt64(FleetRecords.count),
                connection.currentStatus.withoutCertificate == 0
            else { throw PathError("not all messages were accepted and appended") }
            return allocations
        }
    }

    private static func certificates() -> LiveCertificates {
        var live = LiveCertificates()
        for message in FleetRecords.messages {
            let levels = String(decoding: message.topic, as: UTF8.self).split(separator: "/")
            live.set(tenantID: String(levels[1]), deviceID: String(levels[3]), [0...Int64.max])
        }
        return live
    }

    /// 1,000 redelivered messages after a reconnect: each is recognised and not recorded again.
    @Sendable static func suppress() throws -> HotPath.Round {
        let log = try MeasuredLog(), time = FleetRecords.time(ofBlock: 0)
        var batch = RecordBatch(), duplicates = RecordBatch(), outgoing = RecordBatch()
        func connected(sessionPresent: Bool) throws {
            var event = BrokerEvent(clientID: clientID), batch = RecordBatch()
            batch.append(.connecting, event, broker: FleetRecords.broker, at: time)
            event.sessionPresent = sessionPresent
            batch.append(.connected, event, broker: FleetRecords.broker, at: time)
            _ = try log.log.append(&batch)
        }
        try connected(sessionPresent: false)
        FleetRecords.fill(&batch, at: time)
        _ = try log.log.append(&batch)
        try connected(sessionPresent: true)
        let known = try RedeliveryFilter.refill(
            from: log.log, broker: FleetRecords.broker, clientID: clientID, isV5: true, limits: PacketIDLimits())
        FleetRecords.fill(&duplicates, at: time, flags: [RecordFlags(qos: 1), .duplicate])
        let gate = Gate(GateSettings())
        return { meter in
            var filter: RedeliveryFilter? = known, suppressed = 0
            let allocations = meter.count {
                let tally = gate.examine(duplicates, filter: &filter, steadyMicros: 1, into: &outgoing)
                suppressed = tally.redelivered.count
            }
            guard suppressed == FleetRecords.count else { throw PathError("\(suppressed) messages were suppressed") }
            withExtendedLifetime(log) {}
            return allocations
        }
    }
}

/// The fleet's messages as libmosquitto's callback receives them. Owns their topics and payloads.
private final class ReceivedMessages {
    private(set) var all: [mosquitto_message] = []

    init() {
        for (index, message) in FleetRecords.messages.enumerated() {
            let topic = UnsafeMutablePointer<CChar>.allocate(capacity: message.topic.count + 1)
            for (offset, byte) in message.topic.enumerated() { topic[offset] = CChar(bitPattern: byte) }
            topic[message.topic.count] = 0
            let payload = UnsafeMutableRawBufferPointer.allocate(byteCount: message.payload.count, alignment: 1)
            payload.copyBytes(from: message.payload)
            all.append(
                mosquitto_message(
                    mid: Int32(101 + index), topic: topic, payload: payload.baseAddress,
                    payloadlen: Int32(payload.count),
                    qos: 1, retain: false))
        }
    }

    deinit {
        for message in all {
            message.topic.deallocate()
            message.payload.deallocate()
        }
    }
}
