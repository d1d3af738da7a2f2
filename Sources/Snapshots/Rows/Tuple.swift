import Glibc
import Projections

/// A row as it lies in memory: a tuple of PostgreSQL's binary COPY format (`RowBuffer`).
public struct Tuple {
    public let bytes: UnsafeRawBufferPointer

    public init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    public var fieldCount: Int { bytes.count < 2 ? 0 : Int(bytes.loadUnaligned(as: Int16.self).bigEndian) }

    /// Where the fields lie, without their lengths; nil for null.
    public func fields(into ranges: inout [Range<Int>?]) {
        ranges.removeAll(keepingCapacity: true)
        var offset = 2
        for _ in 0..<fieldCount {
            let length = Int(bytes.loadUnaligned(fromByteOffset: offset, as: Int32.self).bigEndian)
            offset += 4
            ranges.append(length < 0 ? nil : offset..<(offset + length))
            offset += max(0, length)
        }
    }

    /// The length of a whole tuple that begins at `offset`; nil when none does.
    static func length(in bytes: UnsafeRawBufferPointer, at start: Int) -> Int? {
        guard start >= 0, bytes.count - start >= 2 else { return nil }
        var offset = start + 2
        let count = Int(bytes.loadUnaligned(fromByteOffset: start, as: Int16.self).bigEndian)
        guard count >= 0 else { return nil }
        for _ in 0..<count {
            guard bytes.count - offset >= 4 else { return nil }
            let length = Int(bytes.loadUnaligned(fromByteOffset: offset, as: Int32.self).bigEndian)
            offset += 4
            guard length >= -1, length <= bytes.count - offset else { return nil }
            offset += max(0, length)
        }
        return offset - start
    }

    /// Fields by column, where `order[column]` is the field's number.
    public func reader(_ ranges: [Range<Int>?], order: [Int]) -> RowReader {
        let bytes = bytes
        return RowReader { column in
            ranges[order[column]].map { UnsafeRawBufferPointer(rebasing: bytes[$0]) }
        }
    }
}

/// The order of a table's rows: by its key columns, text by bytes, int8 by value.
public enum SortKey {
    /// Appends bytes whose order is that of the keys: an int8 big-endian with its sign flipped; text with `00` behind
    /// it, so that a shorter text comes before a longer one that begins with it, and 0 and 1 in it as `01 01`, `01 02`.
    public static func append(_ field: UnsafeRawBufferPointer?, _ type: ColumnType, to key: inout [UInt8]) {
        guard let field else { preconditionFailure("a key column is null") }
        if type == .int8 {
            precondition(field.count == 8, "an int8 has eight bytes")
            key.append(field[0] ^ 0x80)
            key.append(contentsOf: field.dropFirst())
        } else {
            for byte in field {
                key.append(max(byte, 1))
                if byte <= 1 { key.append(byte + 1) }
            }
            key.append(0)
        }
    }

    /// The key of a row whose first columns are the key columns, of these types.
    static func make(_ row: UnsafeRawBufferPointer, _ types: [ColumnType], into key: inout [UInt8]) {
        key.removeAll(keepingCapacity: true)
        var offset = 2
        for type in types {
            let length = Int(row.loadUnaligned(fromByteOffset: offset, as: Int32.self).bigEndian)
            offset += 4
            let field = length < 0 ? nil : UnsafeRawBufferPointer(rebasing: row[offset..<(offset + length)])
            append(field, type, to: &key)
            offset += max(0, length)
        }
    }

    static func precedes(_ a: [UInt8], _ b: [UInt8]) -> Bool { order(a, b) < 0 }

    /// Below 0: `a` comes first.
    static func order(_ a: [UInt8], _ b: [UInt8]) -> Int {
        let common = min(a.count, b.count)
        let order = a.withUnsafeBytes { a in
            b.withUnsafeBytes { b in common == 0 ? 0 : Int(memcmp(a.baseAddress!, b.baseAddress!, common)) }
        }
        return order == 0 ? a.count - b.count : order
    }
}
