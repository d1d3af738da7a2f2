import Deciding
import Decisions

/// The events of this decider, typed.
public enum RegistryEvent: DeciderEvent, Equatable {
    case authorityAdded(AuthorityAdded)
    case authorityRetired(AuthorityRetired)
    case added(CertificateAdded)
    case changed(CertificateChanged)
    case crlIssued(CRLIssued)
    case crlRefused(CRLRefused)
    case crlEnforced(CRLEnforced)
    case clientCut(ClientCut)
    case clientBanLifted(ClientBanLifted)
    case renewalPolicy(RenewalPolicySet)
    case authorityRenewal(AuthorityRenewal)
    case renewal(CertificateRenewal)
    /// A refusal changes nothing, and is not read back.
    case rejected(CommandRejected)

    public static var catalog: DecisionCatalog { .certificates }

    public init?(_ decision: any Decision, schema: String) {
        switch decision {
        case let event as AuthorityAdded: self = .authorityAdded(event)
        case let event as AuthorityRetired: self = .authorityRetired(event)
        case let event as CertificateAdded: self = .added(event)
        case let event as CertificateChanged: self = .changed(event)
        case let event as CRLIssued: self = .crlIssued(event)
        case let event as CRLRefused: self = .crlRefused(event)
        case let event as CRLEnforced: self = .crlEnforced(event)
        case let event as ClientCut: self = .clientCut(event)
        case let event as ClientBanLifted: self = .clientBanLifted(event)
        case let event as RenewalPolicySet: self = .renewalPolicy(event)
        case let event as AuthorityRenewal: self = .authorityRenewal(event)
        case let event as CertificateRenewal: self = .renewal(event)
        default: return nil
        }
    }

    public var decision: any Decision {
        switch self {
        case .authorityAdded(let event): event
        case .authorityRetired(let event): event
        case .added(let event): event
        case .changed(let event): event
        case .crlIssued(let event): event
        case .crlRefused(let event): event
        case .crlEnforced(let event): event
        case .clientCut(let event): event
        case .clientBanLifted(let event): event
        case .renewalPolicy(let event): event
        case .authorityRenewal(let event): event
        case .renewal(let event): event
        case .rejected(let event): event
        }
    }

    public var schema: String {
        switch self {
        case .added(let event): event.schema.rawValue
        case .changed(let event): event.schema.rawValue
        case .crlEnforced(let event): event.schema.rawValue
        case .renewal(let event): event.schema.rawValue
        default: type(of: decision).schema
        }
    }
}
