import EventModel
import Evidence

/// Leaves of the log, in order from a position: reads records and hashes them. Events that were lost and given up have
/// the leaf that is theirs by the format. One owner's own.
final class LeafReader {
    private let reader: any LogReader
    private let block = EventBlock()
    private let hasher = LeafHasher()
    /// The position of the next leaf.
    private(set) var next: Position
    private var leaves: [TreeHash] = []
    private var used = 0
    private static let readBytes = 256 << 10

    init(_ reader: any LogReader, from position: Position) {
        self.reader = reader
        next = position
    }

    /// The leaves of the next stretch, at most up to `end`; empty when nothing durable is left. What was lost before
    /// it is said apart: `lost` events lie between `next` and the first of the leaves.
    func read() throws -> (lost: UInt64, leaves: [TreeHash]) {
        guard try reader.read(into: block, atLeast: Self.readBytes) else { return (0, []) }
        leaves.removeAll(keepingCapacity: true)
        let start = max(next, block.base)
        block.forEach { record, position in
            if position >= start { leaves.append(hasher.leaf(record)) }
        }
        let lost = start.rawValue - next.rawValue
        next = max(next, block.end)
        return (lost, leaves)
    }
}
