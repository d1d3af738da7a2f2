import EventLog
import EventModel
import Foundation

/// A log in memory, for the decider: every append is one commit block.
/// `@unchecked Sendable`: all state is under `lock`.
final class MemoryLog: LogWriter, LogSource, @unchecked Sendable {
    private let lock = NSLock()
    private var commits: [(base: Position, batch: RecordBatch)] = []
    private var count: UInt64 = 0
    private var lastTime = Timestamp(microseconds: 0)
    private var failure: AppendError?

    func fail(with error: AppendError?) { lock.withLock { failure = error } }
    var commitCount: Int { lock.withLock { commits.count } }

    func append(_ batch: inout RecordBatch) throws(AppendError) -> Range<Position> {
        lock.lock()
        defer { lock.unlock() }
        if let failure { throw failure }
        lastTime = batch.raiseTimes(to: lastTime).last
        let base = Position(count)
        commits.append((base, batch))
        count += UInt64(batch.count)
        return base..<Position(count)
    }

    func append(_ batch: RecordBatch) async throws(AppendError) -> Range<Position> {
        var batch = batch
        return try append(&batch)
    }

    var durableCount: UInt64 { lock.withLock { count } }
    func reader(from position: Position) throws -> any LogReader { Reader(self, position) }
    func waitForDurable(
        beyond count: UInt64, timeoutMilliseconds: Int, unless stop: () -> Bool
    ) -> UInt64 {
        durableCount
    }

    func commit(holding position: Position) -> (base: Position, batch: RecordBatch)? {
        lock.withLock { commits.first { $0.base <= position && position < $0.base.advanced(by: $0.batch.count) } }
    }

    /// Everything in the log, as (schema or topic, payload).
    func records() throws -> [(topic: String, payload: String)] {
        let block = EventBlock(), reader = try reader(from: Position(0))
        var records: [(topic: String, payload: String)] = []
        while try reader.read(into: block, atLeast: 1) {
            block.forEach { record, _ in
                records.append((record.topicString, String(decoding: record.payload, as: UTF8.self)))
            }
        }
        return records
    }

    private final class Reader: LogReader {
        private let log: MemoryLog
        private(set) var position: Position

        init(_ log: MemoryLog, _ position: Position) {
            self.log = log
            self.position = position
        }

        func read(into block: EventBlock, atLeast byteCount: Int) throws -> Bool {
            guard let commit = log.commit(holding: position) else { return false }
            block.removeAll(at: commit.base)
            let filled = commit.batch.withUnsafeBytes { bytes in
                block.append(base: commit.base, count: commit.batch.count, byteCount: bytes.count) {
                    $0.copyMemory(from: bytes)
                    return true
                }
            }
            position = block.end
            return filled
        }
    }
}
