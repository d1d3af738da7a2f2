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

    public mutating func int8(_ value: Int64) {
        put(Int32(8))
        put(value)
    }

    public mutating func bool(_ value: Bool) {
        put(Int32(1))
        bytes.append(value ? 1 : 0)
    }

    public mutating func float8(_ value: Double) {
        put(Int32(8))
        put(Int64(bitPattern: value.bitPattern))
    }

    /// Microseconds since 2000-01-01, as PostgreSQL keeps them.
    public mutating func timestamptz(_ value: Timestamp) {
        put(Int32(8))
        put(value.adding(microseconds: -Self.postgresEpochMicroseconds).microseconds)
    }

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

    public mutating func optional<T>(_ value: T?, _ write: (inout RowBuffer, T) -> Void) {
        if let value { write(&self, value) } else { null() }
    }

    public static let postgresEpochMicroseconds: Int64 = 946_684_800_000_000

    private mutating func put<T: FixedWidthInteger>(_ value: T) {
        withUnsafeBytes(of: value.bigEndian) { bytes.append(contentsOf: $0) }
    }
}

/// One row as it comes back: fields in the order of the table's columns, in the same binary form.
public struct RowReader {
    private let field: (Int) -> UnsafeRawBufferPointer?

    /// `field` gives the bytes of a column, nil for null.
    public init(field: @escaping (Int) -> UnsafeRawBufferPointer?) { self.field = field }

    public func isNull(_ column: Int) -> Bool { field(column) == nil }
    public func int8(_ column: Int) -> Int64? {
        field(column).map { Int64(bigEndian: $0.loadUnaligned(as: Int64.self)) }
    }
    public func bool(_ column: Int) -> Bool? { field(column).map { $0[0] != 0 } }
    public func float8(_ column: Int) -> Double? {
        int8(column).map { Double(bitPattern: UInt64(bitPattern: $0)) }
    }
    public func timestamptz(_ column: Int) -> Timestamp? {
        // `infinity` is the largest Int64.
        int8(column).map { Timestamp(storedMicroseconds: $0).adding(microseconds: RowBuffer.postgresEpochMicroseconds) }
    }
    public func bytes(_ column: Int) -> UnsafeRawBufferPointer? { field(column) }
    public func text(_ column: Int) -> String? { field(column).map { String(decoding: $0, as: UTF8.self) } }
    /// The JSON text without the version byte.
    public func jsonb(_ column: Int) -> UnsafeRawBufferPointer? {
        field(column).map { UnsafeRawBufferPointer(rebasing: $0.dropFirst()) }
    }
}
