import Primitives
import Projecting
import Projections

/// The rows of one stored table: in memory, in runs, and in a snapshot, the newer over the older.
final class TableFiles {
    let stored: StoredTable
    var memory = MemoryRows()
    /// The oldest first.
    var runs: [SortedRows] = []
    private let base: SortedRows?
    private var finders: [RowFinder]?
    /// The largest key of those in files; nil: not known yet, or none.
    private var lastKey: [UInt8]?

    init(_ stored: StoredTable, base: SortedRows?) {
        self.stored = stored
        self.base = base
    }

    /// Runs have changed.
    func forget() {
        finders = nil
        lastKey = nil
    }

    /// False when `key` lies behind all others, which is told without looking for it.
    func mayHold(_ key: [UInt8]) throws -> Bool {
        guard memory.isOrdered else { return true }
        if let last = memory.lastKey, !SortKey.precedes(last, key) { return true }
        if lastKey == nil {
            lastKey =
                try (runs + [base].compactMap { $0 }).compactMap { try $0.lastKey() }
                .max { SortKey.precedes($0, $1) } ?? []
        }
        return !SortKey.precedes(lastKey ?? [], key)
    }

    /// Calls `body` with the row of this key; false when there is none.
    @discardableResult
    func find(_ key: [UInt8], _ body: (UnsafeRawBufferPointer) throws -> Void) throws -> Bool {
        if let entry = memory.find(key) {
            try memory.row(entry, body)
            return true
        }
        if finders == nil { finders = (runs.reversed() + [base].compactMap { $0 }).map(RowFinder.init) }
        for finder in finders ?? [] {
            guard let (block, index) = try finder.find(key) else { continue }
            try block.row(index, body)
            return true
        }
        return false
    }

    func put(_ key: [UInt8], _ row: [UInt8]) { row.withUnsafeBytes { memory.put(key, $0) } }

    func put(_ key: [UInt8], _ row: UnsafeRawBufferPointer, _ plan: WritePlan) {
        if plan.isInOrder { memory.put(key, row) } else { put(key, plan.merge(row, into: nil)) }
    }

    func cursor(from key: [UInt8]?) -> any RowCursor {
        var sources: [any RowCursor] = memory.isEmpty ? [] : [MemoryCursor(memory, from: key)]
        sources += (runs.reversed() + [base].compactMap { $0 }).map { BlockCursor($0, from: key) }
        return sources.count == 1 ? sources[0] : MergeCursor(sources)
    }

    func runCursor() -> any RowCursor { MergeCursor(runs.reversed().map { BlockCursor($0) }) }
}

/// How the rows of a `Table` become rows of the stored table.
struct WritePlan {
    let rule: Table.WriteRule
    /// The number of the stored table.
    let table: Int
    /// By column of the `Table`: the column of the stored table.
    let columns: [Int]
    let keyColumns: [(index: Int, type: ColumnType)]
    /// A row replaces the stored one, whatever that is: it has all columns, and adds to none.
    let isPlain: Bool
    /// In the stored table's order.
    let isInOrder: Bool
    private let isDelta: [Bool]
    /// By stored column: whether a row begins with 0 there, as a count does.
    private let startsAtZero: [Bool]

    init(_ table: Table, tables: [StoredTable], of projection: ProjectionDescriptor) {
        guard let number = tables.firstIndex(where: { $0.name == table.name }) else {
            preconditionFailure("\(table.name) is stored nowhere")
        }
        let stored = tables[number]
        rule = table.write
        self.table = number
        columns = table.columns.map { column in
            guard let index = stored.columns.firstIndex(where: { $0.name == column.name }) else {
                preconditionFailure("\(table.name) has no column \(column.name)")
            }
            return index
        }
        // In the stored table's order of keys.
        keyColumns = (0..<stored.keyCount).map { key in
            guard let index = table.columns.firstIndex(where: { $0.name == stored.columns[key].name }) else {
                preconditionFailure("\(table.name) is written without its key")
            }
            return (index, stored.keyTypes[key])
        }
        let isWhole = table.columns.count == stored.columns.count
        isPlain = isWhole && (table.write == .insert || !table.columns.contains { $0.role == .delta })
        isInOrder = isWhole && columns == Array(columns.indices)
        isDelta = table.columns.map { $0.role == .delta }
        let deltas = projection.tables.filter { $0.name == table.name }.flatMap(\.columns).filter { $0.role == .delta }
        startsAtZero = stored.columns.map { column in deltas.contains { $0.name == column.name } }
    }

    /// A stored row: the fields that are written, over those of `old`, counts added.
    func merge(_ tuple: UnsafeRawBufferPointer, into old: UnsafeRawBufferPointer?) -> [UInt8] {
        var written: [Range<Int>?] = [], kept: [Range<Int>?] = []
        Tuple(tuple).fields(into: &written)
        if let old { Tuple(old).fields(into: &kept) }
        precondition(written.count == columns.count, "a row has other columns than its table")
        var sources = [Int?](repeating: nil, count: startsAtZero.count)
        for (index, column) in columns.enumerated() { sources[column] = index }
        var result: [UInt8] = []
        func append(_ bytes: UnsafeRawBufferPointer?) {
            let length = Int32(bytes?.count ?? -1)
            withUnsafeBytes(of: length.bigEndian) { result.append(contentsOf: $0) }
            if let bytes { result.append(contentsOf: bytes) }
        }
        func append(_ value: Int64) { withUnsafeBytes(of: value.bigEndian) { append($0) } }
        func field(_ bytes: UnsafeRawBufferPointer?, _ range: Range<Int>?) -> UnsafeRawBufferPointer? {
            guard let bytes, let range else { return nil }
            return UnsafeRawBufferPointer(rebasing: bytes[range])
        }
        func number(_ bytes: UnsafeRawBufferPointer?) -> Int64 {
            bytes.map { Int64(bigEndian: $0.loadUnaligned(as: Int64.self)) } ?? 0
        }
        withUnsafeBytes(of: Int16(startsAtZero.count).bigEndian) { result.append(contentsOf: $0) }
        for column in startsAtZero.indices {
            let before = old == nil ? nil : field(old, kept[column])
            guard let source = sources[column] else {
                if old == nil && startsAtZero[column] { append(0) } else { append(before) }
                continue
            }
            let value = field(tuple, written[source])
            if isDelta[source] { append(number(before) &+ number(value)) } else { append(value) }
        }
        return result
    }
}

extension RowBuffer {
    func withRow<R>(_ row: Int, _ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
        let end = row + 1 < offsets.count ? offsets[row + 1] : bytes.count
        return try bytes.withUnsafeBytes { try body(UnsafeRawBufferPointer(rebasing: $0[offsets[row]..<end])) }
    }

    func forEachTuple(_ body: (UnsafeRawBufferPointer) throws -> Void) rethrows {
        for row in 0..<rowCount { try withRow(row, body) }
    }
}

/// The rows of a buffer in the order of their keys; of equal keys in the order in which they came.
struct RowsInOrder {
    let buffer: RowBuffer
    private(set) var rows: [(key: [UInt8], row: Int)] = []

    init(_ buffer: RowBuffer, _ plan: WritePlan) {
        self.buffer = buffer
        var isSorted = true, ranges: [Range<Int>?] = []
        rows.reserveCapacity(buffer.rowCount)
        for row in 0..<buffer.rowCount {
            var key: [UInt8] = []
            buffer.withRow(row) { bytes in
                Tuple(bytes).fields(into: &ranges)
                for (index, type) in plan.keyColumns {
                    let field = ranges[index].map { UnsafeRawBufferPointer(rebasing: bytes[$0]) }
                    SortKey.append(field, type, to: &key)
                }
            }
            if let last = rows.last?.key, !SortKey.precedes(last, key) { isSorted = false }
            rows.append((key, row))
        }
        if !isSorted { rows.sort { $0.key == $1.key ? $0.row < $1.row : SortKey.precedes($0.key, $1.key) } }
    }

    func contains(_ key: [UInt8]) -> Bool {
        let index = rows.partitioningIndex { !SortKey.precedes($0.key, key) }
        return index < rows.count && rows[index].key == key
    }
}
