import EventLog
import EventModel

/// Recognises what `refold replay publish` took out of this log and the broker brought back to us: it claims to be the
/// event at a position, and the message there has its topic and its payload. Such a message is in the log already and
/// is not recorded again. One that claims so and is not is recorded like any other: a claim alone hides nothing.
///
/// Nothing is fetched for this: what claims to be an event that is no longer on the disk is recorded again.
/// Belongs to its broker's thread.
final class ReplayEcho {
    private let history: any LogSource
    private let logID: [UInt8]
    private var reader: (any LogReader)?
    private var block = EventBlock()
    /// Where the walk through the block stands: messages come back in the order of the log, nearly always.
    private var cursor: (position: Position, offset: Int) = (Position(0), 0)
    /// Reading on is cheaper than beginning anew for as many events.
    private static let readOnEvents: UInt64 = 100_000

    init(history: any LogSource, logID: String) {
        self.history = history
        self.logID = Array(logID.utf8)
    }

    /// Whether a message that has just arrived should be looked at here.
    static func isMarked(_ properties: UnsafeRawBufferPointer) -> Bool {
        RecordProperties.user(ReplayMark.position, in: properties) != nil
    }

    /// The offsets, within the batch, of the messages that are in the log already.
    func find(in batch: borrowing RecordBatch) throws -> Set<Int> {
        var found: Set<Int> = []
        try batch.withUnsafeBytes { bytes in
            var offset = 0
            while offset < bytes.count {
                let record = RecordView(unchecked: bytes.baseAddress! + offset)
                if record.kind == .message, try isEcho(record) { found.insert(offset) }
                offset += record.length
            }
        }
        return found
    }

    /// - Throws: what reading the log throws; then it is not known.
    func isEcho(_ record: RecordView) throws -> Bool {
        guard !record.flags.contains(.truncated),
            let position = ReplayMark.position(in: record.properties, ofLog: logID),
            let original = try message(at: position)
        else { return false }
        return original.kind == .message && !original.flags.contains(.truncated)
            && original.payload.elementsEqual(record.payload) && Self.isTopic(record.topic, of: original.topic)
    }

    /// The topic itself, or behind a prefix that ends with a slash.
    private static func isTopic(_ topic: UnsafeRawBufferPointer, of original: UnsafeRawBufferPointer) -> Bool {
        let prefix = topic.count - original.count
        guard prefix >= 0, topic[prefix...].elementsEqual(original) else { return false }
        // A device's own topic is never a prefix's work.
        return prefix == 0 || topic[prefix - 1] == UInt8(ascii: "/") && DeviceTopic(topic) == nil
    }

    /// Valid until the next call.
    private func message(at position: Position) throws -> RecordView? {
        guard position >= history.firstPosition, position.rawValue < history.durableCount else { return nil }
        if block.isEmpty || position < block.base || position >= block.end {
            let next = reader?.position ?? Position(0)
            if reader == nil || position < next || position.rawValue - next.rawValue > Self.readOnEvents {
                reader = nil
                reader = try history.reader(from: position)
            }
            repeat {
                cursor = (Position(0), 0)
                guard let reader, try reader.read(into: block, atLeast: 1) else {
                    // A block left half filled must not be taken for one.
                    block.removeAll(at: Position(0))
                    self.reader = nil
                    return nil
                }
            } while block.end <= position
            guard position >= block.base else { return nil }
        }
        if cursor.offset == 0 || position < cursor.position { cursor = (block.base, 0) }
        let bytes = block.bytes
        while cursor.position < position {
            cursor.offset += RecordView(unchecked: bytes.baseAddress! + cursor.offset).length
            cursor.position = cursor.position.next
        }
        return RecordView(unchecked: bytes.baseAddress! + cursor.offset)
    }
}
