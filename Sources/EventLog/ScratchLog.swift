import EventModel
import Primitives

/// In-memory log for replaying hypothetical histories through production code. Every append is one commit block. For
/// one thread; `@unchecked Sendable` because the protocols require it.
public final class ScratchLog: LogWriter, LogSource, @unchecked Sendable {
    private var commits: [(base: UInt64, batch: RecordBatch)] = []
    public private(set) var durableCount: UInt64 = 0
    public private(set) var lastTime = Timestamp(microseconds: 0)

    public init() {}

    /// Received-at goes back: see `ClockStepped.era`.
    public func beginEra(at time: Timestamp) { lastTime = time }

    @discardableResult
    public func append(_ batch: inout RecordBatch) throws(AppendError) -> Range<Position> {
        lastTime = batch.raiseTimes(to: lastTime).last
        let base = durableCount
        commits.append((base, batch))
        durableCount += UInt64(batch.count)
        return Position(base)..<Position(durableCount)
    }

    public func append(_ batch: RecordBatch) async throws(AppendError) -> Range<Position> {
        var batch = batch
        return try append(&batch)
    }

    public func reader(from position: Position) throws -> any LogReader { Reader(self, position) }
    public func waitForDurable(
        beyond count: UInt64, timeoutMilliseconds: Int, unless stop: () -> Bool
    ) -> UInt64 {
        durableCount
    }

    /// The commit block that holds a position; nil beyond the end.
    private func index(holding position: Position) -> Int? {
        let index = commits.partitioningIndex { $0.base + UInt64($0.batch.count) > position.rawValue }
        return index < commits.count ? index : nil
    }

    private func add(_ index: Int, to block: EventBlock) {
        let (base, batch) = commits[index]
        let isWhole = batch.withUnsafeBytes { bytes in
            block.append(base: Position(base), count: batch.count, byteCount: bytes.count) { room in
                room.copyMemory(from: bytes)
                return true
            }
        }
        precondition(isWhole, "a batch holds whole records")
    }

    private final class Reader: LogReader {
        private let log: ScratchLog
        private(set) var position: Position

        init(_ log: ScratchLog, _ position: Position) { (self.log, self.position) = (log, position) }

        func read(into block: EventBlock, atLeast byteCount: Int) throws -> Bool {
            guard var index = log.index(holding: position) else { return false }
            block.removeAll(at: Position(log.commits[index].base))
            log.add(index, to: block)
            while index + 1 < log.commits.count, block.byteCount < byteCount {
                index += 1
                log.add(index, to: block)
            }
            position = block.end
            return true
        }
    }
}
