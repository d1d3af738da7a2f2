// Decisions: payloads of the events that deciders append.
//
//     Decision           payload of one record; describes itself
//     Envelope           who, about what, in which tenant
//     DecisionCatalog    schema → type
//     Campaigns, …       the decisions of each decider
//
// Invariants. A schema's name and version are on disk: a new form of a decision gets a new version, and the old one
// stays readable. The audit log and conditional append read envelopes, and audits print summaries, so a new decision
// needs none of them changed. The campaign rows and their timeline have a case for each type.
import EventModel

/// What a decider decided or refused: the JSON payload of a record of `EventKind.decision`.
public protocol Decision: Codable, Sendable, Equatable {
    /// Names and versions of its records, such as `campaign.dispatched/1`. Where a version follows another, the newest
    /// is the first.
    static var schemas: [String] { get }

    var envelope: Envelope { get }

    /// What was done, for people, behind the actor's name: `created campaign 7`.
    var summary: String { get }

    /// The messages that it causes, where it was not void. Pure: this decision at `position` always gives the same.
    /// A decider's effects send them; ingest recognises them when a broker returns them.
    func deliveries(at position: Position) -> [Delivery]
    /// Whether `deliveries` may return any.
    static var causesDeliveries: Bool { get }
}

extension Decision {
    public static var schema: String { schemas[0] }

    public func deliveries(at position: Position) -> [Delivery] { [] }
    public static var causesDeliveries: Bool { false }

    /// - Throws: `DecodingError`.
    public static func decoded(_ record: RecordView) throws -> Self { try record.decoded(Self.self) }
}

/// A decision that answers an operator's command, under the command's idempotency key where it has one.
public protocol CommandedDecision: Decision {
    var tenantID: String { get }
    var actor: String { get }
    var idempotencyKey: String? { get set }
    /// SHA-256 of the command, in hex: the same key with another command is refused.
    var requestDigest: String? { get set }
}

extension CommandedDecision {
    func commandEnvelope(about subject: String) -> Envelope {
        Envelope(
            tenantID: tenantID, actor: actor, subject: subject, idempotencyKey: idempotencyKey,
            requestDigest: requestDigest)
    }
}

/// What every decision says about itself.
public struct Envelope: Sendable, Equatable {
    /// In place of a tenant's id: all tenants.
    public static let everyTenant = "*"

    /// One property of the subject before the decision.
    public struct Before: Sendable, Equatable {
        public let property: String
        public let value: String

        public init(_ property: String, _ value: String) { (self.property, self.value) = (property, value) }
    }

    public var tenantID: String
    /// Nil: the payload names no actor.
    public var actor: String?
    /// What it changes, such as `campaign:7`. Empty: what was refused would have created it.
    public var subject: String
    /// What else it depends on: the decision must not be made beside a change of these.
    public var related: [String] = []
    /// The devices that it is about; nil: the payload has no list of them, or more than one.
    public var devices: [String]?
    public var idempotencyKey: String?
    /// SHA-256 of the request, in hex: the same key with another request is refused.
    public var requestDigest: String?
    public var before: Before?
    /// Whether it has a row in the audit log. Not where it only continues an earlier decision, or other tables show it.
    public var isAudited = true

    public init(
        tenantID: String, actor: String?, subject: String, idempotencyKey: String? = nil, requestDigest: String? = nil
    ) {
        self.tenantID = tenantID
        self.actor = actor
        self.subject = subject
        self.idempotencyKey = idempotencyKey
        self.requestDigest = requestDigest
    }

    /// Of two decisions that share one of these, the second is made from a state that has the first. All deciders of a
    /// log share one namespace.
    public var subjects: [String] {
        [subject].filter { !$0.isEmpty } + related + (idempotencyKey.map { ["key:\(tenantID)/\($0)"] } ?? [])
    }
}

/// `1 device`, `2 devices`.
package func counted(_ count: Int, _ one: String, _ many: String? = nil) -> String {
    "\(count) \(count == 1 ? one : many ?? one + "s")"
}
