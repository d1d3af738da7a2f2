import EventModel
import HeapModule

// The log's time stepped (`ClockStepped`): what waits for a time waits as long as before.

extension CampaignState {
    /// Moves everything that is measured from a time of the log: nobody is given less time because the clock was set
    /// forward, and nothing stands still because it was set back. Maintenance windows follow the clock.
    mutating func moveTimers(by microseconds: Int64) {
        guard microseconds != 0 else { return }
        answers.move(by: microseconds)
        for id in campaignIDs { withCampaign(id) { $0.moveTimers(by: microseconds) } }
    }
}

extension Campaign {
    fileprivate mutating func moveTimers(by microseconds: Int64) {
        startedAt = startedAt?.adding(microseconds: microseconds)
        endedAt = endedAt?.adding(microseconds: microseconds)
        stageEndedAt = stageEndedAt?.adding(microseconds: microseconds)
        // 0: it never began.
        if paceFrom != 0 { paceFrom += microseconds }
        for index in targets.indices {
            if targets[index].timer != .max { targets[index].timer += microseconds }
            if let at = targets[index].retryAt { targets[index].retryAt = at + microseconds }
        }
        timers = Heap(timers.unordered.map { Due(at: $0.at + microseconds, index: $0.index) })
        retries = Heap(retries.unordered.map { Due(at: $0.at + microseconds, index: $0.index) })
    }
}

extension Answers {
    fileprivate mutating func move(by microseconds: Int64) {
        stored = stored.mapValues {
            Stored(digest: $0.digest, at: $0.at.adding(microseconds: microseconds), answer: $0.answer)
        }
        expiries = expiries.map { Expiry(at: $0.at.adding(microseconds: microseconds), key: $0.key) }
    }
}
