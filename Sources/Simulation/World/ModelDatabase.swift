import EventModel
import Primitives
import Projecting
import Projections

/// PostgreSQL, as far as a projector can tell: transactions, compare-and-set, commits that are not flushed yet and lost
/// when it crashes, connections that break at any moment, before or after the commit.
/// Used by one thread; `@unchecked Sendable` for the interrupter's sake, which does nothing.
final class ModelDatabase: @unchecked Sendable {
    let tables = MemoryTables()
    /// Commits since the last flush, oldest first; the first is flushed.
    private var history: [MemoryTables.Snapshot]
    /// Connections of an earlier one are broken.
    private(set) var epoch = 0
    var isUp = true
    /// Share of calls during which the connection breaks.
    var breaks = 0.0
    var random: SeededRandom
    /// Rows and checkpoint go in two transactions: the planted bug.
    var splitsCommits = false
    private(set) var commits = 0
    /// Called after each commit that came to stand, with the projection.
    var onCommit: ((ProjectionDescriptor, Position) throws -> Void)?
    /// What the callback threw: a violation.
    private(set) var violation: (any Error)?

    init(random: SeededRandom) {
        self.random = random
        history = [tables.snapshot()]
    }

    fileprivate func committed(_ projection: ProjectionDescriptor, _ position: Position) {
        commits += 1
        history.append(tables.snapshot())
        if history.count > 8 { history.removeFirst() }
        do { try onCommit?(projection, position) } catch { violation = violation ?? error }
    }

    /// The write-ahead log reached the disk.
    func flush() { history = [tables.snapshot()] }

    /// Falls back to any state since the last flush, and breaks all connections.
    func crash() {
        epoch += 1
        tables.restore(random.pick(history))
        flush()
    }

    func breakConnections() { epoch += 1 }

    func checkpoint(of projection: ProjectionDescriptor) -> Position? {
        try? MemoryStore(tables).checkpoint(of: projection, partition: 0)
    }
}

/// One connection to it.
final class ModelStore: ProjectionStore {
    private let database: ModelDatabase
    private let memory: MemoryStore
    private let epoch: Int

    init(_ database: ModelDatabase) {
        self.database = database
        memory = MemoryStore(database.tables)
        epoch = database.epoch
    }

    var interrupter: @Sendable () -> Void { {} }

    private func check() throws(StoreError) {
        guard database.isUp, database.epoch == epoch else { throw .unavailable("the connection is gone") }
        guard !database.random.chance(database.breaks) else {
            database.breakConnections()
            throw .unavailable("the connection broke")
        }
    }

    func checkpoint(of projection: ProjectionDescriptor, partition: Int) throws(StoreError) -> Position? {
        try check()
        return try memory.checkpoint(of: projection, partition: partition)
    }

    func load(
        _ requests: [LoadRequest], of projection: ProjectionDescriptor, found: (Int, RowReader) -> Void
    ) throws(StoreError) {
        try check()
        try memory.load(requests, of: projection, found: found)
    }

    func commit(
        _ rows: [RowBuffer], of projection: ProjectionDescriptor, partition: Int, from old: Position?, to new: Position
    ) throws(StoreError) {
        try check()
        if database.splitsCommits {
            try memory.commit(rows, of: projection, partition: partition, from: old, to: new)
            if database.random.chance(database.breaks * 4), let old {
                // The rows stand, the checkpoint does not.
                try memory.commit([], of: projection, partition: partition, from: new, to: old)
                database.breakConnections()
                throw .unavailable("the connection broke between two transactions")
            }
        } else {
            try memory.commit(rows, of: projection, partition: partition, from: old, to: new)
        }
        database.committed(projection, new)
        if database.random.chance(database.breaks) {
            database.breakConnections()
            throw .unavailable("the connection broke after the commit")
        }
    }
}
