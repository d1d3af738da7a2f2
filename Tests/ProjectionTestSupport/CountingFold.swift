import EventModel
import Projections

/// The smallest fold with state: messages counted by topic, and each message as a row of its own.
public final class CountingFold: ProjectionFold {
    public static let counts = Table(
        "test_counts", write: .upsert,
        [
            .key("topic", .text), .value("messages", .int8), .value("last_position", .int8),
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

    /// The same with tables that are named by their version, as every projection's are that can be rebuilt.
    public static func versioned(_ version: Int = 1) -> ProjectionDescriptor {
        ProjectionDescriptor(
            name: "test_counting", version: version,
            tables: [counts, events].map {
                Table("\($0.name)_v\(version)", write: $0.write, $0.columns)
            })
    }

    /// What PostgreSQL needs for a version, with the views that are live: version 2 shows one column more.
    public static func sql(version: Int) -> String {
        let view = version == 1 ? "test_counts" : "test_counts_v\(version)_view"
        let events = "CREATE VIEW refold.test_events AS SELECT position, topic FROM refold.test_events_v1;"
        let columns = version == 1 ? "" : ", \(version) AS version"
        return """
            CREATE TABLE refold.test_counts_v\(version) (topic text PRIMARY KEY, messages bigint, last_position bigint);
            CREATE TABLE refold.test_events_v\(version) (position bigint PRIMARY KEY,
                topic text CONSTRAINT no_poison CHECK (topic <> 'poison'));
            CREATE VIEW refold.\(view) WITH (security_invoker = true)
                AS SELECT topic, messages, last_position\(columns) FROM refold.test_counts_v\(version);
            \(version == 1 ? events : "")
            """
    }

    private struct State {
        var messages: Int64 = 0
        var lastPosition: Int64 = 0
        var dirty = false
    }

    public let descriptor: ProjectionDescriptor
    private let scope: FoldScope
    private var weight: Int64 = 1
    private var states: [String: State] = [:]
    private var dirty = 0
    private var newEvents: [(position: Int64, topic: String)] = []

    public init(version: Int = 1, scope: FoldScope = .all) {
        descriptor = Self.descriptor(version: version)
        self.scope = scope
    }

    /// One of `versioned`. In version 2 every message counts twice.
    public init(versioned version: Int, scope: FoldScope = .all) {
        descriptor = Self.versioned(version)
        self.scope = scope
        weight = Int64(version)
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

    public func keys(of record: RecordView) -> [FoldKey] {
        record.topicString.hasPrefix("quiet") ? [] : [FoldKey(record.topicString)]
    }

    public func load(table: Int, row: RowReader) {
        states[row.text(0)!] = State(messages: row.int8(1)!, lastPosition: row.int8(2)!)
    }

    public func fold(_ block: EventBlock, in range: Range<Position>) {
        each(block, range) { topic, position in
            var state = states[topic]!
            state.messages += weight
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
            guard range.contains(position), !topic.hasPrefix("quiet"),
                scope.includes(FoldKey(topic), at: position)
            else { return }
            body(topic, Int64(position.rawValue))
        }
    }
}
