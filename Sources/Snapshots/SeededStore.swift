import EventLog
import EventModel
import Projecting
import Projections

/// A store whose empty tables begin with a snapshot's rows, where the log's first events cannot be had any more:
/// without them nobody could ever make those tables again. In one transaction, so that there are all rows or none.
public final class SeededStore: ParkingStore {
    private let store: any ParkingStore
    private let snapshots: SnapshotFolder
    private let horizon: @Sendable () -> Position
    private let note: @Sendable (String) -> Void

    /// - Parameters:
    ///   - horizon: the oldest position whose events can be had.
    ///   - note: is told when rows came from a snapshot, and of damaged ones.
    public init(
        _ store: any ParkingStore, snapshots: SnapshotFolder, horizon: @escaping @Sendable () -> Position,
        note: @escaping @Sendable (String) -> Void
    ) {
        self.store = store
        self.snapshots = snapshots
        self.horizon = horizon
        self.note = note
    }

    public func checkpoint(of projection: ProjectionDescriptor, partition: Int) throws(StoreError) -> Position? {
        if let found = try store.checkpoint(of: projection, partition: partition) { return found }
        let horizon = horizon()
        guard horizon > Position(0), partition == 0 else { return nil }
        do {
            let seeded = try snapshots.withNewest(
                atOrBefore: Position(.max), where: { $0.end >= horizon && $0.holds(projection) },
                report: { note("a damaged snapshot is passed over: \($0)") }
            ) { file in
                try file?.fill(store, of: projection, chunkBytes: .max)
                return file?.end
            }
            guard let seeded else { return nil }
            note("the log begins at position \(horizon): the rows come from the snapshot that ends at \(seeded)")
        } catch {
            throw (error as? StoreError) ?? .refused("\(error)")
        }
        return try store.checkpoint(of: projection, partition: partition)
    }

    public func load(
        _ requests: [LoadRequest], of projection: ProjectionDescriptor, found: (Int, RowReader) -> Void
    ) throws(StoreError) {
        try store.load(requests, of: projection, found: found)
    }

    public func commit(
        _ rows: [RowBuffer], of projection: ProjectionDescriptor, partition: Int, from old: Position?, to new: Position
    ) throws(StoreError) {
        try store.commit(rows, of: projection, partition: partition, from: old, to: new)
    }

    public func parked(of projection: ProjectionDescriptor, partition: Int) throws(StoreError) -> [ParkedKey] {
        try store.parked(of: projection, partition: partition)
    }

    public func commit(
        _ rows: [RowBuffer], of projection: ProjectionDescriptor, partition: Int, from old: Position?, to new: Position,
        parking: ParkingChange
    ) throws(StoreError) {
        try store.commit(rows, of: projection, partition: partition, from: old, to: new, parking: parking)
    }

    public func rehearse(
        _ rows: [RowBuffer], of projection: ProjectionDescriptor, partition: Int, from old: Position?, to new: Position
    ) throws(StoreError) {
        try store.rehearse(rows, of: projection, partition: partition, from: old, to: new)
    }

    public var interrupter: @Sendable () -> Void { store.interrupter }
}
