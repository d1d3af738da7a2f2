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

    /// Reads back until it has found what the log says about `clientID`, or the bound of `LogTail`.
    /// Where the log has messages of the broker but no connection (it lies further back), the
    /// session of `clientID` is taken to exist. Blocks on disk reads.
    package static func read(from log: any LogSource, broker: String, clientID: String) throws -> SessionHistory {
        var history = SessionHistory()
        try LogTail.scan(
            log, broker: broker, restart: { history = SessionHistory() },
            isEnough: { history.sessions[clientID]?.filters != nil }
        ) { history.note($0) }
        if history.sessions.isEmpty, history.hasMessages {
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
        }
        return isMentioned
    }

    private mutating func note(_ record: RecordView) {
        guard let (schema, event) = LogTail.event(record) else {
            if record.kind != .connection { hasMessages = true }
            return noteRead(at: record.receivedAt)
        }
        // An attempt is no sign that anything was read.
        if schema != .connecting, schema != .draining { noteRead(at: record.receivedAt) }
        switch schema {
        case .connected where event.sessionPresent == false: sessions[event.clientID] = Session(exists: true)
        case .connected, .sessionAdopted: sessions[event.clientID, default: Session()].exists = true
        case .subscribed: sessions[event.clientID] = Session(exists: true, isSubscribed: true, filters: event.filters)
        case .sessionDrained: sessions[event.clientID] = Session()
        case .identified: version = event.version
        case .sessionLost:
            raise(BrokerAlarm(.sessionLost, since: record.receivedAt, evidence: event.reason))
        case .alarmRaised:
            if let code = event.alarm.flatMap(BrokerAlarm.Code.init(rawValue:)) {
                raise(BrokerAlarm(code, since: record.receivedAt, evidence: event.reason))
            }
        case .alarmsAcknowledged: alarms = []
        default: break
        }
    }

    /// A longer pause between records may have been an absence, whose backlog is read from then on.
    private mutating func noteRead(at time: Timestamp) {
        defer { lastRecordAt = time }
        guard let last = lastRecordAt,
            time.microseconds.subtractingSaturated(last.microseconds) >= AbsenceCredit.absenceMicrosMin
        else { return }
        let since = backlog.map { last <= $0.until ? $0.since : last } ?? last
        let away = AbsenceCredit.lifetimeMicros(ofAbsence: time.microseconds.subtractingSaturated(since.microseconds))
        backlog = (since, Timestamp(microseconds: time.microseconds.addingSaturated(away)))
    }

    private mutating func raise(_ alarm: BrokerAlarm) {
        if !alarms.contains(where: { $0.code == alarm.code }) { alarms.append(alarm) }
    }
}

extension Int64 {
    fileprivate func addingSaturated(_ other: Int64) -> Int64 {
        let (sum, overflow) = addingReportingOverflow(other)
        return overflow ? (other < 0 ? .min : .max) : sum
    }

    fileprivate func subtractingSaturated(_ other: Int64) -> Int64 {
        let (difference, overflow) = subtractingReportingOverflow(other)
        return overflow ? (other < 0 ? .max : .min) : difference
    }
}
