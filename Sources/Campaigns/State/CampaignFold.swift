import Decoding
import EventLog
import EventModel
#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// Reads the log into a `CampaignState`: decisions always, what devices say only while a campaign is known that it may
/// concern. Belongs to one thread.
final class CampaignFold {
    private let source: any LogSource
    private let decoder = FactDecoder()
    private let block = EventBlock()
    private var reader: (reader: any LogReader, readsAll: Bool)?
    /// So many events are folded.
    private(set) var end = Position(0)

    init(source: any LogSource) { self.source = source }

    func begin(at position: Position) {
        end = position
        reader = nil
    }

    /// Folds up to `target`, which must be durable.
    /// - Throws: `LogError`, `CampaignLogError`. Begin again then: the state may be half changed.
    func advance(_ state: inout CampaignState, to target: Position) throws {
        while end < target {
            let open = try reader(readingAll: state.wantsReports)
            guard try open.read(into: block, atLeast: 1 << 18) else {
                // Nothing but what may be passed over lies between.
                if !state.wantsReports, open.position >= target { break }
                throw LogError(.outOfRange, "the log ends at \(open.position), before its durable end \(target)")
            }
            let end = self.end
            try block.forEach { record, position in
                guard position >= end, position < target else { return }
                try apply(record, position, to: &state)
            }
            self.end = min(max(end, block.end), target)
        }
        end = max(end, target)
    }

    private func reader(readingAll: Bool) throws -> any LogReader {
        if let open = reader, open.readsAll == readingAll, open.reader.position == end { return open.reader }
        let open = readingAll ? try source.reader(from: end) : try source.decisionReader(from: end)
        reader = (open, readingAll)
        return open
    }

    private func apply(_ record: RecordView, _ position: Position, to state: inout CampaignState) throws {
        switch record.kind {
        case .decision:
            if let event = try CampaignEvent(record, at: position) {
                state.apply(event, at: position, time: record.receivedAt)
            }
        case .message:
            guard state.wantsReports, record.verdict == .accepted, !record.flags.contains(.retained),
                let topic = DeviceTopic(record.topic)
            else { return }
            state.apply(record, topic, at: position, decoder)
        case .system:
            guard record.topicString == LogSchema.clockStepped.rawValue else { return }
            state.moveTimers(by: try Self.clockStep(record, position).movesTimersBy)
        case .connection, .rejection: break
        }
    }

    /// A step that is passed over would leave the timers where they are, and give devices up.
    private static func clockStep(
        _ record: RecordView, _ position: Position
    ) throws(CampaignLogError) -> ClockStepped {
        do {
            return try JSONDecoder().decode(ClockStepped.self, from: Data(record.payload))
        } catch {
            throw CampaignLogError(
                "the event \(LogSchema.clockStepped.rawValue) at position \(position) cannot be understood (\(error)); "
                    + "was it written by a newer version?")
        }
    }
}

extension CampaignState {
    /// Folds the events in `positions`, which must be durable.
    /// - Throws: `LogError`, `CampaignLogError`.
    public mutating func fold(_ positions: Range<Position>, of source: any LogSource) throws {
        let fold = CampaignFold(source: source)
        fold.begin(at: positions.lowerBound)
        try fold.advance(&self, to: positions.upperBound)
    }
}
