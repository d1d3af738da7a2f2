import Decisions
import EventModel

/// The decisions of one decider as one type, which its fold and its rule switch over.
public protocol DeciderEvent: Sendable {
    /// The decisions that are read back from the log.
    static var catalog: DecisionCatalog { get }

    /// - Parameters:
    ///   - decision: one of `catalog`.
    ///   - schema: name and version of its record.
    init?(_ decision: any Decision, schema: String)

    var decision: any Decision { get }
    /// Name and version of its record.
    var schema: String { get }
}

extension DeciderEvent {
    public var schema: String { type(of: decision).schema }

    /// Nil when the record is none of this decider's.
    /// - Throws: `UnreadableDecision` when it is one and cannot be understood.
    public init?(_ record: RecordView, at position: Position) throws(UnreadableDecision) {
        guard record.kind == .decision else { return nil }
        let schema = record.topicString
        guard let type = Self.catalog.type(of: schema) else { return nil }
        self.init(try UnreadableDecision.reading(schema, at: position) { try type.decoded(record) }, schema: schema)
    }

    public func append(to batch: inout RecordBatch, at time: Timestamp) {
        batch.append(kind: .decision, schema: schema, receivedAt: time, json: eventJSON(decision))
    }
}

/// The log holds a decision that this version cannot fold. Nothing is decided on top of it.
public struct UnreadableDecision: Error, Sendable, CustomStringConvertible {
    public let description: String

    public init(_ description: String) { self.description = description }

    /// Reads a record's payload with `body`; what it throws becomes an error that names the event.
    public static func reading<T>(
        _ schema: String, at position: Position, _ body: () throws -> T
    ) throws(UnreadableDecision) -> T {
        do {
            return try body()
        } catch {
            throw UnreadableDecision(
                "the event \(schema) at position \(position) cannot be understood (\(error)); "
                    + "was it written by a newer version?")
        }
    }
}
