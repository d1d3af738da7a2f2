import EventModel
import Projecting
import Projections

extension SnapshotFile {
    /// Writes a projection's rows into a store that holds none, and moves its checkpoint behind the last event folded
    /// in them. Several commits: whoever is interrupted must begin with an empty store again, because a checkpoint in
    /// between says nothing.
    /// - Parameter chunkBytes: about so much goes into one commit.
    /// - Throws: `SnapshotError` when the snapshot is damaged; `StoreError`.
    public func fill(
        _ store: any ProjectionStore, of projection: ProjectionDescriptor, chunkBytes: Int = 16 << 20
    ) throws {
        precondition(holds(projection), "the snapshot has no rows of this version of \(projection.name)")
        let last = Position(end.rawValue - 1)
        var rows = projection.tables.map { _ in RowBuffer() }, checkpoint: Position?
        func commit(to position: Position) throws {
            try store.commit(rows, of: projection, partition: 0, from: checkpoint, to: position)
            checkpoint = position
            for index in rows.indices { rows[index].removeAll() }
        }
        for table in projection.storedTables {
            guard let cursor = cursor(of: table) else { continue }
            let writes = projection.tables.indices.filter { projection.tables[$0].name == table.name }
            let orders = writes.map { write in
                projection.tables[write].columns.map { column in
                    guard let index = table.columns.firstIndex(where: { $0.name == column.name }) else {
                        preconditionFailure("\(table.name) has no column \(column.name)")
                    }
                    return index
                }
            }
            var ranges: [Range<Int>?] = []
            while try cursor.next() {
                cursor.withRow { bytes in
                    Tuple(bytes).fields(into: &ranges)
                    for (write, order) in zip(writes, orders) {
                        rows[write].beginRow(fieldCount: order.count)
                        for column in order {
                            if let range = ranges[column] {
                                rows[write].text(bytes[range])
                            } else {
                                rows[write].null()
                            }
                        }
                    }
                }
                guard rows.reduce(0, { $0 + $1.bytes.count }) >= chunkBytes else { continue }
                // The checkpoint must move with each commit; as long as it can, by one.
                let next = checkpoint?.next ?? Position(0)
                if next < last { try commit(to: next) }
            }
        }
        try commit(to: last)
    }
}
