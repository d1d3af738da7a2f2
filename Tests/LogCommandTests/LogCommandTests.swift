import EventLog
import EventModel
import Foundation
import TestSupport
import Testing

/// `refold log` in a process of its own, on a log that this process writes.
@Suite struct LogCommandTests {
    private let folder = FileManager.default.temporaryDirectory.appendingPathComponent(
        "refold-cli-\(UUID().uuidString)")

    /// The program is built beside the tests.
    private static let program = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        .deletingLastPathComponent().appendingPathComponent("refold").path

    private func withLog(_ body: (FileLog) throws -> Void) throws {
        defer { try? FileManager.default.removeItem(at: folder) }
        var options = FileLogOptions()
        options.segmentBytes = 64 << 10
        // Files stay where the tests look for them.
        options.isKeeping = false
        let log = try FileLog.open(directory: folder.path + "/log", options: options)
        defer { log.close() }
        try body(log)
    }

    private func run(_ arguments: String...) throws -> (code: Int32, out: String, error: String) {
        let process = Process(), out = Pipe(), errorFile = folder.path + "/stderr"
        _ = FileManager.default.createFile(atPath: errorFile, contents: nil)
        process.executableURL = URL(fileURLWithPath: Self.program)
        process.arguments = ["log"] + arguments + ["--data", folder.path]
        process.standardOutput = out
        process.standardError = try FileHandle(forWritingTo: URL(fileURLWithPath: errorFile))
        try process.run()
        let text = String(decoding: out.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        return (process.terminationStatus, text, try String(contentsOfFile: errorFile, encoding: .utf8))
    }

    private func objects(_ text: String) throws -> [[String: Any]] {
        try text.split(separator: "\n").map {
            try #require(try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any])
        }
    }

    private func add(
        _ log: FileLog, _ payload: String = "{}", topic: String = "tenant/t/device/d/telemetry",
        kind: EventKind = .message,
        verdict: Verdict = .accepted, flags: RecordFlags = RecordFlags(qos: 1), bytes: [UInt8]? = nil,
        at time: String = "2026-11-20T00:00:00Z"
    ) throws {
        var batch = RecordBatch()
        let payload = bytes ?? Array(payload.utf8), topic = Array(topic.utf8), broker = Array("main".utf8)
        let none = UnsafeRawBufferPointer(start: nil, count: 0)
        broker.withUnsafeBytes { broker in
            topic.withUnsafeBytes { topic in
                payload.withUnsafeBytes { payload in
                    batch.append(
                        kind: kind, verdict: verdict, flags: flags, receivedAt: Timestamp(rfc3339: time)!,
                        packetID: 3, broker: broker,
                        topic: topic, properties: none, payload: payload)
                }
            }
        }
        _ = try log.append(&batch)
    }

    @Test func jsonHoldsWhatTheRecordHolds() throws {
        try withLog { log in
            try add(log, #"{ "a" : [1, 2.50e3],"# + "\n" + #" "b\u0041": " x " }"#)
            try add(log, "not json", verdict: .badTopicFormat, flags: [.retained])
            try add(log, bytes: [0xFF, 0x00])
            try add(log, "quote \" \n \u{1B}[31m")
            let result = try run("cat", "--json")
            #expect(result.code == 0)
            let lines = result.out.split(separator: "\n").map(String.init)
            #expect(
                lines[0]
                    == #"{"position":0,"received_at":"2026-11-20T00:00:00.000000Z","kind":"message","broker":"main","#
                    + #""topic":"tenant/t/device/d/telemetry","qos":1,"retain":false,"packet_id":3,"#
                    + #""payload":{"a":[1,2.50e3],"b\u0041":" x "},"verdict":"ACCEPTED"}"#)
            let rows = try objects(result.out)
            #expect(rows.count == 4)
            #expect(rows[1]["payload"] as? String == "not json")
            #expect(rows[1]["payload_is_json"] as? Bool == false)
            #expect(rows[1]["retain"] as? Bool == true)
            #expect(rows[1]["verdict"] as? String == "BAD_TOPIC_FORMAT")
            #expect(rows[2]["payload"] == nil)
            #expect(rows[2]["payload_base64"] as? String == "/wA=")
            #expect(rows[3]["payload"] as? String == "quote \" \n \u{1B}[31m")
            let people = try run("cat").out
            #expect(!people.contains("\u{1B}"), "no control characters from a device reach a terminal")
            #expect(people.split(separator: "\n").count == 4)
        }
    }

    @Test func filters() throws {
        try withLog { log in
            try add(log, topic: "tenant/t1/device/a/telemetry", at: "2026-11-20T00:00:00Z")
            try add(log, topic: "tenant/t1/device/b/heartbeat", at: "2026-11-20T00:00:01Z")
            try add(log, topic: "tenant/t2/device/a/telemetry", verdict: .foreignCommand, at: "2026-11-20T00:00:02Z")
            try add(log, topic: "broker.connected/1", kind: .connection, at: "2026-11-20T00:00:03Z")
            try add(log, topic: "tenant/t1/device/a/ota", at: "2026-11-20T00:00:04Z")
            let table: [([String], [Int])] = [
                ([], [0, 1, 2, 3, 4]), (["--tenant", "t1"], [0, 1, 4]), (["--device", "a"], [0, 2, 4]),
                (["--tenant", "t1", "--device", "a"], [0, 4]), (["--topic", "tenant/+/device/+/telemetry"], [0, 2]),
                (["--topic", "tenant/t1/#"], [0, 1, 4]), (["--kind", "connection"], [3]),
                (["--verdict", "foreign_command"], [2]), (["--broker", "other"], []),
                (["--from", "1", "--to", "3"], [1, 2, 3]),
                (["--since", "2026-11-20T00:00:01Z"], [1, 2, 3, 4]), (["--until", "2026-11-20T00:00:02Z"], [0, 1]),
                (["--limit", "2"], [0, 1]), (["--limit", "2", "--device", "a"], [0, 2]), (["--from", "99"], []),
            ]
            for (arguments, expected) in table {
                let process = Process(), out = Pipe()
                process.executableURL = URL(fileURLWithPath: Self.program)
                process.arguments = ["log", "cat", "--json", "--data", folder.path] + arguments
                process.standardOutput = out
                try process.run()
                let rows = try objects(String(decoding: out.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self))
                process.waitUntilExit()
                #expect(rows.map { $0["position"] as? Int } == expected, "\(arguments)")
            }
        }
    }

    @Test func tailShowsTheLastAndThenEachNewOne() throws {
        try withLog { log in
            for index in 0..<30 { try add(log, "{\"n\":\(index)}", topic: "tenant/t/device/d\(index % 3)/telemetry") }
            let few = try run("tail", "-n", "2", "--device", "d1", "--no-follow", "--json")
            #expect(try objects(few.out).map { $0["position"] as? Int } == [25, 28])
            let output = folder.path + "/tail.out"
            let tail = try ChildProcess(
                [Self.program, "log", "tail", "-n", "1", "--json", "--data", folder.path], log: output)
            func seen() -> [Int] {
                let text = (try? String(contentsOfFile: output, encoding: .utf8)) ?? ""
                return ((try? objects(text)) ?? []).compactMap { $0["position"] as? Int }
            }
            for index in 30..<40 {
                let deadline = Date(timeIntervalSinceNow: 20)
                while seen().last != index - 1, Date() < deadline { usleep(2000) }
                #expect(seen() == Array(29..<index))
                try add(log)
            }
            tail.kill(SIGKILL)
            tail.wait()
        }
    }

    @Test func infoSaysWhatThereIs() throws {
        try withLog { log in
            for _ in 0..<20 { try add(log) }
            let row = try #require(try objects(run("info", "--json").out).first)
            #expect(row["log_id"] as? String == log.report.logID.description)
            #expect(row["durable"] as? Int == 20 && row["last_position"] as? Int == 19)
            #expect(row["writer_up"] as? Bool == true)
            #expect(row["segments"] as? Int == 2)
            #expect(row["bytes"] as? Int == 22 * 4096)
            #expect(try run("info").out.contains("durable         20"))
            #expect((row["files"] as? [[String: Any]])?.compactMap { $0["state"] as? String } == ["live", "live"])
        }
    }

    @Test func exitCodes() throws {
        try withLog { log in
            for _ in 0..<3 { try add(log) }
            log.close()
            #expect(try run("cat", "--kind", "x").code == 2)
            #expect(try run("cat", "--since", "yesterday").code == 2)
            #expect(try run("cat", "--topic", "a#").code == 2)
            let segment = FileHandle(forUpdatingAtPath: folder.path + "/log/00000000000000000000.seg")
            try segment?.seek(toOffset: 8192 + 80)
            try segment?.write(contentsOf: [0xFF, 0xFF])
            try segment?.close()
            let damaged = try run("cat", "--json")
            #expect(damaged.code == 1)
            #expect(try objects(damaged.out).count == 1, "what lies before the damage is shown")
            #expect(damaged.error.contains("positions 1..<2"))
            #expect(try objects(run("cat", "--json", "--from", "2").out).count == 1)
        }
        let missing = try runWithoutLog()
        #expect(missing.code == 2 && missing.error.contains("there is no log"))
    }

    /// A log whose beginning is gone, and one whose last segment is nearly empty: never less in silence.
    @Test func catSaysWhatIsMissing() throws {
        try withLogFiles { names in
            try FileManager.default.removeItem(atPath: names[0])
            let cat = try run("cat")
            #expect(cat.code == 1 && cat.error.contains("are missing") && !cat.out.isEmpty)
        }
        try withLogFiles { names in
            for length in [0, 10] {
                truncate(names[names.count - 1], off_t(length))
                let cat = try run("cat")
                #expect(cat.code == 1 && cat.error.contains("less than a segment's header"))
            }
        }
    }

    /// A fresh log of several live segments; its files by path.
    private func withLogFiles(_ body: ([String]) throws -> Void) throws {
        defer { try? FileManager.default.removeItem(at: folder) }
        var options = FileLogOptions()
        (options.segmentBytes, options.isKeeping) = (32 << 10, false)
        let log = try FileLog.open(directory: folder.path + "/log", options: options)
        for index in 0..<30 { try add(log, "{\"n\":\(index)}") }
        log.close()
        let names = try FileManager.default.contentsOfDirectory(atPath: folder.path + "/log").sorted()
        try body(names.filter { $0.hasSuffix(".seg") }.map { folder.path + "/log/" + $0 })
    }

    private func runWithoutLog() throws -> (code: Int32, out: String, error: String) {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        return try run("cat")
    }
}
