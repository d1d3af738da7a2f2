import EventLog
import EventModel
import Foundation
import ProjectionTestSupport
import Testing

/// `refold snapshot`, `replay as-of`, `backup` and `restore`, in processes of their own.
@Suite struct SnapshotCommandTests {
    private let folder = FileManager.default.temporaryDirectory.appendingPathComponent(
        "refold-snapshot-cli-\(UUID().uuidString)"
    ).path
    private var data: String { folder + "/data" }

    private static let program = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        .deletingLastPathComponent().appendingPathComponent("refold").path

    private func start(_ arguments: [String]) throws -> (process: Process, out: Pipe, errors: String) {
        let process = Process(), out = Pipe(), errors = folder + "/stderr-\(UUID().uuidString)"
        _ = FileManager.default.createFile(atPath: errors, contents: nil)
        process.executableURL = URL(fileURLWithPath: Self.program)
        process.arguments = arguments
        process.standardOutput = out
        process.standardError = try FileHandle(forWritingTo: URL(fileURLWithPath: errors))
        try process.run()
        return (process, out, errors)
    }

    private func run(_ arguments: String...) throws -> (code: Int32, out: String, error: String) {
        let (process, out, errors) = try start(arguments)
        let text = String(decoding: out.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        return (process.terminationStatus, text, try String(contentsOfFile: errors, encoding: .utf8))
    }

    private func objects(_ text: String) throws -> [[String: Any]] {
        try text.split(separator: "\n").map {
            try #require(try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any], "\($0)")
        }
    }

    private func withLog(_ events: Int, keeping: Bool = false, _ body: (FileLog) throws -> Void) throws {
        try FileManager.default.createDirectory(atPath: data, withIntermediateDirectories: true)
        var options = FileLogOptions()
        options.segmentBytes = 64 << 10
        options.isKeeping = keeping
        let log = try FileLog.open(directory: data + "/log", options: options)
        var history = FleetHistory(seed: 11)
        try history.append(events, to: log)
        defer { log.close() }
        try body(log)
    }

    private func cleanUp() { try? FileManager.default.removeItem(atPath: folder) }

    @Test func snapshotsAreMadeListedVerifiedAndTheirDamageFound() throws {
        defer { cleanUp() }
        try withLog(400) { _ in }
        #expect(try run("snapshot", "list", "--data", data).out == "there are no snapshots\n")
        let made = try run("snapshot", "create", "--data", data, "--json")
        #expect(made.code == 0, "\(made.error)")
        let row = try #require(try objects(made.out).first)
        #expect(row["end"] as? Int == 400 && row["recorded"] as? Bool == true)
        let listed = try objects(try run("snapshot", "list", "--data", data, "--json").out)
        #expect(listed.count == 1 && listed[0]["recorded"] as? Bool == true && listed[0]["error"] == nil)
        // The event that recorded it is in the next one.
        let next = try run("snapshot", "create", "--data", data, "--json")
        #expect(try objects(next.out).first?["end"] as? Int == 401)
        let deep = try run("snapshot", "verify", "--deep", "--data", data)
        #expect(deep.code == 0 && deep.out.split(separator: "\n").allSatisfy { $0.hasSuffix(": whole") }, "\(deep)")
        let path = data + "/snapshots/00000000000000000400.snapshot"
        var bytes = try Data(contentsOf: URL(fileURLWithPath: path))
        bytes[200] ^= 1
        try FileManager.default.removeItem(atPath: path)
        try bytes.write(to: URL(fileURLWithPath: path))
        let damaged = try run("snapshot", "verify", "--data", data, "--json")
        #expect(damaged.code == 1)
        let rows = try objects(damaged.out)
        #expect((rows[0]["error"] as? String)?.contains("damaged") == true && rows[1]["error"] == nil)
        #expect(try run("snapshot", "verify", "7", "--data", data).code == 2)
    }

    @Test func rowsAsOfAMoment() throws {
        defer { cleanUp() }
        try withLog(300) { _ in }
        _ = try run("snapshot", "create", "--data", data)
        let now = try run("replay", "as-of", "--position", "299", "device", "acme", "d1", "--data", data, "--json")
        #expect(now.code == 0, "\(now.error)")
        let row = try #require(try objects(now.out).first)
        #expect(row["device_id"] as? String == "d1" && row["status"] as? String == "ONLINE")
        #expect((row["as_of"] as? [String: Any])?["position"] as? Int == 299)
        let time = FleetHistory.time(100).description
        let fleet = try objects(
            try run("replay", "as-of", "fleet", "--tenant", "acme", "--at", time, "--data", data, "--json").out)
        #expect(fleet.count > 5 && fleet.allSatisfy { ($0["last_position"] as? Int ?? 999) <= 100 })
        let diff = try objects(
            try run(
                "replay", "as-of", "device", "acme", "d1", "--at", time, "--diff", "299", "--data", data, "--json"
            ).out)
        let changes = try #require(diff.first?["changes"] as? [String: [Any]])
        #expect(changes["message_count"]?.count == 2 && changes["device_id"] == nil)
        let broker = try run("replay", "as-of", "broker", "main", "--position", "299", "--data", data)
        #expect(broker.code == 0 && broker.out.contains("messages_received"))
        let authorities = try ["ca1", "ca2", "ca3"].map {
            try run("replay", "as-of", "authority", $0, "--position", "299", "--data", data)
        }
        #expect(authorities.contains { $0.code == 0 && $0.out.contains("key_location") }, "\(authorities)")
        let unknown = try run("replay", "as-of", "certificate", "ca1", "FF", "--position", "299", "--data", data)
        #expect(unknown.code == 1 && unknown.error.contains("there was no such certificate"), "\(unknown)")
        #expect(try run("replay", "as-of", "device", "acme", "nobody", "--position", "5", "--data", data).code == 1)
        #expect(try run("replay", "as-of", "device", "acme", "d1", "--position", "900", "--data", data).code == 2)
        #expect(try run("replay", "as-of", "device", "acme", "d1", "--data", data).code == 2)
        #expect(try run("replay", "as-of", "device", "acme", "--position", "5", "--data", data).code == 2)
    }

    /// While events come in and segments are packed and sealed, the copy is whole.
    @Test func aBackupIsConsistentWhileTheLogGrows() throws {
        defer { cleanUp() }
        var options = FileLogOptions()
        options.segmentBytes = 64 << 10
        try FileManager.default.createDirectory(atPath: data, withIntermediateDirectories: true)
        options.signer = { [data] id throws(LogError) in try LogKey.open(dataFolder: data, logID: id) }
        let log = try FileLog.open(directory: data + "/log", options: options)
        defer { log.close() }
        var history = FleetHistory(seed: 4)
        try history.append(3_000, to: log)
        for round in 0..<3 {
            let before = log.durableCount, target = folder + "/backup-\(round)"
            let (process, out, errors) = try start(["backup", target, "--data", data, "--json"])
            while process.isRunning { try history.append(50, to: log) }
            let text = String(decoding: out.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
            let said = try String(contentsOfFile: errors, encoding: .utf8)
            #expect(process.terminationStatus == 0, "\(text) \(said)")
            let report = try #require(try objects(text).first)
            #expect(report["sound"] as? Bool == true)
            let events = try #require(report["events"] as? Int)
            #expect(events >= before && events <= log.durableCount)
            let copy = try ReadOnlyLog(directory: target + "/log")
            #expect(copy.durableCount == UInt64(events) && copy.logID == log.logID)
            #expect(try records(copy, UInt64(events)) == records(log, UInt64(events)))
        }
        let restored = try run("restore", folder + "/backup-2", "--data", folder + "/new", "--json")
        #expect(restored.code == 0, "\(restored)")
        #expect(FileManager.default.fileExists(atPath: folder + "/new/log.key"))
        // It goes on.
        var other = FileLogOptions()
        other.signer = { [folder] id throws(LogError) in try LogKey.open(dataFolder: folder + "/new", logID: id) }
        let reopened = try FileLog.open(directory: folder + "/new/log", options: other)
        let count = reopened.durableCount
        try history.append(10, to: reopened)
        #expect(reopened.durableCount == count + 10)
        reopened.close()
        #expect(try ReadOnlyLog(directory: folder + "/new/log").verify().isSound)
    }

    @Test func aDamagedBackupIsNotRestored() throws {
        defer { cleanUp() }
        try withLog(200) { _ in }
        _ = try run("snapshot", "create", "--data", data)
        let target = folder + "/backup"
        #expect(try run("backup", target, "--data", data).code == 0)
        #expect(try run("backup", target, "--data", data).code == 2, "not into a folder that is in use")
        let path = target + "/log/00000000000000000000.seg"
        var bytes = try Data(contentsOf: URL(fileURLWithPath: path))
        bytes[5000] ^= 1
        try bytes.write(to: URL(fileURLWithPath: path))
        let result = try run("restore", target, "--data", folder + "/new")
        #expect(result.code == 1 && result.error.contains("not what was backed up"), "\(result)")
        try FileManager.default.removeItem(atPath: target + "/backup.json")
        #expect(try run("restore", target, "--data", folder + "/other").code == 2)
    }

    /// A backup that named a file `token` made its maker the restored daemon's admin.
    @Test(arguments: [
        "token", "refold.yaml", "../token", "log/../../token", "log/x;id.seg", "snapshots/a", "mosquitto/password",
    ])
    func aBackupBringsNothingButTheLog_F31(name: String) throws {
        defer { cleanUp() }
        try withLog(50) { _ in }
        let target = folder + "/backup"
        #expect(try run("backup", target, "--data", data).code == 0)
        let text = Data("0123456789abcdef0123456789abcdef\n".utf8)
        try FileManager.default.createDirectory(atPath: target + "/mosquitto", withIntermediateDirectories: true)
        try? text.write(to: URL(fileURLWithPath: "\(target)/\(name)"))
        let manifest = URL(fileURLWithPath: target + "/backup.json")
        var object = try #require(
            try objects(
                String(decoding: try Data(contentsOf: manifest), as: UTF8.self).replacing("\n", with: "")
            ).first)
        var files = object["files"] as? [[String: Any]] ?? []
        files.append([
            "name": name, "bytes": text.count,
            "sha256": "2fb1e9a0d2a0b4ac7a5a2b3f0a6d1f8f5d9f1c6e7b8a9d0c1e2f3a4b5c6d7e8f",
        ])
        object["files"] = files
        try JSONSerialization.data(withJSONObject: object).write(to: manifest)
        let result = try run("restore", target, "--data", folder + "/new")
        #expect(result.code == 1 && result.error.contains("which no backup of Refold holds"), "\(result)")
        #expect(!FileManager.default.fileExists(atPath: folder + "/new/token"))
    }

    private func records(_ source: any LogSource, _ end: UInt64) throws -> [[UInt8]] {
        let reader = try source.reader(from: Position(0)), block = EventBlock()
        var found: [[UInt8]] = []
        while found.count < end, try reader.read(into: block, atLeast: 1 << 20) {
            block.forEach { record, position in
                if position.rawValue < end { found.append(Array(record.bytes)) }
            }
        }
        return found
    }
}
