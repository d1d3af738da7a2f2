/// Every kind of problem. The raw value is the code in `problems` of the status and the label `code` of the metric
/// refold_problems. docs/health.md is generated from this enum.
public enum ReasonCode: String, Sendable, CaseIterable {
    case brokerDisconnected = "broker_disconnected"
    case brokerNotSubscribed = "broker_not_subscribed"
    case brokerSubscriptionRefused = "broker_subscription_refused"
    case brokerQoSLowered = "broker_qos_lowered"
    case brokerForeignSession = "broker_foreign_session"
    case brokerTakenOver = "broker_taken_over"
    case brokerSessionLost = "broker_session_lost"
    case brokerSessionExpiryCapped = "broker_session_expiry_capped"
    case brokerQuickDrops = "broker_quick_drops"
    case brokerDropsMessages = "broker_drops_messages"
    case brokerRedeliveryUnchecked = "broker_redelivery_unchecked"
    case brokerDrainingOldSession = "broker_draining_old_session"
    case ingestStuck = "ingest_stuck"
    case commandsRefused = "commands_refused"
    case commandsWaiting = "commands_waiting"
    case diskFull = "disk_full"
    case diskFilling = "disk_filling"
    case logStuck = "log_stuck"
    case logDamaged = "log_damaged"
    case segmentsDamaged = "segments_damaged"
    case segmentsNotSealed = "segments_not_sealed"
    case archiveBehind = "archive_behind"
    case retentionBlocked = "retention_blocked"
    case logNotSigned = "log_not_signed"
    case checkpointsStay = "checkpoints_stay"
    case clockNotTrusted = "clock_not_trusted"
    case databaseUnreachable = "database_unreachable"
    case databaseUnusable = "database_unusable"
    case databaseReadOnly = "database_read_only"
    case databaseRights = "database_rights"
    case databaseConnections = "database_connections"
    case projectionFailed = "projection_failed"
    case projectionWaiting = "projection_waiting"
    case projectionPaused = "projection_paused"
    case projectionLagging = "projection_lagging"
    case projectionStuck = "projection_stuck"
    case keysParked = "keys_parked"
    case tablesDiffer = "tables_differ"
    case campaignsStopped = "campaigns_stopped"
    case tokensUnreadable = "tokens_unreadable"
    case certificatesUnreadable = "certificates_unreadable"
    case renewalsWaiting = "renewals_waiting"
    case certificatesNotAudited = "certificates_not_audited"
    case crlNotIssued = "crl_not_issued"
    case crlExpiring = "crl_expiring"
    case crlUnproved = "crl_unproved"
    case clientsUncut = "clients_uncut"
    case authorityExpiring = "authority_expiring"
    case jobsUnreadable = "jobs_unreadable"
    case jobsWaiting = "jobs_waiting"
    case jobsPoisoned = "jobs_poisoned"
    case logLinesDropped = "log_lines_dropped"
    case descriptorsShort = "descriptors_short"

    /// What a problem does besides making the state `degraded`.
    public struct Effect: OptionSet, Sendable {
        public let rawValue: Int
        public init(rawValue: Int) { self.rawValue = rawValue }

        /// The state is `held`.
        public static let held = Effect(rawValue: 1)
        /// /readyz answers 503.
        public static let unready = Effect(rawValue: 2)
        /// /healthz answers 503 and the watchdog is not fed: only a restart helps.
        public static let dead = Effect(rawValue: 4)

        var isHeld: Bool { contains(.held) }
        var isUnready: Bool { contains(.unready) }
        var isDead: Bool { contains(.dead) }
    }

    public var effect: Effect {
        switch self {
        case .diskFull: [.held, .unready]
        case .brokerDisconnected, .brokerNotSubscribed, .brokerSubscriptionRefused, .brokerQoSLowered,
            .brokerForeignSession, .brokerDrainingOldSession:
            .unready
        case .ingestStuck, .logStuck: [.unready, .dead]
        case .projectionStuck: .dead
        default: []
        }
    }

    /// The problem stays until an operator acknowledges it: `refold broker acknowledge`.
    public var isAcknowledged: Bool {
        switch self {
        case .brokerTakenOver, .brokerSessionLost, .brokerDropsMessages, .brokerSessionExpiryCapped: true
        default: false
        }
    }

    /// A PromQL condition that shows the problem besides `refold_problems`; nil when there is none. An alarm that stays
    /// has no `increase()`, which shows nothing after an outage that is longer than its range.
    public var metric: String? {
        switch self {
        case .brokerDisconnected, .brokerNotSubscribed, .brokerSubscriptionRefused: "refold_broker_connected == 0"
        case .brokerTakenOver: "refold_broker_taken_over == 1"
        case .commandsRefused: "refold_commands_refused > 0"
        case .commandsWaiting: "refold_commands_waiting > 0"
        case .diskFull: "refold_held == 1"
        case .diskFilling: "refold_disk_full_seconds < 3600"
        case .logDamaged: "refold_scrub_damaged > 0"
        case .segmentsDamaged: "refold_log_segments_damaged > 0"
        case .archiveBehind: "refold_archive_behind == 1"
        case .retentionBlocked: "refold_retention_blocked == 1"
        case .checkpointsStay: "increase(refold_checkpoint_failures_total) > 0"
        case .databaseUnreachable: "refold_database_connected == 0"
        case .projectionFailed: "refold_projection_state{state=\"failed\"} == 1"
        case .projectionWaiting: "refold_projection_state{state=\"waiting\"} == 1"
        case .projectionPaused: "refold_projection_state{state=\"paused\"} == 1"
        case .projectionLagging: "refold_projection_lag_seconds > 20"
        case .keysParked: "refold_projection_parked_keys > 0"
        case .tablesDiffer: "refold_self_check_differences > 0"
        default: nil
        }
    }

    /// The alert in packaging/prometheus/refold.rules.yml.
    public var alert: String {
        switch self {
        case .brokerDisconnected, .brokerNotSubscribed, .brokerSubscriptionRefused: "RefoldBrokerDisconnected"
        case .brokerTakenOver: "RefoldTakenOver"
        case .brokerSessionLost: "RefoldSessionLost"
        case .brokerDropsMessages: "RefoldBrokerDropsMessages"
        case .diskFull: "RefoldHeld"
        case .diskFilling: "RefoldDiskFills"
        case .logDamaged: "RefoldLogDamaged"
        case .archiveBehind: "RefoldArchiveBehind"
        case .retentionBlocked: "RefoldRetentionBlocked"
        case .checkpointsStay: "RefoldCheckpointsStay"
        case .databaseUnreachable: "RefoldDatabaseDisconnected"
        case .projectionFailed: "RefoldProjectionFailed"
        case .projectionPaused: "RefoldProjectionPaused"
        case .projectionLagging: "RefoldProjectionLagging"
        case .keysParked: "RefoldKeysParked"
        case .tablesDiffer: "RefoldTablesDiffer"
        case .brokerQoSLowered, .brokerForeignSession, .ingestStuck, .logStuck, .crlExpiring, .crlUnproved,
            .clientsUncut:
            "RefoldProblemUrgent"
        default: "RefoldProblem"
        }
    }

    /// How long the condition lasts before the alert fires: `for:` of the rule; nil when it fires at once.
    public var alertDelay: String? {
        switch alert {
        case "RefoldSessionLost", "RefoldBrokerDropsMessages", "RefoldLogDamaged", "RefoldTablesDiffer": nil
        case "RefoldHeld", "RefoldTakenOver", "RefoldProblemUrgent": "1 min"
        case "RefoldBrokerDisconnected": "2 min"
        case "RefoldDatabaseDisconnected", "RefoldProjectionLagging", "RefoldProjectionFailed", "RefoldKeysParked",
            "RefoldDiskFills":
            "5 min"
        case "RefoldCheckpointsStay": "30 min"
        case "RefoldProjectionPaused", "RefoldRetentionBlocked": "6 h"
        default: "10 min"
        }
    }
}
