import EventLog
import EventModel

/// A broken invariant, with enough to understand it.
struct Violation: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// What the world knows of the log from outside: what was acknowledged, and what anybody was shown. Never asks the log
/// what is right.
struct Truth {
    struct Event {
        /// Nil for an event of the log's own.
        let message: Int?
        let hash: UInt64
        let receivedAt: Timestamp
        let kind: EventKind
    }

    /// Everything that was ever shown to a reader, by position.
    private(set) var events: [Event] = []
    /// What was acknowledged, until it is seen.
    private var claims: [UInt64: Int] = [:]
    /// Behind the last position of which anybody was told.
    private(set) var toldCount: UInt64 = 0
    /// How often each message was given to a writer, and how often it stands in the log.
    private var submitted: [Int: Int] = [:]
    private var recorded: [Int: Int] = [:]
    /// By device: the sequence number that comes next.
    private var nextSequence: [Int: Int] = [:]
    private(set) var acknowledged = 0
    /// The latest time that a right clock has had.
    var latest = Timestamp(microseconds: .max / 2)

    mutating func submit(_ messages: [Int]) { for message in messages { submitted[message, default: 0] += 1 } }

    /// A batch was said to be durable.
    mutating func acknowledge(_ messages: [Int], at positions: Range<Position>) throws {
        guard Int(positions.upperBound.rawValue - positions.lowerBound.rawValue) == messages.count else {
            throw Violation("\(messages.count) messages were given the positions \(positions)")
        }
        for (offset, message) in messages.enumerated() {
            let position = positions.lowerBound.rawValue + UInt64(offset)
            if position < events.count {
                guard events[Int(position)].message == message else {
                    throw Violation(
                        "position \(position) was given away twice: it holds "
                            + "\(events[Int(position)].message.map(String.init) ?? "an event of the log's own")")
                }
            } else if let other = claims[position] {
                throw Violation("position \(position) was given to the messages \(other) and \(message)")
            } else {
                claims[position] = message
            }
        }
        toldCount = max(toldCount, positions.upperBound.rawValue)
        acknowledged += messages.count
    }

    /// A log was opened, or says how far it is durable.
    func expect(durableCount: UInt64, _ what: String) throws {
        guard durableCount >= toldCount else {
            throw Violation("\(what) has \(durableCount) events, but the outside was told of \(toldCount)")
        }
    }

    /// A reader that follows what is durable was shown these: from now on nothing else may stand there.
    mutating func see(_ block: EventBlock, from: Position, fleet: Fleet, by who: String) throws {
        try block.forEach { (record, position) throws in
            guard position >= from else { return }
            try see(record, position, fleet, who)
        }
    }

    private mutating func see(_ record: RecordView, _ position: Position, _ fleet: Fleet, _ who: String) throws {
        let index = Int(position.rawValue)
        guard index <= events.count else {
            throw Violation("\(who) was shown position \(index) before \(events.count): a gap")
        }
        let hash = Self.hash(record)
        if index < events.count {
            guard events[index].hash == hash else {
                throw Violation(
                    "\(who) was shown another event at position \(index) than before: "
                        + "message \(fleet.number(of: record).map(String.init) ?? "unknown"), before "
                        + "\(events[index].message.map(String.init) ?? "of the log's own")")
            }
            return
        }
        let message = fleet.number(of: record)
        if let claimed = claims.removeValue(forKey: position.rawValue), claimed != message {
            throw Violation(
                "\(who) was shown message \(message ?? -1) at position \(index), where \(claimed) was "
                    + "acknowledged")
        }
        try check(record, message, index, fleet, who)
        events.append(Event(message: message, hash: hash, receivedAt: record.receivedAt, kind: record.kind))
        toldCount = max(toldCount, UInt64(events.count))
    }

    /// A new event: somebody sent it, it is in its device's order, and time does not go back.
    private mutating func check(
        _ record: RecordView, _ message: Int?, _ index: Int, _ fleet: Fleet, _ who: String
    ) throws {
        if let last = events.last, record.receivedAt < last.receivedAt, !Self.beginsEra(record) {
            throw Violation("received-at decreases at position \(index)")
        }
        guard record.receivedAt <= latest.adding(microseconds: 1_000_000) else {
            throw Violation("received-at at position \(index) is \(record.receivedAt), which no right clock has had")
        }
        guard let message else {
            guard record.kind != .message else {
                throw Violation("\(who) was shown a message at position \(index) that nobody sent")
            }
            return
        }
        recorded[message, default: 0] += 1
        guard recorded[message, default: 0] <= submitted[message, default: 0] else {
            throw Violation(
                "message \(message) stands in the log \(recorded[message, default: 0]) times, at last at "
                    + "position \(index), but was received \(submitted[message, default: 0]) times")
        }
        let sent = fleet.messages[message]
        let next = nextSequence[sent.device, default: 0]
        guard sent.sequence <= next else {
            throw Violation(
                "device \(sent.device): number \(sent.sequence) stands at position \(index), number "
                    + "\(next) is not there yet: order is lost")
        }
        if sent.sequence == next { nextSequence[sent.device] = next + 1 }
    }

    /// Nothing that was acknowledged is missing; for when everything durable was seen.
    func checkAllSeen() throws {
        if let position = claims.keys.min() {
            throw Violation("position \(position) was acknowledged and is not in the log")
        }
    }

    /// Whether a message of the fleet stands in the log.
    func holds(_ message: Int) -> Bool { recorded[message, default: 0] > 0 }

    private static func beginsEra(_ record: RecordView) -> Bool {
        record.topicString == LogSchema.clockStepped.rawValue
            && String(decoding: record.payload, as: UTF8.self).contains(#""era":true"#)
    }

    static func hash(_ record: RecordView) -> UInt64 {
        var hash = TraceHash()
        hash.mix(record.topic)
        hash.mix(record.payload)
        hash.mix(Int(record.receivedAt.microseconds))
        hash.mix(Int(record.kind.rawValue) | Int(record.verdict.rawValue) << 8 | Int(record.packetID) << 16)
        return hash.value
    }
}
