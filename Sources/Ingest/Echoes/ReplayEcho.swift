import EventLog
import EventModel

/// Recognises what `refold replay publish` took out of this log and the broker brought back to us: it claims to be the
/// event at a position, and the message there has its topic and its payload. Such a message is in the log already and
/// is not recorded again. One that claims so and is not is recorded like any other: a claim alone hides nothing.
///
/// Nothing is fetched for this: what claims to be an event that is no longer on the disk is recorded again.
/// Belongs to its broker's thread.
final class ReplayEcho {
    private let past: PastRecords
    private let logID: [UInt8]

    init(history: any LogSource, logID: String) {
        past = PastRecords(history)
        self.logID = Array(logID.utf8)
    }

    /// Whether a message that has just arrived should be looked at here.
    static func isMarked(_ properties: UnsafeRawBufferPointer) -> Bool {
        RecordProperties.user(ReplayMark.position, in: properties) != nil
    }

    /// - Throws: what reading the log throws; then it is not known.
    func isEcho(_ record: RecordView) throws -> Bool {
        guard !record.flags.contains(.truncated),
            let position = ReplayMark.position(in: record.properties, ofLog: logID),
            let original = try past.record(at: position)
        else { return false }
        return original.kind == .message && !original.flags.contains(.truncated)
            && original.payload.elementsEqual(record.payload) && Self.isTopic(record.topic, of: original.topic)
    }

    /// The topic itself, or behind a prefix that ends with a slash.
    private static func isTopic(_ topic: UnsafeRawBufferPointer, of original: UnsafeRawBufferPointer) -> Bool {
        let prefix = topic.count - original.count
        guard prefix >= 0, topic[prefix...].elementsEqual(original) else { return false }
        // A device's own topic is never a prefix's work.
        return prefix == 0 || topic[prefix - 1] == UInt8(ascii: "/") && DeviceTopic(topic) == nil
    }
}
