/// Integers little-endian, byte strings behind their length in four bytes.
package struct ByteWriter {
    package var out: [UInt8] = []

    package init() {}

    package mutating func integer<T: FixedWidthInteger>(_ value: T) {
        withUnsafeBytes(of: value.littleEndian) { out += $0 }
    }

    package mutating func bytes(_ bytes: [UInt8]) {
        integer(UInt32(bytes.count))
        out += bytes
    }
}

/// Reads what `ByteWriter` wrote.
package struct ByteReader {
    package struct Truncated: Error, CustomStringConvertible {
        package init() {}
        package var description: String { "it ends too early, or its values contradict each other" }
    }

    private let input: [UInt8]
    private var position = 0

    package init(_ input: [UInt8]) { self.input = input }

    package mutating func integer<T: FixedWidthInteger>(_ type: T.Type = T.self) throws(Truncated) -> T {
        let count = MemoryLayout<T>.size
        guard input.count - position >= count else { throw Truncated() }
        defer { position += count }
        return input.withUnsafeBytes { T(littleEndian: $0.loadUnaligned(fromByteOffset: position, as: T.self)) }
    }

    package mutating func raw(_ count: Int) throws(Truncated) -> ArraySlice<UInt8> {
        guard input.count - position >= count else { throw Truncated() }
        defer { position += count }
        return input[position..<position + count]
    }

    package mutating func bytes() throws(Truncated) -> ArraySlice<UInt8> {
        try raw(Int(try integer(UInt32.self)))
    }
}
