import EventLog
import EventModel

/// Looks at single records of the log again, by position. Those that are asked for come in the order of the log, nearly
/// always: then it reads on. Nothing is fetched: what is no longer on the disk is not there. Belongs to one thread.
final class PastRecords {
    private let history: any LogSource
    private var reader: (any LogReader)?
    private let block = EventBlock()
    /// Where the walk through the block stands.
    private var cursor: (position: Position, offset: Int) = (Position(0), 0)
    /// Reading on is cheaper than beginning anew for as many events.
    private static let readOnEvents: UInt64 = 100_000

    init(_ history: any LogSource) { self.history = history }

    /// Valid until the next call. Nil: it is not durable, or no longer here.
    /// - Throws: what reading the log throws.
    func record(at position: Position) throws -> RecordView? {
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
