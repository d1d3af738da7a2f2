import Decisions
import EventModel

/// Chooses the jobs that start next. Reads the state and leaves it as it is.
///
/// The order is strict: a job starts when no job of a higher queue can. Every sixteenth start goes to the queue whose
/// last start is the longest ago, of those that the worker takes and that have a job that can start: a low queue does
/// not starve.
/// Within a queue the nearest deadline is first, then the lowest id.
struct JobPicker {
    private let state: JobQueues
    private let now: Int64
    private var cursors: [GroupCursor] = []
    /// Starts that the limits allow, where there is a limit.
    private var room: [JobLimitKey: Int64] = [:]
    private var startCount: UInt64
    private var lastStarts: [JobQueue: UInt64]

    /// One in so many starts is for the queue that waits longest.
    static let fairStartEvery: UInt64 = 16

    init(_ state: JobQueues, now: Timestamp) {
        (self.state, self.now) = (state, now.microseconds)
        (startCount, lastStarts) = (state.startCount, state.lastStarts)
        for group in state.groups where state.pausedQueues[group.key.queue] == nil {
            guard state.pausedUntil(group.key.kind, group.key.scope, now.microseconds) == nil else { continue }
            let limit = state.rate(group.key.kind, group.key.scope)
            if let (key, rate) = limit, room[key] == nil {
                room[key] = (state.windows[key] ?? RateWindow()).room(rate, now: now.microseconds)
            }
            cursors.append(
                GroupCursor(group, kind: state.kinds[UInt32(group.key.kind)], limit?.key, now: now.microseconds))
        }
    }

    /// - Parameter isTaken: jobs that other commands of the batch are about.
    mutating func next(_ request: LeaseRequest, isTaken: (Int64) -> Bool) -> JobStore.Slot? {
        var best: [JobQueue: Int] = [:]
        for number in cursors.indices {
            let key = cursors[number].key
            guard request.queues.contains(key.queue), cursors[number].limit.map({ room[$0, default: 0] > 0 }) ?? true,
                request.kinds?.contains(cursors[number].kind) ?? true,
                let candidate = cursors[number].peek(state.store, isTaken)
            else { continue }
            if let other = best[key.queue], let its = cursors[other].peek(state.store, isTaken), its < candidate {
                continue
            }
            best[key.queue] = number
        }
        guard let queue = queue(of: best), let number = best[queue],
            let candidate = cursors[number].peek(state.store, isTaken)
        else { return nil }
        cursors[number].take()
        if let limit = cursors[number].limit { room[limit, default: 1] -= 1 }
        startCount &+= 1
        lastStarts[queue] = startCount
        return candidate.slot
    }

    private func queue(of best: [JobQueue: Int]) -> JobQueue? {
        guard (startCount &+ 1) % Self.fairStartEvery == 0, !JobsFault.isPlanted(.startsByPriorityOnly) else {
            return best.keys.min()
        }
        // The lower queue of two that have waited equally long.
        return best.keys.max { a, b in
            let (lastA, lastB) = (lastStarts[a] ?? 0, lastStarts[b] ?? 0)
            return lastA == lastB ? a < b : lastA > lastB
        }
    }
}

/// Reads a group's jobs that can start at a time: those that are ready, and those that have just become due.
private struct GroupCursor {
    struct Candidate {
        let slot: JobStore.Slot
        let id: Int64
        let deadline: Int64

        init(_ entry: JobHeap.Entry, _ store: JobStore) {
            (slot, id) = (entry.slot, entry.id)
            deadline = JobsFault.isPlanted(.ignoresDeadlines) ? 0 : store[entry.slot].deadline
        }

        static func < (a: Candidate, b: Candidate) -> Bool { (a.deadline, a.id) < (b.deadline, b.id) }
    }

    let key: JobGroup.Key
    let kind: String
    let limit: JobLimitKey?
    private let now: Int64
    private var ready: JobHeap.Cursor
    private var delayed: JobHeap.Cursor
    /// Those that have become due since the last event, the first one last. Nil: not read yet.
    private var due: [Candidate]?
    private var nextReady: Candidate?
    private var isAtEnd = false

    init(_ group: JobGroup, kind: String, _ limit: JobLimitKey?, now: Int64) {
        (key, self.kind, self.limit, self.now) = (group.key, kind, limit, now)
        (ready, delayed) = (JobHeap.Cursor(group.ready), JobHeap.Cursor(group.delayed))
    }

    mutating func peek(_ store: JobStore, _ isTaken: (Int64) -> Bool) -> Candidate? {
        if due == nil { due = readDue(store) }
        while let last = due?.last, isTaken(last.id) { due?.removeLast() }
        if let candidate = nextReady, isTaken(candidate.id) { nextReady = nil }
        while nextReady == nil, !isAtEnd {
            guard let entry = ready.next() else {
                isAtEnd = true
                break
            }
            if store.isCurrent(entry), !isTaken(entry.id) { nextReady = Candidate(entry, store) }
        }
        guard let a = nextReady else { return due?.last }
        guard let b = due?.last else { return a }
        return b < a ? b : a
    }

    /// All of them, because their order is another one. The start that follows moves them to the ready ones.
    private mutating func readDue(_ store: JobStore) -> [Candidate] {
        var due: [Candidate] = []
        while let entry = delayed.next(), entry.order <= now {
            if store.isCurrent(entry) { due.append(Candidate(entry, store)) }
        }
        return due.sorted { $1 < $0 }
    }

    /// The last candidate starts.
    mutating func take() {
        if let b = due?.last, nextReady.map({ b < $0 }) ?? true {
            due?.removeLast()
        } else {
            nextReady = nil
        }
    }
}
