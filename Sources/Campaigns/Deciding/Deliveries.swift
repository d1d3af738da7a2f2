import Deciding
import Decisions
import EventModel

// What is sent, from the state alone: a restart sends what was decided and not acknowledged, and no more.

extension CampaignState {
    public func effects(of events: [CampaignEvent], at positions: Range<Position>) -> [Effect] {
        events.compactMap { event in
            switch event {
            case .dispatched(let event): return .send(deliveries(of: event, within: positions))
            case .statusChanged(.campaignResumed, let event): return .send(unsent(event.campaignID))
            case .statusChanged(let schema, let event):
                let halts = [.campaignPaused, .campaignAborted, .campaignCompleted].contains(schema)
                return halts ? .withdraw(subject: UpdateCommand.subject(event.campaignID)) : nil
            default: return nil
            }
        }
    }

    public mutating func pendingEffects() -> [Effect] {
        forgetEndedRetained()
        let halted = campaignIDs.filter { campaigns[$0]?.status != .running }
        return halted.map { .withdraw(subject: UpdateCommand.subject($0)) }
            + [.send(campaignIDs.flatMap { unsent($0) + removals($0, all: true) })]
    }

    public mutating func takeEffects() -> [Effect] {
        guard campaigns.values.contains(where: { !$0.endedRetained.isEmpty }) else { return [] }
        defer { forgetEndedRetained() }
        return [.send(campaignIDs.flatMap { removals($0, all: false) })]
    }

    /// For the devices for which the dispatch was not void.
    private func deliveries(of event: CampaignDispatched, within positions: Range<Position>) -> [Delivery] {
        let dispatched = event.devices.compactMap { device -> Int32? in
            guard let index = campaigns[event.campaignID]?.indexes[device],
                let command = campaigns[event.campaignID]?.targets[Int(index)].part.command, positions.contains(command)
            else { return nil }
            return index
        }
        return deliveries(event.campaignID, dispatched)
    }

    /// Those that no broker has acknowledged and no device has answered; none while the campaign may not send.
    private func unsent(_ campaign: Int64) -> [Delivery] {
        guard campaigns[campaign]?.status == .running else { return [] }
        let waiting = campaigns[campaign]?.unpublished.sorted { $0.key < $1.key } ?? []
        return deliveries(campaign, waiting.flatMap(\.value))
    }

    /// Remove what the broker retains for devices that have ended: since that was last asked, or all there are.
    private func removals(_ id: Int64, all: Bool) -> [Delivery] {
        guard let campaign = campaigns[id], campaign.plan.delivery == .retained else { return [] }
        let indexes = all ? campaign.targets.indices.map { Int32($0) } : campaign.endedRetained
        let ended = indexes.filter { index in
            campaign.targets[Int(index)].part.status.hasEnded && !isRetaining(campaign.address(index))
        }
        return deliveries(id, ended, removes: true)
    }

    /// The broker's retained message for the device is that of a campaign which still needs it.
    private func isRetaining(_ address: String) -> Bool {
        (refs[address] ?? []).contains { ref in
            guard let campaign = campaigns[ref.campaign], campaign.plan.delivery == .retained else { return false }
            return campaign.targets[Int(ref.index)].part.status.isInFlight
        }
    }

    private mutating func forgetEndedRetained() {
        for id in campaigns.keys { withCampaign(id) { $0.endedRetained = [] } }
    }

    /// Of the devices that have a command.
    private func deliveries(_ id: Int64, _ indexes: [Int32], removes: Bool = false) -> [Delivery] {
        guard let campaign = campaigns[id], let firmware = firmware[campaign.firmwareVersionID] else { return [] }
        // The devices of one dispatch share the payload.
        var last: (command: Position, payload: [UInt8])?
        return indexes.compactMap { index in
            let target = campaign.targets[Int(index)]
            guard let command = target.part.command else { return nil }
            if last?.command != command {
                let update = UpdateCommand(
                    campaignID: id, firmwareURL: firmware.fileURL, version: firmware.version,
                    checksum: firmware.checksum, command: command)
                last = (command, removes ? [] : update.payload)
            }
            return Delivery(
                id: command, subject: UpdateCommand.subject(id), tenantID: firmware.tenantID, deviceID: target.id,
                channel: UpdateCommand.channel, payload: last?.payload ?? [],
                isRetained: removes || campaign.plan.delivery == .retained)
        }
    }
}
