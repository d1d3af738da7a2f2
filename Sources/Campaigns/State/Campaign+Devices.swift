import CampaignRules
import Decisions
import EventModel

// How events about its devices change a campaign.

extension Campaign {
    mutating func add(_ devices: [String], at position: Position) {
        for device in devices where indexes[device] == nil {
            indexes[device] = Int32(targets.count)
            targets.append(Target(device, targetedAt: position))
            counts.pending += 1
        }
    }

    /// A report of the device. Returns the status before; nil when it changed nothing.
    mutating func report(
        _ index: Int32, _ report: TargetProgress.Report, command: Position?, at position: Position, time: Timestamp
    ) -> OTADeviceStatus? {
        let effect = targets[Int(index)].part.apply(
            report, command: command, verifies: plan.verify != nil, at: position)
        guard case .changed(let before) = effect else { return nil }
        let isFirst = !targets[Int(index)].hasAnswered
        targets[Int(index)].hasAnswered = true
        settle(index, before, at: position, time: time, answered: isFirst)
        if targets[Int(index)].part.status == .verifying, let shown = targets[Int(index)].shown, shown.isCampaigns {
            judge(index, Target.PendingOutcome(status: .success, kind: nil, cause: shown.at))
        }
        return before
    }

    /// Applies a device's `commands/ack`.
    mutating func acknowledge(_ index: Int32, isRefusal: Bool, at position: Position, time: Timestamp) {
        guard targets[Int(index)].part.status == .downloading else { return }
        let isFirst = !targets[Int(index)].hasAnswered
        targets[Int(index)].hasAnswered = true
        if let command = targets[Int(index)].part.command { removeUnpublished(index, command) }
        if isRefusal {
            judge(index, Target.PendingOutcome(status: .failed, kind: .rejected, cause: position))
        } else if isFirst {
            setTimer(index, time, plan.timeouts.downloadSeconds)
        }
    }

    /// The device has shown which firmware it runs.
    mutating func show(_ index: Int32, isCampaigns: Bool, at position: Position) {
        let status = targets[Int(index)].part.status
        if status.isInFlight { targets[Int(index)].shown = Target.Shown(isCampaigns: isCampaigns, at: position) }
        if status == .verifying, isCampaigns {
            judge(index, Target.PendingOutcome(status: .success, kind: nil, cause: position))
        } else if status == .success, !isCampaigns, targets[Int(index)].part.attempt > 0 {
            judge(index, Target.PendingOutcome(status: .failed, kind: .rolledBack, cause: position))
        }
    }

    /// The device is there: what waits for that may be sent.
    mutating func wake(_ index: Int32) {
        guard plan.delivery == .onConnect, status != .created, !targets[Int(index)].isAwake else { return }
        targets[Int(index)].isAwake = true
        queue(index)
    }

    private mutating func judge(_ index: Int32, _ verdict: Target.PendingOutcome) {
        if targets[Int(index)].verdict == nil { verdicts.append(index) }
        targets[Int(index)].verdict = verdict
    }

    /// Returns the status before; nil when the decision was void.
    mutating func dispatch(_ index: Int32, seen: Position, at position: Position, time: Timestamp) -> OTADeviceStatus? {
        let effect = targets[Int(index)].part.dispatch(seen: seen, at: position)
        guard case .changed(let before) = effect else { return nil }
        targets[Int(index)].isPublished = false
        targets[Int(index)].hasAnswered = false
        targets[Int(index)].shown = nil
        targets[Int(index)].isAwake = false
        unpublished[position, default: []].append(index)
        settle(index, before, at: position, time: time)
        return before
    }

    /// Returns the status before; nil when the decision was void.
    mutating func end(
        _ index: Int32, as status: OTADeviceStatus, kind: OTAFailureKind?, seen: Position, at position: Position,
        time: Timestamp
    ) -> OTADeviceStatus? {
        let effect = targets[Int(index)].part.end(as: status, kind: kind, seen: seen, at: position)
        guard case .changed(let before) = effect else { return nil }
        settle(index, before, at: position, time: time)
        return before
    }

    mutating func publish(_ batch: CampaignPublished.Batch, time: Timestamp) {
        let command = Position(batch.command)
        guard let waiting = unpublished[command] else { return }
        let named = batch.devices.map { Set($0.compactMap { indexes[$0] }) }
        for index in waiting where named?.contains(index) ?? true {
            guard targets[Int(index)].part.command == command else { continue }
            targets[Int(index)].isPublished = true
            if targets[Int(index)].part.status.isInFlight, !targets[Int(index)].hasAnswered {
                setTimer(index, time, plan.timeouts.acknowledgeSeconds)
            }
        }
        let left = named.map { named in waiting.filter { !named.contains($0) } } ?? []
        unpublished[command] = left.isEmpty ? nil : left
    }

    // MARK: what follows of a change

    /// A part has changed from `before`: the counts, the clocks and what the rules count.
    private mutating func settle(
        _ index: Int32, _ before: OTADeviceStatus, at position: Position, time: Timestamp, answered: Bool = false
    ) {
        let i = Int(index), after = targets[i].part.status
        count(before, -1)
        count(after, 1)
        if after != before { targets[i].verdict = nil }
        if after.hasEnded { deviceEndedAt = time }
        if targets[i].retryAt != nil {
            targets[i].retryAt = nil
            retryCount -= 1
        }
        if !after.isInFlight || targets[i].hasAnswered, let command = targets[i].part.command {
            removeUnpublished(index, command)
        }
        if after == .downloading, targets[i].hasAnswered, answered || before != .downloading {
            setTimer(index, time, plan.timeouts.downloadSeconds)
        } else if after == .installing, before != .installing {
            setTimer(index, time, plan.timeouts.installSeconds)
        } else if after == .verifying, before != .verifying {
            setTimer(index, time, plan.timeouts.verifySeconds)
        } else if !after.isInFlight || after != before {
            targets[i].timer = .max
        }
        if retries(targets[i]) {
            let doubled = Double(1 << min(max(targets[i].part.attempt - 1, 0), 30))
            let pause = min(plan.retry.backoffSeconds * doubled, plan.retry.backoffMaxSeconds)
            retry(index, at: time.moved(by: Int64(saturating: pause * 1_000_000)).microseconds)
        }
        if plan.delivery == .retained, after.hasEnded, !before.hasEnded, targets[i].part.command != nil {
            endedRetained.append(index)
        }
        countOutcome(index, at: position)
        noteStage(time)
    }

    mutating func retry(_ index: Int32, at time: Int64) {
        if targets[Int(index)].retryAt == nil { retryCount += 1 }
        targets[Int(index)].retryAt = time
        retries.insert(Due(at: time, index: index))
    }

    private mutating func removeUnpublished(_ index: Int32, _ command: Position) {
        guard var waiting = unpublished[command], let at = waiting.firstIndex(of: index) else { return }
        waiting.swapAt(at, waiting.count - 1)
        waiting.removeLast()
        unpublished[command] = waiting.isEmpty ? nil : waiting
    }

    private mutating func count(_ status: OTADeviceStatus, _ change: Int64) {
        switch status.count {
        case .pending: counts.pending += change
        case .inFlight: counts.inFlight += change
        case .succeeded: counts.succeeded += change
        case .failed: counts.failed += change
        case .skipped: counts.skipped += change
        }
    }

    private mutating func setTimer(_ index: Int32, _ time: Timestamp, _ seconds: Double) {
        let at = time.moved(by: Int64(saturating: seconds * 1_000_000)).microseconds
        targets[Int(index)].timer = at
        timers.insert(Due(at: at, index: index))
    }

    /// What the rules count: of a device that is tried again, nothing until it has succeeded or failed for good.
    private mutating func countOutcome(_ index: Int32, at position: Position) {
        let i = Int(index), target = targets[i]
        if target.sample < 0, target.part.status.isInFlight || target.part.status.hasEnded,
            target.part.status != .skipped, test != nil
        {
            targets[i].sample = Int32(test!.count)
            test!.append()
        }
        let outcome: Target.Outcome =
            switch target.part.status.count {
            case .succeeded: .success
            case .failed where target.retryAt == nil && failureKinds.contains(target.part.kind ?? .install): .failure
            default: .none
            }
        let before = target.outcome
        guard outcome != before else { return }
        targets[i].outcome = outcome
        if before == .success { successes -= 1 }
        if before == .failure { failures -= 1 }
        if outcome == .success { successes += 1 }
        if outcome == .failure {
            failures += 1
            consecutiveFailures += 1
            evidence.append(position.rawValue)
            if evidence.count > Self.evidenceMax { evidence.removeFirst() }
        } else if outcome == .success {
            consecutiveFailures = 0
        }
        if outcome != .none { lastResult = position }
        if targets[i].sample >= 0 { test?.set(Int(targets[i].sample), failed: outcome == .failure) }
    }

    /// Resets the failure statistics when an operator resumes the campaign.
    mutating func forgetResults() {
        (successes, failures, consecutiveFailures) = (0, 0, 0)
        evidence = []
        waivedStage = stage
        resetTest()
        for index in targets.indices {
            targets[index].outcome = .none
            targets[index].sample = -1
            // Those in flight may yet fail: they count anew.
            if targets[index].part.status.isInFlight, test != nil {
                targets[index].sample = Int32(test!.count)
                test!.append()
            }
        }
    }

    /// Keeps `stageEndedAt`: since when enough of what the stage may send for has ended.
    mutating func noteStage(_ time: Timestamp) {
        guard !isLastStage else { return stageEndedAt = nil }
        let ended = begun - counts.inFlight - retryCount
        let hasEnded =
            begun >= devicesMax(stage: stage)
            && Double(ended) >= Double(begun) * plan.stages[stage].endedMin
        if !hasEnded { stageEndedAt = nil } else if stageEndedAt == nil { stageEndedAt = time }
    }
}
