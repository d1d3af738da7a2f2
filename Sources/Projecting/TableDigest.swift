import Evidence
import Primitives
import Projections

/// One hash of a table's rows, whoever holds them: SHA-256 over the rows in the order of their keys, each as a
/// PostgreSQL binary COPY tuple (columns as in `StoredTable.columns`) with its jsonb fields in `CanonicalJSON`.
public struct TableDigest: ~Copyable {
    public let table: StoredTable
    public private(set) var rowCount: UInt64 = 0
    private var hash = SHA256.Stream()
    private var pending: [UInt8] = []

    public init(_ table: StoredTable) { self.table = table }

    /// Adds the next row, a binary COPY tuple.
    public mutating func add(_ tuple: UnsafeRawBufferPointer) {
        table.appendCanonical(tuple, to: &pending)
        rowCount += 1
        if pending.count >= 64 << 10 { flush() }
    }

    private mutating func flush() {
        pending.withUnsafeBytes { hash.update($0) }
        pending.removeAll(keepingCapacity: true)
    }

    /// The hash of the rows so far; nothing is added afterwards.
    public consuming func finish() -> TreeHash {
        flush()
        return hash.finish()
    }
}
