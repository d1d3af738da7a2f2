import EventLog
import EventModel

/// What the log says about our sessions with one broker, from before this process.
package struct SessionHistory {
    /// One client id of ours.
    struct Session: Equatable {
        /// The broker may have this session.
        var exists = false
        /// It was subscribed, so the broker must have it. Where nothing was subscribed a broker need not keep a session
        /// (RabbitMQ does not), and nothing is lost with it.
        var isSubscribed = false
        /// The filters last subscribed to and granted.
        var filters: [String]?
    }

    /// By client id; the log's own and earlier ones.
    private(set) var sessions: [String: Session] = [:]
    /// Client ids whose session the broker may have.
    package var existing: [String] { sessions.filter(\.value.exists).map(\.key) }
    /// The broker's last answer to what it is.
    private(set) var version: String?
    /// Since when the devices' messages may have been waiting: the last record, or the one before the absence whose
    /// backlog was still being read then.
    package var awaySince: Timestamp? {
        guard let last = lastRecordAt else { return nil }
        return backlog.map { last <= $0.until ? $0.since : last } ?? last
    }
    /// The last record of this broker that shows a connection.
    private var lastRecordAt: Timestamp?
    /// The last absence, and until when its backlog may still have been read.
    private var backlog: (since: Timestamp, until: Timestamp)?
    private var hasMessages = false
    /// Raised and not acknowledged, oldest first.
    private(set) var alarms: [BrokerAlarm] = []
    /// The broker's counter of dropped messages, as last seen.
    private(set) var droppedByBroker: UInt64?
    /// An operator has accepted this session expiry of the broker.
    private(set) var acceptedExpirySeconds: UInt32?
    private var expirySeconds: UInt32?
    private var lastClientID: String?
    private var hasState = false
    /// Packet id of the last QoS 1 message that the broker delivered to us; nil: not known.
    private(set) var lastPacketID: UInt16?

    /// Reads back to the last `session_state`. A log without one is read to the bound of `LogTail`; where it has
    /// messages of the broker but no connection, the session of `clientID` is taken to exist. Blocks on disk reads.
    package static func read(from log: any LogSource, broker: String, clientID: String) throws -> SessionHistory {
        var history = SessionHistory()
        try LogTail.scan(
            log, broker: broker, restart: { history = SessionHistory() }, isEnough: { history.hasState },
            others: { if $0.kind == .decision { history.lastPacketID = nil } }
        ) { history.note($0) }
        if !history.hasState, history.sessions.isEmpty, history.hasMessages {
            history.sessions[clientID] = Session(exists: true, isSubscribed: true)
        }
        return history
    }

    /// Whether the log has any event that names `clientID`, however far back. For the rare case in which the broker
    /// has a session that the recent log does not mention.
    static func mentions(_ clientID: String, in log: any LogSource, broker: String) throws -> Bool {
        var isMentioned = false
        try LogTail.scan(
            log, broker: broker, eventsMax: .max, restart: {}, isEnough: { isMentioned }
        ) { record in
            guard !isMentioned, let (schema, event) = LogTail.event(record), event.clientID == clientID else { return }
            if schema == .connected || schema == .subscribed { isMentioned = true }
            if schema == .sessionState, event.sessions?.contains(where: { $0.clientID == clientID }) == true {
                isMentioned = true
            }
        }
        return isMentioned
    }

    private mutating func note(_ record: RecordView) {
        guard let (schema, event) = LogTail.event(record) else {
            if record.kind != .connection { hasMessages = true }
            notePacketID(of: record)
            return noteRead(at: record.receivedAt)
        }
        // An attempt is no sign that anything was read.
        if schema != .connecting, schema != .draining, schema != .sessionState { noteRead(at: record.receivedAt) }
        Self.fold(schema, event, into: &sessions)
        if let dropped = event.droppedByBroker { droppedByBroker = dropped }
        switch schema {
        case .connected:
            expirySeconds = event.sessionExpirySeconds
            if event.sessionPresent == false || event.clientID != lastClientID { lastPacketID = nil }
            lastClientID = event.clientID
        case .disconnected: lastPacketID = event.lastPacketID
        case .identified: version = event.version
        case .sessionLost: raise(event, .sessionLost, at: record.receivedAt)
        case .alarmRaised:
            if let code = event.alarm.flatMap(BrokerAlarm.Code.init(rawValue:)) {
                raise(event, code, at: record.receivedAt)
            }
        case .alarmsAcknowledged: acknowledge(event)
        case .sessionState:
            hasState = true
            alarms = (event.alarms ?? []).compactMap(BrokerAlarm.init)
            acceptedExpirySeconds = event.acceptedExpirySeconds
        default: break
        }
    }

    /// After a kill -9 the last record tells. Messages that are not recorded have ids too: our own commands come back,
    /// so that nothing follows where a decision lies behind the last record, nor from the hashes of limited devices.
    private mutating func notePacketID(of record: RecordView) {
        switch record.kind {
        case .message where record.flags.qos == 1 && !record.flags.contains(.drained): lastPacketID = record.packetID
        case .rejection: lastPacketID = nil
        default: break
        }
    }

    /// What an event says about our sessions that the broker may hold. An attempt that was never answered has left none
    /// that collects messages: a SUBSCRIBE leaves after the CONNACK is on record.
    static func fold(
        _ schema: BrokerEvent.Schema, _ event: BrokerEvent, into sessions: inout [String: Session]
    ) {
        switch schema {
        case .connected where event.sessionPresent == false: sessions[event.clientID] = Session(exists: true)
        case .draining where event.sessionPresent != true: break
        case .connected, .disconnected, .draining, .sessionAdopted, .sessionResumed:
            sessions[event.clientID, default: Session()].exists = true
        case .subscribed:
            // At QoS 0 it must be subscribed to again.
            let isLowered = event.granted?.contains(0) ?? false
            sessions[event.clientID] = Session(
                exists: true, isSubscribed: true, filters: isLowered ? nil : event.filters)
        case .unsubscribing: sessions[event.clientID] = Session(exists: true)
        case .sessionDrained: sessions[event.clientID] = Session()
        case .sessionState:
            sessions = [:]
            for session in event.sessions ?? [] {
                sessions[session.clientID] = Session(
                    exists: true, isSubscribed: session.filters != nil, filters: session.filters)
            }
        default: break
        }
    }

    private mutating func acknowledge(_ event: BrokerEvent) {
        let ended = event.alarms.map { $0.compactMap(BrokerAlarm.init) } ?? alarms
        alarms.removeAll { alarm in ended.contains { $0.code == alarm.code && $0.since == alarm.since } }
        if ended.contains(where: { $0.code == .sessionExpiryCapped }) { acceptedExpirySeconds = expirySeconds }
    }

    /// A longer pause between records may have been an absence, whose backlog is read from then on.
    private mutating func noteRead(at time: Timestamp) {
        defer { lastRecordAt = time }
        guard let last = lastRecordAt,
            time.microseconds.saturatingSubtracting(last.microseconds) >= AbsenceCredit.absenceMicrosMin
        else { return }
        let since = backlog.map { last <= $0.until ? $0.since : last } ?? last
        let away = AbsenceCredit.lifetimeMicros(ofAbsence: time.microseconds.saturatingSubtracting(since.microseconds))
        backlog = (since, Timestamp(microseconds: time.microseconds.saturatingAdding(away)))
    }

    private mutating func raise(_ event: BrokerEvent, _ code: BrokerAlarm.Code, at time: Timestamp) {
        let alarm =
            event.alarms?.first.flatMap(BrokerAlarm.init)
            ?? BrokerAlarm(code, since: time, evidence: event.reason)
        if !alarms.contains(where: { $0.code == alarm.code }) { alarms.append(alarm) }
    }
}
