import CPostgres
import Glibc

/// The rows of a `COPY … TO STDOUT (FORMAT binary)`, one after the other, as they come: none is held but the last. The
/// connection can do nothing else until the end was reached; whoever stops before it throws the connection away.
/// PostgreSQL 15 documentation, COPY, "Binary Format", and libpq, PQgetCopyData: a message holds one row.
public final class CopyOut {
    private let connection: Connection
    private let name: String
    private var message: UnsafeMutablePointer<CChar>?
    private var hasBegun = false
    private var hasEnded = false

    /// Sends the statement. `name` stands in errors.
    public init(_ connection: Connection, _ sql: String, name: String) throws(PostgresError) {
        self.connection = connection
        self.name = name
        try connection.begin(name)
        try connection.check(PQsendQuery(connection.handle, sql) == 1, name)
        try connection.flush(name)
        guard let ready = try connection.nextResult(name) else { throw connection.lost(name) }
        guard ready.status == PGRES_COPY_OUT else {
            let failure = connection.failure(ready, name)
            while try connection.nextResult(name) != nil {}
            throw failure
        }
    }

    deinit { PQfreemem(message) }

    /// The next row, a binary COPY tuple, valid until the next call; nil behind the last.
    public func next() throws(PostgresError) -> UnsafeRawBufferPointer? {
        while !hasEnded {
            guard let bytes = try receive() else { break }
            var row = bytes
            if !hasBegun {
                // Signature (11 bytes), flags, and the length of a header extension.
                hasBegun = true
                guard bytes.count >= 19 else { break }
                let extra = Int(Int32(bigEndian: bytes.loadUnaligned(fromByteOffset: 15, as: Int32.self)))
                row = UnsafeRawBufferPointer(rebasing: bytes.dropFirst(19 + extra))
            }
            // A message may hold the header alone; the trailer is a field count of −1.
            if row.count > 2 { return row }
        }
        return nil
    }

    private func receive() throws(PostgresError) -> UnsafeRawBufferPointer? {
        PQfreemem(message)
        message = nil
        while true {
            let count = PQgetCopyData(connection.handle, &message, 1)
            switch count {
            case 1...: return UnsafeRawBufferPointer(start: message, count: Int(count))
            case 0:
                try connection.wait(for: POLLIN, name)
                try connection.check(PQconsumeInput(connection.handle) == 1, name)
            default:
                hasEnded = true
                // −1: all is there, or an error stands at the end; −2: the connection failed.
                while let result = try connection.nextResult(name) {
                    guard result.status == PGRES_COMMAND_OK else { throw connection.failure(result, name) }
                }
                return nil
            }
        }
    }
}
