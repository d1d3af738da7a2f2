import Postgres
import Projections

/// Rows turned into columns: one binary array a column. The fields keep their bytes: a COPY tuple and an
/// array hold an element in the same form, an i32 length (−1 for null) and the value.
enum ArrayParameters {
    static func make(_ rows: RowBuffer, columns: [Column]) -> Parameters {
        let width = columns.count
        // Begin and end of every field, its length prefix included; row after row.
        var bounds = [(start: Int, end: Int)](repeating: (0, 0), count: rows.rowCount * width)
        var hasNulls = [Bool](repeating: false, count: width)
        rows.bytes.withUnsafeBytes { bytes in
            for row in 0..<rows.rowCount {
                var offset = rows.offsets[row]
                let count = Int(Int16(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Int16.self)))
                precondition(count == width, "a row has \(count) fields where \(width) columns are")
                offset += 2
                for column in 0..<width {
                    let length = Int(
                        Int32(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Int32.self)))
                    if length < 0 { hasNulls[column] = true }
                    let end = offset + 4 + max(length, 0)
                    bounds[row * width + column] = (offset, end)
                    offset = end
                }
            }
        }
        var parameters = Parameters()
        parameters.reserve(byteCount: rows.bytes.count + 20 * width)
        for (index, column) in columns.enumerated() {
            parameters.array(of: column.type.id, count: rows.rowCount, hasNulls: hasNulls[index]) { array in
                for row in 0..<rows.rowCount {
                    let field = bounds[row * width + index]
                    array.append(contentsOf: rows.bytes[field.start..<field.end])
                }
            }
        }
        return parameters
    }
}
