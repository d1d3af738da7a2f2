import EventLog
import EventModel

/// A log in memory whose appends fail as told. For one thread; `@unchecked Sendable` because the protocols require it.
final class FaultyLog: LogWriter, LogSource, @unchecked Sendable {
    private let log = ScratchLog()
    /// The next append fails with it.
    var failure: AppendError?
    /// The next append is durable, and throws.
    var losesAnswer = false
    private(set) var appends = 0

    func append(_ batch: inout RecordBatch) throws(AppendError) -> Range<Position> {
        defer { (failure, losesAnswer) = (nil, false) }
        if let failure { throw failure }
        appends += 1
        let positions = try log.append(&batch)
        if losesAnswer { throw .failed("the process ends here") }
        return positions
    }

    func append(_ batch: RecordBatch) async throws(AppendError) -> Range<Position> {
        var batch = batch
        return try append(&batch)
    }

    func append(_ kind: EventKind, _ schema: String, _ json: String, at time: Timestamp) throws {
        var batch = RecordBatch()
        batch.append(kind: kind, schema: schema, receivedAt: time, json: Array(json.utf8))
        _ = try log.append(&batch)
    }

    /// What the next reader of `durableCount` is told: it was a moment ago.
    var staleCount: UInt64?

    private(set) var countReads = 0

    var durableCount: UInt64 {
        defer { (staleCount, countReads) = (nil, countReads + 1) }
        return staleCount ?? log.durableCount
    }
    /// Every read fails; or every one behind so many.
    var failsReads = false
    var failsReadsAfter: Int?

    func reader(from position: Position) throws -> any LogReader {
        FaultyReader(reader: try log.reader(from: position), log: self)
    }

    private final class FaultyReader: LogReader {
        let reader: any LogReader
        unowned let log: FaultyLog
        var position: Position { reader.position }

        init(reader: any LogReader, log: FaultyLog) { (self.reader, self.log) = (reader, log) }

        func read(into block: EventBlock, atLeast byteCount: Int) throws -> Bool {
            if let left = log.failsReadsAfter {
                log.failsReadsAfter = left > 0 ? left - 1 : nil
                log.failsReads = left == 0
            }
            if log.failsReads { throw LogError(.system, "the disk does not answer") }
            return try reader.read(into: block, atLeast: byteCount)
        }
    }
    func waitForDurable(
        beyond count: UInt64, timeoutMilliseconds: Int, unless stop: () -> Bool
    ) -> UInt64 {
        durableCount
    }
}
