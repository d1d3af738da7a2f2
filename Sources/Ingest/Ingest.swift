// Ingest: from the broker into the durable log, and only then the acknowledgement.
//
// One `BrokerConnection` a broker, each on a thread of its own around stock libmosquitto:
//
//     MQTTSession      one connection attempt: the client handle, callbacks that copy into the inbox
//     Gate             topic grammar, payload size, rate, foreign commands, certificates → verdicts
//     CertificateCheck which devices have a live certificate, for all gates, exact by log position
//     LogWriter        append: returns when, and only when, the batch is durable
//     SessionKeeper    what the log knows of the session, and the events that record its life
//     RedeliveryFilter after a resume: what the broker delivers again although we have it
//     SessionDrain     empties the session of an earlier client id
//     AbsenceCredit    what devices may send at once after we were away
//     ReplayEcho       what was published out of our log and came back
//     CommandEcho      our own commands to devices, which come back with everything else
//
// Invariants. No PUBACK is written before the message is durable: the library queues it on arrival, and nothing is
// sent until the loop calls `MQTTSession.write`, which it does with an empty inbox only. Everything is bounded: the
// batch, the devices that are remembered, the wait between attempts. A full disk holds, a failed one stops the process.

import EventLog
import EventModel
import MQTT
import Primitives

/// Several brokers into one log.
public final class IngestService: Sendable {
    private let connections: [BrokerConnection]
    private let log: any LogWriter

    /// - Parameters:
    ///   - certificates: which devices may send; nil: all. Nothing is received until it is loaded, if it refuses.
    ///   - history: where the records of before are read back, to recognise redelivered messages and lost sessions.
    ///   - logID: of the log: what was published out of it, commands and replays, is recognised when it comes back.
    ///   - notify: lines for the program's log; called on the brokers' threads.
    ///   - onFatal: the log can no longer be written: the process must end. Called on a broker's thread.
    /// - Throws: `BrokerSettingsError` for the first setting that cannot work; nothing has been started then.
    public init(
        brokers: [BrokerSettings], gate: GateSettings = GateSettings(), certificates: CertificateCheck? = nil,
        log: any LogWriter,
        history: (any LogSource)?, logID: String? = nil,
        notify: @escaping @Sendable (IngestNotice) -> Void = { _ in },
        onFatal: @escaping @Sendable (String) -> Void
    ) throws(BrokerSettingsError) {
        var names: Set<String> = []
        for broker in brokers {
            try broker.validate()
            guard names.insert(broker.name).inserted else {
                throw BrokerSettingsError(broker: broker.name, field: "name", text: "is used twice")
            }
        }
        MQTTLibrary.load()
        self.log = log
        connections = brokers.map {
            BrokerConnection(
                $0, gate: Gate(gate, certificates: certificates), log: log, history: history, logID: logID,
                notify: notify,
                onFatal: onFatal)
        }
    }

    /// Starts a thread a broker. Once.
    public func start() { connections.forEach { $0.start() } }

    /// Orderly end: what is in hand becomes durable and is acknowledged, then DISCONNECT; the sessions stay.
    /// - Returns: whether all came to their end in time. If not (a host name that does not resolve, a disk that does
    ///   not answer), the process may end all the same: nothing was acknowledged that is not durable.
    public func stop(timeoutSeconds: Double = 8) async -> Bool {
        connections.forEach { $0.requestStop() }
        let deadline = ContinuousClock.now + .seconds(timeoutSeconds)
        while !connections.allSatisfy({ $0.isFinished }) {
            guard ContinuousClock.now < deadline else { return false }
            try? await Task.sleep(for: .milliseconds(5))
        }
        return true
    }

    /// An operator has seen a broker's alarms: those that wait for that are cleared, and the event is durable.
    /// - Returns: the event's position; nil when there is no such broker.
    /// - Throws: `AppendError`; then nothing is cleared.
    public func acknowledge(broker: String, operator name: String, reason: String?) async throws -> Position? {
        guard let connection = connections.first(where: { $0.settings.name == broker }) else { return nil }
        let alarms = connection.currentStatus.outstanding
        var event = BrokerEvent(clientID: connection.settings.clientID)
        event.alarm = alarms.map(\.code.rawValue).joined(separator: ",")
        event.alarms = alarms.map(\.event)
        event.operatorName = name
        event.reason = reason
        var batch = RecordBatch()
        batch.append(.alarmsAcknowledged, event, broker: broker, at: log.now())
        let positions = try await log.append(batch)
        connection.status.withLock { $0.acknowledge(alarms) }
        return positions.lowerBound
    }

    /// In the order of the settings.
    public var statuses: [BrokerStatus] { connections.map(\.currentStatus) }

    /// The devices that were refused most for their rate, at most `limit` a broker, with the broker's name.
    public func mostLimited(_ limit: Int) -> [(broker: String, device: LimitedDevice)] {
        zip(statuses, connections).flatMap { status, connection in
            connection.gate.mostLimited(limit).map { (status.name, $0) }
        }
    }

    /// The devices that sent most messages without a live certificate, at most `limit` a broker, with its name.
    /// - Parameter tenant: whose devices; nil: all.
    public func mostWithoutCertificate(
        _ limit: Int, tenant: String? = nil
    ) -> [(broker: String, device: UncertifiedDevice)] {
        connections.flatMap { connection in
            connection.gate.mostWithoutCertificate(limit, tenant: tenant).map { (connection.settings.name, $0) }
        }
    }

    /// The devices that were the last to send without a live certificate, at most `limit` a broker.
    public func lastWithoutCertificate(_ limit: Int) -> [UncertifiedDevice] {
        connections.flatMap { $0.gate.lastWithoutCertificate(limit) }
    }

    /// One of them, as each broker remembers it.
    public func withoutCertificate(tenant: String, device: String) -> [UncertifiedDevice] {
        connections.compactMap { $0.gate.withoutCertificate(tenant: tenant, device: device) }
    }

    /// Nil when no broker remembers the device. Over several brokers: the sums, and the fewest tokens.
    public func deviceStatistics(tenant: String, device: String) -> DeviceStatistics? {
        let now = SystemTime.bootMicroseconds()
        let known = connections.compactMap {
            $0.gate.statistics(tenant: tenant, device: device, steadyMicros: now)
        }
        guard let first = known.first else { return nil }
        return known.dropFirst().reduce(into: first) { sum, more in
            sum.accepted += more.accepted
            sum.rejected += more.rejected
            sum.withoutCertificate += more.withoutCertificate
            sum.tokensLeft = min(sum.tokensLeft, more.tokensLeft)
        }
    }
}
