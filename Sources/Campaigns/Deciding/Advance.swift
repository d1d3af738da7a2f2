import CampaignRules
import Deciding
import Decisions
import EventModel

// What the engine decides by itself. Pure: the state and the time give the decisions; they take effect when they are
// folded back from the log.

extension CampaignState {
    /// At most so many devices are dispatched at a time, of one campaign.
    static let dispatchedAtOnceMax = 5_000

    public mutating func advance(_ now: Timestamp) -> [CampaignEvent] {
        var events = receipts.decisions(now, self)
        if !events.isEmpty { return events }
        // Devices that were given to a campaign in this round.
        var taken: Set<String> = []
        for id in campaignIDs {
            guard let at = campaigns.index(forKey: id) else { continue }
            let image = firmware[campaigns.values[at].firmwareVersionID]
            events += campaigns.values[at].advance(now, image) { [busy] address in
                if let other = busy[address], other != id { return .busy }
                return taken.insert(address).inserted ? .given : .later
            }
        }
        return events + endedLongAgo(now).map { .archived(CampaignArchived(campaignID: $0.id, tenantID: $0.tenantID)) }
    }

    /// Acknowledgements of incomplete batches are recorded too, because nobody comes back to them.
    public mutating func conclude(_ now: Timestamp) -> [CampaignEvent] { receipts.decisions(now, self, all: true) }

    public mutating func acknowledged(_ deliveries: [Delivery], at now: Timestamp) { receipts.add(deliveries, at: now) }

    public mutating func nextDeadline(after now: Timestamp) -> Timestamp? {
        var next = receipts.due
        for id in campaignIDs {
            guard let at = campaigns.index(forKey: id),
                let wake = campaigns.values[at].nextWake(
                    after: now, dispatches: firmware[campaigns.values[at].firmwareVersionID] != nil)
            else {
                continue
            }
            next = min(next ?? wake, wake)
        }
        return next
    }
}

extension Campaign {
    /// Whether a campaign may send for a device.
    enum Claim {
        case given
        /// In flight for another campaign: it queues again when it is free.
        case busy
        /// Given to another campaign in this round.
        case later
    }

    /// - Parameters:
    ///   - firmware: nil: not known; nothing is dispatched.
    ///   - take: claims a device, by its address, for this campaign.
    mutating func advance(
        _ now: Timestamp, _ firmware: CampaignState.Firmware?, take: (String) -> Claim
    ) -> [CampaignEvent] {
        guard status != .created else { return [] }
        let ended = endsByEvidence() + endsByTime(now)
        if !ended.isEmpty { return ended }
        if hasEnded { return status == .aborted ? endsOfTheRest("ABORTED") : [] }
        if let event = judge() { return [event] }
        if let (code, reason) = closing(now) {
            let ended = endsOfTheRest(code) + endsInFlight()
            return ended.isEmpty ? [complete(code, reason)] : ended
        }
        guard status == .running else { return [] }
        if let event = judgeStage(now) { return [event] }
        if counts.open == 0, retryCount == 0 {
            return [complete("ALL_ENDED", "every device has ended")]
        }
        return firmware.map { dispatch(now, $0, take: take) } ?? []
    }

    // MARK: devices

    /// Refusals, versions that were seen.
    private mutating func endsByEvidence() -> [CampaignEvent] {
        var ends = Ends()
        verdicts = verdicts.filter { targets[Int($0)].verdict != nil }
        for index in Set(verdicts).sorted() {
            guard let verdict = targets[Int(index)].verdict else { continue }
            ends.add(index, verdict.status, verdict.kind?.rawValue, cause: verdict.cause)
        }
        return ends.events(of: self)
    }

    /// Devices whose time is over.
    private mutating func endsByTime(_ now: Timestamp) -> [CampaignEvent] {
        var ends = Ends(), due: [Due] = []
        while let first = timers.min, first.at <= now.microseconds {
            timers.removeMin()
            // A device may have had the same time twice: its entries follow one another.
            let isTwice = due.last.map { $0.at == first.at && $0.index == first.index } ?? false
            if targets[Int(first.index)].timer == first.at, !isTwice { due.append(first) }
        }
        for item in due {
            // It stands until the decision is folded: an append may fail.
            timers.insert(item)
            end(item.index, &ends)
        }
        return ends.events(of: self)
    }

    /// As what a device in flight ends that gives no result.
    private func end(_ index: Int32, _ ends: inout Ends) {
        let target = targets[Int(index)]
        switch target.part.status {
        case .verifying:
            if let shown = target.shown, !shown.isCampaigns {
                ends.add(index, .failed, OTAFailureKind.rolledBack.rawValue, cause: shown.at)
            } else {
                ends.add(index, .failed, OTAFailureKind.notVerified.rawValue)
            }
        case .downloading, .installing:
            if target.hasAnswered {
                ends.add(index, .timedOut, nil)
            } else if target.isPublished {
                ends.add(index, .unreachable, nil)
            }
            // That we could not send is no failure of the device's.
            else {
                ends.add(index, .skipped, "NOT_SENT")
            }
        default: break
        }
    }

    /// Devices that were never dispatched, or whose command did not get as far as the broker.
    private mutating func endsOfTheRest(_ code: String) -> [CampaignEvent] {
        var ends = Ends()
        if counts.pending > 0 {
            for index in targets.indices where targets[index].part.status == .pending {
                let neverSeen = plan.delivery == .onConnect && !targets[index].isAwake && code != "ABORTED"
                ends.add(Int32(index), neverSeen ? .unreachable : .skipped, neverSeen ? nil : code)
            }
        }
        for index in unpublished.values.joined().sorted() { ends.add(index, .skipped, "NOT_SENT") }
        return ends.events(of: self)
    }

    private func endsInFlight() -> [CampaignEvent] {
        guard counts.inFlight > 0 else { return [] }
        var ends = Ends()
        let waiting = Set(unpublished.values.joined())
        for index in targets.indices where targets[index].part.status.isInFlight && !waiting.contains(Int32(index)) {
            end(Int32(index), &ends)
        }
        return ends.events(of: self)
    }

    // MARK: the campaign

    /// Whether the results are bad enough to stop.
    private mutating func judge() -> CampaignEvent? {
        let action = plan.abort.action
        guard status == .running || action == .abort else { return nil }
        if let limit = plan.abort.consecutiveFailuresMax, consecutiveFailures >= limit {
            return stop("CONSECUTIVE_FAILURES", "\(consecutiveFailures) devices failed one after the other")
        }
        guard successes + failures >= plan.abort.resultsMin else { return nil }
        switch plan.abort.method {
        case .none: return nil
        case .ratio:
            guard AbortRule(threshold: threshold).aborts(succeeded: successes, failed: failures) else { return nil }
            return stop("ABORT_THRESHOLD", "\(failures) of \(successes + failures) devices failed")
        case .sequential:
            guard let test, test.exceeds else { return nil }
            return stop("ABORT_THRESHOLD", "\(test.explanation)")
        }
    }

    /// Success of a stage that is over and has soaked; the next stage, or a stop.
    private mutating func judgeStage(_ now: Timestamp) -> CampaignEvent? {
        guard !isLastStage, let since = stageEndedAt, plan.stages.indices.contains(stage),
            now >= since.moved(by: Int64(saturating: plan.stages[stage].soakSeconds * 1_000_000))
        else { return nil }
        let results = successes + failures, wanted = plan.stages[stage].successMin
        // Whether it fails too often is the abort rule's to judge: few results say little. But none must say nothing.
        let isEnough = successes > 0 && Double(successes) >= (wanted ?? 0) * Double(results)
        guard waivedStage == stage || wanted == 0 || isEnough else {
            let condition = wanted.map { "a share of \($0) is wanted" } ?? "one at least is wanted"
            return stop(
                "STAGE_FAILED", "stage \(stage + 1): \(successes) of \(results) results are successes; \(condition)")
        }
        var next = stage + 1
        while next < plan.stages.count - 1, devicesMax(stage: next) <= begun { next += 1 }
        var event = CampaignStageBegun(
            campaignID: id, tenantID: tenantID, stage: next, devicesMax: devicesMax(stage: next), counts: counts)
        event.cause = lastResult?.rawValue
        return .stageBegun(event)
    }

    /// Why the campaign is to end now, finished or not.
    private func closing(_ now: Timestamp) -> (code: String, reason: String)? {
        guard let startedAt else { return nil }
        let elapsed = Double(now.microseconds - startedAt.microseconds) / 1_000_000
        if elapsed >= plan.timeouts.campaignSeconds {
            return ("DEADLINE", "\(Int(saturating: plan.timeouts.campaignSeconds)) s have passed since its start")
        }
        let ended = Double(counts.total - counts.open - retryCount)
        if plan.completion.share < 1, elapsed >= plan.completion.seconds,
            ended >= plan.completion.share * Double(counts.total)
        {
            return ("SHARE_REACHED", "\(Int(ended)) of \(counts.total) devices have ended")
        }
        return nil
    }

    private func stop(_ code: String, _ reason: String) -> CampaignEvent {
        let pauses = plan.abort.action == .pause
        return statusChange(
            pauses ? .campaignPaused : .campaignAborted, to: pauses ? .paused : .aborted, code, reason)
    }

    private func complete(_ code: String, _ reason: String) -> CampaignEvent {
        statusChange(.campaignCompleted, to: .completed, code, reason)
    }

    private func statusChange(
        _ schema: CampaignSchema, to status: CampaignStatus, _ code: String, _ reason: String
    ) -> CampaignEvent {
        var event = CampaignStatusChanged(
            campaignID: id, tenantID: tenantID, before: self.status.rawValue, after: status.rawValue,
            actor: EngineActor.name)
        event.code = code
        event.reason = reason
        event.cause = lastResult?.rawValue
        event.evidence = evidence.isEmpty ? nil : evidence
        event.counts = counts
        return .statusChanged(schema, event)
    }
}

/// Collects devices that end, by how they end; a record names at most `targetsPerRecordMax`.
private struct Ends {
    private struct Ending: Hashable {
        let status: OTADeviceStatus
        let kind: String?
    }
    // It holds nothing of the campaign: a second reference would have its queues copied at their next change.
    private var endings: [Ending] = []
    private var found: [Ending: [(index: Int32, cause: Position?)]] = [:]

    mutating func add(_ index: Int32, _ status: OTADeviceStatus, _ kind: String?, cause: Position? = nil) {
        let ending = Ending(status: status, kind: kind)
        if found[ending] == nil { endings.append(ending) }
        found[ending, default: []].append((index, cause))
    }

    func events(of campaign: Campaign) -> [CampaignEvent] {
        endings.flatMap { ending -> [CampaignEvent] in
            let all = found[ending] ?? []
            return stride(from: 0, to: all.count, by: targetsPerRecordMax).map { start in
                let part = all[start..<min(start + targetsPerRecordMax, all.count)]
                var event = CampaignDevicesEnded(
                    campaignID: campaign.id, tenantID: campaign.tenantID, status: ending.status.rawValue,
                    kind: ending.kind, devices: part.map { campaign.targets[Int($0.index)].id },
                    seen: part.map { campaign.targets[Int($0.index)].part.last.rawValue })
                if part.contains(where: { $0.cause != nil }) {
                    event.causes = part.map {
                        ($0.cause ?? campaign.targets[Int($0.index)].part.last).rawValue
                    }
                }
                return CampaignEvent.devicesEnded(event)
            }
        }
    }
}
