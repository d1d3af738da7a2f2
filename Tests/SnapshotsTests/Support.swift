import EventLog
import EventModel
import Foundation
import ProjectionTestSupport
import Projections

@testable import Snapshots

final class Folder {
    let path = NSTemporaryDirectory() + "refold-snapshots-" + UUID().uuidString

    init() { try? FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true) }
    deinit { try? FileManager.default.removeItem(atPath: path) }
}

/// A table with a text and a number in its key, and one with a position.
let things = ProjectionDescriptor(
    name: "things", version: 3,
    tables: [
        Table(
            "things_v3", write: .upsert,
            [
                .key("tenant", .text), .key("n", .int8), .value("t", .text), .value("j", .jsonb),
            ]),
        Table("things_v3", write: .addDeltas, [.key("tenant", .text), .key("n", .int8), .delta("d")]),
        Table("notes_v3", write: .insert, [.key("position", .int8), .value("note", .text)]),
    ])

extension RowBuffer {
    mutating func thing(_ tenant: String, _ n: Int64, _ text: String?) {
        beginRow(fieldCount: 4)
        self.text(tenant)
        int8(n)
        if let text { self.text(text) } else { null() }
        jsonb("{\"n\": \(n)}".utf8)
    }

    mutating func delta(_ tenant: String, _ n: Int64, _ d: Int64) {
        beginRow(fieldCount: 3)
        text(tenant)
        int8(n)
        int8(d)
    }

    mutating func note(_ position: Int64, _ text: String) {
        beginRow(fieldCount: 2)
        int8(position)
        self.text(text)
    }
}

/// A row's fields as text, for comparing.
func show(_ tuple: UnsafeRawBufferPointer, _ table: StoredTable) -> String {
    var ranges: [Range<Int>?] = []
    Tuple(tuple).fields(into: &ranges)
    let row = Tuple(tuple).reader(ranges, order: Array(table.columns.indices))
    return table.columns.enumerated().map { index, column in
        if row.bytes(index) == nil { return "null" }
        return switch column.type {
        case .int8: "\(row.int8(index) ?? 0)"
        case .jsonb: String(decoding: row.jsonb(index) ?? .init(start: nil, count: 0), as: UTF8.self)
        default: row.text(index) ?? ""
        }
    }.joined(separator: "|")
}

func lines(_ cursor: any RowCursor, _ table: StoredTable) throws -> [String] {
    var lines: [String] = []
    while try cursor.next() { lines.append(cursor.withRow { show($0, table) }) }
    return lines
}

extension RowFiles {
    func lines(_ table: Int) throws -> [String] {
        try SnapshotsTests.lines(cursor(of: tables[table].name), tables[table])
    }

    func commit(_ rows: [RowBuffer], to position: UInt64) throws {
        let old = try checkpoint(of: projection, partition: 0)
        try commit(rows, of: projection, partition: 0, from: old, to: Position(position))
    }
}
