import EventLog
import EventModel

/// Reads the end of the log for one broker's records. Readers go forward only, so it steps back further and further
/// until there is enough or a bound is reached.
enum LogTail {
    /// Reading this many events takes less than a second (about ten million events a second).
    static let eventsMax: UInt64 = 4 << 20
    /// The last state is often near. What lies before it is not read, damaged or not.
    private static let firstStep: UInt64 = 1 << 12

    /// - Parameters:
    ///   - restart: called before each pass; everything collected in an earlier pass comes again.
    ///   - isEnough: called after each pass.
    ///   - others: gets the records that are not the broker's.
    static func scan(
        _ log: any LogSource, broker: String, eventsMax: UInt64 = eventsMax, restart: () -> Void,
        isEnough: () -> Bool, others: (RecordView) -> Void = { _ in }, _ body: (RecordView) throws -> Void
    ) throws {
        let name = Array(broker.utf8)
        let end = log.durableCount
        // Removed events are not fetched: a redelivered message that is not recognised is only recorded twice.
        let length = end - min(end, log.firstPosition.rawValue)
        var back = min(firstStep, length)
        while true {
            restart()
            let reader = try log.reader(from: Position(end - back))
            let block = EventBlock()
            while reader.position.rawValue < end, try reader.read(into: block, atLeast: 1 << 20) {
                try block.forEach { record, _ in
                    if record.broker.elementsEqual(name) { try body(record) } else { others(record) }
                }
            }
            if isEnough() || back == length || back >= eventsMax { return }
            back = back > length / 8 ? length : back * 8
        }
    }

    static func event(_ record: RecordView) -> (schema: BrokerEvent.Schema, event: BrokerEvent)? {
        guard record.kind == .connection, let schema = BrokerEvent.Schema(rawValue: record.topicString),
            let event = try? record.decoded(BrokerEvent.self)
        else { return nil }
        return (schema, event)
    }
}
