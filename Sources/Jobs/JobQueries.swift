import Decisions
import EventModel

/// A job as the state has it: one that is open, or has ended without success.
public struct JobSummary: Sendable, Equatable {
    public let id: Int64
    public let tenantID: String
    public let kind: String
    public let queue: JobQueue
    public let key: String?
    public let scope: String?
    public let status: JobStatus
    /// Attempts that were started, and those that failed.
    public let starts: Int
    public let failures: Int
    public let attemptsMax: Int
    public let rescues: Int
    public let queuedAt: Timestamp
    /// Not before; of one that has ended: when.
    public let runAt: Timestamp
    public let deadline: Timestamp?
    public let arguments: String?
    /// Of the event that queued it.
    public let position: Position
    public let running: RunningAttempt?
}

/// Why a waiting job does not start, and when it can.
public enum JobDelay: Sendable, Equatable {
    /// A worker that takes its kind and queue can start it now.
    case none
    case until(Timestamp, reason: String)
    case paused(by: String, note: String?)
}

/// One queue at one moment.
public struct QueueStatistics: Sendable, Equatable {
    public let queue: JobQueue
    public var waiting = 0
    /// Those of `waiting` whose time has come.
    public var ready = 0
    public var running = 0
    /// When the one of the ready jobs that waits longest could have started.
    public var oldest: Timestamp?
    public var lastDay = HourlyCounts.Count()
    public var pause: JobQueues.QueuePause?
}

/// A rate limit or a pause that a server asked for.
public struct JobLimit: Sendable, Equatable {
    public let kind: String
    public let scope: String?
    public let rate: JobRate?
    /// When the next job can start; nil: now.
    public let opensAt: Timestamp?
}

extension JobQueues {
    /// Nil: it has succeeded, ended more than 30 days ago, or there was none.
    public func job(_ id: Int64) -> JobSummary? { store.find(id).map(summary) }

    public func jobs(after id: Int64 = 0, limit: Int, where isWanted: (JobSummary) -> Bool) -> [JobSummary] {
        // In slot order ids mostly rise: after the first ones a comparison is all that most of a million jobs cost.
        var page: [JobSummary] = []
        for slot in store.slots {
            let new = store[slot].id
            guard new > id, limit > 0, page.count < limit || new < page[page.count - 1].id else { continue }
            let job = summary(slot)
            guard isWanted(job) else { continue }
            if page.count == limit { page.removeLast() }
            page.insert(job, at: page.lastIndex { $0.id < new }.map { $0 + 1 } ?? 0)
        }
        return page
    }

    /// Jobs that count as poisoned.
    public var poisonedCount: Int {
        ended.count { entry in store.find(entry.id).map { store[$0].status } == .poisoned }
    }

    public func delay(of id: Int64, now: Timestamp) -> JobDelay? {
        guard let slot = store.find(id), store[slot].status == .waiting else { return nil }
        let record = store[slot], micros = now.microseconds
        if let pause = pausedQueues[record.queue] { return .paused(by: pause.actor, note: pause.note) }
        if record.runAt > micros {
            let reason = record.failures > 0 ? "it waits for its next attempt" : "its time has not come"
            return .until(Timestamp(microseconds: record.runAt), reason: reason)
        }
        if let until = pausedUntil(record.kind, record.scope, micros) {
            return .until(Timestamp(microseconds: until), reason: "a server asked for a pause (Retry-After)")
        }
        if let (key, rate) = rate(record.kind, record.scope), let opensAt = windows[key]?.opensAt(rate, now: micros) {
            return .until(
                Timestamp(microseconds: opensAt), reason: "the rate limit \(rate) of \(kinds[UInt32(record.kind)])")
        }
        return JobDelay.none
    }

    /// When a job could start that cannot now, if nothing happens until then; nil: never.
    public func nextStart(after now: Timestamp) -> Timestamp? {
        var next: Int64?
        for group in groups where pausedQueues[group.key.queue] == nil {
            var start = group.delayed.first?.order
            if group.ready.first != nil { start = now.microseconds }
            guard var time = start else { continue }
            if let until = pausedUntil(group.key.kind, group.key.scope, now.microseconds) { time = max(time, until) }
            if let (key, rate) = rate(group.key.kind, group.key.scope),
                let opensAt = windows[key]?.opensAt(rate, now: now.microseconds)
            {
                time = max(time, opensAt)
            }
            // One that could start now waits for a worker, not for a time.
            if time > now.microseconds { next = min(next ?? time, time) }
        }
        return next.map { Timestamp(microseconds: $0) }
    }

    /// In the order of priority.
    public func statistics(now: Timestamp) -> [QueueStatistics] {
        JobQueue.allCases.map { queue in
            var statistics = QueueStatistics(queue: queue)
            statistics.waiting = waitingCounts[queue] ?? 0
            statistics.lastDay = hours.lastDay(of: queue, now: now)
            statistics.pause = pausedQueues[queue]
            let ready = store.ready(queue, now: now.microseconds)
            (statistics.ready, statistics.running) = (ready.count, ready.running)
            statistics.oldest = ready.oldest.map { Timestamp(microseconds: $0) }
            return statistics
        }
    }

    /// Limits of the kinds that were used or that the policy names, by kind and scope.
    public func limits(now: Timestamp) -> [JobLimit] {
        var keys = Set(windows.keys).union(pauses.filter { $0.value > now.microseconds }.keys)
        for kind in Set(policy.kinds.filter { $0.rate != nil }.map(\.kind)).union(rates.keys) {
            guard let number = kinds.number(kind) else { continue }
            if !kindPolicy(kind).isRatePerScope {
                keys.insert(.init(kind: UInt16(truncatingIfNeeded: number), scope: NameTable.none))
            }
        }
        return keys.map { key in
            let rate = rate(key.kind, key.scope)
            let opensAt = max(
                pauses[key] ?? 0, rate.flatMap { windows[$0.key]?.opensAt($0.rate, now: now.microseconds) } ?? 0)
            return JobLimit(
                kind: kinds[UInt32(key.kind)], scope: key.scope == NameTable.none ? nil : scopes[key.scope],
                rate: rate?.rate, opensAt: opensAt > now.microseconds ? Timestamp(microseconds: opensAt) : nil)
        }.sorted { ($0.kind, $0.scope ?? "") < ($1.kind, $1.scope ?? "") }
    }

    /// Next tick of each schedule, by name.
    public func nextTicks() -> [(schedule: JobPolicy.Schedule, last: Timestamp?, next: Timestamp?)] {
        policy.schedules.map { schedule in
            let last = ticks[schedule.name]
            return (schedule, last, last.flatMap { JobSchedule(schedule)?.next(after: $0) })
        }
    }

    private func summary(_ slot: JobStore.Slot) -> JobSummary {
        let record = store[slot]
        return JobSummary(
            id: record.id, tenantID: tenants[record.tenant], kind: kinds[UInt32(record.kind)], queue: record.queue,
            key: record.key.isEmpty ? nil : String(decoding: record.key, as: UTF8.self),
            scope: record.scope == NameTable.none ? nil : scopes[record.scope], status: record.status,
            starts: Int(record.starts), failures: Int(record.failures), attemptsMax: Int(record.attemptsMax),
            rescues: Int(record.rescues), queuedAt: Timestamp(microseconds: record.queuedAt),
            runAt: Timestamp(microseconds: record.runAt),
            deadline: record.deadline == JobStore.Record.noDeadline ? nil : Timestamp(microseconds: record.deadline),
            arguments: record.arguments.map { String(decoding: $0, as: UTF8.self) }, position: record.position,
            running: running[record.id])
    }
}

extension JobQueues {
    /// How long an attempt of this job may take.
    public func timeoutSeconds(of id: Int64) -> Int64 {
        kindPolicy(store.find(id).map { kinds[UInt32(store[$0].kind)] } ?? "").timeoutSeconds
    }
}
