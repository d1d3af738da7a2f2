import Decisions
import EventModel
import HTTPTypes
import Hummingbird
import Jobs
import ServiceLifecycle
import Working

// Jobs of tenants, and what workers do with them. Queues as a whole are in QueueRoutes.swift.

extension ControlAPI {
    var jobRoutes: [Route] {
        let path = "\(Self.tenantPath)/jobs"
        return [
            .get(path) { request, context in try await listJobs(request, tenant: try context.id("tenant")) },
            .post(path) { request, context in
                let body = try await request.json(JobsBody.self), tenant = try context.id("tenant")
                let jobs = try body.all.map { item throws(Problem) in try item.job() }
                return try queued(
                    try await system.jobs.execute(
                        try jobRequest(.queue(jobs, cause: nil), tenant, request, context, sent: body.text)))
            },
            .get("\(path)/{id}") { request, context in
                try request.allowQuery()
                let tenant = try context.id("tenant")
                return try await show(try context.number("id"), request) { $0 == tenant }
            },
            .post("\(path)/{id}/retry") { request, context in
                let id = try context.number("id", Int64.self)
                return try await change(.retry(id), id, request, context)
            },
            .post("\(path)/{id}/cancel") { request, context in
                let id = try context.number("id", Int64.self), body = try await request.json(JobCancelBody.self)
                return try await change(.cancel([id], reason: body.reason), id, request, context, sent: "\(body)")
            },
            .post("\(path)/{id}/move") { request, context in
                let id = try context.number("id", Int64.self), body = try await request.json(JobMoveBody.self)
                return try await change(
                    .move(id, try JobQueue(named: body.queue)), id, request, context, sent: "\(body)")
            },
            // The address of other queues' programs.
            .get("/api/queue/jobs/{id}", scope: .own) { request, context in
                try request.allowQuery()
                return try await show(try context.number("id"), request) { context.principal.mayAct(for: $0) }
            },
        ]
    }

    /// Workers take jobs of every tenant.
    var workerRoutes: [Route] {
        let path = "/api/v1/jobs"
        return [
            .post("\(path)/lease", .write(.operator)) { request, context in
                let body = try await request.json(LeaseBody.self)
                let lease = try body.lease(), wait = try body.wait()
                guard let channel = context.channel else { return try await leased(lease, wait) }
                return try await clients.run(channel) { try await leased(lease, wait) }
            },
            .post("\(path)/results", .write(.operator)) { request, _ in
                let body = try await request.json(ResultsBody.self)
                guard (1...jobsPerCommandMax).contains(body.items.count) else {
                    throw Problem.invalid("items must have 1 to \(jobsPerCommandMax) results")
                }
                let reports = try body.items.map { item throws(Problem) in try item.outcome.report(item.id) }
                return try .json(Items(items: try await reported(reports, body.worker)))
            },
            .post("\(path)/{id}/heartbeat", .write(.operator)) { request, context in
                let body = try await request.json(HeartbeatBody.self)
                let attempt = JobAttempt(id: try context.number("id"), token: body.token)
                guard try await system.jobs.heartbeat(worker: body.worker, [attempt]).isEmpty else {
                    throw Problem(
                        .conflict, "attempt_ended",
                        "\(body.worker) no longer has this attempt of job \(attempt.id): stop it, and report nothing")
                }
                return try .json(ReportedRow(id: attempt.id, status: "running"))
            },
            .post("\(path)/{id}/result", .write(.operator)) { request, context in
                let body = try await request.json(ResultBody.self)
                let report = try body.outcome.report(try context.number("id"))
                return try .json(try await reported([report], body.worker)[0])
            },
        ]
    }

    /// The command, and what was sent, so that an idempotency key is known again.
    func jobRequest(
        _ command: JobCommand, _ tenant: String, _ request: Request, _ context: APIContext, sent: String
    ) throws(Problem) -> JobRequest {
        JobRequest(
            tenantID: tenant, actor: context.principal.name, idempotencyKey: try request.idempotencyKey(),
            sent: Array("\(request.uri.path)\n\(sent)".utf8), command: command)
    }

    // MARK: Jobs

    private func listJobs(_ request: Request, tenant: String) async throws -> Response {
        try request.allowQuery("queue", "kind", "status", "limit", "after")
        let page = try request.page(), kind = try request.idQuery("kind"), now = system.jobs.now()
        let queue = try request.query("queue", oneOf: JobQueue.allCases.map(\.rawValue))
        let statuses = JobStatus.allCases.filter { $0 != .succeeded }.map(\.name)
        let status = try request.query("status", oneOf: statuses)
        let rows = try await system.jobs.query { state in
            // One more shows whether there is a next page.
            state.jobs(after: page.after ?? 0, limit: page.limit + 1) { job in
                job.tenantID == tenant && kind.map { job.kind == $0 } ?? true
                    && queue.map { job.queue.rawValue == $0 } ?? true && status.map { job.status.name == $0 } ?? true
            }.map { JobRow($0, state.delay(of: $0.id, now: now)) }
        }
        let items = Array(rows.prefix(page.limit))
        let next = rows.count > page.limit ? items.last?.id : nil
        return try .json(JobPage(items: items, next: Nullable(wrappedValue: next)))
    }

    private func show(
        _ id: Int64, _ request: Request, isVisible: @escaping @Sendable (_ tenant: String) -> Bool
    ) async throws -> Response {
        let now = system.jobs.now()
        let row = try await system.jobs.query { state in
            state.job(id).flatMap { isVisible($0.tenantID) ? JobRow($0, state.delay(of: id, now: now)) : nil }
        }
        guard let row else {
            throw Problem(
                .notFound, "not_found", "there is no job \(id), or it succeeded or ended more than 30 days ago")
        }
        return try .json(row)
    }

    private func queued(_ answer: JobAnswer) throws -> Response {
        guard case .queued(let jobs, let position, let isRepeated) = answer else { throw Problem.refused(answer) }
        let rows = jobs.map { QueuedJobs.Item(id: $0.id, new: $0.isNew) }
        return try .json(
            QueuedJobs(items: rows, position: Nullable(wrappedValue: position?.rawValue)),
            status: isRepeated || jobs.contains(where: \.isNew) ? .created : .ok)
    }

    private func change(
        _ command: JobCommand, _ id: Int64, _ request: Request, _ context: APIContext, sent: String = ""
    ) async throws -> Response {
        let answer = try await system.jobs.execute(
            try jobRequest(command, try context.id("tenant"), request, context, sent: sent))
        guard case .done(let position?, _) = answer else { throw Problem.refused(answer) }
        let status = try await system.jobs.query { $0.job(id)?.status.name }
        return try .json(Accepted(position: position.rawValue, id: id, status: status))
    }

    // MARK: Workers

    /// A daemon that stops, or a worker that hangs up, ends the wait.
    private func leased(_ lease: LeaseRequest, _ wait: Duration) async throws -> Response {
        let jobs = system.jobs
        let answer = try await cancelWhenGracefulShutdown {
            let answer = try await jobs.lease(lease, wait: wait)
            // The attempts of a worker that is gone are given back: no rescue is counted.
            if Task.isCancelled, case .leased(let leased) = answer, !leased.isEmpty {
                let reports = leased.map { AttemptReport($0.attempt, .released) }
                _ = try await jobs.execute(JobRequest(command: .report(reports, worker: lease.worker)))
                return JobAnswer.leased([])
            }
            return answer
        }
        guard case .leased(let leased) = answer else { throw Problem.refused(answer) }
        return try .json(Items(items: leased.map(LeasedRow.init)))
    }

    private func reported(_ reports: [AttemptReport], _ worker: String) async throws -> [ReportedRow] {
        guard (1...256).contains(worker.utf8.count) else { throw Problem.invalid("worker must have 1 to 256 bytes") }
        let answer = try await system.jobs.execute(JobRequest(command: .report(reports, worker: worker)))
        guard case .reported(let outcomes) = answer else { throw Problem.refused(answer) }
        return zip(reports, outcomes).map { ReportedRow(id: $0.attempt.id, status: $1.rawValue) }
    }
}

extension Problem {
    /// Of an answer that is not the one that the command has.
    static func refused(_ answer: JobAnswer) -> Problem {
        guard case .rejected(let position, let code, let reason) = answer else {
            return .unavailable(
                "conflict", "other commands about the same jobs came first; try again", retryAfterSeconds: 1)
        }
        let status: HTTPResponse.Status =
            switch code {
            case .notFound: .notFound
            case .illegalTransition, .alreadyExists: .conflict
            case .invalidValue, .keyReused, .limitReached: .unprocessableContent
            }
        var problem = Problem(status, code.rawValue, reason)
        problem.position = position.rawValue
        return problem
    }
}
