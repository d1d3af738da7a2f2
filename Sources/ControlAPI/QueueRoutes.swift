import Decisions
import EventModel
import Hummingbird
import Jobs

// Queues of jobs, their limits and workers: of all tenants.

extension ControlAPI {
    var queueRoutes: [Route] {
        let path = "/api/v1/queues"
        return [
            .get(path) { request, _ in
                try request.allowQuery()
                let now = system.jobs.now()
                let workers = try await system.jobs.workerStatuses().map(WorkerRow.init)
                return try .json(
                    try await system.jobs.query { state in
                        QueuesAnswer(
                            at: now.description, queues: state.statistics(now: now).map(QueueRow.init),
                            limits: state.limits(now: now).map(LimitRow.init),
                            schedules: state.nextTicks().map { schedule, last, next in
                                ScheduleRow(
                                    name: schedule.name, kind: schedule.kind, cron: schedule.cron,
                                    intervalSeconds: schedule.intervalSeconds, lastAt: last?.description,
                                    nextAt: next?.description)
                            }, workers: workers)
                    })
            },
            .post("\(path)/{name}/pause", .write(.operator)) { request, context in
                let body = try await request.json(QueuePauseBody.self)
                return try await record(.pause(try context.queue(), note: body.note), request, context, sent: "\(body)")
            },
            .post("\(path)/{name}/resume", .write(.operator)) { request, context in
                try await record(.resume(try context.queue()), request, context, sent: "")
            },
            .put("\(path)/limits/{kind}") { request, context in
                let body = try await request.json(RateBody.self)
                let kind = context.parameters.get("kind") ?? ""
                return try await record(
                    .setRate(kind: kind, try body.value()), request, context, sent: body.rate ?? "null")
            },
            .get("/api/v1/workers") { request, _ in
                try request.allowQuery()
                return try .json(Items(items: try await system.jobs.workerStatuses().map(WorkerRow.init)))
            },
            // The address of other queues' programs.
            .get("/api/queue/statistics") { request, _ in
                try request.allowQuery()
                let now = system.jobs.now()
                return try .json(
                    try await system.jobs.query { state in
                        QueueTotals(state.statistics(now: now), poisoned: state.poisonedCount, at: now)
                    })
            },
        ]
    }

    private func record(
        _ command: JobCommand, _ request: Request, _ context: APIContext, sent: String
    ) async throws -> Response {
        let answer = try await system.jobs.execute(
            try jobRequest(command, Envelope.everyTenant, request, context, sent: sent))
        guard case .done(let position?, _) = answer else { throw Problem.refused(answer) }
        return try .json(Recorded(position: position.rawValue))
    }
}

extension APIContext {
    /// `{name}` of a queue in the path.
    fileprivate func queue() throws(Problem) -> JobQueue {
        guard let queue = JobQueue(rawValue: parameters.get("name") ?? "") else {
            let all = JobQueue.allCases.map(\.rawValue).joined(separator: ", ")
            throw Problem(.notFound, "not_found", "there is no such queue; there are: \(all)")
        }
        return queue
    }
}
