import EventModel
import Primitives

// What the rest of the system sees of the log: a writer and readers. Nothing outside this module may assume that
// behind them lie local files (later: a replicated stream).

/// Appends events. One a log; safe to use from any thread.
public protocol LogWriter: AnyObject, Sendable {
    /// Appends the batch as part of one group commit and returns its positions when, and only when, it is durable.
    /// Blocks the calling thread: for threads of one's own, never for the cooperative pool.
    /// Received-at is raised where needed, so that it never decreases within an era of the log.
    /// - Throws: `AppendError`. After `.failed` the writer never writes again: stop the process, acknowledge nothing.
    func append(_ batch: inout RecordBatch) throws(AppendError) -> Range<Position>

    /// As `append`. Calls `queued` exactly once, on the calling thread, as soon as the batch has its place among all
    /// appends, which is before it is durable; or it will get none.
    func append(_ batch: inout RecordBatch, queued: () -> Void) throws(AppendError) -> Range<Position>

    /// The same for actors: suspends.
    func append(_ batch: RecordBatch) async throws(AppendError) -> Range<Position>

    /// The log's time, which events are stamped with: the wall clock, except while that is not believed.
    func now() -> Timestamp
}

extension LogWriter {
    /// For a writer without a queue.
    public func append(_ batch: inout RecordBatch, queued: () -> Void) throws(AppendError) -> Range<Position> {
        defer { queued() }
        return try append(&batch)
    }

    public func now() -> Timestamp { SystemClock().now() }
}

public enum AppendError: Error, Sendable, CustomStringConvertible {
    /// No space, or no file descriptor: nothing was written, nothing is lost; try again later. Readers continue.
    case full(String)
    /// A write or an fsync failed, or the log is closed. What is on disk beyond the durable end is unknown.
    case failed(String)

    public var description: String {
        switch self {
        case .full(let message), .failed(let message): message
        }
    }
}

/// Where readers come from, and how far they may read.
public protocol LogSource: AnyObject, Sendable {
    /// How many events are known to be on disk: the last durable position is this less one.
    var durableCount: UInt64 { get }

    /// The oldest position that need not be fetched from elsewhere.
    var firstPosition: Position { get }

    /// A reader that begins at `position`, which may be the durable end (tailing) but not beyond it.
    func reader(from position: Position) throws -> any LogReader

    /// The same for whoever wants decisions only: it may leave out stretches that hold none.
    func decisionReader(from position: Position) throws -> any LogReader

    /// Calls `body` with the log's own events of one schema at `range`, in order, for whoever wants few of very many.
    func forEachEvent(
        of schema: LogSchema, in range: Range<Position>, _ body: (RecordView, Position) throws -> Void
    ) throws

    /// Blocks the calling thread until `durableCount > count`, `stop` returns true or the time is over; returns
    /// `durableCount`. `stop` is evaluated again after `wakeWaiters`; it must not wait for the log.
    func waitForDurable(beyond count: UInt64, timeoutMilliseconds: Int, unless stop: () -> Bool) -> UInt64

    /// Makes every waiter evaluate its `stop` again.
    func wakeWaiters()
}

extension LogSource {
    public func waitForDurable(beyond count: UInt64, timeoutMilliseconds: Int) -> UInt64 {
        waitForDurable(beyond: count, timeoutMilliseconds: timeoutMilliseconds, unless: { false })
    }

    public func wakeWaiters() {}

    public var firstPosition: Position { Position(0) }
    public func decisionReader(from position: Position) throws -> any LogReader { try reader(from: position) }

    public func forEachEvent(
        of schema: LogSchema, in range: Range<Position>, _ body: (RecordView, Position) throws -> Void
    ) throws {
        guard !range.isEmpty else { return }
        let reader = try self.reader(from: range.lowerBound), block = EventBlock()
        while reader.position < range.upperBound, try reader.read(into: block, atLeast: 1 << 20) {
            try block.forEach { record, position in
                guard range.contains(position), record.kind == .system, record.topicString == schema.rawValue
                else { return }
                try body(record, position)
            }
        }
    }
}

/// Reads forward. One consumer's own; not thread-safe.
public protocol LogReader: AnyObject {
    /// The position that `read` continues at.
    var position: Position { get }

    /// Empties `block`, then fills it with whole commit blocks from `position` on, at least one when there is any
    /// durable data, and more while fewer than about `byteCount` bytes are in it. The first events may lie before the
    /// position that was asked for (blocks are whole): consumers skip them. False when nothing durable is left.
    func read(into block: EventBlock, atLeast byteCount: Int) throws -> Bool
}

/// What is wrong with a log on disk. The text says where, and what to do.
public typealias LogError = CodedError<LogErrorCode>

public enum LogErrorCode: Sendable {
    /// Another process has the log open for writing.
    case locked
    /// A file is not ours, or of another log, or of a newer format.
    case foreign
    /// Bytes that were durable are damaged.
    case corrupt
    /// The position asked for was removed, and cannot be had back here.
    case beforeHorizon
    /// The position asked for is beyond the log's end, or before its first event.
    case outOfRange
    /// The operating system refused.
    case system
}
