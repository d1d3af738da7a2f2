import EventModel
import Projections

/// The smallest fold with state: messages counted by topic, and each message as a row of its own.
public final class CountingFold: ProjectionFold {
    public static let counts = Table(
        "test_counts", write: .upsert,
        [
            .key("topic", .text), .value("messages", .int8), .value("last_position", .int8)
        ])
    public static let events = Table(
        "test_events", write: .insert, [.key("position", .int8), .value("topic", .text)])

    /// What PostgreSQL needs for it.
    public static let sql = """
        CREATE TABLE refold.test_counts (topic text PRIMARY KEY, messages bigint, last_position bigint);
        CREATE TABLE refold.test_events (position bigint PRIMARY KEY, topic text CHECK (topic <> 'poison'));
        """

    public static func descriptor(version: Int = 1) -> ProjectionDescriptor {
        ProjectionDescriptor(name: "test_counting", version: version, tables: [counts, events])
    }

    private struct State {
        var messages: Int64 = 0
        var lastPosition: Int64 = 0
        var dirty = false
    }

    public let descriptor: ProjectionDescriptor
    private let scope: FoldScope
    private var states: [String: State] = [:]
    private var dirty = 0
    private var newEvents: [(position: Int64, topic: String)] = []

    public init(version: Int = 1, scope: FoldScope = .all) {
        descriptor = Self.descriptor(version: version)
        self.scope = scope
    }

    public func prepare(_ block: EventBlock, in range: Range<Position>) -> [LoadRequest] {
        var missing: Set<String> = []
        each(block, range) { topic, _ in if states[topic] == nil { missing.insert(topic) } }
        var keys = RowBuffer()
        for topic in missing.sorted() {
            keys.beginRow(fieldCount: 1)
            keys.text(topic)
            states[topic] = State()
        }
        return missing.isEmpty ? [] : [LoadRequest(table: 0, keys: keys)]
    }

    public func load(table: Int, row: RowReader) {
        states[row.text(0)!] = State(messages: row.int8(1)!, lastPosition: row.int8(2)!)
    }

    public func fold(_ block: EventBlock, in range: Range<Position>) {
        each(block, range) { topic, position in
            var state = states[topic]!
            state.messages += 1
            state.lastPosition = position
            if !state.dirty { dirty += 1 }
            state.dirty = true
            states[topic] = state
            newEvents.append((position, topic))
        }
    }

    public func drain(into rows: inout [RowBuffer]) {
        for (topic, state) in states.sorted(by: { $0.key < $1.key }) where state.dirty {
            rows[0].beginRow(fieldCount: 3)
            rows[0].text(topic)
            rows[0].int8(state.messages)
            rows[0].int8(state.lastPosition)
            states[topic]!.dirty = false
        }
        for event in newEvents {
            rows[1].beginRow(fieldCount: 2)
            rows[1].int8(event.position)
            rows[1].text(event.topic)
        }
        dirty = 0
        newEvents.removeAll()
    }

    public var dirtyRowCount: Int { dirty + newEvents.count }
    public var pendingByteCount: Int { dirtyRowCount * 32 }
    public var stateByteCount: Int { states.count * 64 }

    public func shrink(toBytes byteCount: Int) { states = states.filter { $0.value.dirty } }

    /// Topics that begin with `quiet` change nothing. A topic is a key of its own.
    private func each(_ block: EventBlock, _ range: Range<Position>, _ body: (String, Int64) -> Void) {
        block.forEach { record, position in
            let topic = record.topicString
            guard range.contains(position), !topic.hasPrefix("quiet"), scope.includes(FoldKey(topic)) else { return }
            body(topic, Int64(position.rawValue))
        }
    }
}
