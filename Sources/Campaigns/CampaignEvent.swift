import Deciding
import EventModel
#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// The events of this decider, typed. What each is called in the log: `CampaignSchema`.
public enum CampaignEvent: Decision, Equatable {
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
    case rejected(CommandRejected)

    public var schema: CampaignSchema {
        switch self {
        case .firmwareAdded: .firmwareAdded
        case .groupCreated: .groupCreated
        case .groupMembers: .groupMembers
        case .groupDeleted: .groupDeleted
        case .tenantConfigured: .tenantConfigured
        case .campaignCreated: .campaignCreated
        case .campaignTargets: .campaignTargets
        case .statusChanged(let schema, _): schema
        case .stageBegun: .campaignStageBegun
        case .dispatched: .campaignDispatched
        case .published: .campaignPublished
        case .devicesEnded: .campaignDevicesEnded
        case .rejected: .commandRejected
        }
    }

    public init?(_ record: RecordView, at position: Position) throws(UnreadableDecision) {
        guard record.kind == .decision, let schema = CampaignSchema(rawValue: record.topicString) else { return nil }
        self = try UnreadableDecision.reading(schema.rawValue, at: position) {
            try Self.decode(schema, Data(record.payload))
        }
    }

    private static func decode(_ schema: CampaignSchema, _ json: Data) throws -> CampaignEvent {
        func read<T: Decodable>(_ make: (T) -> CampaignEvent) throws -> CampaignEvent {
            make(try JSONDecoder().decode(T.self, from: json))
        }
        return switch schema {
        case .firmwareAdded: try read(CampaignEvent.firmwareAdded)
        case .groupCreated: try read(CampaignEvent.groupCreated)
        case .groupMembers: try read(CampaignEvent.groupMembers)
        case .groupDeleted: try read(CampaignEvent.groupDeleted)
        case .tenantConfigured: try read(CampaignEvent.tenantConfigured)
        case .campaignCreated: try read(CampaignEvent.campaignCreated)
        case .campaignTargets: try read(CampaignEvent.campaignTargets)
        case .campaignStarted, .campaignPaused, .campaignResumed, .campaignAborted, .campaignCompleted,
            .campaignDeleted, .campaignRetried:
            try read { .statusChanged(schema, $0) }
        case .campaignStageBegun: try read(CampaignEvent.stageBegun)
        case .campaignDispatched: try read(CampaignEvent.dispatched)
        case .campaignPublished: try read(CampaignEvent.published)
        case .campaignDevicesEnded: try read(CampaignEvent.devicesEnded)
        case .commandRejected: try read(CampaignEvent.rejected)
        }
    }

    public func append(to batch: inout RecordBatch, at time: Timestamp) {
        let json: [UInt8] =
            switch self {
            case .firmwareAdded(let event): eventJSON(event)
            case .groupCreated(let event): eventJSON(event)
            case .groupMembers(let event): eventJSON(event)
            case .groupDeleted(let event): eventJSON(event)
            case .tenantConfigured(let event): eventJSON(event)
            case .campaignCreated(let event): eventJSON(event)
            case .campaignTargets(let event): eventJSON(event)
            case .statusChanged(_, let event): eventJSON(event)
            case .stageBegun(let event): eventJSON(event)
            case .dispatched(let event): eventJSON(event)
            case .published(let event): eventJSON(event)
            case .devicesEnded(let event): eventJSON(event)
            case .rejected(let event): eventJSON(event)
            }
        batch.append(kind: .decision, schema: schema.rawValue, receivedAt: time, json: json)
    }
}

extension CampaignEvent {
    /// With the idempotency key, so that two requests under one key conflict.
    public var subjects: [String] {
        func of(_ subject: String?, _ tenant: String, _ key: String?) -> [String] {
            [subject, key.map { "key:\(tenant)/\($0)" }].compactMap { $0 }
        }
        return switch self {
        case .firmwareAdded(let event): of("firmware:\(event.id)", event.tenantID, event.idempotencyKey)
        case .groupCreated(let event): of("group:\(event.id)", event.tenantID, event.idempotencyKey)
        case .groupMembers(let event): of("group:\(event.groupID)", event.tenantID, event.idempotencyKey)
        case .groupDeleted(let event): of("group:\(event.groupID)", event.tenantID, event.idempotencyKey)
        case .tenantConfigured(let event): of("tenant:\(event.tenantID)", event.tenantID, event.idempotencyKey)
        case .campaignCreated(let event):
            of("campaign:\(event.id)", event.tenantID, event.idempotencyKey) + ["firmware:\(event.firmwareVersionID)"]
                + (event.targetGroupID.map { ["group:\($0)"] } ?? [])
        case .campaignTargets(let event): of("campaign:\(event.campaignID)", event.tenantID, nil)
        case .statusChanged(_, let event): of("campaign:\(event.campaignID)", event.tenantID, event.idempotencyKey)
        case .stageBegun(let event): of("campaign:\(event.campaignID)", event.tenantID, nil)
        case .dispatched(let event): of("campaign:\(event.campaignID)", event.tenantID, nil)
        case .published(let event): of("campaign:\(event.campaignID)", event.tenantID, nil)
        case .devicesEnded(let event): of("campaign:\(event.campaignID)", event.tenantID, nil)
        case .rejected(let event):
            of(event.subject.isEmpty ? nil : event.subject, event.tenantID, event.idempotencyKey)
        }
    }
}
