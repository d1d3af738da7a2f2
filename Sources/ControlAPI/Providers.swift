import Campaigns
import Deciding
import Decisions
import EventLog
import EventModel

// What the API sees of the system. The executable implements these; tests give stand-ins of their own.

/// Everything that the routes need, in one value.
public struct APIDependencies: Sendable {
    public var status: any StatusProviding
    public var projections: any ProjectionControlling
    public var campaigns: any CampaignCommanding
    public var queries: any ReadQueries
    public var log: any LogOperations
    public var snapshots: any SnapshotKeeping
    public var rebuilds: any TableRebuilding
    public var tokens: any TokenKeeping
    public var certificates: any CertificateKeeping
    public var crls: any CRLKeeping
    public var certificateAudit: any CertificateAuditing
    public var jobs: any JobKeeping
    public var past: any HistoricalQueries
    public var metrics: @Sendable () async -> MetricsSnapshot
    /// Records that an operator knows of a broker's alarms, and ends them. The event's position; nil when there is no
    /// broker of that name. Throws `AppendError`.
    public var acknowledgeBroker: AcknowledgeBroker
    /// What the gate counted of a device; nil when it has seen none of its messages since the start.
    public var gate: @Sendable (_ tenant: String, _ device: String) async -> GateStatistics?
    /// Devices of a tenant that have sent without a live certificate since the start, of those that the gate still
    /// tracks; at most 1,000 a broker.
    public var uncertified: @Sendable (_ tenant: String) async -> [UncertifiedDeviceRow]
    /// The event at a position; nil when there is none yet. Throws `LogError`.
    public var event: @Sendable (_ position: UInt64) async throws -> RecordedEvent?

    public init(
        status: any StatusProviding, projections: any ProjectionControlling, campaigns: any CampaignCommanding,
        queries: any ReadQueries, log: any LogOperations, snapshots: any SnapshotKeeping, past: any HistoricalQueries,
        rebuilds: any TableRebuilding, tokens: any TokenKeeping, certificates: any CertificateKeeping,
        crls: any CRLKeeping, certificateAudit: any CertificateAuditing, jobs: any JobKeeping,
        metrics: @escaping @Sendable () async -> MetricsSnapshot,
        acknowledgeBroker: @escaping AcknowledgeBroker,
        gate: @escaping @Sendable (_ tenant: String, _ device: String) async -> GateStatistics? = { _, _ in nil },
        uncertified: @escaping @Sendable (_ tenant: String) async -> [UncertifiedDeviceRow] = { _ in [] },
        event: @escaping @Sendable (_ position: UInt64) async throws -> RecordedEvent? = { _ in nil }
    ) {
        self.status = status
        self.projections = projections
        self.campaigns = campaigns
        self.queries = queries
        self.log = log
        self.snapshots = snapshots
        self.rebuilds = rebuilds
        self.tokens = tokens
        (self.certificates, self.crls, self.certificateAudit) = (certificates, crls, certificateAudit)
        self.jobs = jobs
        self.past = past
        self.metrics = metrics
        self.acknowledgeBroker = acknowledgeBroker
        self.gate = gate
        self.uncertified = uncertified
        self.event = event
    }
}

public typealias AcknowledgeBroker =
    @Sendable (_ broker: String, _ operatorName: String, _ reason: String) async throws -> UInt64?

public protocol StatusProviding: Sendable {
    func status() async -> SystemStatus
    /// Why the daemon is not ready (the log cannot be written, a broker is not subscribed); empty when it is.
    func reasonsNotReady() async -> [String]
    /// Threads that missed their heartbeat; empty when all are on time.
    func reasonsNotLive() async -> [String]
}

public protocol ProjectionControlling: Sendable {
    func projections() async -> [SystemStatus.Projection]
    /// Stops folding after the block in hand. Nil when there is no projection of that name.
    func pause(_ name: String) async -> SystemStatus.Projection?
    func resume(_ name: String) async -> SystemStatus.Projection?
    /// Keys whose events wait, by projection and position.
    func parkedKeys() async -> [ParkedKeyRow]
    /// Takes parked keys up again. Nil when that takes longer than `timeout`; it goes on.
    func retryParked(_ request: ParkedRetryRequest, timeout: Duration) async -> ParkedRetryAnswer?
    /// Waits until the projection has applied `position`; false when it has not within `timeout`.
    func wait(for position: UInt64, in projection: String, timeout: Duration) async -> Bool
}

/// What operators do to the log itself.
public protocol LogOperations: Sendable {
    /// Losses that were given up, oldest first.
    func losses() async -> [LossRow]
    /// Gives up what is damaged in these positions. Returns what was given up, when that is durable; nothing when
    /// nothing there is damaged.
    /// - Throws: `AppendError`, `LogError`.
    func acceptLosses(_ request: LossRequest) async throws -> [LossRow]
    /// The last signed checkpoint, a C2SP tlog-checkpoint; nil when there is none yet.
    func checkpoint() async -> String?
}

public struct LossRequest: Sendable, Equatable {
    public var operatorName: String
    public var reason: String
    /// First and last positions.
    public var ranges: [ClosedRange<UInt64>]
}

/// One accepted loss: `log.loss_accepted/1` as the log has it, with its position and time.
public struct LossRow: Encodable, Sendable, Equatable {
    public var position: UInt64
    public var at: String
    public var event: LossAccepted

    public init(_ loss: AcceptedLoss) {
        (position, at, event) = (loss.position.rawValue, loss.at.description, loss.event)
    }

    enum CodingKeys: String, CodingKey { case position, at }

    public func encode(to encoder: any Encoder) throws {
        try event.encode(to: encoder)
        var fields = encoder.container(keyedBy: CodingKeys.self)
        try fields.encode(position, forKey: .position)
        try fields.encode(at, forKey: .at)
    }
}

/// Gives operators' commands to the decider. A refusal is an answer.
public protocol CampaignCommanding: Sendable {
    /// Returns when the decision is durable.
    /// - Throws: `AppendError` when the log takes nothing at the moment.
    func execute(_ request: CommandRequest) async throws -> CommandAnswer
    /// What finds the group's devices; nil when it is a list, or not there.
    /// - Throws: `LogError`, `UnreadableDecision` when the decisions cannot be read back.
    func groupQuery(tenant: String, id: Int64) async throws -> GroupQuery?
}

extension DeciderService<CampaignState>: CampaignCommanding {}

/// The projections whose rows the read routes show: what `min_position` waits for.
enum ProjectionName {
    static let deviceStatus = "device_status"
    static let campaigns = "campaigns"
    static let deadLetters = "dead_letters"
    static let campaignEvents = "campaign_events"
    static let deviceGroups = "device_groups"
    static let deviceConnectionEvents = "device_connection_events"
    static let certificates = "certificates"
    static let auditLogs = "audit_logs"
}
