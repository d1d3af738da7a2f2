import Decisions
import EventModel
import Foundation
import Jobs
import Testing

/// `schemas/events/jobs.schema.json` describes the events as they are written: every field, and which are optional.
@Suite struct EventSchemaTests {
    static let time = Timestamp(rfc3339: "2026-11-20T08:00:00Z")!
    static let attempt = JobAttempt(id: 7, token: 41)

    /// Each event with all of its fields, and with none that is optional.
    static func samples() -> [(name: String, full: any Decision, short: any Decision)] {
        var rate = QueueRateSet(kind: "k", rate: JobRate(count: 1, seconds: 60), actor: "ann")
        let noRate = QueueRateSet(kind: "k", rate: nil, actor: "ann")
        (rate.idempotencyKey, rate.requestDigest) = ("key", "00")
        func pause(_ change: QueueChanged.Change) -> QueueChanged {
            var event = QueueChanged(change, queue: .low, note: "note", actor: "ann")
            (event.idempotencyKey, event.requestDigest) = ("key", "00")
            return event
        }
        var policy = JobPolicy(), kind = JobPolicy.Kind("k")
        kind.rate = JobRate(count: 1, seconds: 60)
        policy.kinds = [kind]
        policy.schedules = [.init("s", kind: "k", cron: "0 * * * *", intervalSeconds: 3_600)]
        var shortPolicy = JobPolicy()
        shortPolicy.kinds = [.init("k")]
        shortPolicy.schedules = [.init("s", kind: "k")]
        return changes() + steps() + [
            (
                "job.policy/1", JobPolicySet(policy, actor: "ann"), JobPolicySet(shortPolicy, actor: "ann")
            ),
            ("queue.paused/1", pause(.paused), QueueChanged(.paused, queue: .low, actor: "ann")),
            ("queue.resumed/1", pause(.resumed), QueueChanged(.resumed, queue: .low, actor: "ann")),
            (
                "queue.limited/1",
                QueueLimited(kind: "k", scope: "s", until: time, reason: "r", jobs: [attempt], worker: "w"),
                QueueLimited(kind: "k", scope: nil, until: time, reason: nil, jobs: [attempt], worker: "w")
            ),
            ("queue.rate_set/1", rate, noRate),
            (
                "schedule.ticked/1", ScheduleTicked("s", due: time, missed: 2, openJob: 7),
                ScheduleTicked("s", due: time, missed: 0, openJob: nil)
            ),
        ]
    }

    private static func changes() -> [(name: String, full: any Decision, short: any Decision)] {
        let short = JobsQueued.Job(id: 7, kind: "k", queue: .low, attemptsMax: 5)
        var job = short
        (job.key, job.scope, job.arguments, job.runAt, job.deadline) = ("k", "s", "{}", time, time)
        var queued = JobsQueued(tenantID: "t", jobs: [job], actor: "ann")
        (queued.cause, queued.idempotencyKey, queued.requestDigest) = ("job:1", "key", "00")
        var cancelled = JobsCancelled(tenantID: "t", ids: [7], actor: "ann")
        (cancelled.reason, cancelled.idempotencyKey, cancelled.requestDigest) = ("r", "key", "00")
        var moved = JobRescheduled(id: 7, tenantID: "t", actor: "ann")
        (moved.queue, moved.runAt, moved.deadline, moved.cause) = (.high, time, time, "job:1")
        (moved.idempotencyKey, moved.requestDigest) = ("key", "00")
        return [
            ("job.queued/1", queued, JobsQueued(tenantID: "t", jobs: [short], actor: "ann")),
            ("job.cancelled/1", cancelled, JobsCancelled(tenantID: "t", ids: [7], actor: "ann")),
            ("job.rescheduled/1", moved, JobRescheduled(id: 7, tenantID: "t", actor: "ann")),
        ]
    }

    private static func steps() -> [(name: String, full: any Decision, short: any Decision)] {
        let jobs = [JobsStarted.Attempt(id: 7, attempt: 1)]
        let rescued = JobsRescued(cause: .released, jobs: [attempt])
        let poisoned = JobPoisoned(attempt, cause: .leaseExpired, rescues: 3)
        return [
            (
                "job.started/1", JobsStarted(worker: "w", leaseSeconds: 30, jobs: jobs),
                JobsStarted(worker: "w", leaseSeconds: nil, jobs: jobs)
            ),
            (
                "job.succeeded/1", JobsSucceeded(worker: "w", jobs: [.init(attempt, result: "r")]),
                JobsSucceeded(worker: "w", jobs: [.init(attempt)])
            ),
            (
                "job.failed/1", JobFailed(attempt, number: 1, worker: "w", error: "e", retryAt: time),
                JobFailed(attempt, number: 1, worker: "w", error: "e", retryAt: nil)
            ),
            ("job.rescued/1", rescued, rescued), ("job.poisoned/1", poisoned, poisoned),
            (
                "job.late/1", JobLate(attempt, worker: "w", outcome: "failed", detail: "d"),
                JobLate(attempt, worker: "w", outcome: "failed", detail: nil)
            ),
        ]
    }

    @Test func theSchemasDescribeTheEvents() throws {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let data = try Data(contentsOf: root.appending(path: "schemas/events/jobs.schema.json"))
        let document = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
        let all = try #require(document["$defs"] as? [String: [String: Any]])
        #expect(Set(all.keys.filter { $0.contains("/") }) == Set(JobSchema.allCases.map(\.rawValue)))
        #expect(Set(Self.samples().map(\.name)) == Set(JobSchema.allCases.map(\.rawValue)))
        for (name, full, short) in Self.samples() {
            let schema = try #require(all[name])
            try Self.compare(try Self.object(full), schema, all, "properties", name)
            try Self.compare(try Self.object(short), schema, all, "required", name)
        }
    }

    private static func object(_ event: any Decision) throws -> Any {
        try JSONSerialization.jsonObject(with: Data(eventJSON(event)))
    }

    /// The fields of the value are those of the schema, inside arrays and objects too.
    private static func compare(
        _ value: Any, _ schema: [String: Any], _ all: [String: [String: Any]], _ part: String, _ name: String
    ) throws {
        if let reference = schema["$ref"] as? String {
            let target = try #require(all[String(reference.dropFirst("#/$defs/".count))], "\(name): \(reference)")
            return try compare(value, target, all, part, name)
        }
        if let items = schema["items"] as? [String: Any] {
            for item in try #require(value as? [Any], "\(name)") { try compare(item, items, all, part, name) }
        }
        guard let properties = schema["properties"] as? [String: [String: Any]] else { return }
        let fields = try #require(value as? [String: Any], "\(name)")
        let described = part == "required" ? schema["required"] as? [String] ?? [] : Array(properties.keys)
        #expect(Set(fields.keys) == Set(described), "\(name)")
        for (key, field) in fields { try compare(field, try #require(properties[key]), all, part, "\(name).\(key)") }
    }
}
