import Decisions
import EventModel
import Testing
@testable import Jobs

@Suite struct JobQueuesTests {
    var queues = TestQueues()

    private func rejection(_ answer: JobAnswer) -> JobRefusal.Code? {
        guard case .rejected(_, let code, _) = answer else { return nil }
        return code
    }

    @Test mutating func aJobRunsOnce() throws {
        let ids = try queues.queue(job())
        let leased = try queues.lease(5)
        #expect(leased.map(\.attempt.id) == ids && leased[0].number == 1)
        #expect(leased[0].attempt.token == 1)
        #expect(try queues.lease(5).isEmpty)
        #expect(try queues.report(leased[0].attempt, .succeeded("done")) == .recorded)
        #expect(queues.state.job(ids[0]) == nil && queues.state.running.isEmpty)
        // The worker did not hear the answer, and sends it again.
        let count = queues.events.count
        #expect(try queues.report(leased[0].attempt, .succeeded("done")) == .repeated)
        #expect(queues.events.count == count)
    }

    @Test mutating func aResultOfARescuedAttemptIsLate() throws {
        try queues.queue(job())
        let first = try queues.leaseOne(seconds: 30)
        try queues.run(.rescue([first.attempt], .leaseExpired))
        let second = try queues.leaseOne(worker: "v")
        #expect(second.attempt.id == first.attempt.id && second.attempt.token != first.attempt.token)
        #expect(second.number == 2)
        #expect(try queues.report(first.attempt, .succeeded(nil)) == .late)
        guard case .late(let late)? = queues.events.last else { return #expect(Bool(false)) }
        #expect(late.outcome == "succeeded" && late.token == first.attempt.token)
        #expect(queues.state.job(first.attempt.id)?.status == .running)
        #expect(try queues.report(second.attempt, .succeeded(nil)) == .recorded)
        // After its job has gone, too.
        #expect(try queues.report(first.attempt, .failed("x", isFinal: false)) == .late)
    }

    @Test mutating func threeRescuesPoison() throws {
        let id = try queues.queue(job(key: "a"))[0]
        for _ in 0..<2 {
            let attempt = try queues.leaseOne().attempt
            try queues.run(.rescue([attempt], .processEnded))
            #expect(queues.state.job(id)?.status == .waiting)
        }
        try queues.run(.rescue([try queues.leaseOne().attempt], .processEnded))
        #expect(queues.state.job(id)?.status == .poisoned)
        #expect(try queues.lease().isEmpty)
        // Its key is free, and it can be run again.
        #expect(try queues.queue(job(key: "a"))[0] != id)
        #expect(rejection(try queues.run(.retry(id))) == .alreadyExists)
        let other = try queues.leaseOne()
        _ = try queues.report(other.attempt, .succeeded(nil))
        try queues.run(.retry(id))
        #expect(queues.state.job(id)?.rescues == 0)
        #expect(try queues.leaseOne().attempt.id == id)
    }

    @Test mutating func aWorkerThatStopsInOrderPoisonsNothing() throws {
        let id = try queues.queue(job())[0]
        for _ in 0..<10 {
            #expect(try queues.report(try queues.leaseOne().attempt, .released) == .recorded)
            #expect(queues.state.job(id)?.status == .waiting)
        }
        #expect(queues.state.job(id)?.rescues == 0 && queues.state.job(id)?.failures == 0)
    }

    @Test mutating func failuresBackOffAndEnd() throws {
        let id = try queues.queue(job(attempts: 3))[0]
        var pauses: [Double] = []
        for number in 1...3 {
            let leased = try queues.leaseOne()
            #expect(leased.number == Int64(number))
            _ = try queues.report(leased.attempt, .failed("no route", isFinal: false))
            guard case .failed(let event)? = queues.events.last else { return #expect(Bool(false)) }
            guard let retryAt = event.retryAt else { break }
            let pause = Double(retryAt.microseconds - queues.now.microseconds) / 1_000_000
            pauses.append(pause)
            queues.now = retryAt.adding(microseconds: -1)
            #expect(try queues.lease().isEmpty)
            queues.now = retryAt
        }
        #expect(pauses.count == 2 && (30..<37.6).contains(pauses[0]) && (60..<75.1).contains(pauses[1]), "\(pauses)")
        #expect(queues.state.job(id)?.status == .failed && queues.state.job(id)?.failures == 3)
        try queues.run(.retry(id))
        #expect(try queues.lease().count == 1)
    }

    @Test mutating func aFinalFailureIsNotRetried() throws {
        let id = try queues.queue(job())[0]
        _ = try queues.report(try queues.leaseOne().attempt, .failed("bad arguments", isFinal: true))
        #expect(queues.state.job(id)?.status == .failed)
    }

    @Test mutating func backoffComesCloserWithTheDeadline() throws {
        try queues.queue(job(deadline: queues.now.adding(microseconds: 80_000_000)))
        _ = try queues.report(try queues.leaseOne().attempt, .failed("x", isFinal: false))
        guard case .failed(let event)? = queues.events.last, let retryAt = event.retryAt else { return }
        #expect((10...12.5).contains(Double(retryAt.microseconds - queues.now.microseconds) / 1_000_000))
    }

    @Test mutating func oneOpenJobAKeyAndATenant() throws {
        let first = try queues.queue(job(key: "a"))[0]
        #expect(try queues.queue(job(key: "a"))[0] == first)
        #expect(try queues.queue(job("other", key: "a"))[0] != first)
        #expect(try queues.queue(job(key: "a"), tenant: "u")[0] != first)
        // Also while it runs.
        let leased = try queues.lease(10).first { $0.attempt.id == first }
        #expect(try queues.queue(job(key: "a"))[0] == first)
        _ = try queues.report(try #require(leased).attempt, .succeeded(nil))
        #expect(try queues.queue(job(key: "a"))[0] != first)
        #expect(rejection(try queues.run(.queue([job(key: "z"), job(key: "z")], cause: nil))) == .invalidValue)
    }

    @Test mutating func aSecondRequestPromotesTheSameJob() throws {
        let later = queues.now.adding(microseconds: 3_600_000_000)
        let id = try queues.queue(job(key: "a", queue: .low, deadline: later, runAt: later))[0]
        #expect(try queues.lease().isEmpty)
        let sooner = later.adding(microseconds: -1_000_000)
        try queues.queue(job(key: "a", queue: .high, deadline: sooner))
        let promoted = try #require(queues.state.job(id))
        #expect(promoted.queue == .high && promoted.runAt == queues.now && promoted.deadline == sooner)
        // Never down again.
        try queues.queue(job(key: "a", queue: .low, deadline: later))
        #expect(queues.state.job(id)?.queue == .high && queues.state.job(id)?.deadline == sooner)
        #expect(try queues.lease(queues: [.high]).map(\.attempt.id) == [id])
    }

    @Test mutating func prioritiesAreStrictWithAShareForTheLowest() throws {
        for queue in JobQueue.allCases.reversed() {
            try queues.queue(
                job(queue: queue), job(queue: queue), job(queue: queue), job(queue: queue), job(queue: queue))
            for _ in 0..<11 {
                try queues.queue(
                    job(queue: queue), job(queue: queue), job(queue: queue), job(queue: queue), job(queue: queue))
            }
        }
        let order = try queues.lease(64).map(\.queue)
        #expect(order.prefix(15).allSatisfy { $0 == .critical } && order[15] == .low && order[31] == .normal)
        #expect(order[47] == .high)
        let rest = order.enumerated().filter { $0.offset % 16 != 15 }.map(\.element)
        #expect(rest == rest.sorted())
    }

    @Test mutating func theNearestDeadlineIsFirst() throws {
        func at(_ seconds: Int64) -> Timestamp { queues.now.adding(microseconds: seconds * 1_000_000) }
        let ids = try queues.queue(
            job("a"), job("b", deadline: at(50)), job("a", deadline: at(20)), job("b", deadline: at(20)),
            job("a", deadline: at(30), runAt: at(1)), job("a"))
        queues.pass(seconds: 1)
        #expect(try queues.lease(10).map(\.attempt.id) == [ids[2], ids[3], ids[4], ids[1], ids[0], ids[5]])
    }

    @Test mutating func pausedQueuesStartNothing() throws {
        try queues.queue(job(queue: .high))
        try queues.run(.pause(.high, note: "the CA is down"))
        #expect(rejection(try queues.run(.pause(.high, note: nil))) == .illegalTransition)
        #expect(try queues.lease().isEmpty)
        #expect(queues.state.nextStart(after: queues.now) == nil)
        queues.pass(seconds: 7 * 86_400)
        #expect(try queues.lease().isEmpty)
        try queues.run(.resume(.high))
        #expect(try queues.lease().count == 1)
        #expect(rejection(try queues.run(.resume(.high))) == .illegalTransition)
    }

    @Test mutating func aPausedServerDelaysItsJobsOnly() throws {
        let ids = try queues.queue(
            job("a", scope: "x"), job("a", scope: "x"), job("a", scope: "y"), job("b", scope: "x"))
        let first = try queues.leaseOne()
        #expect(first.attempt.id == ids[0])
        #expect(try queues.report(first.attempt, .limited(seconds: 60, reason: "429")) == .recorded)
        #expect(queues.state.job(ids[0])?.failures == 0)
        #expect(Set(try queues.lease(10).map(\.attempt.id)) == [ids[2], ids[3]])
        #expect(queues.state.nextStart(after: queues.now) == queues.now.adding(microseconds: 60_000_000))
        guard case .until(_, let reason)? = queues.state.delay(of: ids[1], now: queues.now) else {
            return #expect(Bool(false))
        }
        #expect(reason.contains("Retry-After"))
        queues.pass(seconds: 60)
        #expect(try queues.lease(10).map(\.attempt.id) == [ids[0], ids[1]])
    }

    @Test(arguments: [true, false])
    mutating func ratesHoldInEveryPeriod(perScope: Bool) throws {
        var policy = JobPolicy(), kind = JobPolicy.Kind("a")
        (kind.rate, kind.isRatePerScope) = (JobRate("10/m"), perScope)
        policy.kinds = [kind]
        try queues.run(.setPolicy(policy), tenant: "*")
        for _ in 0..<50 { try queues.queue(job("a", scope: "x"), job("a", scope: "y"), job("b")) }
        var starts: [(at: Timestamp, job: LeasedJob)] = []
        for step in 0..<300 {
            starts += try queues.lease(step % 7 + 1).map { (queues.now, $0) }
            if step % 50 == 7 { queues.state = try queues.restored() }
            queues.pass(seconds: 1)
        }
        #expect(starts.filter { $0.job.kind == "b" }.count == 50)
        for scopes in perScope ? [["x"], ["y"]] : [["x", "y"]] {
            let times = starts.filter { $0.job.kind == "a" && scopes.contains($0.job.scope ?? "") }.map(\.at)
            #expect(times.count == 50)
            for time in times {
                let end = time.adding(microseconds: 60_000_000)
                #expect(times.filter { $0 >= time && $0 < end }.count <= 10)
            }
        }
        let limit = queues.state.limits(now: queues.now).first { $0.kind == "a" }
        #expect(limit?.rate == JobRate("10/m") && limit?.scope == (perScope ? "x" : nil))
    }

    @Test mutating func cancelledJobsRunNoMore() throws {
        let ids = try queues.queue(job(), job(), job())
        let running = try queues.leaseOne()
        try queues.run(.cancel(ids, reason: "a mistake"))
        #expect(try queues.lease().isEmpty)
        #expect(try queues.report(running.attempt, .succeeded(nil)) == .late)
        #expect(rejection(try queues.run(.cancel([ids[0]], reason: nil))) == .illegalTransition)
        #expect(rejection(try queues.run(.cancel([99], reason: nil))) == .notFound)
    }

    @Test mutating func tenantsSeeTheirOwnJobsOnly() throws {
        let id = try queues.queue(job())[0]
        for command in [JobCommand.cancel([id], reason: nil), .retry(id), .move(id, .low)] {
            #expect(rejection(try queues.run(command, tenant: "u")) == .notFound)
        }
        #expect(rejection(try queues.run(.move(id, .low), tenant: "*")) == nil)
    }

    @Test mutating func commandsOfOneBatchDoNotShareAJob() throws {
        let ids = try queues.queue(job(), job(), job())
        let requests = ["a", "b"].map { worker in
            JobRequest(command: .lease(LeaseRequest(worker: worker, count: 2)))
        }
        let cancel = JobRequest(command: .cancel([ids[0]], reason: nil))
        let answers = try queues.run(requests + [cancel])
        guard case .leased(let first) = answers[0], case .leased(let second) = answers[1] else {
            return #expect(Bool(false))
        }
        #expect(first.map(\.attempt.id) == [ids[0], ids[1]] && second.map(\.attempt.id) == [ids[2]])
        #expect(first[0].attempt.token != second[0].attempt.token)
        #expect(answers[2] == .deferred)
    }

    @Test mutating func anIdempotencyKeyQueuesOnce() throws {
        let command = JobCommand.queue([job(), job()], cause: nil)
        guard case .queued(let first, let position, false) = try queues.run(command, key: "1") else { return }
        guard case .queued(let second, let again, true) = try queues.run(command, key: "1") else { return }
        #expect(first.map(\.id) == second.map(\.id) && position == again)
        let other = JobRequest(
            tenantID: "t", actor: "ann", idempotencyKey: "1", sent: [1], command: .queue([job()], cause: nil))
        #expect(rejection(try queues.run([other])[0]) == .keyReused)
        let same = JobRequest(tenantID: "t", actor: "ann", idempotencyKey: "2", command: command)
        #expect(try queues.run([same, same])[1] == .deferred)
    }

    @Test mutating func missedTicksAreCaughtUpOnce() throws {
        var policy = JobPolicy()
        policy.schedules = [.init("sweep", kind: "k", intervalSeconds: 4 * 3_600)]
        try queues.run(.setPolicy(policy), tenant: "*")
        queues.advance()
        #expect(queues.state.nextDeadline(after: queues.now) == Timestamp(rfc3339: "2026-11-20T12:00:00Z"))
        queues.pass(seconds: 3 * 86_400)
        queues.advance()
        guard case .scheduleTicked(let tick)? = queues.events.dropLast().last else { return #expect(Bool(false)) }
        #expect(tick.due == Timestamp(rfc3339: "2026-11-23T08:00:00Z") && tick.missed == 17 && tick.openJob == nil)
        let count = queues.events.count
        queues.advance()
        #expect(queues.events.count == count)
        // The last one is still open.
        queues.pass(seconds: 4 * 3_600)
        queues.advance()
        guard case .scheduleTicked(let next)? = queues.events.last else { return #expect(Bool(false)) }
        #expect(next.openJob == 1 && next.missed == 0)
        #expect(try queues.lease(10).count == 1)
    }

    @Test mutating func theClockStepsAndWaitsStay() throws {
        let id = try queues.queue(job(runAt: queues.now.adding(microseconds: 60_000_000)))[0]
        queues.state.moveTimers(by: 86_400_000_000)
        queues.pass(seconds: 86_400 + 59)
        #expect(try queues.lease().isEmpty)
        queues.pass(seconds: 1)
        #expect(try queues.lease().map(\.attempt.id) == [id])
    }

    @Test mutating func aSnapshotIsTheSameState() throws {
        var policy = JobPolicy(), kind = JobPolicy.Kind("a")
        kind.rate = JobRate("5/m")
        policy.kinds = [kind]
        policy.schedules = [.init("nightly", kind: "report", cron: "15 3 * * *")]
        try queues.run(.setPolicy(policy), tenant: "*")
        for number in 0..<200 {
            try queues.run(
                .queue(
                    [
                        job(
                            number % 3 == 0 ? "a" : "b", key: number % 2 == 0 ? "key \(number)" : nil,
                            queue: JobQueue.allCases[number % 4],
                            deadline: number % 5 == 0 ? queues.now.adding(microseconds: Int64(number)) : nil,
                            runAt: queues.now.adding(microseconds: Int64(number % 7) * 1_000_000),
                            scope: number % 2 == 0 ? "ca" : nil)
                    ], cause: nil), key: "\(number)")
        }
        for attempt in try queues.lease(40).enumerated() {
            let outcomes: [AttemptReport.Outcome] = [
                .succeeded(nil), .failed("x", isFinal: attempt.offset % 2 == 0), .limited(seconds: 5, reason: nil),
                .released,
            ]
            if attempt.offset % 5 < 4 { _ = try queues.report(attempt.element.attempt, outcomes[attempt.offset % 5]) }
        }
        try queues.run(.pause(.low, note: "x"), tenant: "*")
        try queues.run(.setRate(kind: "b", JobRate("9/h")), tenant: "*")
        var other = queues
        other.state = try queues.restored()
        #expect(other.state.stored() == queues.state.stored())
        for _ in 0..<100 {
            let (a, b) = (try queues.lease(3), try other.lease(3))
            #expect(a == b)
            queues.pass(seconds: 1)
            other.pass(seconds: 1)
        }
        #expect(other.state.stored() == queues.state.stored())
        for count in stride(from: 0, to: queues.state.stored().count - 1, by: 97) {
            #expect(throws: (any Error).self) { try JobQueues(stored: Array(queues.state.stored().prefix(count))) }
        }
    }

    @Test mutating func noIdIsUsedTwiceWhereTheBeginningIsUnknown() throws {
        queues.state = try #require(JobQueues.beginningUnknown(before: Position(20)))
        #expect(try queues.queue(job()) == [20_001])
        #expect(JobQueues.beginningUnknown(before: Position(.max))?.nextID == .max)
    }

    @Test func numbersFromOutsideDoNotTrap() {
        var state = JobQueues()
        var new = JobsQueued.Job(id: .max, kind: "k", queue: .low, attemptsMax: .min)
        (new.runAt, new.deadline) = (Timestamp(microseconds: .min), Timestamp(microseconds: .max))
        state.apply(
            .queued(JobsQueued(tenantID: "t", jobs: [new], actor: "a")), at: Position(0),
            time: Timestamp(microseconds: .min))
        state.apply(
            .started(JobsStarted(worker: "w", leaseSeconds: .max, jobs: [.init(id: .max, attempt: .max)])),
            at: Position(1), time: Timestamp(microseconds: .max))
        state.moveTimers(by: .max)
        state.apply(
            .failed(
                JobFailed(
                    JobAttempt(id: .max, token: 1), number: .max, worker: "w", error: "",
                    retryAt: Timestamp(microseconds: .max))), at: Position(2), time: Timestamp(microseconds: 0))
        var policy = JobPolicy(), kind = JobPolicy.Kind("k")
        (kind.rate, kind.backoffSeconds, kind.attemptsMax) = (JobRate(count: .min, seconds: .max), .max, .min)
        policy.kinds = [kind]
        policy.schedules = [.init("s", kind: "k", intervalSeconds: .min), .init("u", kind: "k", cron: "1 2 3")]
        state.apply(.policySet(JobPolicySet(policy, actor: "a")), at: Position(3), time: Timestamp(microseconds: .max))
        _ = state.advance(Timestamp(microseconds: .max))
        _ = state.statistics(now: Timestamp(microseconds: .min))
        _ = state.nextStart(after: Timestamp(microseconds: .max))
        #expect(state.job(.max)?.status == .waiting)
    }
}
