import EventModel
#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// The events of this decider, typed. What each is called in the log: `AccessSchema`.
public enum AccessEvent: Sendable, Equatable {
    case created(TokenCreated)
    case revoked(TokenRevoked)

    /// Nil when the record is none of this decider's.
    /// - Throws: `AccessLogError` when it is one and cannot be understood.
    public init?(_ record: RecordView, at position: Position) throws(AccessLogError) {
        guard record.kind == .decision, let schema = AccessSchema(rawValue: record.topicString) else { return nil }
        do {
            self = switch schema {
            case .tokenCreated: .created(try Self.value(record.payload))
            case .tokenRevoked: .revoked(try Self.value(record.payload))
            }
        } catch {
            throw AccessLogError(
                "the event \(schema.rawValue) at position \(position) cannot be understood (\(error)); "
                    + "was it written by a newer version?")
        }
    }

    /// A step of the log's clock, of which the record is one.
    /// - Throws: `AccessLogError` when it cannot be understood.
    static func clockStep(_ record: RecordView, at position: Position) throws(AccessLogError) -> ClockStepped {
        do {
            return try value(record.payload)
        } catch {
            throw AccessLogError(
                "the event \(LogSchema.clockStepped.rawValue) at position \(position) cannot be understood (\(error)); "
                    + "was it written by a newer version?")
        }
    }

    static func value<T: Decodable>(_ json: some Sequence<UInt8>) throws -> T {
        try JSONDecoder().decode(T.self, from: Data(json))
    }

    /// One value has one spelling.
    static func json(_ value: some Encodable) throws -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return Array(try encoder.encode(value))
    }
}

/// The log holds a decision about access that this version cannot fold. Until it can, the data folder's token alone
/// opens anything.
public struct AccessLogError: Error, Sendable, CustomStringConvertible {
    public let description: String
    init(_ description: String) { self.description = description }
}
