import EventLog
import EventModel
import Projecting
import Projections

/// One run of the daemon, as far as the log sees it: a log that is open, connections that append to it, projectors and
/// readers beside them.
final class WriterProcess {
    let view: SimulatedFileSystem
    let threads = SteppedThreads()
    var log: FileLog?
    var connections: [Connection]
    var projectors: [ProjectorSlot]
    var readers: [ReaderSlot]
    /// The log said that it writes no more: the process ends.
    var hasFailed = false

    init(view: SimulatedFileSystem, sessions: Int) {
        self.view = view
        connections = (0..<sessions).map { _ in Connection() }
        projectors = NaiveFold.projections.map { ProjectorSlot(name: $0) }
        // A second projector of one projection: only one of the two may ever advance.
        projectors.append(ProjectorSlot(name: NaiveFold.projections[0]))
        readers = [ReaderSlot(), ReaderSlot()]
    }

    /// A batch that was given to the log, of one broker session. At most one at a time: its order is the session's.
    struct Connection {
        var batch: [Int] = []
        var outcome: Outcome?
    }

    struct ProjectorSlot {
        let name: String
        var pass: ProjectionPass?
    }

    struct ReaderSlot {
        var reader: (any LogReader)?
        let block = EventBlock()
    }
}

/// Where the log leaves a batch's fate.
/// `@unchecked Sendable`: everything runs on the world's one thread.
final class Outcome: @unchecked Sendable {
    var result: Result<Range<Position>, AppendError>?
}

extension Fleet {
    func batch(_ numbers: [Int], at time: Timestamp) -> RecordBatch {
        var batch = RecordBatch()
        for number in numbers {
            let message = messages[number]
            message.topic.withUnsafeBytes { topic in
                message.payload.withUnsafeBytes { payload in
                    batch.append(
                        kind: .message, verdict: .accepted, flags: RecordFlags(qos: 1), receivedAt: time,
                        packetID: UInt16(truncatingIfNeeded: number),
                        broker: UnsafeRawBufferPointer(start: nil, count: 0), topic: topic,
                        properties: UnsafeRawBufferPointer(start: nil, count: 0), payload: payload)
                }
            }
        }
        return batch
    }
}
