import EventLog
import EventModel

/// Which recorded messages are to be published.
public struct PublishOrder: Sendable {
    public var range: Range<Position>
    public var tenant: String?
    public var device: String?
    /// An MQTT topic filter, over the recorded topic.
    public var topic: String?
    /// What the gate said of them.
    public var verdict = Verdict.accepted
    private let filter: LogFilter

    /// - Throws: `.usage` when `topic` is no filter.
    public init(
        range: Range<Position>, tenant: String? = nil, device: String? = nil, topic: String? = nil,
        verdict: Verdict = .accepted
    ) throws(PublicationError) {
        self.range = range
        self.tenant = tenant
        self.device = device
        self.topic = topic
        self.verdict = verdict
        var filter = LogFilter()
        filter.tenant = tenant.map { Array($0.utf8) }
        filter.device = device.map { Array($0.utf8) }
        if let topic {
            guard let parsed = TopicFilter(topic) else {
                throw PublicationError(
                    .usage,
                    "the topic filter \(topic) is none: + must stand alone between slashes, # "
                        + "alone at the end")
            }
            filter.topic = parsed
        }
        self.filter = filter
    }

    enum Judgement { case publish, foreign, retained, cut, verdict, notKept(UInt64) }

    func judge(_ record: RecordView) -> Judgement {
        guard record.kind == .message || record.kind == .rejection, filter.matches(record) else { return .foreign }
        if record.kind == .rejection { return .notKept(Self.count(of: record)) }
        if record.verdict != verdict { return .verdict }
        if record.flags.contains(.truncated) { return .cut }
        // What a broker replays to a new subscriber was published, and recorded, before.
        return record.flags.contains(.retained) ? .retained : .publish
    }

    private static func count(of rejection: RecordView) -> UInt64 {
        struct Payload: Decodable { let count: UInt64 }
        return (try? rejection.decoded(Payload.self))?.count ?? 1
    }
}

/// What was found, and what became of it.
public struct PublishCounts: Sendable, Equatable {
    /// Messages to be published, those of an earlier run that is continued left out.
    public var messages: UInt64 = 0
    /// Bytes of their payloads.
    public var bytes: UInt64 = 0
    public var firstPosition: UInt64?
    public var lastPosition: UInt64?
    public var firstTime: Timestamp?
    public var lastTime: Timestamp?
    /// Not published: replayed by the broker as its retained message.
    public var retained: UInt64 = 0
    /// Not published: only the first bytes of the payload were kept.
    public var cut: UInt64 = 0
    /// Not published: the gate's verdict is another.
    public var otherVerdict: UInt64 = 0
    /// Not published: beyond the device's rate limit; their payloads are not kept.
    public var notKept: UInt64 = 0

    mutating func note(_ record: RecordView, _ position: Position, _ judgement: PublishOrder.Judgement) {
        switch judgement {
        case .publish:
            messages += 1
            bytes += UInt64(record.payload.count)
            if firstPosition == nil { (firstPosition, firstTime) = (position.rawValue, record.receivedAt) }
            (lastPosition, lastTime) = (position.rawValue, record.receivedAt)
        case .retained: retained += 1
        case .cut: cut += 1
        case .verdict: otherVerdict += 1
        case .notKept(let count): notKept += count
        case .foreign: break
        }
    }
}

/// Reads what an order selects, in the order of the log, block by block. One consumer's own.
final class PublishReader {
    let order: PublishOrder
    private(set) var counts = PublishCounts()
    /// Everything before it was looked at.
    private(set) var position: Position
    private let keyed: KeyedReader?
    private let whole: (any LogReader)?
    private let block = EventBlock()
    private static let readBytes = 256 << 10

    init(_ log: ReadOnlyLog, _ order: PublishOrder, from: Position) throws {
        self.order = order
        position = max(from, order.range.lowerBound)
        let range = position..<max(position, order.range.upperBound)
        if let device = order.device {
            keyed = log.events(
                order.tenant.map { .device(tenant: $0, device: device) } ?? .anyTenant(device: device), in: range)
            whole = nil
        } else {
            keyed = nil
            whole = range.isEmpty ? nil : try log.reader(from: position)
        }
    }

    /// Hands out the next messages that are to be published, perhaps none. False at the end.
    func read(_ body: (RecordView, Position) -> Void) throws -> Bool {
        guard position < order.range.upperBound else { return false }
        func look(_ record: RecordView, _ at: Position) {
            guard at >= position, at < order.range.upperBound else { return }
            let judgement = order.judge(record)
            counts.note(record, at, judgement)
            if case .publish = judgement { body(record, at) }
        }
        if let keyed {
            let isMore = try keyed.read(look)
            position = isMore ? max(position, keyed.position) : order.range.upperBound
            return isMore
        }
        guard let whole, try whole.read(into: block, atLeast: Self.readBytes) else {
            position = order.range.upperBound
            return false
        }
        block.forEach(look)
        position = max(position, block.end)
        return true
    }
}

extension PublishOrder {
    /// Counts what would be published, and for how many devices; publishes nothing.
    /// - Throws: `LogError`.
    public func count(in log: ReadOnlyLog, from: Position? = nil, progress: (UInt64) -> Void = { _ in }) throws
        -> (counts: PublishCounts, devices: Int)
    {
        let reader = try PublishReader(log, self, from: from ?? range.lowerBound)
        // Hashes of their addresses: a million devices take 16 MB.
        var devices: Set<Int> = []
        while try reader.read({ record, _ in
            guard let topic = DeviceTopic(record.topic) else { return }
            var hasher = Hasher()
            hasher.combine(bytes: UnsafeRawBufferPointer(rebasing: record.topic[topic.address]))
            devices.insert(hasher.finalize())
        }) { progress(reader.position.rawValue - range.lowerBound.rawValue) }
        return (reader.counts, devices.count)
    }
}
