import CZlib
import EventLog
import EventModel
import Foundation
import Testing

@testable import Publishing

/// Recorded messages in files.
struct FilePublicationTests {
    private func folder() throws -> DataFolder {
        let folder = try DataFolder()
        try folder.append { batch in
            batch.message(telemetry("a"), #"{ "metrics": {"t": 1.50} }"#, at: moment(1))
            batch.message(
                "tenant/acme/device/b/blob", "\u{0}\u{1}", at: moment(2),
                properties: [0x03, 0, 9] + Array("image/png".utf8))
            batch.message("tenant/acme/device/b/note", "not \"json\"", at: moment(3))
            batch.message("tenant/acme/device/b/x", "{}", at: moment(4), verdict: .foreignCommand)
            batch.message(
                "tenant/acme/device/b/y", "[1]", at: moment(5),
                properties: [0x03, 0, 20] + Array("application/ld+json ".utf8))
        }
        return folder
    }

    private func run(_ folder: DataFolder, _ format: FilePublication.Format, _ name: String) throws
        -> (FilePublication.Result, Data)
    {
        let log = try folder.open(), path = folder.path + "/" + name
        let order = try PublishOrder(range: Position(0)..<Position(log.durableCount))
        let result = try FilePublication.run(log, order, format, path: path)
        #expect(!FileManager.default.fileExists(atPath: path + ".part"))
        return (result, try #require(FileManager.default.contents(atPath: path)))
    }

    private func objects(_ data: Data) throws -> [[String: Any]] {
        try data.split(separator: 0x0A).map {
            try #require(try JSONSerialization.jsonObject(with: Data($0)) as? [String: Any])
        }
    }

    @Test func ndjsonIsWhatTheLogPrints() throws {
        let (result, data) = try run(folder(), .ndjson, "out.ndjson")
        #expect(result.counts.messages == 4 && result.counts.otherVerdict == 1 && Int(result.fileBytes) == data.count)
        let lines = try objects(data)
        #expect(lines.map { $0["position"] as? Int } == [0, 1, 2, 4])
        #expect(lines[0]["received_at"] as? String == moment(1).description)
        // Every digit as it was.
        #expect(String(decoding: data, as: UTF8.self).contains(#""payload":{"metrics":{"t":1.50}}"#))
        #expect(lines[2]["payload"] as? String == "not \"json\"" && lines[2]["payload_is_json"] as? Bool == false)
    }

    /// CloudEvents 1.0.2 and its JSON event format: what is required, and the types of what is there.
    @Test func cloudEventsAreCloudEvents() throws {
        let folder = try folder(), id = try folder.open().logID.description
        let (_, data) = try run(folder, .cloudevents, "out.jsonl")
        let events = try objects(data)
        #expect(events.count == 4)
        let names = /^[a-z0-9]{1,20}$/
        for event in events {
            #expect(event["specversion"] as? String == "1.0" && event["source"] as? String == "/refold/\(id)")
            #expect((event["id"] as? String)?.isEmpty == false && (event["type"] as? String)?.isEmpty == false)
            #expect(Timestamp(rfc3339: event["time"] as? String ?? "") != nil)
            #expect((event["data"] == nil) != (event["data_base64"] == nil))
            #expect((event["sequence"] as? String)?.count == 20)
            for name in event.keys where name != "data_base64" { #expect(name.wholeMatch(of: names) != nil, "\(name)") }
        }
        #expect(events[0]["type"] as? String == "refold.message.telemetry")
        #expect(events[0]["subject"] as? String == telemetry("a"))
        #expect(events[0]["partitionkey"] as? String == "tenant/acme/device/a")
        #expect(events[0]["datacontenttype"] as? String == "application/json" && events[0]["data"] is [String: Any])
        #expect(events[1]["datacontenttype"] as? String == "image/png" && events[1]["data_base64"] as? String == "AAE=")
        #expect(events[2]["datacontenttype"] as? String == "application/octet-stream")
        #expect(events[3]["datacontenttype"] as? String == "application/ld+json " && events[3]["data"] is [Any])
    }

    @Test func gzipHoldsTheSame() throws {
        let folder = try folder()
        try folder.append { batch in
            for index in 0..<20_000 { batch.message(telemetry("c"), #"{"metrics":{"n":\#(index)}}"#, at: moment(9)) }
        }
        let (_, plain) = try run(folder, .ndjson, "a.ndjson")
        let (result, packed) = try run(folder, .ndjson, "a.ndjson.gz")
        #expect(packed.count * 5 < plain.count && Int(result.fileBytes) == packed.count)
        let file = try #require(gzopen(folder.path + "/a.ndjson.gz", "rb"))
        defer { gzclose(file) }
        var bytes = [UInt8](repeating: 0, count: plain.count + 1)
        #expect(Int(gzread(file, &bytes, UInt32(bytes.count))) == plain.count)
        #expect(Data(bytes.dropLast()) == plain)
        #expect(gzdirect(file) == 0)
    }

    @Test func thereIsNoHalfFile() throws {
        let folder = try folder(), log = try folder.open()
        let order = try PublishOrder(range: Position(0)..<Position(log.durableCount))
        #expect(throws: PublicationError.self) {
            _ = try FilePublication.run(log, order, .ndjson, path: folder.path + "/out", isStopping: { true })
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["log"])
        #expect(throws: PublicationError.self) {
            _ = try FilePublication.run(log, order, .ndjson, path: folder.path + "/missing/out")
        }
    }
}
