import CPostgres

/// The answer to one statement. Values are read where libpq keeps them and stay valid as long as this lives.
/// Typed accessors expect binary columns of that type; nil is null.
public final class QueryResult {
    private let result: OpaquePointer  // PGresult *

    init(owning result: OpaquePointer) { self.result = result }

    deinit { PQclear(result) }

    public var rowCount: Int { Int(PQntuples(result)) }
    public var columnCount: Int { Int(PQnfields(result)) }

    /// Rows inserted, updated, deleted or selected, as the command tag says; 0 for other commands.
    public var affectedRowCount: Int { Int(String(cString: PQcmdTuples(result))) ?? 0 }

    public func bytes(_ row: Int, _ column: Int) -> UnsafeRawBufferPointer? {
        guard PQgetisnull(result, Int32(row), Int32(column)) == 0 else { return nil }
        return UnsafeRawBufferPointer(
            start: PQgetvalue(result, Int32(row), Int32(column)),
            count: Int(PQgetlength(result, Int32(row), Int32(column))))
    }

    public func text(_ row: Int, _ column: Int) -> String? {
        bytes(row, column).map { String(decoding: $0, as: UTF8.self) }
    }

    public func bool(_ row: Int, _ column: Int) -> Bool? { bytes(row, column).map { $0.first != 0 } }
    public func int4(_ row: Int, _ column: Int) -> Int32? { integer(row, column) }
    public func int8(_ row: Int, _ column: Int) -> Int64? { integer(row, column) }
    public func float8(_ row: Int, _ column: Int) -> Double? {
        int8(row, column).map { Double(bitPattern: UInt64(bitPattern: $0)) }
    }

    private func integer<T: FixedWidthInteger>(_ row: Int, _ column: Int) -> T? {
        bytes(row, column).flatMap { bytes in
            // An administrator may have changed the column's type.
            guard bytes.count == MemoryLayout<T>.size else { return nil }
            return T(bigEndian: bytes.loadUnaligned(as: T.self))
        }
    }

    var status: ExecStatusType { PQresultStatus(result) }

    /// The error that this result carries.
    func error(statement: String, lost: Bool) -> PostgresError {
        func field(_ code: Character) -> String? {
            PQresultErrorField(result, Int32(code.asciiValue!)).map { String(cString: $0) }
        }
        // PG_DIAG_SQLSTATE, _MESSAGE_PRIMARY, _DETAIL and _HINT of postgres_ext.h are macros of these
        // characters.
        let state = field("C")
        let message = field("M") ?? String(cString: PQresultErrorMessage(result)).trimmed
        return PostgresError(
            sqlState: state, message: message.isEmpty ? "unexpected answer (\(status.rawValue))" : message,
            detail: field("D"), hint: field("H"), statement: statement,
            kind: lost ? .unavailable : state.map(PostgresError.kind(ofSQLState:)) ?? .unavailable)
    }
}

extension String {
    /// Without the line ends and blanks around it that libpq's messages carry.
    var trimmed: String {
        var rest = self[...]
        while let last = rest.last, last.isWhitespace { rest.removeLast() }
        while let first = rest.first, first.isWhitespace { rest.removeFirst() }
        return rest.split(separator: "\n").joined(separator: "; ")
    }
}
