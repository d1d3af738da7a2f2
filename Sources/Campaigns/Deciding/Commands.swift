import Decisions
import EventModel

// What is to be sent, from the state alone: so a restart sends what was decided and not acknowledged, and no more.

extension CampaignState {
    /// The commands of a dispatch, for the devices for which it was not void.
    func commands(_ event: CampaignDispatched, within positions: Range<Position>) -> [DeviceCommand] {
        event.devices.compactMap { device in
            guard let index = campaigns[event.campaignID]?.indexes[device],
                let command = campaigns[event.campaignID]?.targets[Int(index)].part.command, positions.contains(command)
            else { return nil }
            return self.command(event.campaignID, index)
        }
    }

    /// Commands that no broker has acknowledged and no device has answered; none while the campaign may not send.
    func unsent(_ campaign: Int64) -> [DeviceCommand] {
        guard campaigns[campaign]?.status == .running else { return [] }
        let waiting = campaigns[campaign]?.unpublished.sorted { $0.key < $1.key } ?? []
        return waiting.flatMap { $0.value.compactMap { command(campaign, $0) } }
    }

    /// Takes back what the broker keeps for devices that have ended: since that was last asked, or all there are.
    func withdrawals(_ id: Int64, all: Bool) -> [DeviceCommand] {
        guard campaigns[id]?.plan.delivery == .retained else { return [] }
        let indexes: [Int32]
        if all {
            indexes = campaigns[id]?.targets.indices.map { Int32($0) } ?? []
        } else {
            indexes = campaigns[id]?.endedRetained ?? []
        }
        return indexes.compactMap { index in
            guard campaigns[id]?.targets[Int(index)].part.status.hasEnded ?? false, var command = command(id, index)
            else { return nil }
            command.isWithdrawal = true
            return command
        }
    }

    var hasEndedRetained: Bool { campaigns.values.contains { !$0.endedRetained.isEmpty } }

    mutating func forgetEndedRetained() {
        for id in campaigns.keys { withCampaign(id) { $0.endedRetained = [] } }
    }

    private func command(_ id: Int64, _ index: Int32) -> DeviceCommand? {
        guard let firmwareID = campaigns[id]?.firmwareVersionID, let firmware = firmware[firmwareID],
            let target = campaigns[id]?.targets[Int(index)], let position = target.part.command
        else { return nil }
        return DeviceCommand(
            campaignID: id, tenantID: firmware.tenantID, deviceID: target.id, command: position,
            firmwareURL: firmware.fileURL, version: firmware.version, checksum: firmware.checksum,
            isRetained: campaigns[id]?.plan.delivery == .retained)
    }
}
