import Deciding
import Decisions

/// The events of this decider, typed.
public enum CampaignEvent: DeciderEvent, Equatable {
    case firmwareAdded(FirmwareAdded)
    case groupCreated(GroupCreated)
    case groupMembers(GroupMembers)
    case groupDeleted(GroupDeleted)
    case tenantConfigured(TenantConfigured)
    case campaignCreated(CampaignCreated)
    case campaignTargets(CampaignTargets)
    /// `schema` is one that changes a status.
    case statusChanged(CampaignSchema, CampaignStatusChanged)
    case stageBegun(CampaignStageBegun)
    case dispatched(CampaignDispatched)
    case published(CampaignPublished)
    case devicesEnded(CampaignDevicesEnded)
    case archived(CampaignArchived)
    case rejected(CommandRejected)

    public static var catalog: DecisionCatalog { .campaigns }

    public init?(_ decision: any Decision, schema: String) {
        switch decision {
        case let event as FirmwareAdded: self = .firmwareAdded(event)
        case let event as GroupCreated: self = .groupCreated(event)
        case let event as GroupMembers: self = .groupMembers(event)
        case let event as GroupDeleted: self = .groupDeleted(event)
        case let event as TenantConfigured: self = .tenantConfigured(event)
        case let event as CampaignCreated: self = .campaignCreated(event)
        case let event as CampaignTargets: self = .campaignTargets(event)
        case let event as CampaignStatusChanged:
            guard let schema = CampaignSchema(rawValue: schema) else { return nil }
            self = .statusChanged(schema, event)
        case let event as CampaignStageBegun: self = .stageBegun(event)
        case let event as CampaignDispatched: self = .dispatched(event)
        case let event as CampaignPublished: self = .published(event)
        case let event as CampaignDevicesEnded: self = .devicesEnded(event)
        case let event as CampaignArchived: self = .archived(event)
        case let event as CommandRejected: self = .rejected(event)
        default: return nil
        }
    }

    public var decision: any Decision {
        switch self {
        case .firmwareAdded(let event): event
        case .groupCreated(let event): event
        case .groupMembers(let event): event
        case .groupDeleted(let event): event
        case .tenantConfigured(let event): event
        case .campaignCreated(let event): event
        case .campaignTargets(let event): event
        case .statusChanged(_, let event): event
        case .stageBegun(let event): event
        case .dispatched(let event): event
        case .published(let event): event
        case .devicesEnded(let event): event
        case .archived(let event): event
        case .rejected(let event): event
        }
    }

    public var schema: String {
        if case .statusChanged(let schema, _) = self { schema.rawValue } else { type(of: decision).schema }
    }
}
