// Poison: an event whose rows the store refuses, and always will until somebody mends something. It parks its key for
// that projection: from that event on, the key's events wait (they are in the log), and the rest of the fleet goes on.
//
//     refused rows ─► PoisonRowIsolator   bisects to one event, commits what is good, parks the event's key
//     parked keys  ─► the fold's scope leaves them out (FoldScope.deferring); the checkpoint moves on past their events
//     mended       ─► ParkedRetry   folds what was left out (FoldScope.takingUp), up to the checkpoint, and unparks
//
// Invariants. What is parked changes in the transaction that holds the rows and the checkpoint, so that a crash leaves
// rows, checkpoint and parked keys of one moment. Every such change gives the checkpoint another generation: a second
// projector that folds with other parked keys in mind cannot commit. Each part of an event is folded exactly once, so
// that, when nothing is parked any more, the rows are those of a run in which nothing was ever refused.
import EventModel
import Projections

/// A key whose events wait.
public struct ParkedKey: Sendable, Equatable {
    public let key: FoldKey
    /// The first event that waits. Unless the key was being taken up again when the process ended, it is the one whose
    /// rows were refused.
    public let position: Position
    /// What the store said.
    public let reason: String

    public init(key: FoldKey, position: Position, reason: String) {
        self.key = key
        self.position = position
        self.reason = reason
    }
}

/// What changes among the parked keys in one transaction.
public struct ParkingChange: Sendable {
    /// Parked from now on, or from another position than before.
    public var park: [ParkedKey] = []
    public var unpark: [FoldKey] = []

    public init() {}
    public var isEmpty: Bool { park.isEmpty && unpark.isEmpty }
}

/// A store that can leave keys out.
public protocol ParkingStore: ProjectionStore {
    /// The parked keys, in the order of their positions, then of their names. To be asked behind `checkpoint`: whatever
    /// changes in between makes the next commit fail with `.checkpointMoved`.
    func parked(of projection: ProjectionDescriptor, partition: Int) throws(StoreError) -> [ParkedKey]

    /// As `commit`, and parks and unparks keys in the same transaction. `new` may be `old`.
    func commit(
        _ rows: [RowBuffer], of projection: ProjectionDescriptor, partition: Int, from old: Position?,
        to new: Position, parking: ParkingChange
    ) throws(StoreError)

    /// Whether `commit` would do: it is done, and undone.
    func rehearse(
        _ rows: [RowBuffer], of projection: ProjectionDescriptor, partition: Int, from old: Position?,
        to new: Position
    ) throws(StoreError)
}

extension [ParkedKey] {
    /// In the order in which stores give them.
    package func inOrder() -> [ParkedKey] {
        sorted { $0.position == $1.position ? $0.key < $1.key : $0.position < $1.position }
    }
}

extension [FoldKey: ParkedKey] {
    var positions: [FoldKey: Position] { mapValues(\.position) }
}
