import Primitives

/// Every metric there is: its name, its kind and what it means. Alert rules and dashboards rely on the names.
public enum Metric: String, Sendable, CaseIterable {
    case messagesReceived = "refold_messages_received_total"
    case eventsAppended = "refold_events_appended_total"
    case bytesAppended = "refold_bytes_appended_total"
    case commitEvents = "refold_commit_events"
    case fdatasyncSeconds = "refold_fdatasync_seconds"
    case messagesAcknowledged = "refold_messages_acknowledged_total"
    case duplicatesSuppressed = "refold_duplicates_suppressed_total"
    case replaysRecognised = "refold_replays_recognised_total"
    case commandEchoes = "refold_command_echoes_total"
    case commandsWaiting = "refold_commands_waiting"
    case commandsAcknowledged = "refold_commands_acknowledged_total"
    case commandsWithoutSubscribers = "refold_commands_unheard_total"
    case commandsRefused = "refold_commands_refused"
    case commandsConnected = "refold_commands_connected"
    case verdicts = "refold_verdicts_total"
    case deviceAccepted = "refold_device_accepted_total"
    case deviceRateLimited = "refold_device_rate_limited_total"
    case withoutCertificate = "refold_messages_without_certificate_total"
    case deviceWithoutCertificate = "refold_device_without_certificate_total"
    case projectionPosition = "refold_projection_position"
    case projectionLagEvents = "refold_projection_lag_events"
    case projectionLagSeconds = "refold_projection_lag_seconds"
    case projectionApplySeconds = "refold_projection_apply_seconds"
    case projectionState = "refold_projection_state"
    case projectionParkedKeys = "refold_projection_parked_keys"
    case projectionParkedPosition = "refold_projection_parked_position"
    case rebuildRunning = "refold_rebuild_running"
    case rebuildFolded = "refold_rebuild_folded_events"
    case rebuildBlocked = "refold_rebuild_blocked_seconds"
    case rebuildFailures = "refold_rebuild_failures_total"
    case brokerConnected = "refold_broker_connected"
    case brokerSessionLost = "refold_broker_session_lost_total"
    case brokerTakenOver = "refold_broker_taken_over"
    case brokerMessagesDropped = "refold_broker_messages_dropped"
    case deadLetters = "refold_dead_letters_total"
    case logDurableEvents = "refold_log_durable_events"
    case logBytes = "refold_log_bytes"
    case logSegments = "refold_log_segments"
    case logSegmentsWaiting = "refold_log_segments_waiting"
    case logSegmentsDamaged = "refold_log_segments_damaged"
    case logFirstPosition = "refold_log_first_position"
    case logLostEvents = "refold_log_lost_events"
    case diskFreeBytes = "refold_disk_free_bytes"
    case diskFullSeconds = "refold_disk_full_seconds"
    case scrubPosition = "refold_scrub_position"
    case scrubBytes = "refold_scrub_bytes_total"
    case scrubPasses = "refold_scrub_passes_total"
    case scrubDamaged = "refold_scrub_damaged"
    case selfCheckDifferences = "refold_self_check_differences"
    case selfCheckTime = "refold_self_check_time_seconds"
    case checkpointSize = "refold_checkpoint_size"
    case checkpointTime = "refold_checkpoint_time_seconds"
    case checkpointsPublished = "refold_checkpoints_published_total"
    case checkpointFailures = "refold_checkpoint_failures_total"
    case logHorizon = "refold_log_horizon"
    case archiveThrough = "refold_archive_through"
    case archiveWaiting = "refold_archive_waiting_segments"
    case archiveWaitingSeconds = "refold_archive_waiting_seconds"
    case archiveSegments = "refold_archive_segments_total"
    case archiveFailures = "refold_archive_failures_total"
    case archiveBehind = "refold_archive_behind"
    case retentionRemoved = "refold_retention_removed_segments_total"
    case retentionBlocked = "refold_retention_blocked"
    case certificateFindings = "refold_certificate_findings"
    case jobsWaiting = "refold_jobs_waiting"
    case jobsReady = "refold_jobs_ready"
    case jobsRunning = "refold_jobs_running"
    case jobsReadySeconds = "refold_jobs_ready_seconds"
    case jobsSucceeded = "refold_jobs_succeeded_24h"
    case jobsFailed = "refold_job_attempts_failed_24h"
    case jobsPoisoned = "refold_jobs_poisoned"
    case jobQueuePaused = "refold_job_queue_paused"
    case held = "refold_held"
    case problems = "refold_problems"
    case ready = "refold_ready"
    case live = "refold_live"
    case databaseConnected = "refold_database_connected"
    case logLinesDropped = "refold_log_lines_dropped_total"
    case logLinesWaiting = "refold_log_lines_waiting"
    case logOutputBlocked = "refold_log_output_blocked_seconds"
    case residentMemory = "process_resident_memory_bytes"
    case cpuSeconds = "process_cpu_seconds_total"
    case openDescriptors = "process_open_fds"
    case descriptorsMax = "process_max_fds"
    case startTime = "process_start_time_seconds"

    public enum Kind: String, Sendable { case counter, gauge, histogram }

    public var kind: Kind {
        switch self {
        case .commitEvents, .fdatasyncSeconds, .projectionApplySeconds: .histogram
        default: rawValue.hasSuffix("_total") ? .counter : .gauge
        }
    }

    public var help: String {
        switch self {
        case .messagesReceived: "MQTT messages received, by broker."
        case .eventsAppended: "Events appended to the log."
        case .bytesAppended: "Bytes written to the log."
        case .commitEvents: "Events in one group commit."
        case .fdatasyncSeconds: "Duration of one fdatasync of the log."
        case .messagesAcknowledged: "MQTT messages acknowledged after they were durable, by broker."
        case .duplicatesSuppressed: "MQTT messages not recorded again because they were durable already, by broker."
        case .replaysRecognised: "Messages published out of the log that came back, not recorded twice, by broker."
        case .commandEchoes: "Our own commands that came back to us, not recorded again, by broker."
        case .commandsWaiting: "Commands to devices that a broker has still to take."
        case .commandsAcknowledged: "Commands to devices that a broker has taken."
        case .commandsWithoutSubscribers: "Commands taken by a broker at which nobody was subscribed (MQTT 5 only)."
        case .commandsRefused: "Devices whose command a broker refuses."
        case .commandsConnected: "1 while the connection for commands to devices stands."
        case .verdicts: "Messages by the gate's verdict."
        case .deviceAccepted: "Messages within the rate, of the devices refused most for theirs (20 a broker)."
        case .deviceRateLimited: "Messages beyond the rate, of the devices refused most for theirs (20 a broker)."
        case .withoutCertificate:
            "Messages of devices without a live certificate, by broker, whether they passed (report) or not (enforce)."
        case .deviceWithoutCertificate:
            "Messages without a live certificate, of the devices that sent most of them (20 a broker)."
        case .projectionPosition: "Last position that the projection has applied; -1 before the first."
        case .projectionLagEvents: "Durable events that the projection has not applied yet."
        case .projectionLagSeconds: "Age of the oldest event that the projection has not applied yet."
        case .projectionApplySeconds: "Duration of folding and committing one batch."
        case .projectionState: "1 for the state that the projection is in."
        case .projectionParkedKeys: "Keys whose events wait because the database refused their rows."
        case .projectionParkedPosition: "First position that waits for a parked key; absent when none is parked."
        case .rebuildRunning: "1 while the projection is being rebuilt."
        case .rebuildFolded: "Events folded by the rebuild that goes on, or by the last."
        case .rebuildBlocked: "For how long the last exchange of tables held up those who write."
        case .rebuildFailures: "Rebuilds that failed since the start."
        case .brokerConnected: "Whether the broker connection is up and subscribed."
        case .brokerSessionLost: "Times that the broker had lost the session: messages may be missing."
        case .brokerTakenOver: "1 until a takeover of our session is acknowledged."
        case .brokerMessagesDropped: "Messages that the broker says it dropped, from its $SYS topics."
        case .deadLetters: "Messages that could not be understood, by reason."
        case .logDurableEvents: "Events known to be on disk."
        case .logBytes: "Bytes that the log uses."
        case .logSegments: "Segment files of the log."
        case .logSegmentsWaiting: "Segments that are neither sealed nor being written, the growing one included."
        case .logSegmentsDamaged: "Segments that are not packed and not sealed because they are damaged."
        case .logFirstPosition: "The oldest position that is on this disk."
        case .logLostEvents: "Damaged events that operators have given up."
        case .diskFreeBytes: "Bytes free for us on the disk of the data folder."
        case .diskFullSeconds: "Seconds until that disk is full at the rate of the last minutes; absent if it is not."
        case .scrubPosition: "The position that the scrubber reads next."
        case .scrubBytes: "Bytes that the scrubber has read."
        case .scrubPasses: "Times that the scrubber has read the whole log."
        case .selfCheckDifferences: "Rows of the live tables that the log does not give, at the last comparison."
        case .selfCheckTime: "When the last comparison of tables and log ended, in seconds since 1970."
        case .scrubDamaged: "Places in the log found damaged that nobody has signed for."
        case .checkpointSize: "Events that the last signed checkpoint covers."
        case .checkpointTime: "When it was signed, since the Unix epoch in seconds."
        case .checkpointsPublished: "Checkpoints brought to a place outside, by destination."
        case .checkpointFailures: "Times that a checkpoint could not be brought there, by destination."
        case .logHorizon: "The oldest position whose events can be had, from this disk or from the archive."
        case .archiveThrough: "Every position below is archived."
        case .archiveWaiting: "Sealed segments that are not archived yet."
        case .archiveWaitingSeconds: "For how long the first of them waits."
        case .archiveSegments: "Segments archived."
        case .archiveFailures: "Times that the archive_command failed."
        case .archiveBehind: "1 while the archive is behind, so that somebody should look."
        case .retentionRemoved: "Segments that the retention rules removed."
        case .retentionBlocked: "1 while a segment that the retention rules want gone must stay."
        case .certificateFindings: "Findings of the certificates' audit, by code: docs/certificates.md."
        case .jobsWaiting: "Jobs that wait, by queue."
        case .jobsReady: "Jobs that wait and whose time has come, by queue."
        case .jobsRunning: "Jobs that run, by queue."
        case .jobsReadySeconds: "For how long the first of the jobs whose time has come waits, by queue."
        case .jobsSucceeded: "Jobs that succeeded in the last 24 hours, by queue."
        case .jobsFailed: "Attempts of jobs that failed in the last 24 hours, by queue."
        case .jobsPoisoned: "Jobs whose attempts ended without a result again and again."
        case .jobQueuePaused: "1 while an operator has paused the queue."
        case .held: "1 while ingest is held because the disk is full."
        case .problems: "Reasons why it is not healthy, by code: docs/health.md."
        case .ready: "What /readyz answers: 1 while every broker is subscribed and the log can be written."
        case .live: "What /healthz answers: 1 while every thread moves."
        case .databaseConnected: "Whether PostgreSQL can be reached."
        case .logLinesDropped: "Log lines dropped because standard error failed or its reader was too slow."
        case .logLinesWaiting: "Log lines that wait to be written to standard error."
        case .logOutputBlocked: "How long the reader of standard error has taken nothing; 0 while it reads."
        case .residentMemory: "Resident memory size in bytes."
        case .cpuSeconds: "Total user and system CPU time spent in seconds."
        case .openDescriptors: "Open file descriptors."
        case .descriptorsMax: "Maximum number of open file descriptors."
        case .startTime: "Start time of the process since the Unix epoch in seconds."
        }
    }
}

/// All metrics at one moment. Samples of one metric may be added in any order.
public struct MetricsSnapshot: Sendable {
    struct Sample: Sendable {
        let labels: [(name: String, value: String)]
        let value: Value
    }
    enum Value: Sendable {
        case number(Double)
        case count(UInt64)
        case histogram(Histogram)
    }

    private(set) var samples: [Metric: [Sample]] = [:]

    public init() {}

    public mutating func add(_ metric: Metric, _ value: Double, _ labels: KeyValuePairs<String, String> = [:]) {
        precondition(metric.kind != .histogram, "\(metric.rawValue) is a histogram")
        add(metric, .number(value), labels)
    }

    public mutating func add(_ metric: Metric, _ value: UInt64, _ labels: KeyValuePairs<String, String> = [:]) {
        precondition(metric.kind != .histogram, "\(metric.rawValue) is a histogram")
        add(metric, .count(value), labels)
    }

    public mutating func add(_ metric: Metric, _ value: Bool, _ labels: KeyValuePairs<String, String> = [:]) {
        add(metric, value ? 1 : 0 as UInt64, labels)
    }

    public mutating func add(
        _ metric: Metric, _ value: Histogram, _ labels: KeyValuePairs<String, String> = [:]
    ) {
        precondition(metric.kind == .histogram, "\(metric.rawValue) is no histogram")
        add(metric, .histogram(value), labels)
    }

    private mutating func add(_ metric: Metric, _ value: Value, _ labels: KeyValuePairs<String, String>) {
        let named = labels.map { (name: $0.key, value: $0.value) }
        samples[metric, default: []].append(Sample(labels: named, value: value))
    }
}
