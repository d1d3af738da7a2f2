import Campaigns
import HTTPTypes
import Hummingbird

extension ControlAPI {
    var probeRoutes: [Route] {
        [
            .get("/healthz", .open) { _, _ in .json(["status": "alive"]) },
            .get("/readyz", .open) { _, _ in
                let reasons = await system.status.reasonsNotReady()
                return .json(
                    Readiness(ready: reasons.isEmpty, reasons: reasons),
                    status: reasons.isEmpty ? .ok : .serviceUnavailable)
            },
            .get("/metrics") { _, _ in
                let text = PrometheusText.write(await system.metrics())
                return Response(
                    status: .ok, headers: [.contentType: PrometheusText.contentType],
                    body: .init(byteBuffer: ByteBuffer(string: text)))
            },
        ]
    }

    var systemRoutes: [Route] {
        [
            .get("/api/v1/status") { _, _ in .json(await system.status.status()) },
            .get("/api/v1/projections") { _, _ in .json(Items(items: await system.projections.projections())) },
            .get("/api/v1/projections/{name}") { _, context in
                let name = context.parameters.get("name") ?? ""
                let all = await system.projections.projections()
                return .json(try await known(all.first { $0.name == name }))
            },
            .post("/api/v1/projections/{name}/pause") { _, context in
                .json(try await known(await system.projections.pause(context.parameters.get("name") ?? "")))
            },
            .post("/api/v1/projections/{name}/resume") { _, context in
                .json(try await known(await system.projections.resume(context.parameters.get("name") ?? "")))
            },
        ]
    }

    var logRoutes: [Route] {
        [
            .get("/api/v1/log/checkpoint") { _, _ in
                guard let note = await system.keeping.checkpoint() else {
                    throw Problem(.notFound, "not_found", "no checkpoint has been signed yet; refold status says more")
                }
                return Response(
                    status: .ok, headers: [.contentType: "text/plain; charset=utf-8", .cacheControl: "no-store"],
                    body: .init(byteBuffer: ByteBuffer(string: note)))
            },
            .get("/api/v1/log/losses") { _, _ in .json(Items(items: await system.keeping.losses())) },
            .post("/api/v1/log/losses") { request, _ in
                let body = try await request.json(LossBody.self)
                return .json(Items(items: try await system.keeping.acceptLosses(try body.request())))
            },
        ]
    }

    private func known(_ projection: SystemStatus.Projection?) async throws -> SystemStatus.Projection {
        if let projection { return projection }
        let names = await system.projections.projections().map(\.name).joined(separator: ", ")
        throw Problem(.notFound, "not_found", "there is no such projection; there are: \(names)")
    }

    var firmwareRoutes: [Route] {
        [
            .get("/api/v1/tenants/{tenant}/firmware") { request, context in
                try request.allowQuery("limit", "after", "min_position")
                let tenant = try context.id("tenant"), page = try request.page()
                try await waitForPosition(request, ProjectionName.campaigns)
                return .page(try await system.queries.firmware(tenant: tenant, page: page))
            },
            .post("/api/v1/tenants/{tenant}/firmware") { request, context in
                let body = try await request.json(FirmwareBody.self)
                return try await execute(.addFirmware(body.spec), request, context, createdAt: "firmware")
            },
            .get("/api/v1/tenants/{tenant}/firmware/{id}") { request, context in
                try request.allowQuery("min_position")
                let tenant = try context.id("tenant"), id = try context.number("id", Int64.self)
                try await waitForPosition(request, ProjectionName.campaigns)
                guard let row = try await system.queries.firmware(tenant: tenant, id: id) else {
                    throw Problem(.notFound, "not_found", "there is no firmware \(id) in this tenant")
                }
                return .json(text: row.text)
            },
        ]
    }

    var campaignRoutes: [Route] {
        [
            .get("/api/v1/tenants/{tenant}/campaigns") { request, context in
                try request.allowQuery("status", "limit", "after", "min_position")
                let tenant = try context.id("tenant"), page = try request.page()
                let status = request.query("status")
                if let status, CampaignStatus(rawValue: status) == nil {
                    let all = CampaignStatus.allCases.map(\.rawValue).joined(separator: ", ")
                    throw Problem(.badRequest, "query_invalid", "status must be one of: \(all)")
                }
                try await waitForPosition(request, ProjectionName.campaigns)
                return .page(try await system.queries.campaigns(tenant: tenant, status: status, page: page))
            },
            .post("/api/v1/tenants/{tenant}/campaigns") { request, context in
                let body = try await request.json(CampaignBody.self)
                return try await execute(.createCampaign(body.spec), request, context, createdAt: "campaigns")
            },
            .get("/api/v1/tenants/{tenant}/campaigns/{id}") { request, context in
                try request.allowQuery("min_position", "at")
                let tenant = try context.id("tenant"), id = try context.number("id", Int64.self)
                if let moment = try request.moment() {
                    return try .past(try await system.past.campaign(tenant: tenant, id: id, at: moment), field: nil)
                }
                try await waitForPosition(request, ProjectionName.campaigns)
                guard let row = try await system.queries.campaign(tenant: tenant, id: id) else {
                    throw Problem(.notFound, "not_found", "there is no campaign \(id) in this tenant")
                }
                return .json(text: row.text)
            },
            transition("start") { id, _ in .start(campaign: id) },
            transition("pause") { id, reason in .pause(campaign: id, reason: reason) },
            transition("resume") { id, _ in .resume(campaign: id) },
            transition("abort") { id, reason in .abort(campaign: id, reason: reason) },
        ]
    }

    private func transition(
        _ verb: String, _ command: @escaping @Sendable (Int64, String?) -> CampaignCommand
    ) -> Route {
        .post("/api/v1/tenants/{tenant}/campaigns/{id}/\(verb)") { request, context in
            let id = try context.number("id", Int64.self)
            let body = try await request.json(TransitionBody.self)
            return try await execute(command(id, body.reason), request, context, createdAt: nil)
        }
    }

    var deviceRoutes: [Route] {
        [
            .get("/api/v1/tenants/{tenant}/devices/{device}") { request, context in
                try request.allowQuery("min_position", "at")
                let tenant = try context.id("tenant"), device = try context.id("device")
                if let moment = try request.moment() {
                    return try .past(
                        try await system.past.device(tenant: tenant, device: device, at: moment), field: "device")
                }
                try await waitForPosition(request, ProjectionName.deviceStatus)
                guard let row = try await system.queries.device(tenant: tenant, device: device) else {
                    throw Problem(.notFound, "not_found", "no message of this device has been folded")
                }
                let gate = await system.gate(tenant, device)
                return .device(row, gate: gate)
            },
        ]
    }

    var deadLetterRoutes: [Route] {
        [
            .get("/api/v1/dead-letters") { request, _ in
                try request.allowQuery("tenant", "device", "reason", "limit", "after", "min_position")
                let filter = DeadLetterFilter(
                    tenantID: try request.idQuery("tenant"), deviceID: try request.idQuery("device"),
                    reason: try request.idQuery("reason"))
                let page = try request.page()
                try await waitForPosition(request, ProjectionName.deadLetters)
                return .page(try await system.queries.deadLetters(filter, page: page))
            },
            .get("/api/v1/dead-letters/{position}") { request, context in
                try request.allowQuery("min_position")
                let position = try context.number("position", UInt64.self)
                try await waitForPosition(request, ProjectionName.deadLetters)
                let rows = try await system.queries.deadLetters(at: position)
                guard !rows.isEmpty else {
                    throw Problem(.notFound, "not_found", "the event at position \(position) is no dead letter")
                }
                return .page(JSONPage(rows: rows))
            },
        ]
    }

    /// A read that names `min_position` is not answered from rows older than that.
    private func waitForPosition(_ request: Request, _ projection: String) async throws {
        guard let position = try request.query("min_position", 0...UInt64(Int64.max)) else { return }
        guard await system.projections.wait(for: position, in: projection, timeout: Self.waitForPosition) else {
            throw Problem.unavailable(
                "position_not_reached", "the projection \(projection) has not reached position \(position) yet",
                retryAfterSeconds: 1)
        }
    }

    /// Gives a command to the decider and answers when its decision is durable.
    private func execute(
        _ command: CampaignCommand, _ request: Request, _ context: APIContext, createdAt collection: String?
    ) async throws -> Response {
        let tenant = try context.id("tenant")
        let answer = try await system.campaigns.execute(CommandRequest(
            tenantID: tenant, actor: context.principal.name, idempotencyKey: try request.idempotencyKey(),
            command: command))
        switch answer {
        case .accepted(let position, let id, let status):
            var response = Response.json(
                Accepted(position: position.rawValue, id: id, status: status?.rawValue),
                status: collection == nil ? .ok : .created)
            if let collection {
                response.headers[.location] = "/api/v1/tenants/\(tenant)/\(collection)/\(id)"
            }
            return response
        case .rejected(let position, let code, let reason):
            throw Problem.rejected(code, reason, position: position.rawValue)
        }
    }
}
