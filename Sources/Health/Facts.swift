import EventModel

/// Facts about every part at one moment: the only input of a verdict. Times are durations, taken from
/// steady clocks, so that a step of the wall clock changes no verdict.
public struct HealthFacts: Sendable {
    public struct Broker: Sendable {
        public struct Alarm: Sendable {
            public var code: ReasonCode
            /// When it was raised; nil when that is not known.
            public var since: Timestamp?
            /// What happened, with the evidence.
            public var text: String

            public init(_ code: ReasonCode, since: Timestamp? = nil, text: String) {
                self.code = code
                self.since = since
                self.text = text
            }
        }

        public var name: String
        public var isConnected = true
        public var isSubscribed = true
        /// The disk is full: nothing is read from the broker.
        public var isHeld = false
        public var lastError: String?
        /// Granted QoS, one a filter; 128 and up are refusals.
        public var granted: [Int] = [1]
        public var alarms: [Alarm] = []
        /// Commands to devices that wait while their connection is down.
        public var commandsWaiting = 0
        /// Devices whose command the broker refuses.
        public var commandsRefused = 0
        public var commandError: String?
        /// Seconds since the heartbeat was due; nil when on time.
        public var overdueSeconds: Double?

        public init(name: String) { self.name = name }
    }

    public struct Projection: Sendable {
        public var name: String
        public var isPaused = false
        /// It cannot go on by itself.
        public var hasFailed = false
        /// For how long every attempt has failed; nil while it goes on.
        public var failingSeconds: Double?
        public var lastError: String?
        public var lagSeconds = 0.0
        public var lagEvents: UInt64 = 0
        /// Why it is paused, when the program did that.
        public var pauseReason: String?
        public var parkedKeys = 0
        /// The first of them, where its events wait from, and why.
        public var firstParked: String?
        public var overdueSeconds: Double?

        public init(name: String) { self.name = name }
    }

    public struct Database: Sendable {
        public var isConnected = true
        /// It answers and cannot be used: another log's tables, a newer schema, a pooler in transaction mode.
        public var isRefused = false
        /// It takes no writes: a standby after a failover, or `default_transaction_read_only`.
        public var isReadOnly = false
        /// Rights that are missing: the GRANT that gives each.
        public var missingGrants: [String] = []
        /// Connections that the server, the database or the role allows, when those are fewer than we may need.
        public var connectionShortage: String?
        public var lastError: String?

        public init() {}
    }

    public struct Log: Sendable {
        /// Seconds since the writer's heartbeat was due; nil when on time.
        public var overdueSeconds: Double?
        /// Damaged places that the scrubber found and no operator accepted.
        public var damagedPlaces = 0
        /// Damaged segment files whose loss no operator accepted.
        public var damagedSegments: [String] = []
        /// Why segments are not packed and sealed.
        public var sealingProblem: String?
        /// Segments that wait for an archive that is behind; nil while it keeps up.
        public var archiveWaiting: Int?
        public var archiveError: String?
        /// Why no checkpoint is signed.
        public var treeProblem: String?
        /// Why signed checkpoints do not leave this machine.
        public var checkpointError: String?
        /// Why a segment that the retention rules want gone is still there.
        public var retentionProblem: String?
        /// Seconds until the disk is full, when that is foreseeable.
        public var diskFullSeconds: Double?
        /// Why the log's clock does not follow the wall clock.
        public var clockProblem: String?

        public init() {}
    }

    public struct Process: Sendable {
        /// Lines of the program's log that were dropped in the last minute.
        public var linesDroppedLately: UInt64 = 0
        public var descriptorsOpen = 0
        /// The soft limit; 0 when it is not known.
        public var descriptorsMax = 0
        /// Why the campaign engine stopped; commands are refused meanwhile.
        public var deciderError: String?
        /// Why tokens cannot be read back from the log.
        public var tokenError: String?
        /// Why certificates cannot be read back from the log, or decisions about them not be recorded.
        public var certificateError: String?
        /// Why jobs cannot be read back from the log, or decisions about them not be recorded.
        public var jobError: String?
        /// Why devices' requests for renewed certificates wait.
        public var renewalError: String?
        /// Why the standing audit of certificates fails.
        public var auditError: String?
        /// Messages are received once the certificates are read (`certificates.enforce: enforce`).
        public var awaitsCertificates = false

        public init() {}
    }

    /// A queue of jobs that is not paused.
    public struct Queue: Sendable {
        public var name: String
        /// Jobs that could start.
        public var ready: Int
        /// Since when the first of them could.
        public var waitsSeconds: Double

        public init(name: String, ready: Int, waitsSeconds: Double) {
            (self.name, self.ready, self.waitsSeconds) = (name, ready, waitsSeconds)
        }
    }

    /// An authority whose next CRL is due and cannot be issued.
    public struct CRL: Sendable {
        public var authority: String
        public var error: String
        /// Until `nextUpdate` of the last CRL: from then on brokers refuse every client. Nil: none was issued.
        public var secondsLeft: Double?
        /// From its `thisUpdate` to its `nextUpdate`.
        public var lifetimeSeconds = 0.0

        public init(authority: String, error: String) { (self.authority, self.error) = (authority, error) }
    }

    public var brokers: [Broker] = []
    public var projections: [Projection] = []
    public var database = Database()
    public var log = Log()
    public var process = Process()
    /// Queues with jobs that could start.
    public var queues: [Queue] = []
    /// Jobs whose attempts ended without a result again and again.
    public var poisonedJobs = 0
    public var crls: [CRL] = []
    /// Why the newest CRLs are not proved to be in force, by broker.
    public var crlsUnproved: [String: String] = [:]
    /// Why clients of revoked certificates are not disconnected, by broker.
    public var clientsUncut: [String: String] = [:]
    /// When authorities without a successor expire, of those that do soon.
    public var authoritiesExpiring: [String: Timestamp] = [:]
    /// Rows that the log does not give, at the last comparison of tables and log.
    public var rowsDiffering = 0

    public init() {}
}
