import Deciding
import EventModel

/// The events of this decider, typed.
public enum AccessEvent: Decision, Equatable {
    case created(TokenCreated)
    case revoked(TokenRevoked)
    /// A refusal, `command.rejected/1`: it changes nothing, and is not read back.
    case rejected(CommandRejected)

    public init?(_ record: RecordView, at position: Position) throws(UnreadableDecision) {
        guard record.kind == .decision, let schema = AccessSchema(rawValue: record.topicString) else { return nil }
        self = try UnreadableDecision.reading(schema.rawValue, at: position) {
            switch schema {
            case .tokenCreated: .created(try record.decoded())
            case .tokenRevoked: .revoked(try record.decoded())
            }
        }
    }

    public func append(to batch: inout RecordBatch, at time: Timestamp) {
        let (schema, json) = switch self {
        case .created(let event): (AccessSchema.tokenCreated.rawValue, eventJSON(event))
        case .revoked(let event): (AccessSchema.tokenRevoked.rawValue, eventJSON(event))
        case .rejected(let event): (CampaignSchema.commandRejected.rawValue, eventJSON(event))
        }
        batch.append(kind: .decision, schema: schema, receivedAt: time, json: json)
    }

    /// None beside `AccessState.commonSubject`: names are unique, and a revocation ends other tokens too.
    public var subjects: [String] { [] }
}
