import EventModel
import Foundation
import Primitives
import Testing

@testable import Projections

extension History {
    /// What `refold log cat --json` prints.
    var ndjson: String {
        batches.enumerated().map { position, batch in
            batch.withUnsafeBytes { bytes in
                let record = RecordView(unchecked: bytes.baseAddress!)
                return """
                    {"position":\(position),"received_at":"\(record.receivedAt)","kind":"\(record.kind.name)",\
                    "broker":\(JSONString.encode(record.brokerString)),\
                    "topic":\(JSONString.encode(record.topicString)),\
                    "qos":\(record.flags.qos),"retain":\(record.flags.contains(.retained)),\
                    "verdict":"\(record.verdict.name)","payload_base64":"\(Data(record.payload).base64EncodedString())"}

                    """
            }
        }.joined()
    }
}

extension MemoryTables {
    /// `{table: [row]}` under the live names, as `row_to_json` would give them; `payload` in hexadecimal.
    func json() -> [String] {
        Dictionary(grouping: descriptor.tables, by: \.name).sorted { $0.key < $1.key }.map { name, tables in
            let columns = tables.flatMap(\.columns)
            let rows = (self.tables[name] ?? [:]).values.map { row in
                "{"
                    + row.map { column, value in
                        let type = columns.first { $0.name == column }!.type
                        return "\(JSONString.encode(column)):\(value.map { Self.json($0, type) } ?? "null")"
                    }.joined(separator: ",") + "}"
            }
            return "\(JSONString.encode(String(name.dropLast("_v1".count)))):[\(rows.joined(separator: ","))]"
        }
    }

    private static func json(_ bytes: [UInt8], _ type: ColumnType) -> String {
        switch type {
        case .text: JSONString.encode(String(decoding: bytes, as: UTF8.self))
        case .bytea: JSONString.encode(Hex.encode(bytes))
        case .jsonb: String(decoding: bytes.dropFirst(), as: UTF8.self)
        case .timestamptz:
            "\"\(Timestamp(binary: integer(bytes)))\""
        case .int8, .bool, .float8: show(bytes, type)
        }
    }
}

/// Runs `Tests/naive_fold/naive_fold.py`.
func runNaiveFold(events: String, _ arguments: [String]) throws -> (code: Int32, output: String) {
    let file = FileManager.default.temporaryDirectory.appending(path: "naive-fold-\(UUID().uuidString).ndjson")
    defer { try? FileManager.default.removeItem(at: file) }
    try Data(events.utf8).write(to: file)
    let script = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .appending(path: "naive_fold/naive_fold.py")
    let process = Process(), pipe = Pipe()
    process.executableURL = URL(filePath: "/usr/bin/env")
    process.arguments = ["python3", script.path, "--events", file.path] + arguments
    process.standardOutput = pipe
    process.standardError = pipe
    try process.run()
    let output = String(decoding: try pipe.fileHandleForReading.readToEnd() ?? Data(), as: UTF8.self)
    process.waitUntilExit()
    return (process.terminationStatus, output)
}

/// The independent fold in Python, which shares no code with the program, must give the same rows.
@Suite struct NaiveFoldTests {
    private func run(_ history: History, change: (String) -> String = { $0 }) throws -> (code: Int32, output: String) {
        let file = FileManager.default.temporaryDirectory.appending(path: "naive-fold-\(UUID().uuidString).json")
        defer { try? FileManager.default.removeItem(at: file) }
        let tables = Catalog.entries.flatMap { history.fold($0).json() }
        try Data(change("{\(tables.joined(separator: ","))}").utf8).write(to: file)
        return try runNaiveFold(events: history.ndjson, ["--tables", file.path])
    }

    @Test(arguments: 1...6)
    func randomHistories(seed: Int) throws {
        let (code, output) = try run(try History.random(seed: UInt64(seed) &+ 5000, count: 1500))
        #expect(code == 0, "seed \(seed)\n\(output)")
    }

    /// What decoding must refuse or accept, on every topic; and a planted difference, which must be found.
    @Test func oddPayloads() throws {
        var history = History()
        let values = [
            "1", "-0", "1.0", "1e2", "9223372036854775807", "9223372036854775808", "1e131071", "1e131072", "1e-16383",
            "1e-16384", "true", "null", #""x""#, #""\u0000""#, #""\ud800""#, #""\ud83d\ude00""#, "[]", "{}", "[1,]",
            "01", "NaN", "-Infinity", #"{"a":1,"a":"\u0000"}"#, #"{"a":{"b":[]}}"#, #""CONNECTED""#, #""success""#,
            String(repeating: "[", count: 600) + String(repeating: "]", count: 600),
            String(repeating: "[", count: 600), String(repeating: "7", count: 5000),
        ]
        let fields = [
            "metrics", "seq", "site_id", "ts", "version", "reported", "command_id", "status", "details", "campaign_id",
            "progress", "error", "tenant_id", "device_id", "other",
        ]
        let complete =
            #""metrics":{"m":1},"version":3,"reported":{},"command_id":"c","status":"CONNECTED","campaign_id":1"#
        for rest in ["telemetry", "heartbeat", "shadow/reported", "commands/ack", "ota/status", "connection", "else"] {
            for field in fields {
                for value in values {
                    history.message(rest, "{\(complete),\"\(field)\":\(value)}")
                    history.message(rest, "{\"\(field)\":\(value)}", device: "d2")
                }
            }
            for value in values { history.message(rest, value, device: "d3") }
        }
        let (code, output) = try run(history)
        #expect(code == 0, "\(output)")
        let planted = try run(history) { $0.replacingOccurrences(of: "INVALID_TYPE", with: "INVALID_VALUE") }
        #expect(planted.code == 1 && planted.output.contains("naive fold"), "\(planted.output)")
    }
}
