/// How a campaign is to go: recorded with its creation, so that what was decided can be explained and decided again.
/// Times are seconds. What is left out has the value given here.
public struct CampaignPlan: Codable, Sendable, Equatable {
    /// `rollout_rate` counts devices a tick.
    public var tickSeconds: Double = 10
    /// Canary stages; empty: one stage of all devices.
    public var stages: [Stage] = []
    /// Which devices come first.
    public var order: Order = .listed
    /// Nothing is sent outside of these; empty: always.
    public var windows: [Window] = []
    /// Of the windows: a name of the IANA time zone database.
    public var timeZone: String = "UTC"
    public var abort = Abort()
    public var timeouts = Timeouts()
    public var retry = Retry()
    public var completion = Completion()
    /// What must show the campaign's version after a device's SUCCESS; nil: its word is enough.
    public var verify: Verification?
    public var delivery: Delivery = .queue

    public init() {}

    public struct Stage: Codable, Sendable, Equatable {
        /// Of the campaign's devices, those of earlier stages included: over 0, at most 100.
        public var percent: Double
        /// Counted from when enough of the stage's devices have ended.
        public var soakSeconds: Double
        /// So large a share of the devices dispatched is enough: one that never answers need not hold up all others.
        public var endedMin: Double
        /// Share of successes among the results, 0 to 1; without it one success is enough. A small stage says little
        /// about a share: whether it fails too often is for the abort rule to judge.
        public var successMin: Double?

        public init(
            percent: Double, soakSeconds: Double = 0, successMin: Double? = nil, endedMin: Double = 0.95
        ) {
            self.percent = percent
            self.soakSeconds = soakSeconds
            self.endedMin = endedMin
            self.successMin = successMin
        }

        enum CodingKeys: String, CodingKey {
            case percent, soakSeconds = "soak_seconds", successMin = "success_min", endedMin = "ended_min"
        }

        public static let defaults = [
            Stage(percent: 1, soakSeconds: 600), Stage(percent: 10, soakSeconds: 1_800),
            Stage(percent: 50, soakSeconds: 3_600), Stage(percent: 100),
        ]
    }

    public enum Order: String, Codable, Sendable, CaseIterable {
        /// As they were named: the first are the canaries.
        case listed
        /// By a hash of the campaign and the device: the first are a fair sample.
        case shuffled
    }

    /// Part of the day. `to` at or before `from` means on the next day.
    public struct Window: Codable, Sendable, Equatable {
        /// `mon` … `sun`, of the window's beginning; empty: every day.
        public var days: [String]
        /// `HH:MM`.
        public var from: String
        public var to: String

        public init(days: [String] = [], from: String, to: String) {
            self.days = days
            self.from = from
            self.to = to
        }
    }

    public struct Abort: Codable, Sendable, Equatable {
        public enum Method: String, Codable, Sendable, CaseIterable {
            /// An always-valid test: wrongly ended at most once in a hundred campaigns, however often it looks.
            case sequential
            /// Failures among results, as they stand.
            case ratio
            case none
        }
        public enum Action: String, Codable, Sendable, CaseIterable { case abort, pause }

        /// Compares with the campaign's `abort_threshold`; without one nothing is compared.
        public var method: Method = .sequential
        public var action: Action = .abort
        /// With fewer results than this nothing is judged.
        public var resultsMin: Int64 = 1
        /// `OTAFailureKind`s that count as failures; nil: all but UNREACHABLE. Others are no results.
        public var kinds: [String]?
        /// So many failures one after the other end it, whatever the share. Nil: never.
        public var consecutiveFailuresMax: Int64?

        enum CodingKeys: String, CodingKey {
            case method, action, resultsMin = "results_min", kinds
            case consecutiveFailuresMax = "consecutive_failures_max"
        }
    }

    public struct Timeouts: Codable, Sendable, Equatable {
        /// From the broker's acknowledgement of the command to the device's first word: else UNREACHABLE.
        public var acknowledgeSeconds: Double = 24 * 3600
        /// From there to INSTALLING: else TIMED_OUT.
        public var downloadSeconds: Double = 2 * 3600
        /// From INSTALLING to the result: else TIMED_OUT.
        public var installSeconds: Double = 3600
        /// From SUCCESS to the version: else FAILED, NOT_VERIFIED.
        public var verifySeconds: Double = 1800
        /// From the start, pauses included, to the end: what is then still to be sent is SKIPPED.
        public var campaignSeconds: Double = 30 * 24 * 3600

        enum CodingKeys: String, CodingKey {
            case acknowledgeSeconds = "acknowledge_seconds", downloadSeconds = "download_seconds"
            case installSeconds = "install_seconds", verifySeconds = "verify_seconds"
            case campaignSeconds = "campaign_seconds"
        }
    }

    public struct Retry: Codable, Sendable, Equatable {
        /// Attempts a device has, the first included.
        public var attemptsMax: Int = 1
        /// Before the second attempt; doubled for each one after it.
        public var backoffSeconds: Double = 300
        public var backoffMaxSeconds: Double = 6 * 3600
        /// `OTAFailureKind`s worth another attempt; nil: DOWNLOAD, TIMED_OUT and UNREACHABLE.
        public var kinds: [String]?

        enum CodingKeys: String, CodingKey {
            case attemptsMax = "attempts_max", backoffSeconds = "backoff_seconds"
            case backoffMaxSeconds = "backoff_max_seconds", kinds
        }
    }

    /// When enough is enough: after `seconds` from the start the campaign is complete if `share` of its devices has
    /// ended.
    public struct Completion: Codable, Sendable, Equatable {
        public var share: Double = 1
        public var seconds: Double = 0
    }

    public enum Verification: String, Codable, Sendable, CaseIterable { case shadow, telemetry }

    public enum Delivery: String, Codable, Sendable, CaseIterable {
        /// Published at once; the broker keeps it for devices with a session.
        case queue
        /// Published retained, and taken back when the device has ended.
        case retained
        /// Published when the device shows itself.
        case onConnect = "on_connect"
    }

    enum CodingKeys: String, CodingKey {
        case tickSeconds = "tick_seconds", stages, order, windows, timeZone = "time_zone", abort, timeouts, retry
        case completion, verify, delivery
    }
}

// What is left out has its default.
extension CampaignPlan {
    public init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        try fields.read(.tickSeconds, into: &tickSeconds)
        try fields.read(.stages, into: &stages)
        try fields.read(.order, into: &order)
        try fields.read(.windows, into: &windows)
        try fields.read(.timeZone, into: &timeZone)
        try fields.read(.abort, into: &abort)
        try fields.read(.timeouts, into: &timeouts)
        try fields.read(.retry, into: &retry)
        try fields.read(.completion, into: &completion)
        verify = try fields.decodeIfPresent(Verification.self, forKey: .verify)
        try fields.read(.delivery, into: &delivery)
    }
}

extension CampaignPlan.Stage {
    public init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        self.init(percent: try fields.decode(Double.self, forKey: .percent))
        try fields.read(.soakSeconds, into: &soakSeconds)
        try fields.read(.endedMin, into: &endedMin)
        successMin = try fields.decodeIfPresent(Double.self, forKey: .successMin)
    }
}

extension CampaignPlan.Window {
    public init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        self.init(from: try fields.decode(String.self, forKey: .from), to: try fields.decode(String.self, forKey: .to))
        try fields.read(.days, into: &days)
    }
    public enum CodingKeys: String, CodingKey { case days, from, to }
}

extension CampaignPlan.Abort {
    public init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        try fields.read(.method, into: &method)
        try fields.read(.action, into: &action)
        try fields.read(.resultsMin, into: &resultsMin)
        kinds = try fields.decodeIfPresent([String].self, forKey: .kinds)
        consecutiveFailuresMax = try fields.decodeIfPresent(Int64.self, forKey: .consecutiveFailuresMax)
    }
}

extension CampaignPlan.Timeouts {
    public init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        try fields.read(.acknowledgeSeconds, into: &acknowledgeSeconds)
        try fields.read(.downloadSeconds, into: &downloadSeconds)
        try fields.read(.installSeconds, into: &installSeconds)
        try fields.read(.verifySeconds, into: &verifySeconds)
        try fields.read(.campaignSeconds, into: &campaignSeconds)
    }
}

extension CampaignPlan.Retry {
    public init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        try fields.read(.attemptsMax, into: &attemptsMax)
        try fields.read(.backoffSeconds, into: &backoffSeconds)
        try fields.read(.backoffMaxSeconds, into: &backoffMaxSeconds)
        kinds = try fields.decodeIfPresent([String].self, forKey: .kinds)
    }
}

extension CampaignPlan.Completion {
    public init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        try fields.read(.share, into: &share)
        try fields.read(.seconds, into: &seconds)
    }
    public enum CodingKeys: String, CodingKey { case share, seconds }
}

extension KeyedDecodingContainer {
    /// Leaves the value as it is when the field is absent or null.
    fileprivate func read<T: Decodable>(_ key: Key, into value: inout T) throws {
        if let given = try decodeIfPresent(T.self, forKey: key) { value = given }
    }
}
