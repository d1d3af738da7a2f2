import EventModel
import Projections

/// Where rows and checkpoints live. One instance belongs to one projector, whose thread its calls block.
public protocol ProjectionStore: AnyObject {
    /// The last position whose rows are committed for this projection, partition and version; nil when none is.
    func checkpoint(of projection: ProjectionDescriptor, partition: Int) throws(StoreError) -> Position?

    /// Fetches the rows asked for; `found` is called for each that exists.
    func load(_ requests: [LoadRequest], of projection: ProjectionDescriptor, found: (Int, RowReader) -> Void) throws(StoreError)

    /// Writes the rows and moves the checkpoint from `old` to `new`, in one transaction, by compare-and-set.
    /// `rows[i]` belongs to `projection.tables[i]`; all may be empty.
    func commit(
        _ rows: [RowBuffer], of projection: ProjectionDescriptor, partition: Int, from old: Position?, to new: Position
    ) throws(StoreError)
}

public enum StoreError: Error, Sendable, CustomStringConvertible {
    /// The database cannot be reached, or went away in the middle: try again, for ever, with backoff.
    case unavailable(String)
    /// Somebody else moved this checkpoint: forget the state, read the checkpoint, go on from there.
    case checkpointMoved(String)
    /// The database refuses these rows and always will.
    case refused(String)

    public var description: String {
        switch self {
        case .unavailable(let text), .checkpointMoved(let text), .refused(let text): text
        }
    }
}
