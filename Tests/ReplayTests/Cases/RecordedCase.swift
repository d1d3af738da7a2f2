import EventLog
import EventModel
import Foundation
import Testing

/// One folder of `replay/`: events, the rows that they must fold to, and why the case is kept.
struct RecordedCase: CustomTestStringConvertible, Sendable {
    let name: String
    private var folder: URL { Self.root.appending(path: name) }

    static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().appending(path: "replay")

    static let all: [RecordedCase] = {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: root.path)) ?? []
        return names.filter { FileManager.default.fileExists(atPath: root.appending(path: $0 + "/events.ndjson").path) }
            .sorted().map(RecordedCase.init)
    }()

    var testDescription: String { name }
    var why: String { (try? String(contentsOf: folder.appending(path: "why.md"), encoding: .utf8)) ?? "" }

    private func lines(_ file: String) throws -> [String] {
        try String(contentsOf: folder.appending(path: file), encoding: .utf8).split(separator: "\n").map(String.init)
    }

    /// Each a JSON object: `table`, then the columns.
    func expectedRows() throws -> [String] { try lines("tables.ndjson") }

    /// The explicit verb, `make rewrite-cases`, ends here.
    func rewrite(_ rows: [String]) throws {
        let text = rows.map { $0 + "\n" }.joined()
        try text.write(to: folder.appending(path: "tables.ndjson"), atomically: true, encoding: .utf8)
    }

    /// As `refold log cat --base64` prints them; a payload may be given as `payload_text` instead, for people.
    func events() throws -> [Event] { try lines("events.ndjson").map(Event.init) }

    struct Event {
        let position: UInt64
        let payload: Data
        let batch: RecordBatch
        /// With the payload in base64, as the naive fold reads it.
        let line: String

        init(_ line: String) throws {
            let found = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
            guard var object = found, let position = (object["position"] as? NSNumber)?.uint64Value,
                let at = (object["received_at"] as? String).flatMap({ Timestamp(rfc3339: $0) }),
                let kind = (object["kind"] as? String).flatMap(EventKind.init(name:)),
                let verdict = (object["verdict"] as? String).flatMap(Verdict.init(name:)),
                let topic = object["topic"] as? String, let broker = object["broker"] as? String,
                let payload = (object["payload_text"] as? String).map({ Data($0.utf8) })
                    ?? (object["payload_base64"] as? String).flatMap({ Data(base64Encoded: $0) })
            else { throw CocoaError(.coderReadCorrupt, userInfo: [NSDebugDescriptionErrorKey: line]) }
            var flags = RecordFlags(qos: UInt8((object["qos"] as? NSNumber)?.intValue ?? 0))
            if object["retain"] as? Bool == true { flags.insert(.retained) }
            if object["duplicate"] as? Bool == true { flags.insert(.duplicate) }
            let arrived = (object["payload_bytes"] as? NSNumber)?.intValue
            if arrived != nil { flags.insert(.truncated) }
            var batch = RecordBatch()
            let parts = [Array(broker.utf8), Array(topic.utf8), Array(payload)]
            parts[0].withUnsafeBytes { broker in
                parts[1].withUnsafeBytes { topic in
                    parts[2].withUnsafeBytes { payload in
                        batch.append(
                            kind: kind, verdict: verdict, flags: flags, receivedAt: at,
                            packetID: (object["packet_id"] as? NSNumber)?.uint16Value ?? 0, broker: broker,
                            topic: topic, properties: UnsafeRawBufferPointer(start: nil, count: 0), payload: payload,
                            originalPayloadLength: arrived)
                    }
                }
            }
            object["payload_text"] = nil
            object["payload_base64"] = payload.base64EncodedString()
            self.position = position
            self.payload = payload
            self.batch = batch
            self.line = String(decoding: try JSONSerialization.data(withJSONObject: object), as: UTF8.self)
        }
    }
}

/// A case's events as a log: commits of at most so many events, broken where positions are missing.
final class CaseLog: LogSource {
    private struct Commit {
        var base: Position
        var batch: RecordBatch
        var end: Position { base.advanced(by: batch.count) }
    }
    private let commits: [Commit]

    init(_ events: [RecordedCase.Event], commitEvents: Int) {
        var commits: [Commit] = []
        for event in events {
            let position = Position(event.position)
            if let last = commits.last, last.end == position, last.batch.count < commitEvents {
                commits[commits.count - 1].batch.append(event.batch)
            } else {
                commits.append(Commit(base: position, batch: event.batch))
            }
        }
        self.commits = commits
    }

    var durableCount: UInt64 { commits.last?.end.rawValue ?? 0 }
    func waitForDurable(
        beyond count: UInt64, timeoutMilliseconds: Int, unless stop: () -> Bool
    ) -> UInt64 {
        let deadline = ContinuousClock.now + .milliseconds(timeoutMilliseconds)
        while durableCount <= count, !stop(), ContinuousClock.now < deadline { usleep(1_000) }
        return durableCount
    }
    func reader(from position: Position) throws -> any LogReader { Reader(commits, position) }

    private final class Reader: LogReader {
        private let commits: [Commit]
        private(set) var position: Position

        init(_ commits: [Commit], _ position: Position) {
            self.commits = commits
            self.position = position
        }

        func read(into block: EventBlock, atLeast byteCount: Int) throws -> Bool {
            block.removeAll(at: position)
            guard let commit = commits.first(where: { $0.end > position }) else { return false }
            block.removeAll(at: commit.base)
            let done = block.append(base: commit.base, count: commit.batch.count, byteCount: commit.batch.byteCount) {
                room in
                commit.batch.withUnsafeBytes { room.copyMemory(from: $0) }
                return true
            }
            precondition(done, "a recorded event is no record")
            position = commit.end
            return true
        }
    }
}
