import CampaignRules
import Decisions
import EventModel

// Which devices are dispatched now: as the pace, the stage, the windows and other campaigns allow.

extension Campaign {
    private var tickMicroseconds: Int64 { max(1, Int64(saturating: plan.tickSeconds * 1_000_000)) }

    /// When the next device may be dispatched after `count` devices. Exact over time: no rounding adds up.
    func dueMicroseconds(_ count: Int64) -> Int64 {
        guard let rate, rate > 0 else { return paceFrom }
        let (product, overflow) = count.multipliedReportingOverflow(by: tickMicroseconds)
        return overflow ? paceFrom : Int64(storedMicroseconds: paceFrom.saturatingAdding(product / rate))
    }

    mutating func dispatch(
        _ now: Timestamp, _ firmware: CampaignState.Firmware, take: (String) -> Claim
    ) -> [CampaignEvent] {
        guard windows.look(plan, now).isOpen else { return [] }
        var from = paceFrom, count = paceCount, allowed = Int64(CampaignState.dispatchedAtOnceMax)
        if let rate {
            let due = dueMicroseconds(count)
            guard due <= now.microseconds else { return [] }
            if now.microseconds - due > tickMicroseconds {
                // Nobody to send to, no window, or we were not there: what was missed is not made up for at once.
                (from, count) = (now.microseconds, 0)
            }
            let elapsed = now.microseconds - from
            let (product, overflow) = elapsed.multipliedReportingOverflow(by: rate)
            allowed = min(allowed, (overflow ? Int64.max / 2 : product / tickMicroseconds) + 1 - count)
        }
        let picked = pick(Int(allowed), now, take: take)
        return stride(from: 0, to: picked.count, by: Self.devicesPerDispatchMax).map { start in
            let part = picked[start..<min(start + Self.devicesPerDispatchMax, picked.count)]
            var event = CampaignDispatched(
                campaignID: id, tenantID: tenantID, stage: stage, devices: part.map { targets[Int($0)].id },
                seen: part.map { targets[Int($0)].part.last.rawValue }, paceFrom: from,
                paceCount: count + Int64(start + part.count), cause: allowedBy.rawValue)
            (event.firmwareURL, event.version) = (firmware.fileURL, firmware.version)
            event.checksum = firmware.checksum
            return .dispatched(event)
        }
    }

    static let devicesPerDispatchMax = 500

    /// Those that failed and have waited first, then those that were never dispatched, in their order.
    private mutating func pick(_ countMax: Int, _ now: Timestamp, take: (String) -> Claim) -> [Int32] {
        var picked: [Int32] = [], chosen: Set<Int32> = [], keptRetries: [Due] = [], keptTurns: [Turn] = []
        while picked.count < countMax, let due = retries.min, due.at <= now.microseconds {
            retries.removeMin()
            let target = targets[Int(due.index)]
            guard target.retryAt == due.at, plan.delivery != .onConnect || target.isAwake,
                chosen.insert(due.index).inserted
            else { continue }
            let claim = take(address(due.index))
            if claim != .busy { keptRetries.append(due) }
            if claim == .given { picked.append(due.index) }
        }
        var room = devicesMax(stage: stage) - begun
        while picked.count < countMax, room > 0, let turn = ready.popMin() {
            guard targets[Int(turn.index)].part.status == .pending, chosen.insert(turn.index).inserted
            else { continue }
            let claim = take(address(turn.index))
            if claim != .busy { keptTurns.append(turn) }
            if claim == .given {
                picked.append(turn.index)
                room -= 1
            }
        }
        // They stand until the decision is folded: an append may fail.
        for due in keptRetries { retries.insert(due) }
        for turn in keptTurns { ready.insert(turn) }
        return picked
    }

    // MARK: when to look again

    /// - Parameter dispatches: its firmware is known.
    mutating func nextWake(after now: Timestamp, dispatches: Bool) -> Timestamp? {
        func after(_ seconds: Double, _ begin: Timestamp) -> Int64 {
            begin.moved(by: Int64(saturating: seconds * 1_000_000)).microseconds
        }
        guard status != .created else { return nil }
        var next = archiveTime?.microseconds ?? .max
        if !verdicts.isEmpty || hasEnded && status == .aborted && (counts.pending > 0 || !unpublished.isEmpty) {
            return now
        }
        while let first = timers.min, targets[Int(first.index)].timer != first.at { timers.removeMin() }
        if let first = timers.min { next = min(next, first.at) }
        if !hasEnded, let startedAt {
            next = min(next, after(plan.timeouts.campaignSeconds, startedAt))
            let share = after(plan.completion.seconds, startedAt)
            if plan.completion.share < 1, share > now.microseconds { next = min(next, share) }
        }
        if status == .running {
            if !isLastStage, let since = stageEndedAt {
                next = min(next, after(plan.stages[stage].soakSeconds, since))
            }
            if dispatches { next = min(next, nextDispatch(now) ?? .max) }
        }
        return next == .max ? nil : Timestamp(microseconds: max(next, now.microseconds))
    }

    private mutating func nextDispatch(_ now: Timestamp) -> Int64? {
        while let turn = ready.min, targets[Int(turn.index)].part.status != .pending { ready.removeMin() }
        while let due = retries.min, targets[Int(due.index)].retryAt != due.at { retries.removeMin() }
        var first = retries.min?.at
        if !ready.isEmpty, devicesMax(stage: stage) > begun { first = now.microseconds }
        guard let first else { return nil }
        let window = windows.look(plan, now)
        if !window.isOpen { return window.until?.microseconds }
        return max(first, rate == nil ? paceFrom : dueMicroseconds(paceCount))
    }
}
