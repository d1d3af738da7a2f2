import Projections

extension RowBuffer {
    /// Where the fields of a row lie in `bytes`, without their length prefixes; nil for null.
    public func fields(ofRow row: Int) -> [Range<Int>?] {
        bytes.withUnsafeBytes { bytes in
            var offset = offsets[row]
            let count = Int(Int16(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Int16.self)))
            offset += 2
            return (0..<count).map { _ in
                let length = Int(Int32(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Int32.self)))
                offset += 4
                guard length >= 0 else { return nil }
                defer { offset += length }
                return offset..<(offset + length)
            }
        }
    }
}
