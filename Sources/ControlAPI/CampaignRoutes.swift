import CampaignRules
import Campaigns
import EventModel
import HTTPTypes
import Hummingbird

// Campaigns: created, steered, looked at.

extension ControlAPI {
    var campaignRoutes: [Route] {
        let campaigns = "\(Self.tenantPath)/campaigns"
        return [
            .get(campaigns) { request, context in
                try await list(request, tenant: try context.id("tenant"))
            },
            .post(campaigns) { request, context in
                try await create(request, context, tenant: try context.id("tenant"), in: nil)
            },
            .get("\(campaigns)/{id}") { request, context in
                try await show(request, context, tenant: try context.id("tenant"))
            },
            .delete("\(campaigns)/{id}") { request, context in
                let id = try context.number("id", Int64.self)
                return try await execute(.delete(campaign: id), request, context, createdAt: nil)
            },
        ]
            + Steering.allCases.map { steering in
                .post("\(campaigns)/{id}/\(steering.rawValue)") { request, context in
                    try await steer(steering, request, context, tenant: try context.id("tenant"))
                }
            } + [
                .post("\(campaigns)/{id}/retry") { request, context in
                    let id = try context.number("id", Int64.self), body = try await request.json(RetryBody.self)
                    return try await execute(
                        .retryFailed(campaign: id, kinds: try body.failureKinds()), request, context, createdAt: nil)
                }
            ] + parts(of: campaigns)
    }

    /// What a campaign consists of.
    private func parts(of campaigns: String) -> [Route] {
        [
            .get("\(campaigns)/{id}/devices") { request, context in
                try request.allowQuery("status", "kind", "search", "limit", "after", "min_position")
                let filter = CampaignDeviceFilter(
                    status: try request.query("status", oneOf: OTADeviceStatus.allCases.map(\.rawValue)),
                    failureKind: try request.query("kind", oneOf: OTAFailureKind.allCases.map(\.rawValue)),
                    search: try request.idQuery("search"))
                let page = try request.textPage()
                return try await part(request, context, ProjectionName.campaigns) { tenant, id in
                    let rows = try await system.queries.campaignDevices(
                        tenant: tenant, id: id, filter: filter, page: page)
                    return (.page(rows), rows.rows.isEmpty)
                }
            },
            .get("\(campaigns)/{id}/timeline") { request, context in
                try request.allowQuery("order", "limit", "after", "min_position")
                let page = try request.page(ordered: true)
                return try await part(request, context, ProjectionName.campaignEvents) { tenant, id in
                    let rows = try await system.queries.campaignEvents(tenant: tenant, id: id, page: page)
                    return (.page(rows), rows.rows.isEmpty)
                }
            },
            .get("\(campaigns)/{id}/progress") { request, context in
                try request.allowQuery("min_position")
                return try await part(request, context, ProjectionName.campaigns) { tenant, id in
                    let rows = try await system.queries.campaignProgress(tenant: tenant, id: id)
                    return (.items(rows), rows.isEmpty)
                }
            },
            .get("\(campaigns)/{id}/failures") { request, context in
                try request.allowQuery("min_position")
                return try await part(request, context, ProjectionName.campaigns) { tenant, id in
                    let rows = try await system.queries.campaignFailures(tenant: tenant, id: id)
                    return (.items(rows), rows.isEmpty)
                }
            },
        ]
    }

    /// Rows of a campaign; where there are none it may be that there is no such campaign.
    private func part(
        _ request: Request, _ context: APIContext, _ projection: String,
        _ ask: (_ tenant: String, _ id: Int64) async throws -> (Response, isEmpty: Bool)
    ) async throws -> Response {
        let tenant = try context.id("tenant"), id = try context.number("id", Int64.self)
        try await waitForPosition(request, projection)
        let (response, isEmpty) = try await ask(tenant, id)
        if isEmpty, try await system.queries.campaign(tenant: tenant, id: id) == nil { throw Self.noCampaign(id) }
        return response
    }

    static func noCampaign(_ id: Int64) -> Problem {
        Problem(.notFound, "not_found", "there is no campaign \(id) in this tenant")
    }

    // MARK: shared with the routes of before

    func list(_ request: Request, tenant: String) async throws -> Response {
        try request.allowQuery("status", "order", "limit", "after", "min_position")
        let page = try request.page(ordered: true)
        let status = try request.query("status", oneOf: CampaignStatus.allCases.map(\.rawValue))
        try await waitForPosition(request, ProjectionName.campaigns)
        return .page(try await system.queries.campaigns(tenant: tenant, status: status, page: page))
    }

    /// - Parameter collection: where the answer says it is found; nil: where campaigns are.
    func create(
        _ request: Request, _ context: APIContext, tenant: String, in collection: String?
    ) async throws -> Response {
        let body = try await request.json(CampaignBody.self)
        var spec = try body.spec()
        if let group = spec.targetGroupID,
            let query = try await system.campaigns.groupQuery(tenant: tenant, id: group)
        {
            spec.devices = try await system.queries.resolve(tenant: tenant, query: query)
        }
        return try await execute(
            .createCampaign(spec), tenant: tenant, request, context,
            createdAt: collection ?? "/api/v1/tenants/\(tenant)/campaigns")
    }

    func show(_ request: Request, _ context: APIContext, tenant: String) async throws -> Response {
        try request.allowQuery("min_position", "at")
        let id = try context.number("id", Int64.self)
        if let moment = try request.moment() {
            return try .past(try await system.past.campaign(tenant: tenant, id: id, at: moment), field: nil)
        }
        try await waitForPosition(request, ProjectionName.campaigns)
        guard let row = try await system.queries.campaign(tenant: tenant, id: id) else { throw Self.noCampaign(id) }
        return .json(text: row.text)
    }

    /// What an operator does to a campaign that there is.
    enum Steering: String, CaseIterable, Sendable {
        case start, pause, resume, abort

        func command(_ id: Int64, _ reason: String?) -> CampaignCommand {
            switch self {
            case .start: .start(campaign: id)
            case .pause: .pause(campaign: id, reason: reason)
            case .resume: .resume(campaign: id)
            case .abort: .abort(campaign: id, reason: reason)
            }
        }
    }

    func steer(
        _ steering: Steering, _ request: Request, _ context: APIContext, tenant: String
    ) async throws -> Response {
        let id = try context.number("id", Int64.self), body = try await request.json(TransitionBody.self)
        return try await execute(
            steering.command(id, body.reason), tenant: tenant, request, context, createdAt: nil)
    }
}
