import Decisions
import EventModel

/// Decisions about few jobs, queues and schedules, at random and in any order: about unknown ones, with tokens of other
/// attempts, twice, and after the end.
public struct JobChaos {
    private var lastID: Int64 = 0
    private var hasPolicy = false
    /// Token of the last start of each job, right or wrong.
    private var tokens: [Int64: UInt64] = [:]

    public init() {}

    /// - Parameter position: that of the event.
    public mutating func decide(
        at position: UInt64, using random: inout some RandomNumberGenerator
    ) -> (JobSchema, any Encodable & Sendable) {
        func number(_ range: Range<Int>) -> Int { Int.random(in: range, using: &random) }
        let tenant = ["acme", "b.corp", Envelope.everyTenant][number(0..<3)], worker = "w\(number(0..<3))"
        let time = Timestamp(seconds: 1_772_000_000 + Int64(number(0..<9_000)))
        let queue = JobQueue.allCases[number(0..<4)], name = ["sweep", "report"][number(0..<2)]
        // Mostly of the newest ones: older ones have ended.
        let id = max(1, lastID - Int64(number(0..<8)))
        let token = number(0..<8) == 0 ? UInt64(number(0..<400)) : tokens[id] ?? 0
        let attempt = JobAttempt(id: id, token: token)
        guard hasPolicy else {
            hasPolicy = true
            return (.policySet, policy(number(0..<2) == 0))
        }
        switch number(0..<32) {
        case 0..<6: return (.queued, queued(tenant, queue, time, name, using: &random))
        case 6..<12:
            let ids = [id, number(0..<3) == 0 ? id : max(1, lastID - Int64(number(0..<8)))]
            for id in ids { tokens[id] = position }
            return (
                .started,
                JobsStarted(
                    worker: worker, leaseSeconds: number(0..<2) == 0 ? 60 : nil,
                    jobs: ids.map { .init(id: $0, attempt: Int64(number(1..<4))) })
            )
        case 12..<16:
            let other = max(1, lastID - Int64(number(0..<8)))
            return (
                .succeeded,
                JobsSucceeded(
                    worker: worker,
                    jobs: [
                        .init(attempt, result: number(0..<2) == 0 ? "renewed" : nil),
                        .init(JobAttempt(id: other, token: tokens[other] ?? 1)),
                    ])
            )
        case 16..<19:
            return (
                .failed,
                JobFailed(
                    attempt, number: Int64(number(1..<4)), worker: worker, error: "it is away",
                    retryAt: number(0..<3) > 0 ? time : nil)
            )
        case 19, 20:
            var event = JobsCancelled(tenantID: tenant, ids: [id, max(1, id - 1)], actor: "ann")
            event.reason = number(0..<2) == 0 ? "not needed" : nil
            return (.cancelled, event)
        case 21, 22:
            let cause: JobsRescued.Cause = [.processEnded, .leaseExpired, .released][number(0..<3)]
            return (.rescued, JobsRescued(cause: cause, jobs: [attempt]))
        case 23: return (.poisoned, JobPoisoned(attempt, cause: .leaseExpired, rescues: 3))
        case 24, 27:
            // Also of unknown jobs, and with tokens beyond what a column holds.
            let id = number(0..<4) == 0 ? 10_000 : id, token = number(0..<9) == 0 ? UInt64.max : token
            return (
                .late,
                JobLate(
                    JobAttempt(id: id, token: token), worker: worker, outcome: "succeeded",
                    detail: number(0..<2) == 0 ? "renewed" : nil)
            )
        case 25:
            var event = JobRescheduled(id: id, tenantID: tenant, actor: "engine")
            event.queue = number(0..<2) == 0 ? queue : nil
            event.runAt = number(0..<2) == 0 ? time : nil
            event.deadline = number(0..<2) == 0 ? time : nil
            event.isReset = number(0..<2) == 0
            return (.rescheduled, event)
        case 26:
            return (
                .queueLimited,
                QueueLimited(
                    kind: "check", scope: nil, until: time, reason: number(0..<2) == 0 ? "slow down" : nil,
                    jobs: [attempt], worker: worker)
            )
        default: return queueOrSchedule(id, queue, time, name, using: &random)
        }
    }

    private mutating func queued(
        _ tenant: String, _ queue: JobQueue, _ time: Timestamp, _ name: String,
        using random: inout some RandomNumberGenerator
    ) -> JobsQueued {
        func number(_ range: Range<Int>) -> Int { Int.random(in: range, using: &random) }
        var jobs: [JobsQueued.Job] = []
        for index in 0..<number(1..<4) {
            // Now and then an id that is known.
            if number(0..<9) > 0 || lastID == 0 { lastID += 1 }
            var job = JobsQueued.Job(
                id: lastID, kind: ["renew", "check"][number(0..<2)],
                queue: index == 0 ? queue : JobQueue.allCases[number(0..<4)], attemptsMax: Int64(number(1..<6)))
            job.key = number(0..<2) == 0 ? name : nil
            job.scope = number(0..<2) == 0 ? "ca1" : nil
            job.runAt = number(0..<2) == 0 ? time : nil
            job.deadline = number(0..<2) == 0 ? time : nil
            jobs.append(job)
        }
        var event = JobsQueued(tenantID: tenant, jobs: jobs, actor: "engine")
        event.cause = number(0..<2) == 0 ? "schedule:\(name)" : nil
        return event
    }

    private func policy(_ hasReport: Bool) -> JobPolicySet {
        var policy = JobPolicy()
        policy.kinds = [JobPolicy.Kind("renew")]
        policy.schedules = [.init("sweep", kind: "check", cron: "0 */4 * * *")]
        if hasReport { policy.schedules.append(.init("report", kind: "report", intervalSeconds: 3_600)) }
        return JobPolicySet(policy, actor: "engine")
    }

    private func queueOrSchedule(
        _ id: Int64, _ queue: JobQueue, _ time: Timestamp, _ name: String,
        using random: inout some RandomNumberGenerator
    ) -> (JobSchema, any Encodable & Sendable) {
        func number(_ range: Range<Int>) -> Int { Int.random(in: range, using: &random) }
        switch number(0..<8) {
        case 0..<3:
            let event = QueueChanged(
                number(0..<2) == 0 ? .paused : .resumed, queue: queue, note: number(0..<2) == 0 ? "maintenance" : nil,
                actor: "ann")
            return (event.schema, event)
        case 3: return (.policySet, policy(number(0..<2) == 0))
        default:
            return (
                .scheduleTicked,
                ScheduleTicked(
                    name, due: time, missed: Int64(number(0..<3)), openJob: number(0..<2) == 0 ? id : nil)
            )
        }
    }
}
