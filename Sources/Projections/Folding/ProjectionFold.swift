import EventModel

/// One projection's fold over the keys of one scope. Pure: no clock, random, I/O or hash order.
///
/// A projector drives it block by block:
///
///     missing = prepare(block, in: range) // which rows must be known before this block can be folded
///     load(...) for each row found; those not found do not exist
///     fold(block, in: range)              // state changes in memory
///     drain(into: &rows)                  // changed rows, each key at most once; several folds may pass before
///
/// Rows and checkpoint then go into one transaction. If that fails, the instance is thrown away and a new one made:
/// its state is only a cache of the tables.
public protocol ProjectionFold: AnyObject {
    var descriptor: ProjectionDescriptor { get }

    /// Finds the keys that the block's events within `range` touch and whose rows are not in memory. At most one
    /// request a table.
    func prepare(_ block: EventBlock, in range: Range<Position>) -> [LoadRequest]

    /// What an event concerns: the keys whose rows it may change, each once, in their order. None when it is none of
    /// this projection's.
    func keys(of record: RecordView) -> [FoldKey]

    /// A row that was asked for and exists. Called once a row, before `fold`.
    func load(table: Int, row: RowReader)

    /// Folds the block's events within `range`. Ranges follow each other without a gap.
    func fold(_ block: EventBlock, in range: Range<Position>)

    /// Appends the rows changed since the last drain to `rows[i]` for `descriptor.tables[i]`, and marks them clean.
    func drain(into rows: inout [RowBuffer])

    /// Rows changed since the last drain, about: what a projector bounds a transaction by.
    var dirtyRowCount: Int { get }

    /// What `drain` would give now, in bytes, about.
    var pendingByteCount: Int { get }
    /// What it remembers of rows, in bytes, about.
    var stateByteCount: Int { get }

    /// Forgets clean rows until about `byteCount` bytes of state are left. They are loaded again when needed.
    func shrink(toBytes byteCount: Int)
}

/// Rows of `descriptor.tables[table]` to be fetched by key. `keys` holds tuples of the table's key columns, each once.
public struct LoadRequest: Sendable {
    public let table: Int
    public let keys: RowBuffer

    public init(table: Int, keys: RowBuffer) {
        self.table = table
        self.keys = keys
    }
}
