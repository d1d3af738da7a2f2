import Decoding
import EventModel

/// A projection whose rows each depend on the events of one key alone: its state, how a record changes it, and how it
/// becomes a row. Everything else (finding rows, loading, draining, evicting) is `KeyedFold`'s.
protocol KeyedProjection {
    associatedtype State: RowState

    static var descriptor: ProjectionDescriptor { get }
    /// Most records have the key of the record before them.
    static var keysRepeat: Bool { get }

    init()

    /// The key that a record concerns; nil when it concerns none. `topic`: where the parts of its topic are, for a
    /// message or rejection of a device.
    func key(of record: RecordView, topic: TopicParts) -> UnsafeRawBufferPointer?

    /// Folds one record. Says whether the row changed.
    func apply(
        _ record: RecordView, _ position: Position, _ topic: TopicParts, to state: inout State,
        in arena: inout ByteArena, decoder: FactDecoder
    ) -> Bool

    /// Finishes what was put off, before the row is written.
    func settle(_ state: inout State, in arena: inout ByteArena, decoder: FactDecoder)
}

extension KeyedProjection {
    static var keysRepeat: Bool { false }

    func settle(_ state: inout State, in arena: inout ByteArena, decoder: FactDecoder) {}
}

final class KeyedFold<Projection: KeyedProjection>: FoldEngine {
    private let scope: FoldScope
    private let projection = Projection()
    private let decoder: FactDecoder
    private var table = KeyedTable<Projection.State>()
    /// The row of each record of the block that was prepared.
    private var touches: ContiguousArray<UInt32> = []
    private static var untouched: UInt32 { .max }
    /// So many records ahead the state is fetched: of many devices' states few are in the caches.
    private static var lookahead: Int { 4 }
    private var prepared: (base: Position, count: Int, range: Range<Position>)?

    init(_ scope: FoldScope, _ decoder: FactDecoder) {
        self.scope = scope
        self.decoder = decoder
    }

    var descriptor: ProjectionDescriptor { Projection.descriptor }
    var dirtyRowCount: Int { table.dirty.count }
    var pendingByteCount: Int { table.dirtyByteCount }
    var stateByteCount: Int { table.byteCount }

    func prepare(_ block: EventBlock, in range: Range<Position>) -> [LoadRequest] {
        find(block, range)
        return table.takeUnknown(table: 0).map { [$0] } ?? []
    }

    private func find(_ block: EventBlock, _ range: Range<Position>) {
        Self.find(block, range, scope, projection, decoder.scan(block).topics, &table, &touches)
        prepared = (block.base, block.count, range)
    }

    /// Static and by `inout`: no exclusivity check and no reference count in the loop.
    private static func find(
        _ block: EventBlock, _ range: Range<Position>, _ scope: FoldScope, _ projection: Projection,
        _ topics: ContiguousArray<TopicParts>, _ table: inout KeyedTable<Projection.State>,
        _ touches: inout ContiguousArray<UInt32>
    ) {
        touches.removeAll(keepingCapacity: true)
        touches.reserveCapacity(block.count)
        table.beginRound(isStart: scope.startsEmpty(at: range.lowerBound))
        var index = 0
        block.forEach { record, position in
            let topic = topics[index]
            index += 1
            guard range.contains(position), let key = projection.key(of: record, topic: topic),
                scope.includes(key, at: position)
            else {
                touches.append(untouched)
                return
            }
            touches.append(Projection.keysRepeat ? table.touchAgain(key) : table.touch(key))
        }
    }

    func keys(of record: RecordView) -> [FoldKey] {
        let hasTopic = record.kind == .message || record.kind == .rejection
        let topic = (hasTopic ? DeviceTopic(record.topic) : nil).map { TopicParts($0) } ?? .none
        return projection.key(of: record, topic: topic).map { [FoldKey($0)] } ?? []
    }

    func load(table index: Int, row: RowReader) { table.load(row) }

    func fold(_ block: EventBlock, in range: Range<Position>) {
        if prepared?.base != block.base || prepared?.count != block.count || prepared?.range != range {
            find(block, range)
        }
        prepared = nil
        precondition(!table.hasUnknown, "a block is prepared, and its rows loaded, before it is folded")
        Self.fold(block, projection, decoder, decoder.scan(block).topics, touches, &table)
    }

    private static func fold(
        _ block: EventBlock, _ projection: Projection, _ decoder: FactDecoder,
        _ topics: ContiguousArray<TopicParts>, _ touches: ContiguousArray<UInt32>,
        _ table: inout KeyedTable<Projection.State>
    ) {
        var index = 0
        block.forEach { record, position in
            let id = touches[index], topic = topics[index]
            if index + Self.lookahead < touches.count {
                let next = touches[index + Self.lookahead]
                if next != untouched { table.prefetch(next) }
            }
            index += 1
            guard id != untouched else { return }
            let changed = table.update(id) { state, arena in
                projection.apply(record, position, topic, to: &state, in: &arena, decoder: decoder)
            }
            if changed { table.markDirty(id) }
        }
    }

    func drain(into rows: inout [RowBuffer]) {
        for id in table.dirty { table.update(id) { projection.settle(&$0, in: &$1, decoder: decoder) } }
        table.drain(into: &rows[0])
    }

    func shrink(toBytes byteCount: Int) {
        prepared = nil
        table.shrink(toBytes: byteCount)
    }
}
