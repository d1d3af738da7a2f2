import EventLog
import EventModel
import Projections
import Threading

// Folding much of the log at once, for several projections, on several threads: a rebuild, a snapshot, a check.
//
//     log ─ BlockRing ─┬─ worker 0: folds of every projection, scope .partition(0, of: n) ─┐
//       each block is  └─ worker 1: …                                                      ├─ rows, merged ─► stores
//       decoded once                                                                       ┘
//
// Blocks are read and decoded by whichever worker needs the next one first. From time to time a block ends an *epoch*:
// every worker drains its folds there, and the rows of all of them go to the stores together, checkpoints included,
// while the workers go on. So a store has seen, at any moment, all events up to a position and none behind it, whatever
// the number of threads; sums over devices (campaign counters) are added up before they are written.

/// Where and how far one `BulkFold` has come. For any thread.
public struct BulkProgress: Sendable {
    /// Behind the last event folded.
    public var folded: Position
    /// Behind the last event whose rows the stores hold.
    public var committed: Position
    public var rows: UInt64
}

public struct BulkOptions: Sendable {
    /// Partitions, each folded by a thread of its own.
    public var threads = 2
    /// How much of the log a block holds, in bytes, about.
    public var blockBytes = 512 << 10
    /// An epoch ends at the latest when so many bytes of rows wait to be written, …
    public var pendingBytesMax = 96 << 20
    /// … or after so long, so that whoever is killed need not begin again.
    public var epochDurationMax: Duration = .seconds(5)
    /// What the folds of all workers may remember between epochs.
    public var stateBytesMax = 256 << 20

    public init() {}
}

/// See the page above. Used by one thread; `progress` and `cancel` are for any. After an error it is thrown away: the
/// next begins from the stores' checkpoints.
public final class BulkFold {
    private let source: any LogSource
    private let entries: [Catalog.Entry]
    private let stores: [LockedStore]
    private let options: BulkOptions
    private let workers: [BulkWorker]
    /// By projection: the last position that its store holds.
    private var checkpoints: [Position?]
    private let shared: BulkShared
    public private(set) var position: Position
    /// Called now and then, by one of the workers, with how far folding has come.
    public var onBlock: (@Sendable (Position) -> Void)? {
        get { shared.onBlock }
        set { shared.onBlock = newValue }
    }

    /// - Parameter stores: one for each entry; each is called by one thread at a time, not always the same. Folding
    ///   begins behind the checkpoint of each.
    /// - Throws: `StoreError`; `ProjectorError` when a checkpoint is past the log's end.
    public init(
        source: any LogSource, entries: [Catalog.Entry], stores: [any ProjectionStore], options: BulkOptions = .init()
    ) throws {
        precondition(entries.count == stores.count && !entries.isEmpty && options.threads > 0)
        self.source = source
        self.entries = entries
        let locked = zip(entries, stores).map { LockedStore($1, $0.descriptor) }
        self.stores = locked
        self.options = options
        var found: [Position?] = []
        for (entry, store) in zip(entries, stores) {
            let checkpoint = try store.checkpoint(of: entry.descriptor, partition: 0)
            if let checkpoint, checkpoint.rawValue >= source.durableCount {
                throw ProjectorError.pastTheEnd(
                    projection: entry.name, checkpoint: checkpoint, durableCount: source.durableCount)
            }
            found.append(checkpoint)
        }
        checkpoints = found
        let starts = found.map { $0?.next ?? Position(0) }
        position = starts.min()!
        shared = BulkShared(BulkProgress(folded: position, committed: position, rows: 0))
        workers = (0..<options.threads).map { index in
            BulkWorker(index, entries: entries, stores: locked, starts: starts, options: options)
        }
    }

    public var progress: BulkProgress { shared.progress }

    /// The same for another thread, however long this lives.
    public var progressReader: @Sendable () -> BulkProgress {
        let shared = shared
        return { shared.progress }
    }

    /// Ends `run` at the next block; what is folded by then is written. For any thread.
    public var cancel: @Sendable () -> Void {
        let shared = shared
        return { shared.cancel() }
    }

    /// Folds up to `end` (exclusive), or to where the log's damage begins, and writes all of it. May be called again
    /// with a later end. False when it was cancelled first.
    /// - Throws: `LogError` (everything before the damage is written), `StoreError` (nothing of the last epoch is).
    @discardableResult
    public func run(to end: Position) throws -> Bool {
        guard end > position else { return true }
        let ring = try BlockRing(
            reader: source.reader(from: position), range: position..<end, consumers: workers.count, options: options,
            shared: shared)
        let gate = EpochGate(workers: workers.count)
        for worker in workers {
            startThread(name: "fold-\(worker.index)") { worker.run(ring, gate) }
        }
        defer {
            ring.stop()
            gate.close()
        }
        while let epoch = try gate.next() {
            try commit(epoch)
            gate.committed()
        }
        if let error = ring.failure { throw error }
        return position == end
    }

    private func commit(_ epoch: EpochGate.Epoch) throws {
        defer { position = max(position, epoch.end) }
        guard epoch.end > Position(0) else { return }
        var rowCount = 0
        let last = Position(epoch.end.rawValue - 1)
        for (index, entry) in entries.enumerated() where epoch.end > checkpoints[index]?.next ?? Position(0) {
            let rows = entry.descriptor.tables.indices.map { table in
                merge(epoch.parts.map { $0[index][table] }, entry.descriptor.tables[table])
            }
            try stores[index].commit(rows, from: checkpoints[index], to: last)
            checkpoints[index] = last
            rowCount += rows.reduce(0) { $0 + $1.rowCount }
        }
        shared.committed(epoch.end, rows: rowCount)
    }

    /// Rows of several partitions as one: they have no key in common, but for sums, which are added up.
    private func merge(_ parts: [RowBuffer], _ table: Table) -> RowBuffer {
        let parts = parts.filter { !$0.isEmpty }
        guard parts.count > 1 else { return parts.first ?? RowBuffer() }
        if table.isSum { return RowBuffer.sum(parts, table) }
        var merged = parts[0]
        for part in parts.dropFirst() { merged.append(part) }
        return merged
    }
}
