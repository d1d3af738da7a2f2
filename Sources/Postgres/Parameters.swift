/// The parameters of one statement, in binary, in one buffer: `$1` is the first appended.
public struct Parameters: Sendable {
    struct Value {
        var type: UInt32
        /// Where the value lies in `bytes`; nil for null.
        var range: Range<Int>?
    }

    private(set) var bytes: [UInt8] = []
    private(set) var values: [Value] = []

    /// The protocol counts them in 16 bits.
    public static let countMax = 65_535

    public init() {}

    public mutating func reserve(byteCount: Int) { bytes.reserveCapacity(byteCount) }

    public var types: [UInt32] { values.map(\.type) }

    public mutating func null(_ type: UInt32 = TypeID.unspecified) {
        values.append(Value(type: type, range: nil))
    }

    public mutating func int8(_ value: Int64) { add(TypeID.int8) { $0.put(value) } }
    public mutating func int8(_ value: Int64?) { if let value { int8(value) } else { null(TypeID.int8) } }
    public mutating func int4(_ value: Int32) { add(TypeID.int4) { $0.put(value) } }
    public mutating func bool(_ value: Bool) { add(TypeID.bool) { $0.append(value ? 1 : 0) } }
    public mutating func text(_ value: String) { add(TypeID.text) { $0.append(contentsOf: value.utf8) } }
    public mutating func bytea(_ value: some Collection<UInt8>) {
        add(TypeID.bytea) { $0.append(contentsOf: value) }
    }

    public mutating func textArray(_ elements: [String]) {
        array(of: TypeID.text, count: elements.count, hasNulls: false) { bytes in
            for element in elements {
                bytes.put(Int32(element.utf8.count))
                bytes.append(contentsOf: element.utf8)
            }
        }
    }

    public mutating func int8Array(_ elements: [Int64]) {
        array(of: TypeID.int8, count: elements.count, hasNulls: false) { bytes in
            for element in elements {
                bytes.put(Int32(8))
                bytes.put(element)
            }
        }
    }

    /// A one-dimensional array. `write` appends `count` elements, each an i32 length (−1: null) and its
    /// binary form, the form in which a COPY tuple holds its fields. Format: `array_recv` of PostgreSQL's
    /// `arrayfuncs.c`.
    public mutating func array(
        of element: UInt32, count: Int, hasNulls: Bool, _ write: (inout [UInt8]) -> Void
    ) {
        guard let type = TypeID.array(of: element) else {
            preconditionFailure("no array type known for \(element)")
        }
        add(type) { bytes in
            bytes.put(Int32(count == 0 ? 0 : 1))
            bytes.put(Int32(hasNulls ? 1 : 0))
            bytes.put(element)
            guard count > 0 else { return }
            bytes.put(Int32(count))
            bytes.put(Int32(1))
            write(&bytes)
        }
    }

    private mutating func add(_ type: UInt32, _ write: (inout [UInt8]) -> Void) {
        precondition(values.count < Self.countMax, "more parameters than the protocol can count")
        let start = bytes.count
        write(&bytes)
        values.append(Value(type: type, range: start..<bytes.count))
    }

    /// Calls `body` with what `PQsendQueryParams` and its kin want: values, lengths, formats (all binary).
    func withC<R>(
        _ body: (UnsafePointer<UnsafePointer<CChar>?>?, UnsafePointer<Int32>?, UnsafePointer<Int32>?) -> R
    ) -> R {
        let lengths = values.map { Int32($0.range?.count ?? 0) }
        let formats = [Int32](repeating: 1, count: values.count)
        return bytes.withUnsafeBytes { buffer in
            // A value of no bytes still needs an address: null would mean SQL null.
            withUnsafeTemporaryAllocation(byteCount: 1, alignment: 1) { empty in
                let base = buffer.baseAddress ?? UnsafeRawPointer(empty.baseAddress!)
                let pointers: [UnsafePointer<CChar>?] = values.map { value in
                    value.range.map { (base + $0.lowerBound).assumingMemoryBound(to: CChar.self) }
                }
                return body(pointers, lengths, formats)
            }
        }
    }
}

extension [UInt8] {
    /// Appends in network byte order.
    mutating func put<T: FixedWidthInteger>(_ value: T) {
        Swift.withUnsafeBytes(of: value.bigEndian) { append(contentsOf: $0) }
    }
}
