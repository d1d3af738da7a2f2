import EventLog
import EventModel
import Foundation
import TestSupport
import Testing

/// `refold replay publish` and `refold audit` as people and scripts meet them: exit codes, JSON, files.
struct PublishAndAuditCommandTests {
    private static let program = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        .deletingLastPathComponent().appendingPathComponent("refold").path

    private func refold(_ arguments: String...) throws -> (code: Int32, out: String) { try refold(arguments) }

    private func refold(_ arguments: [String]) throws -> (code: Int32, out: String) {
        let process = Process(), out = Pipe()
        process.executableURL = URL(fileURLWithPath: Self.program)
        process.arguments = arguments
        process.standardOutput = out
        process.standardError = out
        try process.run()
        let text = String(decoding: out.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        return (process.terminationStatus, text)
    }

    private func object(_ text: String) throws -> [String: Any] {
        let line = text.split(separator: "\n").last { $0.hasPrefix("{") } ?? ""
        return try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any], "\(text)")
    }

    private func folder() throws -> DataFolder {
        let folder = try DataFolder()
        try folder.append(isSigned: true) { batch in
            for index in 0..<40 {
                let time = moment(Double(index))
                batch.message(telemetry("d\(index % 2)"), #"{"metrics":{"n":\#(index)}}"#, at: time)
            }
        }
        return folder
    }

    @Test func publishing() async throws {
        let folder = try folder(), server = try MosquittoServer(), data = folder.path
        let count = try refold(
            "replay", "publish", "--data", data, "--to", server.url, "--from", "10", "--until", "19", "--dry-run",
            "--json")
        #expect(count.code == 0)
        #expect(try object(count.out)["messages"] as? Int == 10 && object(count.out)["devices"] as? Int == 2)
        let times = try refold(
            "replay", "publish", "--data", data, "--to", server.url, "--from", "\(moment(5))", "--until",
            "\(moment(8))", "--dry-run", "--json")
        #expect(try object(times.out)["first_position"] as? Int == 5 && object(times.out)["last_position"] as? Int == 7)
        let witness = try await MosquittoWitness(server, topic: "replay/#")
        let wish = ["replay", "publish", "--data", data, "--to", server.url, "--from", "0", "--device", "d1", "--json"]
        let done = try refold(wish)
        #expect(done.code == 0, "\(done.out)")
        #expect(try object(done.out)["published"] as? Int == 20 && object(done.out)["finished"] as? Bool == true)
        #expect(await eventually { witness.arrivals.count == 20 })
        // The next time there is nothing left to do.
        let again = try refold(wish)
        #expect(try again.code == 0 && object(again.out)["was_done"] as? Bool == true)

        #expect(try refold("replay", "publish", "--data", data, "--to", server.url).code == 2)
        #expect(try refold(wish + ["--prefix", ""]).code == 2)
        #expect(try refold("replay", "publish", "--data", data, "--to", "nowhere", "--from", "0").code == 2)
        #expect(try refold("replay", "publish", "--data", data, "--to", server.url, "--from", "99").code == 2)
        let secret = try refold("replay", "publish", "--data", data, "--to", "mqtt://u:secret@:x", "--from", "0")
        #expect(secret.code == 2 && !secret.out.contains("secret"))
        let file = data + "/out.jsonl.gz"
        #expect(try refold("replay", "publish", "--data", data, "--to", "cloudevents", file).code == 0)
        #expect(FileManager.default.fileExists(atPath: file))
        let lines = try refold("replay", "publish", "--data", data, "--to", "ndjson", "--until", "2")
        #expect(lines.code == 0 && lines.out.split(separator: "\n").count == 3)
    }

    /// The log is complete; a script, too, hears that messages are missing all the same.
    @Test func anAuditTellsScriptsOfBrokerLosses() throws {
        let folder = try DataFolder()
        try folder.append(isSigned: true) { batch in
            batch.message(telemetry("d1"), "{}", at: moment(0))
            batch.append(
                kind: .connection, schema: "broker.session_lost/1", broker: "main", receivedAt: moment(1),
                json: Array(#"{"client_id":"refold-x","reason":"no session present"}"#.utf8))
        }
        let made = try refold("audit", "device", "--data", folder.path, "acme", "d1", "--json")
        let losses = try object(made.out)["broker_losses"] as? [[String: Any]]
        #expect(losses?.map { $0["position"] as? Int } == [1], "\(made)")
        #expect((losses?.first?["what"] as? String)?.contains("no session present") == true, "\(made)")
    }

    @Test func auditing() throws {
        let folder = try folder(), data = folder.path, bundle = data + "/b.jsonl", page = data + "/p.html"
        let key = data + "/" + LogKey.publicName
        let text = try refold("audit", "device", "--data", data, "acme", "d1")
        #expect(text.code == 0 && text.out.contains("message_count 19 → 20"))
        let unknown = try refold("audit", "device", "--data", data, "acme", "nope")
        #expect(unknown.code == 1 && !unknown.out.contains("nothing that is known"), "\(unknown)")
        let made = try refold(
            "audit", "device", "--data", data, "acme", "d1", "--bundle", bundle, "--html", page, "--json")
        #expect(try made.code == 0 && object(made.out)["events"] as? Int == 20)
        #expect(try String(contentsOfFile: page, encoding: .utf8).hasPrefix("<!doctype html>"))
        // The log is gone: the bundle stands.
        let kept = try String(contentsOfFile: key, encoding: .utf8)
        try FileManager.default.removeItem(atPath: folder.logPath)
        let checked = try refold("audit", "check", bundle, "--key", kept.trimmingCharacters(in: .newlines), "--json")
        #expect(try checked.code == 0 && object(checked.out)["holds"] as? Bool == true)
        #expect(try object(checked.out)["folded"] as? Bool == true)
        var bytes = try Data(contentsOf: URL(fileURLWithPath: bundle))
        bytes[bytes.count / 2] ^= 1
        try bytes.write(to: URL(fileURLWithPath: bundle))
        #expect(try refold("audit", "check", bundle, "--key", key).code == 1)
        #expect(try refold("audit", "check", data + "/none", "--key", key).code == 2)
        #expect(try refold("audit", "device", "--data", data, "acme", "d1").code == 2)
    }

    @Test func questionsThatMakeNoSense() throws {
        let folder = try folder(), data = folder.path
        #expect(try refold("audit", "campaign", "--data", data, "7").code == 2)
        #expect(try refold("audit", "range", "--data", data).code == 2)
        #expect(try refold("audit", "range", "--data", data, "--from", "0", "--limit", "3").code == 2)
        #expect(try refold("audit", "range", "--data", data, "--from", "yesterday").code == 2)
        // Without the key there is a bundle all the same, when one says so.
        try FileManager.default.removeItem(atPath: data + "/" + LogKey.name)
        let bundle = data + "/b.jsonl"
        #expect(try refold("audit", "range", "--data", data, "--from", "0", "--bundle", bundle).code == 2)
        let made = try refold("audit", "range", "--data", data, "--from", "0", "--bundle", bundle, "--unsigned")
        #expect(made.code == 0, "\(made.out)")
        let key = data + "/" + LogKey.publicName
        #expect(try refold("audit", "check", bundle, "--key", key).code == 1)
        #expect(try refold("audit", "check", bundle, "--key", key, "--unsigned").code == 0)
    }
}
