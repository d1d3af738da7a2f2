import CampaignRules
import Campaigns
import Decisions
import EventLog
import EventModel

extension CampaignWorld {
    /// Every record as it becomes durable.
    func watch(_ record: RecordView, _ position: Position) {
        summary.records += 1
        trace.mix(record.bytes)
        guard record.kind == .decision else { return }
        do {
            guard let event = try CampaignEvent(record, at: position) else { return }
            line("\(position) \(record.topicString) \(String(decoding: record.payload, as: UTF8.self))")
            let hasStepped = log.steppedAt.map { $0 >= recount.known } ?? false
            recount.decision(
                event, at: position.rawValue, time: now, logTime: hasStepped ? nil : record.receivedAt)
        } catch {
            violate("\(error)")
        }
    }

    /// A command is handed over to be sent.
    func handed(_ command: Delivery) {
        guard !command.isRemoval else { return }
        summary.commands += 1
        let delivery = carrier.delivery(command)
        line("to be sent: \(command.deviceID) command \(command.id) of campaign \(command.campaign)")
        if recount.published.contains(delivery) {
            violate("\(command.deviceID) is sent command \(command.id) again, acknowledged as it is on record")
        }
        guard let campaign = recount.campaigns[command.campaign] else { return violate("a command of no campaign") }
        if campaign.status != "RUNNING" { violate("a command of a campaign that is \(campaign.status)") }
        if campaign.devices[command.deviceID]?.command != command.id.rawValue {
            violate("\(command.deviceID) is sent a command that is not on record, or was void")
        }
        if options.plant == .sharesDevices { share(command) }
    }

    /// The planted bug: another campaign sends for the device as well.
    private func share(_ command: Delivery) {
        for (id, campaign) in recount.campaigns where id != command.campaign && campaign.status == "RUNNING" {
            guard let device = campaign.devices[command.deviceID], device.status == "PENDING" else { continue }
            recount.known = log.durableCount
            var batch = RecordBatch()
            CampaignEvent.dispatched(
                CampaignDispatched(
                    campaignID: id, tenantID: campaign.created.tenantID, stage: 0, devices: [command.deviceID],
                    seen: [device.last], paceFrom: 0, paceCount: 0, cause: 0)
            ).append(to: &batch, at: log.now())
            do { try log.record(&batch) } catch { violate("\(error)") }
        }
    }

    /// After a look that went through: the engine and the recount agree, and nothing is left to be decided.
    func check() {
        recount.check(now)
        take(recount.violations)
        guard let state = engine?.state else { return }
        for (id, campaign) in recount.campaigns {
            guard let summary = state.summary(id) else {
                // Forgotten a day after its end.
                if !campaign.hasEnded { violate("the engine does not know campaign \(id)") }
                continue
            }
            if summary.status.rawValue != campaign.status {
                violate("campaign \(id) is \(summary.status.rawValue), and recounted \(campaign.status)")
            }
            if summary.counts != campaign.counts {
                violate("campaign \(id) counts \(summary.counts), and recounted \(campaign.counts)")
            }
            for name in campaign.names where campaign.status == "RUNNING" {
                guard let device = campaign.devices[name], device.status == "DOWNLOADING", let command = device.command,
                    !device.isPublished, !device.hasAnswered
                else { continue }
                if !carrier.held.contains(.init(campaign: id, device: name, command: command)) {
                    violate("\(name)'s command \(command) of campaign \(id) is lost")
                }
            }
        }
        if random.chance(0.004), options.plant == nil { compareWithRefold(state, "at a look") }
    }

    /// The same log gives the same state and the same decisions.
    func compareWithRefold(_ state: CampaignState, _ moment: String) {
        summary.refolds += 1
        do {
            let end = engine?.end ?? Position(log.durableCount)
            var live = state.folded, fresh = CampaignState()
            try fresh.fold(Position(0)..<end, of: log)
            var kept = try CampaignState(stored: state.stored())
            if fresh.stored() != state.stored() {
                return violate("\(moment): another state by the whole log" + (try difference(fresh, state)))
            }
            if kept.stored() != state.stored() { return violate("\(moment): a kept state is another") }
            for seconds in [0.0, 30, 400, 10_000] {
                let then = now.adding(microseconds: Int64(seconds * 1e6))
                let decided = live.advance(then)
                let again = fresh.advance(then), fromKept = kept.advance(then)
                if decided != again {
                    return violate("\(moment): other decisions by the whole log" + difference(decided, again))
                }
                if decided != fromKept {
                    return violate("\(moment): other decisions by a kept state" + difference(decided, fromKept))
                }
            }
        } catch {
            violate("\(moment): \(error)")
        }
    }

    private func difference(_ a: [CampaignEvent], _ b: [CampaignEvent]) -> String {
        options.isRecording ? ": \(a) and \(b)" : ""
    }

    private func difference(_ a: CampaignState, _ b: CampaignState) throws -> String {
        guard options.isRecording else { return "" }
        let one = a.stored(), other = b.stored()
        let same = max(0, zip(one, other).prefix { $0 == $1 }.count - 300)
        func part(_ bytes: [UInt8]) -> String { String(decoding: bytes.dropFirst(same).prefix(400), as: UTF8.self) }
        return ": …\(part(one))… and …\(part(other))…"
    }

    func checkEnd() {
        if options.plant == nil, random.chance(0.5), let state = engine?.state {
            compareWithRefold(state, "at the end")
        }
        for (id, campaign) in recount.campaigns.sorted(by: { $0.key < $1.key }) {
            if !campaign.hasEnded, campaign.status != "CREATED" {
                violate("campaign \(id) is \(campaign.status) at the end")
            }
            if campaign.counts.inFlight > 0 { violate("campaign \(id) ends with devices in flight") }
        }
    }
}
