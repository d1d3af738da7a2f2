import Primitives
import Projections

/// Goes through rows in the order of their keys, once. One consumer's own.
public protocol RowCursor: AnyObject {
    /// Moves to the next row, the first at first; false behind the last.
    /// - Throws: `SnapshotError` when a block is damaged.
    func next() throws -> Bool
    /// The sort key of the row that `next` moved to (`SortKey`).
    var key: [UInt8] { get }
    /// Its bytes: a binary COPY tuple with the stored table's columns. Valid during the call.
    func withRow<R>(_ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R
}

/// Sorted rows in the blocks of a file.
struct SortedRows: Sendable {
    let table: StoredTable
    let reader: BlockReader
    let section: UInt32
    let places: [BlockPlace]

    var rowCount: Int { places.reduce(0) { $0 + $1.rows } }

    /// The number of the block that would hold `key`; nil when all rows lie behind it.
    func block(holding key: [UInt8]) -> Int? {
        let behind = places.partitioningIndex { SortKey.precedes(key, $0.firstKey) }
        return behind == 0 ? nil : behind - 1
    }

    func load(_ number: Int) throws -> RowBlock { try reader.rows(places[number], section: section) }

    /// The last key; nil when there is no row.
    func lastKey() throws -> [UInt8]? {
        guard let last = places.indices.last else { return nil }
        let block = try load(last)
        var key: [UInt8] = []
        block.row(block.count - 1) { SortKey.make($0, table.keyTypes, into: &key) }
        return key
    }
}

/// Looks up rows by key, with the block of the last lookup at hand: keys that come in order decode each block once.
final class RowFinder {
    let rows: SortedRows
    private var block: (number: Int, rows: RowBlock)?
    private var key: [UInt8] = []

    init(_ rows: SortedRows) { self.rows = rows }

    /// The row with `key`; valid while the block is.
    func find(_ wanted: [UInt8]) throws -> (RowBlock, Int)? {
        guard let number = rows.block(holding: wanted) else { return nil }
        if block?.number != number { block = (number, try rows.load(number)) }
        guard let found = block?.rows else { return nil }
        let types = rows.table.keyTypes
        let index = (0..<found.count).partitioningIndex { row in
            found.row(row) { SortKey.make($0, types, into: &key) }
            return !SortKey.precedes(key, wanted)
        }
        guard index < found.count else { return nil }
        found.row(index) { SortKey.make($0, types, into: &key) }
        return key == wanted ? (found, index) : nil
    }
}

/// The rows of a file's blocks, from a key on.
final class BlockCursor: RowCursor {
    private let rows: SortedRows
    private let types: [ColumnType]
    private let start: [UInt8]?
    private var number: Int
    private var block: RowBlock?
    private var index = -1
    private(set) var key: [UInt8] = []

    init(_ rows: SortedRows, from start: [UInt8]? = nil) {
        self.rows = rows
        self.start = start
        types = rows.table.keyTypes
        number = start.flatMap { rows.block(holding: $0) } ?? 0
    }

    func next() throws -> Bool {
        while true {
            index += 1
            if block == nil || index >= block?.count ?? 0 {
                guard number < rows.places.count else { return false }
                block = try rows.load(number)
                number += 1
                index = 0
            }
            guard let block, block.count > 0 else { continue }
            let before = key
            block.row(index) { SortKey.make($0, types, into: &key) }
            guard before.isEmpty || SortKey.precedes(before, key) else {
                throw SnapshotError(.damaged, "\(rows.reader.path): the rows of \(rows.table.name) are not in order")
            }
            if let start, SortKey.precedes(key, start) { continue }
            return true
        }
    }

    func withRow<R>(_ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
        guard let block else { preconditionFailure("no row before the first next") }
        return try block.row(index, body)
    }
}

/// Several cursors as one: where some have the same key, the first of them wins.
final class MergeCursor: RowCursor {
    private let sources: [any RowCursor]
    private var isLive: [Bool]
    private var current = -1
    private var begun = false

    /// - Parameter sources: the newest first.
    init(_ sources: [any RowCursor]) {
        self.sources = sources
        isLive = sources.map { _ in false }
    }

    var key: [UInt8] { sources[current].key }

    func next() throws -> Bool {
        if !begun {
            begun = true
            for index in sources.indices { isLive[index] = try sources[index].next() }
        } else if current >= 0 {
            let done = sources[current].key
            for index in sources.indices where isLive[index] && sources[index].key == done {
                isLive[index] = try sources[index].next()
            }
        }
        current = -1
        for index in sources.indices where isLive[index] {
            if current < 0 || SortKey.precedes(sources[index].key, sources[current].key) { current = index }
        }
        return current >= 0
    }

    func withRow<R>(_ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R { try sources[current].withRow(body) }
}
