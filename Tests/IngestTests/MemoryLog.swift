import EventLog
import EventModel
import Foundation
import Synchronization

/// A log in memory that can be made to block, to be full or to fail.
final class MemoryLog: LogWriter, LogSource {
    enum Mode { case working, blocked, full, failed }

    struct Commit { let base: UInt64, count: Int, bytes: [UInt8] }
    private struct State {
        var mode = Mode.working
        var commits: [Commit] = []
        var count: UInt64 = 0
        var waiting = 0
    }
    private let state = Mutex(State())

    /// What `append` does from now on.
    var mode: Mode {
        get { state.withLock { $0.mode } }
        set { state.withLock { $0.mode = newValue } }
    }

    /// Appends that are blocked now.
    var waiting: Int { state.withLock { $0.waiting } }
    var durableCount: UInt64 { state.withLock { $0.count } }
    var commitCount: Int { state.withLock { $0.commits.count } }

    func append(_ batch: inout RecordBatch) throws(AppendError) -> Range<Position> {
        state.withLock { $0.waiting += 1 }
        defer { state.withLock { $0.waiting -= 1 } }
        while mode == .blocked { usleep(1_000) }
        switch mode {
        case .full: throw .full("no space left in the test's log")
        case .failed: throw .failed("the test's log is broken")
        case .working, .blocked: break
        }
        let bytes = batch.bytes, count = batch.count
        return state.withLock { state in
            let base = state.count
            state.commits.append(Commit(base: base, count: count, bytes: bytes))
            state.count += UInt64(count)
            return Position(base)..<Position(state.count)
        }
    }

    func append(_ batch: RecordBatch) async throws(AppendError) -> Range<Position> {
        var batch = batch
        return try append(&batch)
    }

    func waitForDurable(
        beyond count: UInt64, timeoutMilliseconds: Int, unless stop: () -> Bool
    ) -> UInt64 {
        durableCount
    }

    func reader(from position: Position) throws -> any LogReader { Reader(self, position) }

    func commit(holding position: UInt64) -> Commit? {
        state.withLock { $0.commits.first { $0.base + UInt64($0.count) > position } }
    }

    private final class Reader: LogReader {
        private let log: MemoryLog
        private(set) var position: Position
        init(_ log: MemoryLog, _ position: Position) {
            self.log = log
            self.position = position
        }
        func read(into block: EventBlock, atLeast byteCount: Int) throws -> Bool {
            guard let commit = log.commit(holding: position.rawValue) else { return false }
            block.removeAll(at: Position(commit.base))
            let filled = block.append(base: Position(commit.base), count: commit.count, byteCount: commit.bytes.count) {
                $0.copyBytes(from: commit.bytes)
                return true
            }
            precondition(filled, "the test's log holds what it was given")
            position = block.end
            return true
        }
    }

    // MARK: what tests look at

    struct Entry: Equatable {
        var kind: EventKind
        var verdict: Verdict
        var flags: RecordFlags
        var broker: String
        var topic: String
        var properties: [UInt8]
        var payload: [UInt8]
        var originalLength: Int
        var packetID: UInt16
        var text: String { String(decoding: payload, as: UTF8.self) }
        var event: BrokerEvent? { try? JSONDecoder().decode(BrokerEvent.self, from: Data(payload)) }
    }

    var entries: [Entry] {
        var entries: [Entry] = []
        let block = EventBlock()
        let reader = Reader(self, Position(0))
        while (try? reader.read(into: block, atLeast: 1)) == true {
            block.forEach { record, _ in
                entries.append(
                    Entry(
                        kind: record.kind, verdict: record.verdict, flags: record.flags, broker: record.brokerString,
                        topic: record.topicString, properties: Array(record.properties), payload: Array(record.payload),
                        originalLength: record.originalPayloadLength, packetID: record.packetID))
            }
        }
        return entries
    }

    var messages: [Entry] { entries.filter { $0.kind == .message } }
    var payloads: [String] { messages.map(\.text) }
    func events(_ schema: BrokerEvent.Schema) -> [BrokerEvent] {
        entries.filter { $0.kind == .connection && $0.topic == schema.rawValue }.compactMap(\.event)
    }
}
