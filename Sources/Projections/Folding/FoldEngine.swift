import Decoding
import EventModel

/// What `KeyedFold` and `AppendFold` are to a `FoldBox`.
protocol FoldEngine: ProjectionFold {
    init(_ scope: FoldScope, _ decoder: FactDecoder)
}

/// A generic engine behind the protocol. It holds closures instead of the engine, because the compiler does not
/// specialise a generic class's methods that are reached by a protocol: every event would go through run-time
/// metadata (measured: half of all time). Closures made where the engine's type is known call specialised code.
final class FoldBox: ProjectionFold {
    let descriptor: ProjectionDescriptor
    private let dirtyRows: () -> Int
    private let byteCounts: () -> (pending: Int, state: Int)
    private let prepareBlock: (EventBlock, Range<Position>) -> [LoadRequest]
    private let findKeys: (RecordView) -> [FoldKey]
    private let loadRow: (Int, RowReader) -> Void
    private let foldBlock: (EventBlock, Range<Position>) -> Void
    private let drainRows: (inout [RowBuffer]) -> Void
    private let shrinkState: (Int) -> Void

    @inline(__always)
    init<Engine: FoldEngine>(_ type: Engine.Type, _ scope: FoldScope, _ decoder: FactDecoder) {
        let engine = Engine(scope, decoder)
        descriptor = engine.descriptor
        dirtyRows = { engine.dirtyRowCount }
        byteCounts = { (engine.pendingByteCount, engine.stateByteCount) }
        prepareBlock = { engine.prepare($0, in: $1) }
        findKeys = { engine.keys(of: $0) }
        loadRow = { engine.load(table: $0, row: $1) }
        foldBlock = { engine.fold($0, in: $1) }
        drainRows = { engine.drain(into: &$0) }
        shrinkState = { engine.shrink(toBytes: $0) }
    }

    var dirtyRowCount: Int { dirtyRows() }
    var pendingByteCount: Int { byteCounts().pending }
    var stateByteCount: Int { byteCounts().state }
    func prepare(_ block: EventBlock, in range: Range<Position>) -> [LoadRequest] { prepareBlock(block, range) }
    func keys(of record: RecordView) -> [FoldKey] { findKeys(record) }
    func load(table: Int, row: RowReader) { loadRow(table, row) }
    func fold(_ block: EventBlock, in range: Range<Position>) { foldBlock(block, range) }
    func drain(into rows: inout [RowBuffer]) { drainRows(&rows) }
    func shrink(toBytes byteCount: Int) { shrinkState(byteCount) }
}
