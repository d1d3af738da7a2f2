import EventModel
#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// The events of this decider, typed. What each is called in the log: `CampaignSchema`.
public enum CampaignEvent: Sendable, Equatable {
    case firmwareAdded(FirmwareAdded)
    case campaignCreated(CampaignCreated)
    case campaignTargets(CampaignTargets)
    /// `schema` is one of started, paused, resumed, aborted.
    case statusChanged(CampaignSchema, CampaignStatusChanged)
    case rejected(CommandRejected)

    public var schema: CampaignSchema {
        switch self {
        case .firmwareAdded: .firmwareAdded
        case .campaignCreated: .campaignCreated
        case .campaignTargets: .campaignTargets
        case .statusChanged(let schema, _): schema
        case .rejected: .commandRejected
        }
    }

    /// Nil when the record is none of this decider's: another kind, or another decider's schema.
    /// - Throws: `CampaignLogError` when it is one and cannot be understood.
    public init?(_ record: RecordView, at position: Position) throws(CampaignLogError) {
        guard record.kind == .decision, let schema = CampaignSchema(rawValue: record.topicString) else { return nil }
        do {
            let payload = Data(record.payload), decoder = JSONDecoder()
            switch schema {
            case .firmwareAdded: self = .firmwareAdded(try decoder.decode(FirmwareAdded.self, from: payload))
            case .campaignCreated: self = .campaignCreated(try decoder.decode(CampaignCreated.self, from: payload))
            case .campaignTargets: self = .campaignTargets(try decoder.decode(CampaignTargets.self, from: payload))
            case .campaignStarted, .campaignPaused, .campaignResumed, .campaignAborted:
                self = .statusChanged(schema, try decoder.decode(CampaignStatusChanged.self, from: payload))
            case .commandRejected: self = .rejected(try decoder.decode(CommandRejected.self, from: payload))
            }
        } catch {
            throw CampaignLogError(
                "the event \(schema.rawValue) at position \(position) cannot be understood (\(error)); "
                    + "was it written by a newer version?")
        }
    }

    /// Appends it as a record.
    public func append(to batch: inout RecordBatch, at time: Timestamp) {
        let json: [UInt8] =
            switch self {
            case .firmwareAdded(let event): Self.json(event)
            case .campaignCreated(let event): Self.json(event)
            case .campaignTargets(let event): Self.json(event)
            case .statusChanged(_, let event): Self.json(event)
            case .rejected(let event): Self.json(event)
            }
        batch.append(kind: .decision, schema: schema.rawValue, receivedAt: time, json: json)
    }

    private static func json(_ value: some Encodable) -> [UInt8] {
        let encoder = JSONEncoder()
        // One event has one spelling: digests and recorded cases rely on it.
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        do {
            return Array(try encoder.encode(value))
        } catch {
            preconditionFailure("an event of strings and finite numbers did not encode: \(error)")
        }
    }
}

/// The log holds a decision that this version cannot fold. Nothing is decided on top of it.
public struct CampaignLogError: Error, Sendable, CustomStringConvertible {
    public let description: String
    init(_ description: String) { self.description = description }
}
