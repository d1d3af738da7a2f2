import Campaigns
import HTTPTypes
import Hummingbird

extension ControlAPI {
    var probeRoutes: [Route] {
        [
            .get("/healthz", .open) { _, _ in
                let reasons = await system.status.reasonsNotLive()
                return try .json(
                    Liveness(status: reasons.isEmpty ? "alive" : "stuck", reasons: reasons),
                    status: reasons.isEmpty ? .ok : .serviceUnavailable)
            },
            .get("/readyz", .open) { _, _ in
                let reasons = await system.status.reasonsNotReady()
                return try .json(
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
            .get("/api/v1/status") { _, _ in try .json(await system.status.status()) },
            .get("/api/v1/projections") { _, _ in try .json(Items(items: await system.projections.projections())) },
            .get("/api/v1/projections/{name}") { _, context in
                let name = context.parameters.get("name") ?? ""
                let all = await system.projections.projections()
                return try .json(try await known(all.first { $0.name == name }))
            },
            .post("/api/v1/projections/{name}/pause") { _, context in
                try .json(try await known(await system.projections.pause(context.parameters.get("name") ?? "")))
            },
            .post("/api/v1/projections/{name}/resume") { _, context in
                try .json(try await known(await system.projections.resume(context.parameters.get("name") ?? "")))
            },
        ]
    }

    var brokerRoutes: [Route] {
        [
            .post("/api/v1/brokers/{name}/acknowledge") { request, context in
                let body = try await request.json(AcknowledgeBody.self)
                try body.check()
                let name = context.parameters.get("name") ?? ""
                guard
                    let position = try await system.acknowledgeBroker(name, context.principal.name, body.reason)
                else {
                    let names = await system.status.status().brokers.map(\.name).joined(separator: ", ")
                    throw Problem(.notFound, "not_found", "there is no such broker; there are: \(names)")
                }
                return try .json(Recorded(position: position))
            }
        ]
    }

    var logRoutes: [Route] {
        [
            .get("/api/v1/log/checkpoint") { _, _ in
                guard let note = await system.log.checkpoint() else {
                    throw Problem(.notFound, "not_found", "no checkpoint has been signed yet; refold status says more")
                }
                return Response(
                    status: .ok, headers: [.contentType: "text/plain; charset=utf-8", .cacheControl: "no-store"],
                    body: .init(byteBuffer: ByteBuffer(string: note)))
            },
            .get("/api/v1/log/losses") { _, _ in try .json(Items(items: await system.log.losses())) },
            .post("/api/v1/log/losses") { request, _ in
                let body = try await request.json(LossBody.self)
                return try .json(Items(items: try await system.log.acceptLosses(try body.request())))
            },
        ]
    }

    private func known(_ projection: SystemStatus.Projection?) async throws -> SystemStatus.Projection {
        if let projection { return projection }
        let names = await system.projections.projections().map(\.name).joined(separator: ", ")
        throw Problem(.notFound, "not_found", "there is no such projection; there are: \(names)")
    }

    var deadLetterRoutes: [Route] {
        [
            .get("/api/v1/dead-letters") { request, _ in
                try request.allowQuery("tenant", "device", "reason", "order", "limit", "after", "min_position")
                let filter = DeadLetterFilter(
                    tenantID: try request.idQuery("tenant"), deviceID: try request.idQuery("device"),
                    reason: try request.idQuery("reason"))
                let page = try request.page(ordered: true)
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
}
