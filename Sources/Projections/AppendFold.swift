import Decoding
import EventModel

/// A projection that adds rows, each with its event's position in its key, and never looks at an older one.
protocol AppendProjection {
    static var descriptor: ProjectionDescriptor { get }
    init()
    /// Appends the row of a record, or none.
    func append(_ record: RecordView, _ position: Position, decoder: FactDecoder, into rows: inout RowBuffer)
}

final class AppendFold<Projection: AppendProjection>: FoldEngine {
    private let projection = Projection()
    private let decoder = FactDecoder()
    private var pending = RowBuffer()

    init() {}

    static var descriptor: ProjectionDescriptor { Projection.descriptor }
    var dirtyRowCount: Int { pending.rowCount }

    func prepare(_ block: EventBlock, from: Position) -> [LoadRequest] { [] }
    func load(table: Int, row: RowReader) {}

    func fold(_ block: EventBlock, from: Position) {
        block.forEach { record, position in
            if position >= from { projection.append(record, position, decoder: decoder, into: &pending) }
        }
    }

    func drain(into rows: inout [RowBuffer]) {
        rows[0].append(pending)
        pending.removeAll()
    }

    func shrink(toBytes byteCount: Int) {}
}
