import Glibc

/// A table as it is stored: the columns of all the ways in which a projection writes it (rows here, counters there),
/// its key columns first.
public struct StoredTable: Sendable, Equatable {
    public let name: String
    public let columns: [Column]
    /// Of the key columns.
    public let keyTypes: [ColumnType]

    public init(name: String, columns: [Column]) {
        self.name = name
        self.columns = columns
        keyTypes = columns.prefix { $0.role == .key }.map(\.type)
        precondition(!columns.dropFirst(keyTypes.count).contains { $0.role == .key }, "keys of \(name) come first")
    }

    public var keyCount: Int { keyTypes.count }

    /// Whether rows of the one are rows of the other: how a column that is no key is written does not matter.
    public static func == (a: Self, b: Self) -> Bool {
        a.name == b.name && a.keyCount == b.keyCount
            && a.columns.elementsEqual(b.columns) { $0.name == $1.name && $0.type == $1.type }
    }

    /// `<` of rows by their keys, given as binary COPY tuples: text by bytes, as PostgreSQL's collation "C" has it,
    /// int8 as numbers. 0 when they are the same key.
    public func compareKeys(_ a: UnsafeRawBufferPointer, _ b: UnsafeRawBufferPointer) -> Int {
        var at = 2, other = 2
        for index in 0..<keyCount {
            let count = Int(Int32(bigEndian: a.loadUnaligned(fromByteOffset: at, as: Int32.self)))
            let otherCount = Int(Int32(bigEndian: b.loadUnaligned(fromByteOffset: other, as: Int32.self)))
            at += 4
            other += 4
            if columns[index].type == .int8 {
                let x = Int64(bigEndian: a.loadUnaligned(fromByteOffset: at, as: Int64.self))
                let y = Int64(bigEndian: b.loadUnaligned(fromByteOffset: other, as: Int64.self))
                if x != y { return x < y ? -1 : 1 }
            } else {
                let order = memcmp(a.baseAddress! + at, b.baseAddress! + other, min(count, otherCount))
                if order != 0 { return order < 0 ? -1 : 1 }
                if count != otherCount { return count < otherCount ? -1 : 1 }
            }
            at += max(count, 0)
            other += max(otherCount, 0)
        }
        return 0
    }
}

extension ProjectionDescriptor {
    /// The tables that it owns, each once, in the order in which it writes them.
    public var storedTables: [StoredTable] {
        var names: [String] = []
        for table in tables where !names.contains(table.name) { names.append(table.name) }
        return names.map { name in
            var columns: [Column] = []
            for column in tables.filter({ $0.name == name }).flatMap(\.columns)
            where !columns.contains(where: { $0.name == column.name }) {
                columns.append(column)
            }
            return StoredTable(name: name, columns: columns)
        }
    }
}

extension RowBuffer {
    /// Rows of sums (`Table.isSum`), several of one key perhaps, as one row a key, in the order of keys. What is
    /// neither key nor sum is the same in all of them, and stands before the sums.
    public static func sum(_ parts: [RowBuffer], _ table: Table) -> RowBuffer {
        var sums: [[UInt8]: [Int64]] = [:]
        let keyCount = table.columns.prefix { $0.role != .delta }.count
        for part in parts {
            part.bytes.withUnsafeBytes { bytes in
                for offset in part.offsets {
                    var at = offset + 2, key: [UInt8] = [], values: [Int64] = []
                    for index in table.columns.indices {
                        let length = Int(Int32(bigEndian: bytes.loadUnaligned(fromByteOffset: at, as: Int32.self)))
                        let field = at..<(at + 4 + max(0, length))
                        if index < keyCount {
                            key += bytes[field]
                        } else {
                            values.append(Int64(bigEndian: bytes.loadUnaligned(fromByteOffset: at + 4, as: Int64.self)))
                        }
                        at = field.upperBound
                    }
                    let known = sums[key] ?? [Int64](repeating: 0, count: values.count)
                    sums[key] = zip(known, values).map { $0 &+ $1 }
                }
            }
        }
        var rows = RowBuffer()
        for (key, values) in sums.sorted(by: { $0.key.lexicographicallyPrecedes($1.key) }) {
            rows.beginRow(fieldCount: table.columns.count)
            rows.appendFields(key)
            for value in values { rows.int8(value) }
        }
        return rows
    }
}

extension StoredTable {
    /// Appends a row (a binary COPY tuple in the order of `columns`) with its jsonb fields in `CanonicalJSON`.
    public func appendCanonical(_ tuple: UnsafeRawBufferPointer, to output: inout [UInt8]) {
        output.append(contentsOf: tuple[..<2])
        var at = 2
        for column in columns {
            let length = Int(Int32(bigEndian: tuple.loadUnaligned(fromByteOffset: at, as: Int32.self)))
            let end = at + 4 + max(0, length)
            if column.type == .jsonb, length > 0 {
                let begin = output.count
                output.append(contentsOf: [0, 0, 0, 0, 1])
                CanonicalJSON.append(UnsafeRawBufferPointer(rebasing: tuple[(at + 5)..<end]), to: &output)
                let count = UInt32(output.count - begin - 4)
                withUnsafeBytes(of: count.bigEndian) { output.replaceSubrange(begin..<(begin + 4), with: $0) }
            } else {
                output.append(contentsOf: tuple[at..<end])
            }
            at = end
        }
    }
}
