import EventLog
import EventModel
import Foundation
import Synchronization

/// A log in memory whose appends are durable at once. Each append is one commit block.
public final class MemoryLog: LogSource {
    private struct Commit {
        var base: Position
        var count: Int
        var bytes: [UInt8]
    }
    private struct State {
        var commits: [Commit] = []
        var count: UInt64 = 0
        /// Reading at or behind this fails as on a damaged disk.
        var corruptFrom: UInt64 = .max
    }
    private let state = Mutex(State())
    private let changed = NSCondition()

    public init() {}

    /// Appends accepted messages on `topics`, one event each.
    public func append(_ topics: [String], payload: String = "{}", receivedAt: Timestamp? = nil) {
        var batch = RecordBatch()
        let time = receivedAt ?? Timestamp(microseconds: Int64(Date().timeIntervalSince1970 * 1_000_000))
        for topic in topics {
            Array(topic.utf8).withUnsafeBytes { topic in
                Array(payload.utf8).withUnsafeBytes { payload in
                    batch.append(
                        kind: .message, verdict: .accepted, flags: RecordFlags(qos: 1), receivedAt: time,
                        packetID: 1,
                        broker: UnsafeRawBufferPointer(start: nil, count: 0), topic: topic,
                        properties: UnsafeRawBufferPointer(start: nil, count: 0), payload: payload)
                }
            }
        }
        let bytes = batch.bytes
        state.withLock {
            $0.commits.append(Commit(base: Position($0.count), count: topics.count, bytes: bytes))
            $0.count += UInt64(topics.count)
        }
        changed.lock()
        changed.broadcast()
        changed.unlock()
    }

    public func damage(from position: UInt64) { state.withLock { $0.corruptFrom = position } }

    public var durableCount: UInt64 { state.withLock { $0.count } }

    public func reader(from position: Position) throws -> any LogReader {
        Reader(log: self, position: position)
    }

    public func wakeWaiters() {
        changed.lock()
        changed.broadcast()
        changed.unlock()
    }

    public func waitForDurable(
        beyond count: UInt64, timeoutMilliseconds: Int, unless stop: () -> Bool
    ) -> UInt64 {
        let deadline = Date().addingTimeInterval(Double(timeoutMilliseconds) / 1000)
        changed.lock()
        defer { changed.unlock() }
        while durableCount <= count, !stop(), changed.wait(until: deadline) {}
        return durableCount
    }

    private final class Reader: LogReader {
        let log: MemoryLog
        var position: Position

        init(log: MemoryLog, position: Position) {
            self.log = log
            self.position = position
        }

        func read(into block: EventBlock, atLeast byteCount: Int) throws -> Bool {
            block.removeAll(at: position)
            let (commits, corrupt) = log.state.withLock { state in
                // Commits lie in order of their bases: skip those that end before the position.
                let first = state.commits.partitioningIndex { $0.base.advanced(by: $0.count) > position }
                return (state.commits[first...], state.corruptFrom)
            }
            for commit in commits {
                if commit.base.rawValue + UInt64(commit.count) > corrupt {
                    if !block.isEmpty { break }
                    throw LogError(.corrupt, "positions \(commit.base) to … are damaged")
                }
                let good = block.append(base: commit.base, count: commit.count, byteCount: commit.bytes.count) {
                    $0.copyBytes(from: commit.bytes)
                    return true
                }
                precondition(good, "a memory log cannot be damaged")
                position = block.end
                if block.byteCount >= byteCount { break }
            }
            return !block.isEmpty
        }
    }
}

extension Array {
    fileprivate func partitioningIndex(_ belongsToSecond: (Element) -> Bool) -> Int {
        var low = 0, high = count
        while low < high {
            let middle = (low + high) / 2
            if belongsToSecond(self[middle]) { high = middle } else { low = middle + 1 }
        }
        return low
    }
}
