import Decoding
import EventModel
import Projections
import Synchronization
import Threading

/// One partition's folds of every projection. `@unchecked Sendable`: its folds are touched only by the thread that
/// `run` was called on, and the next run begins when that has ended.
final class BulkWorker: @unchecked Sendable {
    let index: Int
    private let folds: [any ProjectionFold]
    /// Shared by the folds: what one found sound no other looks at.
    private let decoder = FactDecoder()
    private let stores: [LockedStore]
    /// Where each projection's folding begins.
    private let starts: [Position]
    private let stateBytesMax: Int

    init(_ index: Int, entries: [Catalog.Entry], stores: [LockedStore], starts: [Position], options: BulkOptions) {
        self.index = index
        let decoder = decoder
        folds = entries.map { $0.makeFold(.partition(index, of: options.threads), decoder: decoder) }
        self.stores = stores
        self.starts = starts
        stateBytesMax = options.stateBytesMax / options.threads
    }

    func run(_ ring: BlockRing, _ gate: EpochGate) {
        do {
            var sequence = 0, epochs = 0
            while let item = ring.next(sequence) {
                try fold(item)
                ring.leave(sequence, consumer: index, pendingBytes: folds.reduce(0) { $0 + $1.pendingByteCount })
                sequence += 1
                guard item.endsEpoch else { continue }
                guard gate.submit(drain(), worker: index, end: item.range.upperBound) else { break }
                epochs += 1
                guard folds.contains(where: { $0.stateByteCount > stateBytesMax }) else { continue }
                // What is not in the store yet must not be forgotten.
                guard gate.waitUntilCommitted(epochs) else { break }
                for fold in folds { fold.shrink(toBytes: stateBytesMax / folds.count) }
            }
            _ = gate.submit(drain(), worker: index, end: ring.end)
            gate.ended(nil)
        } catch {
            ring.stop()
            gate.ended(error)
        }
    }

    private func fold(_ item: BlockRing.Item) throws {
        _ = decoder.scan(item.block)
        for (index, fold) in folds.enumerated() where item.range.upperBound > starts[index] {
            let range = max(item.range.lowerBound, starts[index])..<item.range.upperBound
            let requests = fold.prepare(item.block, in: range)
            if !requests.isEmpty { try stores[index].load(requests, into: fold) }
            fold.fold(item.block, in: range)
        }
    }

    private func drain() -> EpochGate.Rows {
        folds.map { fold in
            var rows = fold.descriptor.tables.map { _ in RowBuffer() }
            fold.drain(into: &rows)
            return rows
        }
    }
}

/// One store, used by several threads in turn. `@unchecked Sendable`: it is touched only under the monitor.
final class LockedStore: @unchecked Sendable {
    private let store: any ProjectionStore
    let descriptor: ProjectionDescriptor
    private let monitor = Monitor(())

    init(_ store: any ProjectionStore, _ descriptor: ProjectionDescriptor) {
        self.store = store
        self.descriptor = descriptor
    }

    func load(_ requests: [LoadRequest], into fold: any ProjectionFold) throws(StoreError) {
        try monitor.withLock { (_) throws(StoreError) in
            try store.load(requests, of: descriptor) { fold.load(table: $0, row: $1) }
        }
    }

    func commit(_ rows: [RowBuffer], from old: Position?, to new: Position) throws(StoreError) {
        try monitor.withLock { (_) throws(StoreError) in
            try store.commit(rows, of: descriptor, partition: 0, from: old, to: new)
        }
    }
}

/// What others see of a bulk fold while it works.
final class BulkShared: Sendable {
    private struct State {
        var progress: BulkProgress
        var isCancelled = false
        var onBlock: (@Sendable (Position) -> Void)?
    }
    private let state: Mutex<State>

    init(_ progress: BulkProgress) { state = Mutex(State(progress: progress)) }

    var progress: BulkProgress { state.withLock { $0.progress } }
    var isCancelled: Bool { state.withLock { $0.isCancelled } }
    func cancel() { state.withLock { $0.isCancelled = true } }
    var onBlock: (@Sendable (Position) -> Void)? {
        get { state.withLock { $0.onBlock } }
        set { state.withLock { $0.onBlock = newValue } }
    }

    func folded(_ end: Position) {
        let tell = state.withLock { state in
            state.progress.folded = end
            return state.onBlock
        }
        tell?(end)
    }

    func committed(_ end: Position, rows: Int) {
        state.withLock { state in
            state.progress.committed = max(state.progress.committed, end)
            state.progress.rows += UInt64(rows)
        }
    }
}
