import Decisions
import EventLog
import EventModel

/// Detects our own commands when a broker returns them: the subscription covers command topics. A message is an echo if
/// it names a decision in our log and that decision sends exactly this payload to this topic. It is not recorded again.
/// Anything else on a command topic is a foreign command.
///
/// Under MQTT 5 the claim is in the user properties, else in the payload's `command_id`. An empty payload takes a
/// retained command back; it can say whose it is in user properties only.
/// Belongs to its broker's thread.
final class CommandEcho {
    private let logID: [UInt8]
    private let past: PastRecords
    /// The last decisions that were claimed, the newest last: what each sends, by topic.
    private var claimed: [(position: Position, payloads: [String: [UInt8]])] = []
    private static let claimedMax = 64

    init(history: any LogSource, logID: String) {
        self.logID = Array(logID.utf8)
        past = PastRecords(history)
    }

    /// Whether a topic that has just arrived should be looked at here.
    @inline(__always)
    static func isCandidate(_ topic: UnsafeRawBufferPointer) -> Bool {
        guard topic.count > 12 else { return false }
        let end = topic.loadUnaligned(fromByteOffset: topic.count - 4, as: UInt32.self)
        return end == otaEnd || end == certificateEnd
    }
    /// `/ota`
    private static let otaEnd = UInt32(littleEndian: 0x6174_6F2F)
    /// `cate`, of `/certificate`
    private static let certificateEnd = UInt32(littleEndian: 0x6574_6163)

    /// - Throws: what reading the log throws; then it is not known.
    func isEcho(_ record: RecordView) throws -> Bool {
        guard record.kind == .message, !record.flags.contains(.truncated), let position = claim(of: record),
            let sent = try payloads(ofDecisionAt: position)[record.topicString]
        else { return false }
        return record.payload.isEmpty || record.payload.elementsEqual(sent)
    }

    private func claim(of record: RecordView) -> Position? {
        let names = (ReplayMark.log, ReplayMark.position)
        if RecordProperties.user(names.0, in: record.properties) != nil
            || RecordProperties.user(names.1, in: record.properties) != nil
        {
            return ReplayMark.position(in: record.properties, ofLog: logID)
        }
        return UpdateCommand.claim(in: record.payload)
    }

    /// Payloads by topic; empty if the record at `position` is no decision, or one that sends nothing.
    private func payloads(ofDecisionAt position: Position) throws -> [String: [UInt8]] {
        if let known = claimed.last(where: { $0.position == position }) { return known.payloads }
        // What is not durable yet may still become anything: no answer is kept.
        guard let record = try past.record(at: position) else { return [:] }
        var payloads: [String: [UInt8]] = [:]
        // A decision that cannot be decoded has sent nothing that we would recognise.
        if record.kind == .decision,
            let type = DecisionCatalog.all.type(of: record.topicString), type.causesDeliveries,
            let decision = try? type.decoded(record)
        {
            for delivery in decision.deliveries(at: position) { payloads[delivery.topic] = delivery.payload }
        }
        if claimed.count >= Self.claimedMax { claimed.removeFirst() }
        claimed.append((position, payloads))
        return payloads
    }
}
