import Campaigns
import Decisions
import Decoding
import EventModel

/// What is on record of one campaign, in order: decisions, and of each target its first report and its result.
struct CampaignHistory {
    struct Occurrence: Equatable {
        var position: Position
        var at: Timestamp
    }
    struct Target: Equatable {
        var begun: Occurrence?
        /// The first terminal state that it reported.
        var result: (moment: Occurrence, failed: Bool)?

        static func == (a: Target, b: Target) -> Bool {
            a.begun == b.begun && a.result?.moment == b.result?.moment && a.result?.failed == b.result?.failed
        }
    }
    enum Step {
        case status(CampaignStatus, actor: String, reason: String?)
        case result(device: String, failed: Bool)
    }

    let id: Int64
    let tenantID: String
    let name: String
    let threshold: Double?
    let created: Occurrence
    var targets: [String: Target] = [:]
    /// Changes of status and results, as they came.
    var steps: [(moment: Occurrence, step: Step)] = []
}

/// All campaigns' histories, folded from the log.
struct CampaignHistories {
    private let decoder = FactDecoder()
    private(set) var campaigns: [Int64: CampaignHistory] = [:]

    mutating func apply(_ record: RecordView, _ position: Position) {
        let moment = CampaignHistory.Occurrence(position: position, at: record.receivedAt)
        if record.kind == .decision {
            switch decoder.decodeInternal(record).decision {
            case let event as CampaignCreated where campaigns[event.id] == nil:
                campaigns[event.id] = CampaignHistory(
                    id: event.id, tenantID: event.tenantID, name: event.name, threshold: event.abortThreshold,
                    created: moment)
            case let event as CampaignTargets:
                for device in event.devices where campaigns[event.campaignID]?.targets[device] == nil {
                    campaigns[event.campaignID]?.targets[device] = .init()
                }
            case let event as CampaignStatusChanged:
                guard let status = CampaignStatus(rawValue: event.after) else { return }
                campaigns[event.campaignID]?.steps
                    .append((moment, .status(status, actor: event.actor, reason: event.reason)))
            default: break
            }
        } else if record.kind == .message, record.verdict == .accepted, !record.flags.contains(.retained),
            let topic = DeviceTopic(record.topic), topic.topicClass == .otaStatus,
            case .otaStatus(let report) = decoder.decode(record, topic: topic)
        {
            apply(report, record, topic, moment)
        }
    }

    private mutating func apply(
        _ report: OTAReport, _ record: RecordView, _ topic: DeviceTopic, _ moment: CampaignHistory.Occurrence
    ) {
        guard let tenant = campaigns[report.campaignID]?.tenantID, record.topic[topic.tenant].elementsEqual(tenant.utf8)
        else { return }
        let device = String(decoding: record.topic[topic.device], as: UTF8.self)
        guard var target = campaigns[report.campaignID]?.targets[device], target.result == nil else { return }
        if target.begun == nil { target.begun = moment }
        if report.status.isTerminal {
            let failed = report.status == .failed
            target.result = (moment, failed)
            campaigns[report.campaignID]?.steps.append((moment, .result(device: device, failed: failed)))
        }
        campaigns[report.campaignID]?.targets[device] = target
    }
}
