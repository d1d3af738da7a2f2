import Decisions
import EventModel

/// Broker acknowledgements not yet recorded in the log. A complete batch becomes one
/// short event; for a batch that is incomplete after 2 s the event lists the devices.
struct DeliveryReceipts: Sendable {
    private struct Batch {
        let campaign: Int64
        var devices: Set<String> = []
        let since: Timestamp
    }
    private var batches: [Position: Batch] = [:]
    private static let patienceMicroseconds: Int64 = 2_000_000

    /// When the oldest incomplete batch is recorded all the same.
    var due: Timestamp? { batches.values.map(\.since).min()?.adding(microseconds: Self.patienceMicroseconds) }

    mutating func add(_ deliveries: [Delivery], at now: Timestamp) {
        for delivery in deliveries where !delivery.isRemoval {
            guard let campaign = delivery.campaignID else { continue }
            batches[delivery.id, default: Batch(campaign: campaign, since: now)].devices.insert(delivery.deviceID)
        }
    }

    /// Removes acknowledgements that the log has recorded.
    mutating func forget(_ event: CampaignPublished) {
        for recorded in event.batches {
            let command = Position(recorded.command)
            if let devices = recorded.devices { batches[command]?.devices.subtract(devices) }
            if recorded.devices == nil || batches[command]?.devices.isEmpty ?? false { batches[command] = nil }
        }
    }

    /// Events to append now. Entries stay until the events are folded, because an append may fail.
    mutating func decisions(_ now: Timestamp, _ state: CampaignState, all: Bool = false) -> [CampaignEvent] {
        guard !batches.isEmpty else { return [] }
        var recorded: [Int64: [CampaignPublished.Batch]] = [:]
        for (command, batch) in batches.sorted(by: { $0.key < $1.key }) {
            let waiting = state.unpublished(batch.campaign, command)
            let taken = waiting.filter { batch.devices.contains($0) }, isWhole = taken.count == waiting.count
            // The log's clock may have been set back since.
            let waited = now.microseconds.saturatingSubtracting(batch.since.microseconds)
            let isLate = waited < 0 || waited >= Self.patienceMicroseconds
            guard isWhole || isLate || all else { continue }
            guard !taken.isEmpty else {
                // Answered, ended or forgotten in the meantime: there is nothing to record.
                batches[command] = nil
                continue
            }
            recorded[batch.campaign, default: []].append(
                CampaignPublished.Batch(command: command.rawValue, devices: isWhole ? nil : taken))
        }
        return recorded.sorted { $0.key < $1.key }.compactMap { campaign, batches in
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
