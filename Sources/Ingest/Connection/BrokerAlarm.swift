import EventModel

/// Something about a broker connection that an operator must know.
public struct BrokerAlarm: Sendable, Equatable {
    public enum Code: String, Sendable, CaseIterable {
        /// Another client used our session, or queued messages expired: messages may be missing from this log.
        case sessionTakenOver = "session_taken_over"
        case sessionLost = "session_lost"
        /// The broker has a session under our client id that this log did not create.
        case sessionUnknown = "session_unknown"
        case messagesDropped = "messages_dropped"
        case sessionExpiryCapped = "session_expiry_capped"
        case subscriptionRefused = "subscription_refused"
        /// The broker grants QoS 0: messages in flight are lost with the connection.
        case grantedQoS0 = "granted_qos_0"
        /// The broker closes the connection soon after it accepts it, several times in a row.
        case closedEarly = "closed_early"
        case diskFull = "disk_full"
        /// The log cannot be read back, so redelivered messages are recorded again.
        case historyUnreadable = "history_unreadable"
        /// Refold drains the session of an earlier client id. A session that is subscribed already stays so.
        case drainingOldSession = "draining_old_session"

        /// Stays, over restarts too, until an operator acknowledges it (`refold broker acknowledge`).
        public var needsAcknowledgement: Bool {
            switch self {
            case .sessionTakenOver, .sessionLost, .messagesDropped, .sessionExpiryCapped: true
            default: false
            }
        }

        public var summary: String {
            switch self {
            case .sessionTakenOver:
                "another client used our session, or queued messages expired: messages may be missing from this log"
            case .sessionLost: "the broker lost our session: messages may be missing from this log"
            case .sessionUnknown: "the broker has a session under our client id that this log did not create"
            case .messagesDropped: "the broker dropped messages"
            case .sessionExpiryCapped: "the broker keeps our session for a shorter time than configured"
            case .subscriptionRefused: "the broker refuses our subscription"
            case .grantedQoS0: "the broker grants QoS 0 only: messages may be lost"
            case .closedEarly: "the broker closes the connection soon after accepting it"
            case .diskFull: "the disk is full: nothing is acknowledged until there is space"
            case .historyUnreadable: "the log cannot be read back: redelivered messages are recorded again"
            case .drainingOldSession: "draining the session of an earlier client id"
            }
        }

        /// What to do about it.
        public var remedy: String {
            switch self {
            case .sessionTakenOver:
                "give each Refold a `node` or `client_id` of its own, then run refold broker acknowledge"
            case .sessionLost:
                "check the broker's persistence and session expiry, then run refold broker acknowledge"
            case .sessionUnknown:
                "give this Refold another `node` or `client_id`, or start it once with --adopt-session"
            case .messagesDropped:
                "raise the broker's queue limits (Mosquitto max_queued_messages, EMQX max_mqueue_len), then run "
                    + "refold broker acknowledge"
            case .sessionExpiryCapped:
                "raise the broker's limit, or lower broker.session_expiry_seconds, or run refold broker acknowledge"
            case .subscriptionRefused: "allow it in the broker's access rules"
            case .grantedQoS0: "allow QoS 1 for this user in the broker's configuration"
            case .closedEarly: "check the broker's log for a second client with this client id"
            case .diskFull: "free space on the disk of the data folder"
            case .historyUnreadable: "run refold log verify"
            case .drainingOldSession: "no action needed; clears when the drain completes"
            }
        }
    }

    public let code: Code
    public let since: Timestamp
    /// What was observed, for this alarm.
    public let evidence: String?

    public init(_ code: Code, since: Timestamp, evidence: String? = nil) {
        self.code = code
        self.since = since
        self.evidence = evidence
    }

    /// As an event carries it; nil: a code of another version.
    init?(_ alarm: BrokerEvent.Alarm) {
        guard let code = Code(rawValue: alarm.code) else { return nil }
        self.init(code, since: Timestamp(storedMicroseconds: alarm.sinceMicroseconds), evidence: alarm.evidence)
    }

    var event: BrokerEvent.Alarm {
        BrokerEvent.Alarm(code: code.rawValue, sinceMicroseconds: since.microseconds, evidence: evidence)
    }

    public var text: String { evidence.map { "\(code.summary) (\($0))" } ?? code.summary }
}
