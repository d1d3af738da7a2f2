import Primitives

/// Rows of one table that are not in a file yet. While keys come in order they are only appended; from the first that
/// does not on, they are found by hash.
struct MemoryRows {
    struct Entry {
        var key: [UInt8]
        var offset: Int
        var length: Int
    }

    private(set) var entries: [Entry] = []
    private(set) var bytes: [UInt8] = []
    private var index: [[UInt8]: Int]?

    var isEmpty: Bool { entries.isEmpty }
    /// About what it takes in memory.
    var byteCount: Int { bytes.count + entries.count * 112 }
    /// The largest key, where that is known without looking.
    var lastKey: [UInt8]? { index == nil ? entries.last?.key : nil }
    var isOrdered: Bool { index == nil }

    func row<R>(_ entry: Entry, _ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
        try bytes.withUnsafeBytes {
            try body(UnsafeRawBufferPointer(rebasing: $0[entry.offset..<(entry.offset + entry.length)]))
        }
    }

    func find(_ key: [UInt8]) -> Entry? {
        if let index { return index[key].map { entries[$0] } }
        let index = entries.partitioningIndex { !SortKey.precedes($0.key, key) }
        return index < entries.count && entries[index].key == key ? entries[index] : nil
    }

    mutating func put(_ key: [UInt8], _ row: UnsafeRawBufferPointer) {
        if index == nil {
            guard let last = entries.last?.key, !SortKey.precedes(last, key) else { return append(key, row) }
            var made: [[UInt8]: Int] = [:]
            made.reserveCapacity(entries.count * 2)
            for (number, entry) in entries.enumerated() { made[entry.key] = number }
            index = made
        }
        guard let number = index?[key] else {
            index?[key] = entries.count
            return append(key, row)
        }
        if row.count <= entries[number].length {
            let offset = entries[number].offset
            bytes.withUnsafeMutableBytes {
                UnsafeMutableRawBufferPointer(rebasing: $0[offset..<(offset + row.count)]).copyMemory(from: row)
            }
        } else {
            entries[number].offset = bytes.count
            bytes.append(contentsOf: row)
        }
        entries[number].length = row.count
    }

    private mutating func append(_ key: [UInt8], _ row: UnsafeRawBufferPointer) {
        entries.append(Entry(key: key, offset: bytes.count, length: row.count))
        bytes.append(contentsOf: row)
    }

    func sorted() -> [Entry] { index == nil ? entries : entries.sorted { SortKey.precedes($0.key, $1.key) } }

    mutating func removeAll() { self = MemoryRows() }
}

final class MemoryCursor: RowCursor {
    private let rows: MemoryRows
    private let entries: [MemoryRows.Entry]
    private var index = -1

    /// - Parameter start: rows before this key are passed over.
    init(_ rows: MemoryRows, from start: [UInt8]? = nil) {
        self.rows = rows
        let sorted = rows.sorted()
        guard let start, let first = sorted.firstIndex(where: { !SortKey.precedes($0.key, start) }) else {
            entries = start == nil ? sorted : []
            return
        }
        entries = Array(sorted[first...])
    }

    var key: [UInt8] { entries[index].key }

    func next() -> Bool {
        index += 1
        return index < entries.count
    }

    func withRow<R>(_ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R { try rows.row(entries[index], body) }
}
