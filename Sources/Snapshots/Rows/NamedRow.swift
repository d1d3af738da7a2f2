import EventModel
import Foundation
import Primitives
import Projections

/// A row as it stood at a moment: fields by the names that the table's view has, values as JSON.
public struct NamedRow: Sendable, Equatable {
    public struct Field: Sendable, Equatable {
        public let name: String
        public let json: String
    }
    public var fields: [Field]

    /// One object.
    public var json: String { "{" + fields.map { "\"\($0.name)\":\($0.json)" }.joined(separator: ",") + "}" }

    public subscript(name: String) -> String? { fields.first { $0.name == name }?.json }

    /// A text column's value; nil when it is null or there is none.
    public func text(_ name: String) -> String? {
        self[name].flatMap { try? JSONDecoder().decode(String?.self, from: Data($0.utf8)) }
    }

    package mutating func insert(_ name: String, _ json: String, after other: String) {
        let index = fields.firstIndex { $0.name == other }.map { $0 + 1 } ?? fields.count
        fields.insert(Field(name: name, json: json), at: index)
    }

    /// The fields that differ from `later`'s, in its order; nil stands for a row that was not there.
    public static func changes(
        from earlier: NamedRow?, to later: NamedRow?
    ) -> [(name: String, from: String, to: String)] {
        let names = (later ?? earlier)?.fields.map(\.name) ?? []
        return names.compactMap { name in
            let before = earlier?[name] ?? "null", after = later?[name] ?? "null"
            return before == after ? nil : (name, before, after)
        }
    }

    /// Fields as PostgreSQL's `row_to_json` has them; jsonb as it was folded.
    package init(_ tuple: UnsafeRawBufferPointer, _ table: StoredTable) {
        var ranges: [Range<Int>?] = []
        let tuple = Tuple(tuple)
        tuple.fields(into: &ranges)
        let row = tuple.reader(ranges, order: Array(table.columns.indices))
        fields = table.columns.enumerated().map { index, column in
            Field(name: column.name, json: Self.value(row, index, column.type) ?? "null")
        }
    }

    package static func value(_ row: RowReader, _ column: Int, _ type: ColumnType) -> String? {
        switch type {
        case .text: row.text(column).map(JSONString.encode)
        case .int8: row.int8(column).map { String($0) }
        case .bool: row.bool(column).map { $0 ? "true" : "false" }
        case .float8:
            row.float8(column).map { value in
                guard value.isFinite else { return "\"\(value)\"" }
                return value == value.rounded() && abs(value) < 1e15 ? String(Int64(value)) : "\(value)"
            }
        case .timestamptz: row.timestamptz(column).map { "\"\($0)\"" }
        case .jsonb: row.jsonb(column).map { String(decoding: $0, as: UTF8.self) }
        case .bytea: row.bytes(column).map { JSONString.encode(Data($0).base64EncodedString()) }
        }
    }

    /// A member of a JSON object as text, as `->>` gives it; `null` when there is none.
    package static func member(_ name: String, of json: String?) -> String {
        guard let json, let text = ExactJSON(json)?[name]?.jsonbText else { return "null" }
        return JSONString.encode(text)
    }
}
