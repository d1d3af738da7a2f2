import EventModel

/// Rows of one table, each in PostgreSQL's binary COPY tuple form (big-endian: i16 field count; per field i32 length,
/// −1 for null, and its bytes), so that they go to the server, into a snapshot or into a digest as they are.
/// PostgreSQL 15 documentation, COPY, "Binary Format"; field forms as of the types' `send` functions.
public struct RowBuffer: Sendable {
    public private(set) var bytes: [UInt8] = []
    /// Where each row begins.
    public private(set) var offsets: [Int] = []

    public init() {}

    public var rowCount: Int { offsets.count }
    public var isEmpty: Bool { offsets.isEmpty }

    public mutating func removeAll() {
        bytes.removeAll(keepingCapacity: true)
        offsets.removeAll(keepingCapacity: true)
    }

    /// Appends the rows of another buffer.
    public mutating func append(_ other: RowBuffer) {
        let base = bytes.count
        bytes.append(contentsOf: other.bytes)
        offsets.append(contentsOf: other.offsets.lazy.map { $0 + base })
    }

    public mutating func beginRow(fieldCount: Int) {
        offsets.append(bytes.count)
        put(Int16(fieldCount))
    }

    /// Fields in their tuple form, length prefixes included.
    public mutating func appendFields(_ fields: some Collection<UInt8>) { bytes.append(contentsOf: fields) }

    public mutating func null() { put(Int32(-1)) }

    /// Length and value in one step: most columns are of this length.
    public mutating func int8(_ value: Int64) {
        let high = UInt32(truncatingIfNeeded: value >> 32), low = UInt32(truncatingIfNeeded: value)
        withUnsafeBytes(of: (UInt32(8).bigEndian, high.bigEndian, low.bigEndian)) { bytes.append(contentsOf: $0) }
    }

    public mutating func bool(_ value: Bool) {
        put(Int32(1))
        bytes.append(value ? 1 : 0)
    }

    public mutating func float8(_ value: Double) { int8(value.binary) }
    public mutating func timestamptz(_ value: Timestamp) { int8(value.binary) }

    public mutating func text(_ value: some Collection<UInt8>) {
        put(Int32(value.count))
        bytes.append(contentsOf: value)
    }

    public mutating func text(_ value: String) { text(value.utf8) }
    public mutating func bytea(_ value: some Collection<UInt8>) { text(value) }

    /// The value's JSON text; binary jsonb is a version byte 1 and the text.
    public mutating func jsonb(_ json: some Collection<UInt8>) {
        put(Int32(json.count + 1))
        bytes.append(1)
        bytes.append(contentsOf: json)
    }

    /// A byte string of type text, jsonb or bytea.
    mutating func bytes(_ value: some Collection<UInt8>, as type: ColumnType) {
        if type == .jsonb { jsonb(value) } else { text(value) }
    }

    private mutating func put<T: FixedWidthInteger>(_ value: T) {
        withUnsafeBytes(of: value.bigEndian) { bytes.append(contentsOf: $0) }
    }
}

/// One row as it comes back: fields in the order of the table's columns, in the same binary form.
public struct RowReader {
    private let field: (Int) -> UnsafeRawBufferPointer?

    /// `field` gives the bytes of a column, nil for null.
    public init(field: @escaping (Int) -> UnsafeRawBufferPointer?) { self.field = field }

    /// Calls `body` with a reader of these fields; nil is null.
    public static func with<R>(_ fields: [[UInt8]?], _ body: (RowReader) throws -> R) rethrows -> R {
        // One allocation holds all fields, so that their addresses last for the call.
        var bytes: [UInt8] = [], ranges: [Range<Int>?] = []
        for field in fields {
            ranges.append(field.map { bytes.count..<(bytes.count + $0.count) })
            bytes += field ?? []
        }
        bytes.append(0)  // an address for empty fields too
        return try bytes.withUnsafeBytes { bytes in
            try body(RowReader { column in ranges[column].map { UnsafeRawBufferPointer(rebasing: bytes[$0]) } })
        }
    }

    public func bytes(_ column: Int) -> UnsafeRawBufferPointer? { field(column) }
    public func int8(_ column: Int) -> Int64? { Int64(field: field(column)) }
    public func bool(_ column: Int) -> Bool? { Bool(field: field(column)) }
    public func float8(_ column: Int) -> Double? { Double(field: field(column)) }
    public func timestamptz(_ column: Int) -> Timestamp? { Timestamp(field: field(column)) }
    public func text(_ column: Int) -> String? { String(field: field(column)) }
    /// The JSON text without the version byte.
    public func jsonb(_ column: Int) -> UnsafeRawBufferPointer? {
        UnsafeRawBufferPointer(field: field(column), as: .jsonb)
    }
}
