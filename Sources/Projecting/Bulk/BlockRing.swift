import EventLog
import EventModel
import Threading

/// Blocks of the log for several consumers, each of which sees all of them in order. A block is read and decoded once,
/// by the consumer that first needs it; its memory is used again when all have left it.
///
/// `@unchecked Sendable`: everything is under the monitor but the reader and the block being read (touched by the one
/// consumer that set `isReading`) and the contents of blocks, which nobody changes while somebody may look.
final class BlockRing: @unchecked Sendable {
    struct Item {
        let block: EventBlock
        /// The events of the block that are asked for.
        let range: Range<Position>
        let endsEpoch: Bool
    }

    private struct State {
        /// How many blocks were read.
        var produced = 0
        var isReading = false
        var hasEnded = false
        var isStopped = false
        var failure: (any Error)?
        /// Blocks that each consumer has left, and the bytes of rows that wait in its folds.
        var left: [Int]
        var pending: [Int]
        var epochBegan = ContinuousClock.now
        var end: Position
    }

    private static let capacity = 6
    private let reader: any LogReader
    private let range: Range<Position>
    private let options: BulkOptions
    private let shared: BulkShared
    private let blocks: [EventBlock]
    private var items: [Item?]
    private let state: Monitor<State>

    init(
        reader: any LogReader, range: Range<Position>, consumers: Int, options: BulkOptions, shared: BulkShared
    ) {
        self.reader = reader
        self.range = range
        self.options = options
        self.shared = shared
        blocks = (0..<Self.capacity).map { _ in EventBlock(capacity: options.blockBytes + (64 << 10)) }
        items = [Item?](repeating: nil, count: Self.capacity)
        state = Monitor(
            State(
                left: [Int](repeating: 0, count: consumers), pending: [Int](repeating: 0, count: consumers),
                end: range.lowerBound))
    }

    /// What ended the reading too early.
    var failure: (any Error)? { state.withLock { $0.failure } }
    /// Behind the last event that was handed out.
    var end: Position { state.withLock { $0.end } }

    /// Nobody gets another block.
    func stop() {
        state.withLock { $0.isStopped = true }
        state.wakeAll()
    }

    /// The block number `sequence`; nil when there is none.
    func next(_ sequence: Int) -> Item? {
        enum Turn { case take(Item?), read }
        while true {
            let turn: Turn = state.wait { state in
                if state.isStopped { return .take(nil) }
                if sequence < state.produced { return .take(self.items[sequence % Self.capacity]) }
                if state.hasEnded { return .take(nil) }
                // Room is there once all have left the block whose place it takes.
                if state.isReading || state.left.min()! <= sequence - Self.capacity { return nil }
                state.isReading = true
                return .read
            }
            switch turn {
            case .take(let item): return item
            case .read: read(sequence)
            }
        }
    }

    /// The consumer does not look at the block any more.
    func leave(_ sequence: Int, consumer: Int, pendingBytes: Int) {
        state.withLock { state in
            state.left[consumer] = sequence + 1
            state.pending[consumer] = pendingBytes
        }
        state.wakeAll()
    }

    private func read(_ sequence: Int) {
        let block = blocks[sequence % Self.capacity]
        var more = false, failure: (any Error)?
        do {
            more =
                shared.isCancelled || reader.position >= range.upperBound
                ? false : try reader.read(into: block, atLeast: options.blockBytes)
        } catch {
            failure = error
        }
        state.withLock { state in
            state.isReading = false
            // A block may begin before the first event asked for, and end behind the last.
            let from = max(block.base, state.end), to = min(block.end, range.upperBound)
            guard more, to > from else {
                state.hasEnded = true
                state.failure = failure
                return
            }
            let now = ContinuousClock.now
            let endsEpoch =
                state.pending.reduce(0, +) >= options.pendingBytesMax
                || now - state.epochBegan >= options.epochDurationMax
            if endsEpoch { state.epochBegan = now }
            items[sequence % Self.capacity] = Item(block: block, range: from..<to, endsEpoch: endsEpoch)
            state.produced += 1
            state.end = to
        }
        state.wakeAll()
        shared.folded(end)
    }
}
