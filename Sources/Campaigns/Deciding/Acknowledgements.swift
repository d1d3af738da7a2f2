import Decisions
import EventModel

/// Broker acknowledgements not yet recorded in the log. A complete batch becomes one short event; for a batch that is
/// incomplete after 2 s the event lists the devices.
struct Acknowledgements {
    private struct Batch {
        let campaign: Int64
        var devices: Set<String> = []
        let since: Timestamp
    }
    private var batches: [Position: Batch] = [:]
    private var arrived: [DeviceCommand] = []
    private static let patienceMicroseconds: Int64 = 2_000_000

    /// When the oldest incomplete batch is taken all the same.
    var due: Timestamp? { batches.values.map(\.since).min()?.adding(microseconds: Self.patienceMicroseconds) }

    mutating func add(_ command: DeviceCommand) { arrived.append(command) }

    /// The events to append now. What is in them is forgotten here.
    mutating func take(_ now: Timestamp, _ state: CampaignState, all: Bool = false) -> [CampaignEvent] {
        for command in arrived {
            batches[command.command, default: Batch(campaign: command.campaignID, since: now)]
                .devices.insert(command.deviceID)
        }
        arrived.removeAll(keepingCapacity: true)
        guard !batches.isEmpty else { return [] }
        var said: [Int64: [CampaignPublished.Batch]] = [:]
        for (command, batch) in batches.sorted(by: { $0.key < $1.key }) {
            let waiting = state.unpublished(batch.campaign, command)
            let taken = waiting.filter { batch.devices.contains($0) }, isWhole = taken.count == waiting.count
            // The log's clock may have been set back since.
            let waited = now.microseconds - batch.since.microseconds
            let isLate = waited < 0 || waited >= Self.patienceMicroseconds
            guard isWhole || isLate || all else { continue }
            batches[command] = nil
            // Answered, ended or forgotten in the meantime: there is nothing to say.
            guard !taken.isEmpty else { continue }
            said[batch.campaign, default: []].append(
                CampaignPublished.Batch(command: command.rawValue, devices: isWhole ? nil : taken))
        }
        return said.sorted { $0.key < $1.key }.compactMap { campaign, batches in
            guard let tenant = state.campaigns[campaign]?.tenantID else { return nil }
            return .published(CampaignPublished(campaignID: campaign, tenantID: tenant, batches: batches))
        }
    }
}

extension CampaignState {
    /// Devices whose command of this decision the broker has not acknowledged, as far as the log says.
    fileprivate func unpublished(_ campaign: Int64, _ command: Position) -> [String] {
        let indexes = campaigns[campaign]?.unpublished[command] ?? []
        return indexes.compactMap { campaigns[campaign]?.targets[Int($0)].id }
    }
}
