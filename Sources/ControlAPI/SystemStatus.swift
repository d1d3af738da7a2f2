import Health

/// What `refold status --json` prints and `GET /api/v1/status` answers.
public struct SystemStatus: Codable, Sendable, Equatable {
    /// One reason; docs/health.md has every code.
    public struct Problem: Codable, Sendable, Equatable {
        public var code: String
        /// The broker or projection that it is about.
        @Nullable public var object: String?
        @Nullable public var since: String?
        public var text: String
        public var remedy: String
        /// It stays until an operator acknowledges it.
        public var isAcknowledgeable: Bool

        public init(
            code: String, object: String?, since: String?, text: String, remedy: String, isAcknowledgeable: Bool
        ) {
            self.code = code
            self.object = object
            self.since = since
            self.text = text
            self.remedy = remedy
            self.isAcknowledgeable = isAcknowledgeable
        }

        enum CodingKeys: String, CodingKey {
            case code, object, since, text, remedy, isAcknowledgeable = "acknowledgeable"
        }
    }

    public struct Log: Codable, Sendable, Equatable {
        /// Events appended, durable or about to be.
        public var head: UInt64
        /// Events known to be on disk: the last durable position is this less one.
        public var durable: UInt64
        public var segments: Int
        /// Used, not allocated.
        public var bytes: UInt64
        public var keeping: Keeping

        public init(head: UInt64, durable: UInt64, segments: Int, bytes: UInt64, keeping: Keeping = .init()) {
            self.head = head
            self.durable = durable
            self.segments = segments
            self.bytes = bytes
            self.keeping = keeping
        }
    }

    /// What happens to the log besides appending and reading.
    public struct Keeping: Codable, Sendable, Equatable {
        /// The oldest position that is on this disk.
        public var firstPosition: UInt64 = 0
        /// Damaged events that operators have given up.
        public var lostEvents: UInt64 = 0
        /// Bytes free for us on the disk of the data folder; nil when it cannot be asked.
        @Nullable public var diskFreeBytes: UInt64?
        /// At the rate of the last minutes; nil when the free space does not shrink.
        @Nullable public var diskFullSeconds: Double?
        /// The oldest position whose events can be had, from here or from the archive.
        public var horizon: UInt64 = 0
        @Nullable public var scrub: Scrub?
        @Nullable public var checkpoint: Checkpoint?
        /// Nil without an `archive_command`.
        @Nullable public var archive: Archive?
        /// Why a segment that the retention rules want gone is still there.
        @Nullable public var retentionBlockedBy: String?
        /// Nil when the tables are not compared with the log by themselves, or were not yet.
        @Nullable public var selfCheck: SelfCheck?

        public struct Archive: Codable, Sendable, Equatable {
            /// Everything below is archived.
            public var through: UInt64
            /// Sealed segments that wait, and for how many seconds the first of them does.
            public var waiting: Int
            public var waitingSeconds: Double
            public var failures: UInt64
            public var isBehind: Bool
            @Nullable public var lastError: String?

            public init(
                through: UInt64, waiting: Int, waitingSeconds: Double, failures: UInt64, isBehind: Bool,
                lastError: String?
            ) {
                self.through = through
                self.waiting = waiting
                self.waitingSeconds = waitingSeconds
                self.failures = failures
                self.isBehind = isBehind
                self.lastError = lastError
            }

            enum CodingKeys: String, CodingKey {
                case through, waiting, waitingSeconds = "waiting_seconds", failures, isBehind = "behind"
                case lastError = "last_error"
            }
        }

        public struct Checkpoint: Codable, Sendable, Equatable {
            /// Events that the last signed checkpoint covers; nil before the first.
            @Nullable public var size: UInt64?
            @Nullable public var at: String?
            /// Why none is signed, or none can be.
            @Nullable public var problem: String?
            /// How often, since the start, a checkpoint could not be brought to a place outside, and the last reason.
            public var failures: UInt64
            @Nullable public var lastError: String?

            public init(size: UInt64?, at: String?, problem: String?, failures: UInt64, lastError: String?) {
                self.size = size
                self.at = at
                self.problem = problem
                self.failures = failures
                self.lastError = lastError
            }

            enum CodingKeys: String, CodingKey { case size, at, problem, failures, lastError = "last_error" }
        }

        public struct Scrub: Codable, Sendable, Equatable {
            public var position: UInt64
            public var passes: UInt64
            /// Places found damaged that nobody signed for.
            public var damaged: Int
            @Nullable public var lastError: String?

            public init(position: UInt64, passes: UInt64, damaged: Int, lastError: String?) {
                self.position = position
                self.passes = passes
                self.damaged = damaged
                self.lastError = lastError
            }

            enum CodingKeys: String, CodingKey { case position, passes, damaged, lastError = "last_error" }
        }

        public init() {}

        enum CodingKeys: String, CodingKey {
            case firstPosition = "first_position", lostEvents = "lost_events", diskFreeBytes = "disk_free_bytes"
            case diskFullSeconds = "disk_full_seconds", scrub, checkpoint, archive
            case horizon, retentionBlockedBy = "retention_blocked_by", selfCheck = "self_check"
        }
    }

    public struct Projection: Codable, Sendable, Equatable {
        public var name: String
        public var version: Int
        public var partition: Int
        /// The last applied position; nil before the first.
        @Nullable public var position: UInt64?
        public var lagEvents: UInt64
        public var lagSeconds: Double
        /// `running`, `paused`, `waiting` (for the database), `failed`, …
        public var state: String
        @Nullable public var lastError: String?
        /// Keys whose events wait because their rows were refused, and the first position that waits.
        public var parkedKeys: Int
        @Nullable public var parkedPosition: UInt64?
        /// How far its rebuild is; nil while none is going on.
        @Nullable public var rebuild: Rebuild?

        public struct Rebuild: Codable, Sendable, Equatable {
            public var stage: String
            public var folded: UInt64
            public var end: UInt64

            public init(stage: String, folded: UInt64, end: UInt64) {
                self.stage = stage
                self.folded = folded
                self.end = end
            }
        }

        public init(
            name: String, version: Int, partition: Int, position: UInt64?, lagEvents: UInt64, lagSeconds: Double,
            state: String, lastError: String? = nil, parkedKeys: Int = 0, parkedPosition: UInt64? = nil
        ) {
            self.parkedKeys = parkedKeys
            self.parkedPosition = parkedPosition
            self.name = name
            self.version = version
            self.partition = partition
            self.position = position
            self.lagEvents = lagEvents
            self.lagSeconds = lagSeconds
            self.state = state
            self.lastError = lastError
        }

        enum CodingKeys: String, CodingKey {
            case name, version, partition, position, lagEvents = "lag_events", lagSeconds = "lag_seconds", state
            case lastError = "last_error", parkedKeys = "parked_keys", parkedPosition = "parked_position"
            case rebuild
        }
    }

    public struct Broker: Codable, Sendable, Equatable {
        public var name: String
        /// MQTT client id of the session.
        public var clientID: String
        public var connected: Bool
        /// Connected, and every filter is granted at QoS 1: the broker delivers or queues every matching message.
        public var subscribed: Bool
        public var sessionPresent: Bool
        @Nullable public var lastError: String?
        /// Messages of devices without a live certificate since the start, whether they passed or not; null: not
        /// checked.
        @Nullable public var withoutCertificate: UInt64?
        public var commands: Commands

        /// Of the connection that carries commands to devices.
        public struct Commands: Codable, Sendable, Equatable {
            public var connected: Bool
            /// Commands that the broker has still to take.
            public var waiting: Int
            /// Devices whose command it refuses.
            public var refused: Int
            /// Commands that it has taken since the start.
            public var acknowledged: UInt64
            @Nullable public var lastError: String?

            public init(
                connected: Bool = false, waiting: Int = 0, refused: Int = 0, acknowledged: UInt64 = 0,
                lastError: String? = nil
            ) {
                self.connected = connected
                self.waiting = waiting
                self.refused = refused
                self.acknowledged = acknowledged
                self.lastError = lastError
            }

            enum CodingKeys: String, CodingKey {
                case connected, waiting, refused, acknowledged, lastError = "last_error"
            }
        }

        public init(
            name: String, clientID: String, connected: Bool, subscribed: Bool, sessionPresent: Bool,
            lastError: String? = nil, withoutCertificate: UInt64? = nil, commands: Commands = .init()
        ) {
            self.name = name
            self.clientID = clientID
            self.connected = connected
            self.subscribed = subscribed
            self.sessionPresent = sessionPresent
            self.lastError = lastError
            self.withoutCertificate = withoutCertificate
            self.commands = commands
        }

        enum CodingKeys: String, CodingKey {
            case name, clientID = "client_id", connected, subscribed, sessionPresent = "session_present"
            case lastError = "last_error", withoutCertificate = "without_certificate", commands
        }
    }

    public struct Database: Codable, Sendable, Equatable {
        public var connected: Bool
        @Nullable public var lastError: String?

        public init(connected: Bool, lastError: String? = nil) {
            self.connected = connected
            self.lastError = lastError
        }

        enum CodingKeys: String, CodingKey { case connected, lastError = "last_error" }
    }

    public var state: Health.State
    /// Why it is not healthy, in sentences for people; empty when it is.
    public var reasons: [String]
    /// The same for programs, in the same order.
    public var problems: [Problem]
    public var log: Log
    public var projections: [Projection]
    public var brokers: [Broker]
    public var database: Database

    public init(
        state: Health.State, reasons: [String] = [], problems: [Problem] = [], log: Log, projections: [Projection],
        brokers: [Broker], database: Database
    ) {
        self.state = state
        self.reasons = reasons
        self.problems = problems
        self.log = log
        self.projections = projections
        self.brokers = brokers
        self.database = database
    }
}

/// What the gate counted of one device since the daemon started.
public struct GateStatistics: Codable, Sendable, Equatable {
    public var accepted: UInt64
    public var rateLimited: UInt64
    /// Messages while the device had no live certificate; 0 where certificates are not checked.
    public var withoutCertificate: UInt64
    /// Messages that the device may send at once now.
    public var tokens: Double?

    public init(accepted: UInt64, rateLimited: UInt64, withoutCertificate: UInt64 = 0, tokens: Double? = nil) {
        self.accepted = accepted
        self.rateLimited = rateLimited
        self.withoutCertificate = withoutCertificate
        self.tokens = tokens
    }

    enum CodingKeys: String, CodingKey {
        case accepted, rateLimited = "rate_limited", withoutCertificate = "without_certificate", tokens
    }
}

/// A device that has sent without a live certificate since the daemon started.
public struct UncertifiedDeviceRow: Codable, Sendable, Equatable {
    public var device: String
    public var broker: String
    /// Whether they passed or not.
    public var messages: UInt64

    public init(device: String, broker: String, messages: UInt64) {
        (self.device, self.broker, self.messages) = (device, broker, messages)
    }
}
