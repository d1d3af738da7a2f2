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

    var durableCount: UInt64 {
        defer { staleCount = nil }
        return staleCount ?? log.durableCount
    }
    func reader(from position: Position) throws -> any LogReader { try log.reader(from: position) }
    func waitForDurable(
        beyond count: UInt64, timeoutMilliseconds: Int, unless stop: () -> Bool
    ) -> UInt64 {
        durableCount
    }
}
