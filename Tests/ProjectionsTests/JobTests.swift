import Decisions
import EventModel
import Foundation
import Jobs
import Postgres
import PostgresStore
import Primitives
import struct ProjectionTestSupport.JobChaos
import TestSupport
import Testing

@testable import Projections

@Suite struct JobTests {
    /// Jobs that were queued once: the decider forgets one that succeeded, and takes its id again.
    private static func history(seed: UInt64) throws -> (history: History, state: JobQueues, ids: Set<Int64>) {
        var random = SeededRandom(seed: seed), chaos = JobChaos(), history = History(), state = JobQueues()
        var counts: [Int64: Int] = [:]
        for index in 0..<800 {
            let (schema, event) = chaos.decide(at: UInt64(index), using: &random)
            try history.decision(schema, event)
            let decision = try #require(event as? any Decision)
            let typed = try #require(JobEvent(decision, schema: schema.rawValue))
            state.apply(typed, at: Position(UInt64(index)), time: History.time(index))
            for job in (event as? JobsQueued)?.jobs ?? [] { counts[job.id, default: 0] += 1 }
        }
        return (history, state, Set(counts.filter { $0.value == 1 }.keys))
    }

    /// The decider and the tables fold the same decisions by code of their own.
    @Test(arguments: 1...20)
    func theTableAgreesWithTheDecider(seed: UInt64) throws {
        let (history, state, ids) = try Self.history(seed: seed)
        let rows = history.rows(
            "jobs", "jobs",
            [
                "id", "tenant_id", "kind", "queue", "status", "attempt", "failures", "rescues", "run_at", "ended_at",
                "position",
            ])
        var expected: [String] = [], found: [String] = []
        for row in rows.map({ $0.split(separator: " ").map(String.init) }) {
            guard let id = Int64(row[0]), ids.contains(id), row[4] != "SUCCEEDED" else { continue }
            let isOpen = row[4] == "WAITING" || row[4] == "RUNNING"
            // The decider keeps one time: of an ended job that of its end. A running one's is used no more.
            let time = row[4] == "RUNNING" ? "" : isOpen ? row[8] : row[9]
            found.append((row[0..<8] + [time, row[10]]).joined(separator: " "))
            guard let job = state.job(id) else {
                expected.append("\(id) is not known")
                continue
            }
            let fields = [
                "\(id)", job.tenantID, job.kind, job.queue.rawValue, job.status.name, "\(job.starts)",
                "\(job.failures)", "\(job.rescues)",
                job.status == .running ? "" : "@\(job.runAt.microseconds / 1_000_000)", "\(job.position)",
            ]
            expected.append(fields.joined(separator: " "))
        }
        #expect(found == expected && found.count > 20)
        #expect(state.jobs(limit: .max) { ids.contains($0.id) }.count == found.count)
    }

    /// An attempt that starts and ends between two writes is one row; one that ends later is written again.
    @Test func eachAttemptHasOneRowAndEachLateResultOneMore() throws {
        var history = History()
        try history.decision(
            .queued,
            JobsQueued(
                tenantID: "acme", jobs: [.init(id: 1, kind: "renew", queue: .high, attemptsMax: 3)], actor: "ann"))
        try history.decision(.started, JobsStarted(worker: "w", leaseSeconds: 30, jobs: [.init(id: 1, attempt: 1)]))
        let first = JobAttempt(id: 1, token: 1)
        try history.decision(.rescued, JobsRescued(cause: .leaseExpired, jobs: [first]))
        try history.decision(.started, JobsStarted(worker: "v", leaseSeconds: 30, jobs: [.init(id: 1, attempt: 2)]))
        for _ in 0..<2 {
            try history.decision(.late, JobLate(first, worker: "w", outcome: "succeeded", detail: "renewed"))
        }
        try history.decision(
            .succeeded, JobsSucceeded(worker: "v", jobs: [.init(JobAttempt(id: 1, token: 3), result: "done")]))
        let entry = try #require(Catalog.entry(named: "jobs")), all = history.fold(entry)
        #expect(
            history.rows("jobs", "job_attempts", ["token", "report", "worker", "outcome", "detail", "ended_at"]) == [
                "1 0 w RESCUED lease_expired @2", "1 4 w LATE renewed @4", "1 5 w LATE renewed @5",
                "3 0 v SUCCEEDED done @6",
            ])
        #expect(history.rows("jobs", "job_hours", ["started", "succeeded", "rescued", "late"]) == ["2 1 1 2"])
        #expect(history.rows("jobs", "job_counts", ["waiting", "running", "succeeded"]) == ["0 0 1"])
        let cuts = Array(1..<history.batches.count)
        #expect(history.fold(entry, cuts: cuts, restarts: Set(cuts)).lines == all.lines)
    }

    /// Sums by the fold are the sums of the rows; every tenant sees the queues, with its own jobs in them.
    @Test func statisticsOfTheQueues() throws {
        let server = try PostgresServer.shared.get()
        let url = server.url(database: try server.makeDatabase()), target = DatabaseTarget(url)
        _ = try RefoldSchema.migrate(target)
        let history = try Self.history(seed: 3).history, entry = try #require(Catalog.entry(named: "jobs"))
        let store = PostgresStore(target), fold = entry.makeFold(.all), block = history.block(0..<800)
        try store.load(fold.prepare(block, in: Position(0)..<block.end), of: entry.descriptor) {
            fold.load(table: $0, row: $1)
        }
        fold.fold(block, in: Position(0)..<block.end)
        var rows = entry.descriptor.tables.map { _ in RowBuffer() }
        fold.drain(into: &rows)
        try store.commit(rows, of: entry.descriptor, partition: 0, from: nil, to: Position(799))

        let reader = try Connection(DatabaseTarget(url.replacing("user=postgres", with: "user=refold_app")))
        let wrong = """
            SELECT count(*) FROM refold.job_queues AS q
            WHERE waiting <> (SELECT count(*) FROM refold.jobs WHERE queue = q.name AND status = 'WAITING')
               OR running <> (SELECT count(*) FROM refold.jobs WHERE queue = q.name AND status = 'RUNNING')
               OR oldest_at IS DISTINCT FROM
                  (SELECT min(run_at) FROM refold.jobs WHERE queue = q.name AND status = 'WAITING')
            """
        for (tenant, count) in [("", 0), ("acme", 4), ("b.corp", 4), ("other", 4)] as [(String, Int64)] {
            try reader.exec("SET app.tenant_id = '\(tenant)'")
            #expect(try reader.query("SELECT count(*) FROM refold.job_queues").int8(0, 0) == count, "\(tenant)")
            #expect(try reader.query(wrong).int8(0, 0) == 0, "\(tenant)")
            #expect(try reader.query("SELECT count(*) FROM refold.job_schedules").int8(0, 0) == 0, "\(tenant)")
        }
        let all = try Connection(target)
        #expect(try all.query(wrong).int8(0, 0) == 0)
        #expect(try all.query("SELECT count(*) FROM refold.job_schedules").int8(0, 0) ?? 0 > 0)
        // Events of 1970: none of the last 24 hours. One that is counted now is.
        let sums = "SELECT sum(completed_24h)::bigint, sum(failed_24h)::bigint FROM refold.job_queues"
        #expect(try all.query(sums).int8(0, 0) == 0)
        try all.exec(
            "UPDATE refold.job_hours_v1 SET hour = extract(epoch FROM now())::bigint / 3600, succeeded = 2, failed = 3")
        let counted = try all.query("SELECT 2 * count(*), 3 * count(*) FROM refold.job_hours")
        let found = try all.query(sums)
        #expect(found.int8(0, 0) == counted.int8(0, 0) && found.int8(0, 1) == counted.int8(0, 1))
    }
}
