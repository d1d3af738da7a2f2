import Decisions
import EventLog
import EventModel

/// Recognises our own commands, which the broker brings back to us because we subscribe to all that devices' topics
/// carry: the message claims to be of a decision in our log, and that decision sent this device exactly these bytes.
/// Such a message says nothing that is not recorded. A claim alone hides nothing: whatever else stands on a command
/// topic is a stranger's.
///
/// Under MQTT 5 the claim is in the user properties, else in the payload's `command_id`. An empty payload takes a
/// retained command back; it can say whose it is in user properties only.
/// Belongs to its broker's thread.
final class CommandEcho {
    private struct Batch {
        let campaignID: Int64
        let tenant: String
        let devices: Set<String>
    }
    private struct Firmware {
        let url: String
        let version: String
        let checksum: String?
    }

    private let history: any LogSource
    private let logID: [UInt8]
    private let past: PastRecords
    /// The last decisions that were claimed, the newest last.
    private var batches: [(position: Position, batch: Batch?)] = []
    private static let batchesMax = 64

    // What the log's decisions below `foldedTo` say of campaigns and their firmware.
    private var foldedTo = Position(0)
    private var firmware: [Int64: Firmware] = [:]
    private var firmwareOfCampaign: [Int64: Int64] = [:]

    init(history: any LogSource, logID: String) {
        self.history = history
        self.logID = Array(logID.utf8)
        past = PastRecords(history)
    }

    /// Whether a topic that has just arrived should be looked at here.
    @inline(__always)
    static func isCandidate(_ topic: UnsafeRawBufferPointer) -> Bool {
        topic.count > 4 && topic.loadUnaligned(fromByteOffset: topic.count - 4, as: UInt32.self) == suffix
    }
    /// `/ota`
    private static let suffix = UInt32(littleEndian: 0x6174_6F2F)

    /// - Throws: what reading the log throws; then it is not known.
    func isEcho(_ record: RecordView) throws -> Bool {
        guard record.kind == .message, !record.flags.contains(.truncated), let topic = DeviceTopic(record.topic),
            topic.topicClass == .otaCommand, let position = claim(of: record), let batch = try batch(at: position),
            record.topic[topic.tenant].elementsEqual(batch.tenant.utf8),
            batch.devices.contains(String(decoding: record.topic[topic.device], as: UTF8.self))
        else { return false }
        if record.payload.isEmpty { return true }
        guard let firmware = try firmware(ofCampaign: batch.campaignID, decidedAt: position) else { return false }
        let command = UpdateCommand(
            campaignID: batch.campaignID, firmwareURL: firmware.url, version: firmware.version,
            checksum: firmware.checksum, command: position)
        return record.payload.elementsEqual(command.payload)
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

    private func batch(at position: Position) throws -> Batch? {
        if let known = batches.last(where: { $0.position == position }) { return known.batch }
        // What is not durable yet may still become anything: no answer is kept.
        guard let record = try past.record(at: position) else { return nil }
        var batch: Batch?
        if record.kind == .decision, record.topic.elementsEqual(CampaignSchema.campaignDispatched.rawValue.utf8),
            let event = try? record.decoded(CampaignDispatched.self)
        {
            batch = Batch(campaignID: event.campaignID, tenant: event.tenantID, devices: Set(event.devices))
        }
        if batches.count >= Self.batchesMax { batches.removeFirst() }
        batches.append((position, batch))
        return batch
    }

    /// Reads on in the log's decisions until the campaign is known, `position` at the furthest: it was created before.
    private func firmware(ofCampaign campaign: Int64, decidedAt position: Position) throws -> Firmware? {
        if firmwareOfCampaign[campaign] == nil, foldedTo < position { try fold(upTo: position) }
        return firmwareOfCampaign[campaign].flatMap { firmware[$0] }
    }

    private func fold(upTo end: Position) throws {
        let reader = try history.decisionReader(from: max(foldedTo, history.firstPosition))
        let block = EventBlock(), start = foldedTo
        while reader.position < end, try reader.read(into: block, atLeast: 1 << 18) {
            block.forEach { record, position in
                guard record.kind == .decision, position >= start, position < end else { return }
                if record.topic.elementsEqual(CampaignSchema.campaignCreated.rawValue.utf8) {
                    guard let event = decoded(CampaignCreated.self, record) else { return }
                    firmwareOfCampaign[event.id] = event.firmwareVersionID
                } else if record.topic.elementsEqual(CampaignSchema.firmwareAdded.rawValue.utf8) {
                    guard let event = decoded(FirmwareAdded.self, record) else { return }
                    firmware[event.id] = Firmware(
                        url: event.fileURL, version: event.version, checksum: event.checksumSHA256)
                }
            }
        }
        foldedTo = end
    }

    private func decoded<T: Decodable>(_ type: T.Type, _ record: RecordView) -> T? {
        try? record.decoded(type)
    }
}
