/// An operator's command was refused; nothing changed.
public struct CommandRejected: Codable, Sendable, Equatable {
    /// `campaign.start`, `firmware.add`, …
    public var command: String
    /// `campaign:7`, `firmware:3`; empty when it was to be created.
    public var subject: String
    public var tenantID: String
    public var actor: String
    /// For programs: `not_found`, `illegal_transition`, …
    public var code: String?
    /// A sentence for people.
    public var reason: String
    public var idempotencyKey: String?
    public var requestDigest: String?

    public init(command: String, subject: String, tenantID: String, actor: String, reason: String) {
        self.command = command
        self.subject = subject
        self.tenantID = tenantID
        self.actor = actor
        self.reason = reason
    }

    enum CodingKeys: String, CodingKey {
        case command, subject, tenantID = "tenant_id", actor, code, reason, idempotencyKey = "idempotency_key"
        case requestDigest = "request_sha256"
    }
}

extension CommandRejected: CommandedDecision {
    public static var schemas: [String] { [CampaignSchema.commandRejected.rawValue] }
    public var envelope: Envelope { commandEnvelope(about: subject) }
    public var summary: String { "\(command)\(subject.isEmpty ? "" : " \(subject)") was refused: \(reason)" }
}
