import EventModel
import Foundation
import Postgres
import Primitives
import Projecting

@testable import Projections

/// Rows as lines of JSON, one spelling for each: `table` first, then the columns in their order; JSON values in their
/// canonical form, bytes in hexadecimal. Sorted by key.
enum RowLines {
    static func of(_ tables: MemoryTables) -> [String] {
        stored.flatMap { table in
            var rows: [(key: RowBuffer, line: String)] = []
            tables.forEachRow(of: Table(table.name, write: .upsert, table.columns)) { rows.append(line($0, table)) }
            return sorted(rows, table)
        }
    }

    static func of(_ connection: Connection) throws -> [String] {
        try stored.flatMap { table in
            let columns = table.columns.map { "\"\($0.name)\"" }.joined(separator: ", ")
            let found = try connection.query("SELECT \(columns) FROM refold.\"\(table.name)\"")
            return sorted((0..<found.rowCount).map { row in line(RowReader { found.bytes(row, $0) }, table) }, table)
        }
    }

    static var stored: [StoredTable] { Catalog.entries.flatMap(\.descriptor.storedTables) }

    private static func sorted(_ rows: [(key: RowBuffer, line: String)], _ table: StoredTable) -> [String] {
        rows.sorted { a, b in
            a.key.bytes.withUnsafeBytes { a in b.key.bytes.withUnsafeBytes { table.compareKeys(a, $0) < 0 } }
        }.map(\.line)
    }

    private static func line(_ row: RowReader, _ table: StoredTable) -> (key: RowBuffer, line: String) {
        var key = RowBuffer(), members = ["\"table\":\"\(table.name.droppingVersion)\""]
        key.beginRow(fieldCount: table.keyCount)
        for (index, column) in table.columns.enumerated() {
            if index < table.keyCount { key.text(Array(row.bytes(index)!)) }
            members.append("\"\(column.name)\":\(value(row, index, column))")
        }
        return (key, "{\(members.joined(separator: ","))}")
    }

    private static func value(_ row: RowReader, _ index: Int, _ column: Column) -> String {
        // In memory the counts of a row to which nothing was added yet are not there.
        guard let bytes = row.bytes(index) else { return column.role == .delta ? "0" : "null" }
        switch column.type {
        case .text: return JSONString.encode(String(decoding: bytes, as: UTF8.self))
        case .int8: return String(row.int8(index)!)
        case .bool: return String(row.bool(index)!)
        case .float8: return String(row.float8(index)!)
        case .timestamptz: return "\"\(row.timestamptz(index)!)\""
        case .bytea: return JSONString.encode(Hex.encode(bytes))
        case .jsonb:
            var canonical: [UInt8] = []
            CanonicalJSON.append(row.jsonb(index)!, to: &canonical)
            return String(decoding: canonical, as: UTF8.self)
        }
    }
}

extension StringProtocol {
    /// `device_status_v1` is `device_status`.
    var droppingVersion: String {
        guard let range = range(of: "_v", options: .backwards), self[range.upperBound...].allSatisfy(\.isNumber) else {
            return String(self)
        }
        return String(self[..<range.lowerBound])
    }
}
