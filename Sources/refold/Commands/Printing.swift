import Foundation
import Output

/// A table for people: columns as wide as their widest cell, numbers to the right.
struct TextTable {
    struct Column {
        let title: String
        let key: String
        init(_ title: String, _ key: String) {
            self.title = title
            self.key = key
        }
    }

    let columns: [Column]

    func text(_ rows: [[String: Any]]) -> String {
        let cells = rows.map { row in columns.map { Self.cell(row[$0.key]) } }
        var lines = [columns.map { $0.title.uppercased() }]
        lines += cells
        let widths = columns.indices.map { column in lines.map { $0[column].count }.max() ?? 0 }
        let numeric = columns.indices.map { column in
            !rows.isEmpty
                && rows.allSatisfy { row in
                    let value = row[columns[column].key]
                    return value == nil || value is NSNull || (value is NSNumber && !(value is String))
                }
        }
        return lines.map { line in
            line.indices.map { column in
                let space = String(repeating: " ", count: widths[column] - line[column].count)
                return numeric[column] ? space + line[column] : line[column] + space
            }.joined(separator: "  ").trimmingTrailingSpaces()
        }.joined(separator: "\n")
    }

    /// One object, a line a field.
    static func record(_ row: [String: Any], order: [String] = []) -> String {
        let keys = order.filter { row[$0] != nil } + row.keys.filter { !order.contains($0) }.sorted()
        let width = keys.map(\.count).max() ?? 0
        return keys.map { key in
            "\(key.padding(toLength: width, withPad: " ", startingAt: 0))  \(cell(row[key]))"
        }.joined(separator: "\n")
    }

    /// The value as text that is safe for a terminal: a device may have put anything into an error text.
    static func cell(_ value: Any?) -> String {
        let text: String
        switch value {
        case nil, is NSNull: text = "-"
        case let string as String: text = string
        case let number as NSNumber: text = number.stringValueOfJSON
        case let list as [String]: text = list.joined(separator: ", ")
        case let other?: text = jsonLine(other)
        }
        return terminalSafe(text)
    }
}

/// One line of JSON, keys in order; safe for a terminal.
func jsonLine(_ value: Any) -> String {
    let options: JSONSerialization.WritingOptions = [.sortedKeys, .withoutEscapingSlashes, .fragmentsAllowed]
    guard let data = try? JSONSerialization.data(withJSONObject: value, options: options) else { return "null" }
    return terminalSafeJSON(String(decoding: data, as: UTF8.self))
}

/// Rows as JSON lines for programs, as a table for people.
func printRows(_ rows: [[String: Any]], json: Bool, columns: [TextTable.Column], none: String) {
    if json {
        for row in rows { print(jsonLine(row)) }
    } else if rows.isEmpty {
        print(none)
    } else {
        print(TextTable(columns: columns).text(rows))
    }
}

private extension NSNumber {
    /// `true` and `false` come out of JSON as numbers too.
    var stringValueOfJSON: String { jsonLine(self) }
}

private extension String {
    func trimmingTrailingSpaces() -> String {
        var text = self[...]
        while text.last == " " { text.removeLast() }
        return String(text)
    }
}
