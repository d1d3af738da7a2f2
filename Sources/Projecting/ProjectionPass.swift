import EventLog
import EventModel
import Projections

/// One run of a fold from a checkpoint on, until it is told to yield or something fails. After a failure it
/// is thrown away: what it remembers is only a cache of the tables.
package struct ProjectionPass {
    private let source: any LogSource
    private let reader: any LogReader
    private let descriptor: ProjectionDescriptor
    private let makeFold: (FoldScope) -> any ProjectionFold
    private var fold: any ProjectionFold
    private let store: any ProjectionStore
    private let partition: Int
    private let options: ProjectorOptions
    private let control: ProjectorControl
    private let block = EventBlock()
    private var rows: [RowBuffer]

    /// The last position whose rows are committed.
    private var committed: Position?
    /// Behind the last event folded.
    private var next: Position
    private var lastReceivedAt: Timestamp?
    /// Since the last transaction: bytes of the log folded, the time it took, and when the first of it was
    /// folded.
    private var foldedBytes = 0
    private var foldTime: Duration = .zero
    private var oldestChange: ContinuousClock.Instant?
    /// No transaction before this, unless behind.
    private var notBefore: ContinuousClock.Instant
    private var confirmAt: ContinuousClock.Instant

    /// Reads the checkpoint and opens the log behind it.
    init(
        source: any LogSource, descriptor: ProjectionDescriptor,
        makeFold: @escaping (FoldScope) -> any ProjectionFold, store: any ProjectionStore, partition: Int,
        options: ProjectorOptions, control: ProjectorControl
    ) throws {
        self.source = source
        self.descriptor = descriptor
        self.makeFold = makeFold
        self.store = store
        self.partition = partition
        self.options = options
        self.control = control
        rows = descriptor.tables.map { _ in RowBuffer() }
        notBefore = options.now()
        confirmAt = notBefore + options.confirmEvery
        _ = control.takeConfirmation()
        committed = try store.checkpoint(of: descriptor, partition: partition)
        // Behind the checkpoint: what changes in between, the next commit notices.
        let parked = try (store as? any ParkingStore)?.parked(of: descriptor, partition: partition) ?? []
        fold = makeFold(.deferring(Dictionary(uniqueKeysWithValues: parked.map { ($0.key, $0.position) })))
        control.parked(parked)
        next = committed?.next ?? Position(0)
        let durableCount = source.durableCount
        if let committed, next.rawValue > durableCount {
            throw ProjectorError.pastTheEnd(
                projection: descriptor.name, checkpoint: committed, durableCount: durableCount)
        }
        reader = try source.reader(from: next)
        control.begins(after: committed)
    }

    /// The same for whoever takes its steps, and nobody asks for its status.
    package init(
        source: any LogSource, fold: any ProjectionFold, store: any ProjectionStore, options: ProjectorOptions
    ) throws {
        try self.init(
            source: source, descriptor: fold.descriptor, makeFold: { _ in fold }, store: store, partition: 0,
            options: options, control: ProjectorControl())
    }

    /// Behind the last event folded.
    var end: Position { next }

    /// The positions that are folded and not committed, for people; nil: none.
    var uncommitted: String? {
        let first = committed?.next ?? Position(0)
        return next > first ? "positions \(first) to \(next.rawValue &- 1)" : nil
    }

    /// Goes on until the control says that it should yield; then commits what is folded.
    mutating func run() throws {
        while !control.shouldYield {
            if try !step() { wait() }
        }
        try commit()
    }

    /// Goes on piece by piece as far as a pass before this one came, whose rows were refused: keys that they belong to
    /// are parked, and the rest is committed. To be called before `run`.
    mutating func isolate(until end: Position) throws {
        guard let store = store as? any ParkingStore, end > next else { return }
        let parked = try store.parked(of: descriptor, partition: partition)
        var isolator = PoisonRowIsolator(
            store: store, descriptor: descriptor, partition: partition, makeFold: makeFold, checkpoint: committed,
            waiting: parked, parkedKeysMax: options.parkedKeysMax)
        defer {
            fold = makeFold(.deferring(isolator.waiting.positions))
            committed = isolator.checkpoint
            next = committed?.next ?? Position(0)
            control.parked(isolator.parked)
        }
        while next < end, !control.shouldYield {
            control.heart.beat(within: ProjectorControl.callSeconds)
            guard try reader.read(into: block, atLeast: options.readBytes) else { return }
            guard block.end > next else { continue }
            try isolator.isolate(block, in: max(next, block.base)..<block.end)
            next = block.end
            lastReceivedAt = block.lastTime
            control.parked(isolator.parked)
            control.visible(isolator.checkpoint, receivedAt: lastReceivedAt)
        }
    }

    /// Reads and folds once, and commits when that is due. False when the log has no more for now.
    package mutating func step() throws -> Bool {
        let more: Bool
        control.heart.beat(within: ProjectorControl.callSeconds)
        do {
            more = try reader.read(into: block, atLeast: options.readBytes)
        } catch let error as LogError {
            // The log is damaged from here on: what comes before is good and shall be seen.
            try commit()
            throw error
        }
        if more && block.end > next { try foldBlock() }
        control.heart.beat(within: ProjectorControl.callSeconds)
        try commitIfDue(atEnd: !more || block.byteCount < options.readBytes)
        if !more { try confirmCheckpoint() }
        return more
    }

    private mutating func foldBlock() throws {
        let began = options.now()
        try store.load(into: fold, for: block, in: next..<block.end)
        control.heart.beat(within: ProjectorControl.roundSeconds)
        let count = Int(block.end.rawValue - next.rawValue)
        fold.fold(block, in: next..<block.end)
        next = block.end
        lastReceivedAt = block.lastTime
        foldedBytes += block.byteCount
        foldTime += options.now() - began
        if oldestChange == nil { oldestChange = began }
        control.folded(count)
        // Nothing to be seen of these events: they are as good as in the tables.
        if fold.dirtyRowCount == 0 { control.visible(Position(next.rawValue - 1), receivedAt: lastReceivedAt) }
    }

    private mutating func commitIfDue(atEnd: Bool) throws {
        guard let oldestChange else { return }
        let now = options.now(), dirty = fold.dirtyRowCount
        let due =
            if dirty == 0 {
                now - oldestChange >= options.checkpointDelay
            } else if atEnd {
                now >= notBefore
            } else {
                dirty >= options.dirtyRowsMax || foldedBytes >= options.foldedBytesMax
                    || now - oldestChange >= max(options.commitDelayMax, options.minimumCommitInterval)
            }
        if due { try commit() }
    }

    /// With nothing to commit, reads the checkpoint again when that is asked for, and from time to time: a database
    /// that crashed may have lost its last asynchronous commits, or somebody dropped the tables.
    private mutating func confirmCheckpoint() throws {
        guard oldestChange == nil else { return }
        let now = options.now()
        guard control.takeConfirmation() || now >= confirmAt else { return }
        confirmAt = now + options.confirmEvery
        guard try store.checkpoint(of: descriptor, partition: partition) != committed else { return }
        throw StoreError.checkpointMoved(
            "the checkpoint is not at \(committed?.description ?? "the beginning") any more: going on from there")
    }

    /// Blocks until there is more to fold or something is due.
    private func wait() {
        control.heart.beat(within: ProjectorControl.roundSeconds)
        let isCurrent = oldestChange == nil || fold.dirtyRowCount == 0
        if isCurrent { control.caughtUp() }
        // Still when the wait ends: the reported lag must not grow with the wait.
        defer { if isCurrent { control.caughtUp() } }
        var wait = max(.zero, confirmAt - options.now())
        if let oldestChange {
            let due = fold.dirtyRowCount == 0 ? oldestChange + options.checkpointDelay : notBefore
            wait = due - options.now()
        }
        let milliseconds = max(1, Int((wait / .milliseconds(1)).rounded(.up)))
        _ = source.waitForDurable(beyond: next.rawValue, timeoutMilliseconds: milliseconds) {
            control.shouldYield || oldestChange == nil && control.shouldConfirm
        }
    }

    /// Rows and checkpoint in one transaction; nothing when nothing was folded since the last.
    private mutating func commit() throws {
        guard oldestChange != nil else { return }
        let began = options.now()
        fold.drain(into: &rows)
        let position = Position(next.rawValue - 1)
        try store.commit(rows, of: descriptor, partition: partition, from: committed, to: position)
        let ended = options.now()
        control.committed(rows: rows.reduce(0) { $0 + $1.rowCount }, took: foldTime + (ended - began))
        control.visible(position, receivedAt: lastReceivedAt)
        committed = position
        oldestChange = nil
        foldedBytes = 0
        foldTime = .zero
        // A third of the time at most goes into transactions, so that under load they grow instead of
        // multiplying, and leave the machine to the others.
        notBefore = ended + max(options.minimumCommitInterval, min((ended - began) * 2, .milliseconds(200)))
        for index in rows.indices {
            // What a long catch-up needed is not kept for quiet times.
            if rows[index].bytes.count > 1 << 20 { rows[index] = RowBuffer() } else { rows[index].removeAll() }
        }
        fold.shrink(toBytes: options.stateBytesMax)
    }
}
