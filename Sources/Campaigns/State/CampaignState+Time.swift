import EventModel
import HeapModule

// The log's time stepped (`ClockStepped`): what waits for a time waits as long as before.

extension CampaignState {
    /// Shifts every timer by the step of the log's clock: no time limit shrinks when the clock steps forward, and none
    /// grows when it steps back. Maintenance windows follow the clock.
    public mutating func moveTimers(by microseconds: Int64) {
        guard microseconds != 0 else { return }
        answers.move(by: microseconds)
        for id in campaignIDs { withCampaign(id) { $0.moveTimers(by: microseconds) } }
    }
}

extension Campaign {
    fileprivate mutating func moveTimers(by microseconds: Int64) {
        func moved(_ at: Int64) -> Int64 { Timestamp(microseconds: at).moved(by: microseconds).microseconds }
        startedAt = startedAt?.moved(by: microseconds)
        endedAt = endedAt?.moved(by: microseconds)
        deviceEndedAt = deviceEndedAt?.moved(by: microseconds)
        stageEndedAt = stageEndedAt?.moved(by: microseconds)
        // 0: it never began.
        if paceFrom != 0 { paceFrom = moved(paceFrom) }
        for index in targets.indices {
            if targets[index].timer != .max { targets[index].timer = moved(targets[index].timer) }
            if let at = targets[index].retryAt { targets[index].retryAt = moved(at) }
        }
        timers = Heap(timers.unordered.map { Due(at: moved($0.at), index: $0.index) })
        retries = Heap(retries.unordered.map { Due(at: moved($0.at), index: $0.index) })
    }
}
