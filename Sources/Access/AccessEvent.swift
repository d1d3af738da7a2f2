import Deciding
import Decisions

/// The events of this decider, typed.
public enum AccessEvent: DeciderEvent, Equatable {
    case created(TokenCreated)
    case revoked(TokenRevoked)
    /// A refusal changes nothing, and is not read back.
    case rejected(CommandRejected)

    public static var catalog: DecisionCatalog { .access }

    public init?(_ decision: any Decision, schema: String) {
        switch decision {
        case let event as TokenCreated: self = .created(event)
        case let event as TokenRevoked: self = .revoked(event)
        default: return nil
        }
    }

    public var decision: any Decision {
        switch self {
        case .created(let event): event
        case .revoked(let event): event
        case .rejected(let event): event
        }
    }
}
