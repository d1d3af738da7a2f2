import EventModel
import Projections

/// Where rows and checkpoints live. One instance belongs to one projector, whose thread its calls block.
public protocol ProjectionStore: AnyObject {
    /// The last position whose rows are committed for this projection and partition; nil when none is.
    /// - Throws: `.refused` when the rows there are of another version of the projection.
    func checkpoint(of projection: ProjectionDescriptor, partition: Int) throws(StoreError) -> Position?

    /// Fetches the rows asked for; `found` is called for each that exists, with its table's index.
    func load(
        _ requests: [LoadRequest], of projection: ProjectionDescriptor, found: (Int, RowReader) -> Void
    ) throws(StoreError)

    /// Writes the rows and moves the checkpoint from `old` to `new`, in one transaction, by compare-and-set.
    /// `rows[i]` belongs to `projection.tables[i]`; all may be empty.
    /// After an error other than `.checkpointMoved`, `.refused` and `.refusedRows` it is not known whether it was done.
    func commit(
        _ rows: [RowBuffer], of projection: ProjectionDescriptor, partition: Int, from old: Position?,
        to new: Position
    ) throws(StoreError)

    /// Makes the call that hangs now, and every later one, fail with `.unavailable`. For any thread.
    var interrupter: @Sendable () -> Void { get }
}

extension ProjectionStore {
    /// Loads the rows that a fold must know before it folds these events.
    public func load(
        into fold: any ProjectionFold, for block: EventBlock, in range: Range<Position>
    ) throws(StoreError) {
        let requests = fold.prepare(block, in: range)
        if !requests.isEmpty { try load(requests, of: fold.descriptor) { fold.load(table: $0, row: $1) } }
    }
}

public enum StoreError: Error, Sendable, CustomStringConvertible {
    /// The database cannot be reached, or went away in the middle: try again, for ever, with backoff.
    case unavailable(String)
    /// Somebody else moved this checkpoint: forget the state, read the checkpoint, go on from there.
    case checkpointMoved(String)
    /// The database refuses this and always will, whatever the rows are: a table is missing, a right.
    case refused(String)
    /// It refuses what these rows hold; others it might take.
    case refusedRows(String)

    public var description: String {
        switch self {
        case .unavailable(let text), .checkpointMoved(let text), .refused(let text), .refusedRows(let text): text
        }
    }

    /// The checkpoint is lower than one that this session committed, and neither a rebuild, a restore nor a crash of
    /// the server explains it: the rows hold the events between them already, and would count them twice.
    public static func movedBack(_ projection: ProjectionDescriptor, from: Int64, to: Int64) -> StoreError {
        .refused(
            "another client moved the checkpoint of \(projection.name) back from position \(from) to \(to), without "
                + "its rows: events would count twice. Run refold replay rebuild \(projection.name), which folds "
                + "the rows again (or set the position back to \(from))")
    }

    /// What every store says to a projection whose rows are of another version.
    public static func otherVersion(_ projection: ProjectionDescriptor, found: Int) -> StoreError {
        .refused(
            "the rows of \(projection.name) were folded by version \(found) of the projection, this program has "
                + "version \(projection.version): they must be rebuilt (refold replay rebuild \(projection.name))")
    }
}
