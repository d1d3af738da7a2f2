import EventModel

/// An event that a decider appends, typed.
public protocol Decision: Sendable {
    /// Nil when the record is none of this decider's: another kind, or another decider's schema.
    /// - Throws: `UnreadableDecision` when it is one and cannot be understood.
    init?(_ record: RecordView, at position: Position) throws(UnreadableDecision)

    /// Appends it as a record.
    func append(to batch: inout RecordBatch, at time: Timestamp)

    /// The objects that it depends on or changes, such as `campaign:12`, and its idempotency key; a refusal has the
    /// object that it refuses. Of two decisions that share a subject, the second is made from a state that has the
    /// first. All deciders of a log share one namespace.
    var subjects: [String] { get }
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
