import CampaignRules
import Decisions
import Decoding
import EventModel
import FoundationEssentials

// What devices say, as far as it concerns a campaign.

extension CampaignState {
    /// Words in `commands/ack` with which a device refuses.
    static let refusals: Set<String> = ["REJECTED", "REFUSED", "DENIED"]

    /// Folds what is accepted, and not replayed by the broker.
    public mutating func observe(_ record: RecordView, at position: Position, _ decoder: FactDecoder) {
        guard record.verdict == .accepted, !record.flags.contains(.retained), let topic = DeviceTopic(record.topic)
        else { return }
        switch topic.topicClass {
        case .otaStatus:
            if case .otaStatus(let report) = decoder.decode(record, topic: topic) {
                apply(report, record, topic, at: position)
            }
        case .commandAck:
            if let refs = self.refs(record, topic), case .commandAck(let ack) = decoder.decode(record, topic: topic) {
                let status = String(decoding: ack.status, as: UTF8.self).uppercased()
                let command = UInt64(String(decoding: ack.commandID, as: UTF8.self)).map { Position($0) }
                for ref in refs where command != nil {
                    withCampaign(ref.campaign) { campaign in
                        guard campaign.targets[Int(ref.index)].part.command == command else { return }
                        campaign.acknowledge(
                            ref.index, isRefusal: Self.refusals.contains(status), at: position,
                            time: record.receivedAt)
                    }
                }
            }
        case .shadowReported: show(.shadow, record, topic, at: position, decoder)
        case .telemetry: show(.telemetry, record, topic, at: position, decoder)
        default: break
        }
        wake(record, topic, decoder)
    }

    private func refs(_ record: RecordView, _ topic: DeviceTopic) -> [TargetRef]? {
        refs[String(decoding: record.topic[topic.address], as: UTF8.self)]
    }

    private mutating func apply(
        _ report: OTAReport, _ record: RecordView, _ topic: DeviceTopic, at position: Position
    ) {
        guard let index = index(report.campaignID, record, topic) else { return }
        let before = campaigns[report.campaignID]!.report(
            index, TargetProgress.Report(report.status), command: report.commandID.map { Position($0) }, at: position,
            time: record.receivedAt)
        moved(report.campaignID, index, before)
    }

    private func index(_ campaign: Int64, _ record: RecordView, _ topic: DeviceTopic) -> Int32? {
        guard campaigns[campaign]?.tenantID.utf8.elementsEqual(record.topic[topic.tenant]) ?? false else { return nil }
        return campaigns[campaign]?.indexes[String(decoding: record.topic[topic.device], as: UTF8.self)]
    }

    private mutating func show(
        _ source: CampaignPlan.Verification, _ record: RecordView, _ topic: DeviceTopic, at position: Position,
        _ decoder: FactDecoder
    ) {
        guard campaigns.values.contains(where: { $0.plan.verify == source }), let refs = refs(record, topic)
        else { return }
        let wanted = refs.filter { campaigns[$0.campaign]?.plan.verify == source }
        guard !wanted.isEmpty, let version = Self.version(record, topic, decoder) else { return }
        for ref in wanted {
            guard let id = campaigns[ref.campaign]?.firmwareVersionID, let firmware = firmware[id] else { continue }
            withCampaign(ref.campaign) { $0.show(ref.index, isCampaigns: firmware.version == version, at: position) }
        }
    }

    /// `firmware_version` of the reported shadow or of the metrics, where it is text.
    private static func version(_ record: RecordView, _ topic: DeviceTopic, _ decoder: FactDecoder) -> String? {
        struct Version: Decodable { var firmware_version: String? }
        let json: UnsafeRawBufferPointer
        switch decoder.decode(record, topic: topic) {
        case .shadow(let shadow): json = shadow.reported
        case .telemetry(let telemetry): json = telemetry.metrics
        default: return nil
        }
        // A version that is no text is none; all else in there is the device's own affair.
        return try? JSONDecoder().decode(Version.self, from: Data(json)).firmware_version
    }

    private mutating func wake(_ record: RecordView, _ topic: DeviceTopic, _ decoder: FactDecoder) {
        guard !topic.topicClass.isCommand,
            campaigns.values.contains(where: { $0.plan.delivery == .onConnect && !$0.hasEnded }),
            let refs = refs(record, topic)
        else { return }
        if topic.topicClass == .connection {
            guard case .connection(let report) = decoder.decode(record, topic: topic), report.status == .connected
            else { return }
        }
        for ref in refs { withCampaign(ref.campaign) { $0.wake(ref.index) } }
    }
}

extension TargetProgress.Report {
    init(_ status: OTAReport.Status) {
        self =
            switch status {
            case .downloading: .downloading
            case .installing: .installing
            case .success: .success
            case .failed: .failed
            }
    }
}
