import EventModel

// Small things that several projections' states are made of.

/// A time that may be missing, in eight bytes.
struct Moment {
    private var microseconds: Int64 = .min

    init() {}
    init(_ value: Timestamp?) { microseconds = value?.microseconds ?? .min }

    var value: Timestamp? {
        get { microseconds == .min ? nil : Timestamp(microseconds: microseconds) }
        set { microseconds = newValue?.microseconds ?? .min }
    }
}

/// A boolean that may be missing, in one byte.
enum Maybe: UInt8 {
    case unknown, yes, no

    init(_ value: Bool?) { self = value.map { $0 ? .yes : .no } ?? .unknown }
    var value: Bool? { self == .unknown ? nil : self == .yes }
}

extension RowBuffer {
    mutating func moment(_ value: Moment) { optional(value.value) { $0.timestamptz($1) } }
    mutating func position(_ value: Position) { int8(Int64(clamping: value.rawValue)) }

    mutating func text(_ ref: ByteRef, in arena: borrowing ByteArena) {
        if ref.isNone { null() } else { text(arena.bytes(ref)) }
    }

    mutating func jsonb(_ ref: ByteRef, in arena: borrowing ByteArena) {
        if ref.isNone { null() } else { jsonb(arena.bytes(ref)) }
    }
}

extension RowReader {
    func moment(_ column: Int) -> Moment { Moment(timestamptz(column)) }

    func text(_ column: Int, into ref: inout ByteRef, in arena: inout ByteArena) {
        if let bytes = bytes(column) { arena.put(bytes, in: &ref) }
    }

    func jsonb(_ column: Int, into ref: inout ByteRef, in arena: inout ByteArena) {
        if let bytes = jsonb(column) { arena.put(bytes, in: &ref) }
    }
}

extension ByteArena {
    /// Copies a byte string to another arena.
    func move(_ ref: inout ByteRef, to new: inout ByteArena) {
        guard !ref.isNone else { return }
        var moved = ByteRef()
        new.put(bytes(ref), in: &moved)
        ref = moved
    }
}

/// A device's address, `tenant/{t}/device/{d}`: the key under which its rows are kept in memory.
enum DeviceAddress {
    typealias Part = Slice<UnsafeRawBufferPointer>

    static func split(_ address: UnsafeRawBufferPointer) -> (tenant: Part, device: Part) {
        let slash = UInt8(ascii: "/")
        for end in 7..<address.count where address[end] == slash { return (address[7..<end], address[(end + 8)...]) }
        preconditionFailure("no device address")
    }

    static func join(tenant: UnsafeRawBufferPointer, device: UnsafeRawBufferPointer, into key: inout [UInt8]) {
        key.append(contentsOf: "tenant/".utf8)
        key.append(contentsOf: tenant)
        key.append(contentsOf: "/device/".utf8)
        key.append(contentsOf: device)
    }
}
