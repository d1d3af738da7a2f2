import EventModel

/// What each record of a block is, found once for all folds that share a decoder, and what they found out about it.
public final class BlockScan {
    /// One byte a record.
    public struct Mark: Equatable, Sendable {
        fileprivate(set) var bits: UInt8

        static let soundBit: UInt8 = 0x80
        /// A message that was refused, or that the broker replayed.
        public static let special = Mark(bits: 16)
        public static let rejection = Mark(bits: 17)
        public static let connection = Mark(bits: 18)
        public static let decision = Mark(bits: 19)
        public static let system = Mark(bits: 20)

        /// An accepted message that the broker did not replay.
        @inline(__always)
        public static func message(_ topicClass: TopicClass) -> Mark { Mark(bits: topicClass.rawValue) }

        /// Somebody has decoded it, and nothing was wrong.
        @inline(__always)
        public var isSound: Bool { bits & Self.soundBit != 0 }
        /// A message whose payload is not decoded: the classes of topics from `otaCommand` on.
        @inline(__always)
        public var isOpaque: Bool {
            (TopicClass.otaCommand.rawValue...TopicClass.other.rawValue).contains(kind.bits)
        }
        /// The same whether or not that is known.
        @inline(__always)
        public var kind: Mark { Mark(bits: bits & ~Self.soundBit) }
    }

    public private(set) var marks: ContiguousArray<Mark> = []
    /// The device's topic of each message and rejection that has one.
    public private(set) var topics: ContiguousArray<TopicParts> = []
    /// Where each record lies in the block.
    public private(set) var offsets: ContiguousArray<Int32> = []
    private var block: ObjectIdentifier?
    private var base = Position(0)

    /// Looks at a block, unless it is the one that was looked at last.
    func update(_ block: EventBlock) {
        guard self.block != ObjectIdentifier(block) || base != block.base || marks.count != block.count else { return }
        self.block = ObjectIdentifier(block)
        base = block.base
        Self.scan(block, &marks, &topics, &offsets)
    }

    private static func scan(
        _ block: EventBlock, _ marks: inout ContiguousArray<Mark>, _ topics: inout ContiguousArray<TopicParts>,
        _ offsets: inout ContiguousArray<Int32>
    ) {
        marks.removeAll(keepingCapacity: true)
        topics.removeAll(keepingCapacity: true)
        offsets.removeAll(keepingCapacity: true)
        marks.reserveCapacity(block.count)
        topics.reserveCapacity(block.count)
        offsets.reserveCapacity(block.count)
        var offset = 0
        block.forEach { record, _ in
            let (mark, topic) = look(at: record)
            marks.append(mark)
            topics.append(topic)
            offsets.append(Int32(truncatingIfNeeded: offset))
            offset += record.length
        }
    }

    @inline(__always)
    private static func look(at record: RecordView) -> (Mark, TopicParts) {
        switch record.kind {
        case .message:
            guard let topic = DeviceTopic(record.topic) else { return (.special, .none) }
            let isOrdinary = record.verdict == .accepted && !record.flags.contains(.retained)
            return (isOrdinary ? .message(topic.topicClass) : .special, TopicParts(topic))
        case .rejection: return (.rejection, DeviceTopic(record.topic).map { TopicParts($0) } ?? .none)
        case .connection: return (.connection, .none)
        case .decision: return (.decision, .none)
        case .system: return (.system, .none)
        }
    }

    /// Notes that the record at `position`, which is in the block, was decoded and is sound.
    @inline(__always)
    func noteSound(_ position: Position) {
        let index = Int(truncatingIfNeeded: position.rawValue &- base.rawValue)
        if marks.indices.contains(index) { marks[index].bits |= Mark.soundBit }
    }
}
