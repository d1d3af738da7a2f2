import EventLog
import EventModel
import Snapshots

/// A log that can be asked for its past: by time, and for the events of one device.
public protocol PastLog: LogSource {
    /// The first event received at or after `time`; the durable end when there is none.
    func position(atOrAfter time: Timestamp) throws -> Position
    /// The selected events among those at `range`, of what is on this disk.
    func events(_ selection: EventSelection, in range: Range<Position>) -> KeyedReader
}

extension FileLog: PastLog {}
extension ReadOnlyLog: PastLog {}

/// A moment in the life of a log.
public struct Moment: Sendable, Equatable {
    /// So many events had happened.
    public let end: Position
    /// The time that was asked for, or that of the last event: what presence is told by.
    public let time: Timestamp

    public init(end: Position, time: Timestamp) {
        self.end = end
        self.time = time
    }

    /// - Throws: `LogError`: `.outOfRange` for a position that is not there yet, `.beforeHorizon` when it cannot be
    ///   told any more which events came before a time.
    public init(_ name: PointInTime, in log: any PastLog, snapshots: SnapshotFolder) throws {
        switch name {
        case .position(let position):
            let durable = log.durableCount
            guard position < durable else {
                throw LogError(
                    .outOfRange,
                    "there is no event at position \(position) yet: the log holds \(durable) "
                        + "events")
            }
            end = Position(position).next
            time = try Self.time(of: end, log, snapshots)
        case .time(let wanted):
            let found = try log.position(atOrAfter: wanted.adding(microseconds: 1)), first = log.firstPosition
            (end, time) = (found, wanted)
            // What was removed may have been received later than that.
            guard found == first, first > Position(0) else { return }
            let snapshot = try snapshots.newest(atOrBefore: first, where: { $0.end == first })
            guard let last = snapshot?.description.lastTime.flatMap({ Timestamp(rfc3339: $0) }), last <= wanted else {
                throw LogError(
                    .beforeHorizon,
                    "\(wanted) lies before the horizon: on this disk the log begins at "
                        + "position \(first). Name the moment by --position, where a snapshot or the archive has it")
            }
        }
    }

    private static func time(of end: Position, _ log: any PastLog, _ snapshots: SnapshotFolder) throws -> Timestamp {
        let last = Position(end.rawValue - 1)
        if last < log.firstPosition, let snapshot = try snapshots.newest(atOrBefore: end, where: { $0.end == end }),
            let time = snapshot.description.lastTime.flatMap({ Timestamp(rfc3339: $0) })
        {
            return time
        }
        guard let time = try log.receivedAt(last) else {
            throw LogError(.outOfRange, "there is no event at position \(last)")
        }
        return time
    }
}
