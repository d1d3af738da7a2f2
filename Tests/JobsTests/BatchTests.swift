import Decisions
import EventModel
import Testing
@testable import Jobs

/// Commands that are decided in one commit.
@Suite struct BatchTests {
    private func request(_ command: JobCommand, tenant: String = "t") -> JobRequest {
        JobRequest(tenantID: tenant, actor: "ann", command: command)
    }

    @Test func nothingStartsBesideAPause() throws {
        var queues = TestQueues()
        try queues.queue(job(queue: .high))
        let answers = try queues.run([
            request(.pause(.high, note: nil)), request(.lease(LeaseRequest(worker: "w"))),
            request(.pause(.high, note: nil)),
        ])
        #expect(answers[1] == .deferred && answers[2] == .deferred)
        #expect(queues.state.running.isEmpty)
    }

    /// A refused command must not keep others of its commit from a job that it names.
    @Test func aRefusedCancelLetsARescueThrough() throws {
        var queues = TestQueues()
        try queues.queue(job(), job())
        let attempt = try queues.leaseOne().attempt
        try queues.run(.cancel([2], reason: nil))
        let answers = try queues.run([
            request(.cancel([attempt.id, 2], reason: nil)), request(.rescue([attempt], .leaseExpired), tenant: "*"),
        ])
        guard case .rejected(_, .illegalTransition, _) = answers[0] else {
            return #expect(Bool(false), "\(answers[0])")
        }
        #expect(queues.state.running.isEmpty)
    }

    @Test func aDeferredCommandLeavesNothingBehind() throws {
        var queues = TestQueues()
        try queues.queue(job(key: "a", queue: .low), job(key: "b", queue: .low))
        let events = queues.events.count
        let answers = try queues.run([
            request(.move(2, .normal)),
            request(.queue([job(key: "a", queue: .high), job(key: "b", queue: .high)], cause: nil)),
        ])
        #expect(answers[1] == .deferred)
        #expect(queues.events.count == events + 1 && queues.state.job(1)?.queue == .low)
    }

    @Test func aRetryTakesItsKey() throws {
        var queues = TestQueues()
        try queues.queue(job(key: "a"))
        try queues.run(.cancel([1], reason: nil))
        let answers = try queues.run([request(.queue([job(key: "a")], cause: nil)), request(.retry(1))])
        #expect(answers[1] == .deferred)
        guard case .rejected(_, .alreadyExists, _) = try queues.run(.retry(1)) else { return #expect(Bool(false)) }
        try queues.run(.cancel([2, 2], reason: nil))
        let other = try queues.run([request(.retry(1)), request(.retry(2))])
        #expect(other[1] == .deferred && queues.state.job(1)?.status == .waiting)
    }

    /// One commit could otherwise add more kinds than their numbers can tell apart.
    @Test func kindsAreLimitedOverACommit() throws {
        var queues = TestQueues()
        let answers = try queues.run(
            (0..<3).map { round in
                request(.queue((0..<600).map { job("k\(round * 600 + $0)") }, cause: nil))
            })
        guard case .queued = answers[0], case .rejected(_, .limitReached, _) = answers[1],
            case .rejected(_, .limitReached, _) = answers[2]
        else { return #expect(Bool(false), "\(answers.dropFirst())") }
    }

    @Test func aScheduleNeedsAName() throws {
        var queues = TestQueues(), policy = JobPolicy()
        policy.schedules = [.init("", kind: "k", intervalSeconds: 60)]
        guard case .rejected(_, .invalidValue, _) = try queues.run(.setPolicy(policy)) else {
            return #expect(Bool(false))
        }
    }

    @Test func pagesAreInTheOrderOfIDs() throws {
        var queues = TestQueues()
        for _ in 0..<3 { try queues.queue(job(), job(), job(), job()) }
        // The slots of jobs that are gone are used again.
        for leased in try queues.lease(5) { _ = try queues.report(leased.attempt, .succeeded(nil)) }
        for _ in 0..<2 { try queues.queue(job(), job()) }
        #expect(queues.state.jobs(limit: 4) { _ in true }.map(\.id) == [6, 7, 8, 9])
        #expect(queues.state.jobs(after: 9, limit: 100) { $0.id % 2 == 0 }.map(\.id) == [10, 12, 14, 16])
    }
}
