import Decoding
import EventModel

/// A projection that adds rows, each with its event's position in its key, and never looks at an older one.
protocol AppendProjection {
    static var descriptor: ProjectionDescriptor { get }
    init()
    /// Whether a record so marked may give a row.
    static func mayGiveRow(_ mark: BlockScan.Mark) -> Bool
    /// What the record concerns, when it gives a row at all.
    static func key(of record: RecordView) -> UnsafeRawBufferPointer
    /// Appends the row of a record, or none.
    func append(_ record: RecordView, _ position: Position, decoder: FactDecoder, into rows: inout RowBuffer)
}

extension AppendProjection {
    /// The device's address, where the topic has one; else nothing.
    static func key(of record: RecordView) -> UnsafeRawBufferPointer {
        let hasTopic = record.kind == .message || record.kind == .rejection
        guard hasTopic, let topic = DeviceTopic(record.topic)
        else { return UnsafeRawBufferPointer(start: nil, count: 0) }
        return UnsafeRawBufferPointer(rebasing: record.topic[topic.address])
    }
}

final class AppendFold<Projection: AppendProjection>: FoldEngine {
    private let scope: FoldScope
    private let projection = Projection()
    private let decoder: FactDecoder
    private var pending = RowBuffer()

    init(_ scope: FoldScope, _ decoder: FactDecoder) {
        self.scope = scope
        self.decoder = decoder
    }

    var descriptor: ProjectionDescriptor { Projection.descriptor }
    var dirtyRowCount: Int { pending.rowCount }
    var pendingByteCount: Int { pending.bytes.count }
    var stateByteCount: Int { 0 }

    func prepare(_ block: EventBlock, in range: Range<Position>) -> [LoadRequest] { [] }
    func keys(of record: RecordView) -> [FoldKey] { [FoldKey(Projection.key(of: record))] }
    func load(table: Int, row: RowReader) {}

    func fold(_ block: EventBlock, in range: Range<Position>) {
        let scan = decoder.scan(block), base = block.base.rawValue
        let first = Int(max(range.lowerBound.rawValue, base) - base)
        let end = Int(min(range.upperBound.rawValue, block.end.rawValue) - base)
        for index in first..<max(first, end) where Projection.mayGiveRow(scan.marks[index]) {
            let record = block.record(atOffset: Int(scan.offsets[index]))
            let position = block.base.advanced(by: index)
            guard scope.isAll || scope.includes(Projection.key(of: record), at: position) else { continue }
            projection.append(record, position, decoder: decoder, into: &pending)
        }
    }

    func drain(into rows: inout [RowBuffer]) {
        rows[0].append(pending)
        pending.removeAll()
    }

    func shrink(toBytes byteCount: Int) {}
}
