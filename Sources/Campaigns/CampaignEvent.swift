import EventModel
#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// The events of this decider, typed. What each is called in the log: `CampaignSchema`.
public enum CampaignEvent: Sendable, Equatable {
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

    /// Nil when the record is none of this decider's: another kind, or another decider's schema.
    /// - Throws: `CampaignLogError` when it is one and cannot be understood.
    public init?(_ record: RecordView, at position: Position) throws(CampaignLogError) {
        guard record.kind == .decision, let schema = CampaignSchema(rawValue: record.topicString) else { return nil }
        do {
            self = try Self.decode(schema, Data(record.payload))
        } catch {
            throw CampaignLogError(
                "the event \(schema.rawValue) at position \(position) cannot be understood (\(error)); "
                    + "was it written by a newer version?")
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

    /// Appends it as a record.
    public func append(to batch: inout RecordBatch, at time: Timestamp) {
        let json: [UInt8] =
            switch self {
            case .firmwareAdded(let event): ownJSON(event)
            case .groupCreated(let event): ownJSON(event)
            case .groupMembers(let event): ownJSON(event)
            case .groupDeleted(let event): ownJSON(event)
            case .tenantConfigured(let event): ownJSON(event)
            case .campaignCreated(let event): ownJSON(event)
            case .campaignTargets(let event): ownJSON(event)
            case .statusChanged(_, let event): ownJSON(event)
            case .stageBegun(let event): ownJSON(event)
            case .dispatched(let event): ownJSON(event)
            case .published(let event): ownJSON(event)
            case .devicesEnded(let event): ownJSON(event)
            case .rejected(let event): ownJSON(event)
            }
        batch.append(kind: .decision, schema: schema.rawValue, receivedAt: time, json: json)
    }
}

/// One event has one spelling: digests and recorded cases rely on it.
func ownJSON(_ value: some Encodable) -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    do {
        return Array(try encoder.encode(value))
    } catch {
        preconditionFailure("an event of strings and finite numbers did not encode: \(error)")
    }
}

/// The log holds a decision that this version cannot fold. Nothing is decided on top of it.
public struct CampaignLogError: Error, Sendable, CustomStringConvertible {
    public let description: String
    init(_ description: String) { self.description = description }
}
