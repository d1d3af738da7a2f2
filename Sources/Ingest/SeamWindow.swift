import EventLog
import EventModel
import FoundationEssentials

/// Recognises what a broker delivers again after a reconnect although we have it already: our acknowledgement was lost
/// on the way. A message is a duplicate only if DUP is set and (packet id, topic, SHA-256 of the payload) is that of
/// one of the last 65,535 QoS 1 records of the session. That is as many as there are packet ids (MQTT 5.0, 2.2.1).
///
/// Nothing is kept in steady state: the window is read back from the log when the first DUP arrives after a resume,
/// which also covers a restart of the process.
public struct SeamWindow: Sendable {
    static let recordsMax = 65_535
    private let keys: Set<Digest>

    public var count: Int { keys.count }

    /// Reads the window of `broker` back. Blocks on disk reads.
    public static func refill(from log: any LogSource, broker: String) throws -> SeamWindow {
        let hasher = SHA256()
        var ring = KeyRing(limit: recordsMax)
        var began = false
        func restart() {
            ring.removeAll()
            began = false
        }
        try LogTail.scan(log, broker: broker, restart: restart, isEnough: { began || ring.total >= recordsMax }) {
            switch $0.kind {
            case .message where $0.flags.qos == 1: ring.append(key($0, hasher))
            case .rejection: for key in try rejectedKeys($0, hasher) { ring.append(key) }
            case .connection where LogTail.beginsSession($0):
                ring.removeAll()
                began = true
            default: break
            }
        }
        return SeamWindow(keys: ring.keys)
    }

    init(keys: Set<Digest>) { self.keys = keys }

    /// Only QoS 1 has packet ids that are ours to remember.
    func contains(_ record: RecordView, _ hasher: SHA256) -> Bool {
        record.flags.qos == 1 && keys.contains(Self.key(record, hasher))
    }

    private static func key(_ record: RecordView, _ hasher: SHA256) -> Digest {
        let cut = record.flags.contains(.truncated) ? record.originalPayloadLength : 0
        return key(record.packetID, record.topic, hasher.digest(record.payload), cut: cut, hasher)
    }

    /// `cut` is the length of a payload of which only the first bytes were kept, else 0: such a one is recognised by
    /// those bytes and its length.
    private static func key(
        _ packetID: UInt16, _ topic: UnsafeRawBufferPointer, _ payload: Digest, cut: Int, _ hasher: SHA256
    ) -> Digest {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(42 + topic.count)
        withUnsafeBytes(of: packetID) { bytes.append(contentsOf: $0) }
        withUnsafeBytes(of: UInt64(cut)) { bytes.append(contentsOf: $0) }
        withUnsafeBytes(of: payload) { bytes.append(contentsOf: $0) }
        bytes.append(contentsOf: topic)
        return bytes.withUnsafeBytes { hasher.digest($0) }
    }

    private static func rejectedKeys(_ record: RecordView, _ hasher: SHA256) throws -> [Digest] {
        let payload = try JSONDecoder().decode(RejectionPayload.self, from: Data(record.payload))
        return payload.rejected.compactMap { entry in
            guard entry.packetID != 0, let digest = Digest(hex: entry.sha256) else { return nil }
            return Array(entry.topic.utf8).withUnsafeBytes {
                key(entry.packetID, $0, digest, cut: entry.payloadBytes ?? 0, hasher)
            }
        }
    }
}

/// The last `limit` keys.
private struct KeyRing {
    let limit: Int
    private var items: ContiguousArray<Digest> = []
    private var next = 0
    /// How many were seen, forgotten ones included.
    private(set) var total = 0

    init(limit: Int) { self.limit = limit }

    var keys: Set<Digest> { Set(items) }

    mutating func append(_ key: Digest) {
        total += 1
        if items.count < limit {
            items.append(key)
        } else {
            items[next] = key
            next = (next + 1) % limit
        }
    }

    mutating func removeAll() {
        items.removeAll(keepingCapacity: true)
        next = 0
        total = 0
    }
}

/// What the log knows of a broker from before this process.
struct BrokerHistory {
    /// There was a session under `clientID`, or under an unknown client id when that is nil.
    var sessionKnown = false
    var clientID: String?
    /// What was last subscribed to and granted.
    var filters: [String]?

    static func read(from log: any LogSource, broker: String) throws -> BrokerHistory {
        var history = BrokerHistory()
        try LogTail.scan(log, broker: broker, restart: { history = BrokerHistory() },
            isEnough: { history.clientID != nil && history.filters != nil }
        ) { record in
            history.sessionKnown = true
            guard record.kind == .connection, let event = LogTail.event(record) else { return }
            history.clientID = event.clientID
            if record.topicString == BrokerEvent.Schema.subscribed.rawValue { history.filters = event.filters }
        }
        return history
    }
}

/// Reads the end of the log for one broker's records. Readers go forward only, so it steps back further and further
/// until there is enough or a bound is reached.
enum LogTail {
    /// At about ten million events a second, reading this much takes less than a second.
    static let eventsMax: UInt64 = 4 << 20
    private static let firstStep: UInt64 = 1 << 17

    static func scan(
        _ log: any LogSource, broker: String, restart: () -> Void, isEnough: () -> Bool,
        _ body: (RecordView) throws -> Void
    ) throws {
        let name = Array(broker.utf8)
        let end = log.durableCount
        // What was removed is not fetched for this: not to know a redelivered message only records it twice.
        let length = end - min(end, log.firstPosition.rawValue)
        var back = min(firstStep, length)
        while true {
            restart()
            let reader = try log.reader(from: Position(end - back))
            let block = EventBlock()
            while reader.position.rawValue < end, try reader.read(into: block, atLeast: 1 << 20) {
                try block.forEach { record, _ in
                    if record.broker.elementsEqual(name) { try body(record) }
                }
            }
            if isEnough() || back == length || back >= eventsMax { return }
            back = min(back * 4, length)
        }
    }

    static func event(_ record: RecordView) -> BrokerEvent? {
        try? JSONDecoder().decode(BrokerEvent.self, from: Data(record.payload))
    }

    /// Packet ids of before mean nothing in the session that this record begins.
    static func beginsSession(_ record: RecordView) -> Bool {
        switch BrokerEvent.Schema(rawValue: record.topicString) {
        case .sessionLost: true
        case .connected: event(record)?.sessionPresent == false
        default: false
        }
    }
}
