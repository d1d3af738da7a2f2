import CampaignRules
import Decoding
import EventModel

/// A value that a column holds.
protocol Field {
    /// Of its columns; a byte string may be of other types too.
    static var columnType: ColumnType { get }
    func write(as type: ColumnType, to rows: inout RowBuffer)
    /// - Parameter field: its binary form; nil for null.
    init?(field: Bytes?, as type: ColumnType)
}

extension Field {
    init?(field: Bytes?) { self.init(field: field, as: Self.columnType) }
}

/// A value whose binary form is eight bytes.
protocol EightByteField: Field {
    init(binary: Int64)
    var binary: Int64 { get }
}

extension EightByteField {
    static var columnType: ColumnType { .int8 }
    func write(as type: ColumnType, to rows: inout RowBuffer) { rows.int8(binary) }
    init?(field: Bytes?, as type: ColumnType) {
        // Of another length: somebody changed the column's type in the database.
        guard let field, field.count == 8 else { return nil }
        self.init(binary: Int64(bigEndian: field.loadUnaligned(as: Int64.self)))
    }
}

extension Int64: EightByteField {
    init(binary: Int64) { self = binary }
    var binary: Int64 { self }
}

extension Int32: EightByteField {
    init(binary: Int64) { self.init(clamping: binary) }
    var binary: Int64 { Int64(self) }
}

extension Position: EightByteField {
    init(binary: Int64) { self.init(stored: binary) }
    var binary: Int64 { Int64(clamping: rawValue) }
}

extension Double: EightByteField {
    static var columnType: ColumnType { .float8 }
    init(binary: Int64) { self.init(bitPattern: UInt64(bitPattern: binary)) }
    var binary: Int64 { Int64(bitPattern: bitPattern) }
}

/// Microseconds since 2000-01-01, as PostgreSQL keeps them; `infinity` is the largest Int64.
extension Timestamp: EightByteField {
    private static let postgresEpochMicroseconds: Int64 = 946_684_800_000_000

    static var columnType: ColumnType { .timestamptz }
    init(binary: Int64) {
        self = Timestamp(storedMicroseconds: binary).adding(microseconds: Self.postgresEpochMicroseconds)
    }
    var binary: Int64 { adding(microseconds: -Self.postgresEpochMicroseconds).microseconds }
}

extension Bool: Field {
    static var columnType: ColumnType { .bool }
    func write(as type: ColumnType, to rows: inout RowBuffer) { rows.bool(self) }
    init?(field: Bytes?, as type: ColumnType) {
        guard let byte = field?.first else { return nil }
        self = byte != 0
    }
}

extension String: Field {
    static var columnType: ColumnType { .text }
    func write(as type: ColumnType, to rows: inout RowBuffer) { rows.text(self) }
    init?(field: Bytes?, as type: ColumnType) {
        guard let field else { return nil }
        self.init(decoding: field, as: UTF8.self)
    }
}

/// Borrowed: what is read is valid as long as the row is.
extension Bytes: Field {
    static var none: Bytes { Bytes(start: nil, count: 0) }

    static var columnType: ColumnType { .text }
    func write(as type: ColumnType, to rows: inout RowBuffer) { rows.bytes(self, as: type) }
    init?(field: Bytes?, as type: ColumnType) {
        guard let field else { return nil }
        // The JSON text without the version byte.
        self = type == .jsonb ? Bytes(rebasing: field.dropFirst()) : field
    }
}

/// A key of one text.
extension Bytes: RowKey {
    init() { self = .none }
    func append(to key: inout [UInt8]) { key.append(contentsOf: self) }
}

extension [UInt8]: Field {
    static var columnType: ColumnType { .bytea }
    func write(as type: ColumnType, to rows: inout RowBuffer) { rows.bytes(self, as: type) }
    init?(field: Bytes?, as type: ColumnType) {
        guard let content = Bytes(field: field, as: type) else { return nil }
        self.init(content)
    }
}

extension Field where Self: RawRepresentable, RawValue == String {
    static var columnType: ColumnType { .text }
    func write(as type: ColumnType, to rows: inout RowBuffer) { rows.text(rawValue) }
    init?(field: Bytes?, as type: ColumnType) {
        guard let value = String(field: field) else { return nil }
        self.init(rawValue: value)
    }
}

extension OTADeviceStatus: Field {}
extension OTAFailureKind: Field {}
extension OTAReport.Status: Field {}
extension ConnectionReport.Status: Field {}

extension Optional: Field where Wrapped: Field {
    static var columnType: ColumnType { Wrapped.columnType }
    func write(as type: ColumnType, to rows: inout RowBuffer) {
        if let self { self.write(as: type, to: &rows) } else { rows.null() }
    }
    init?(field: Bytes?, as type: ColumnType) { self = Wrapped(field: field, as: type) }
}

/// A time that may be missing, in eight bytes.
struct OptionalTime: Field {
    private var microseconds: Int64 = .min

    init() {}
    init(_ value: Timestamp?) { microseconds = value?.microseconds ?? .min }

    var value: Timestamp? { microseconds == .min ? nil : Timestamp(microseconds: microseconds) }

    static var columnType: ColumnType { .timestamptz }
    func write(as type: ColumnType, to rows: inout RowBuffer) { value.write(as: type, to: &rows) }
    init?(field: Bytes?, as type: ColumnType) { self.init(Timestamp(field: field, as: type)) }
}

/// The key of a device's rows. In memory it is the device's address, `tenant/{t}/device/{d}`.
struct DeviceAddress: RowKey {
    var tenant = Bytes.none, device = Bytes.none

    init() {}
    init(_ address: Bytes) {
        let slash = UInt8(ascii: "/")
        var end = 7
        while end < address.count, address[end] != slash { end += 1 }
        precondition(end + 8 <= address.count, "no device address")
        tenant = Bytes(rebasing: address[7..<end])
        device = Bytes(rebasing: address[(end + 8)...])
    }

    func append(to key: inout [UInt8]) {
        key.append(contentsOf: "tenant/".utf8)
        key.append(contentsOf: tenant)
        key.append(contentsOf: "/device/".utf8)
        key.append(contentsOf: device)
    }
}
