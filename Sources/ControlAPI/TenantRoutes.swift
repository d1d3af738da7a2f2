import Campaigns
import EventModel
import HTTPTypes
import Hummingbird

// What one tenant has: firmware, groups of devices, settings, devices, and the record of who decided what.

extension ControlAPI {
    static let tenantPath = "/api/v1/tenants/{tenant}"

    var firmwareRoutes: [Route] {
        [
            .get("\(Self.tenantPath)/firmware") { request, context in
                try request.allowQuery("limit", "after", "min_position")
                let tenant = try context.id("tenant"), page = try request.page()
                try await waitForPosition(request, ProjectionName.campaigns)
                return .page(try await system.queries.firmware(tenant: tenant, page: page))
            },
            .post("\(Self.tenantPath)/firmware") { request, context in
                let body = try await request.json(FirmwareBody.self)
                return try await execute(.addFirmware(body.spec), request, context, createdAt: "firmware")
            },
            .get("\(Self.tenantPath)/firmware/{id}") { request, context in
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

    var groupRoutes: [Route] {
        [
            .get("\(Self.tenantPath)/groups") { request, context in
                try request.allowQuery("limit", "after", "min_position")
                let tenant = try context.id("tenant"), page = try request.page()
                try await waitForPosition(request, ProjectionName.deviceGroups)
                return .page(try await system.queries.groups(tenant: tenant, page: page))
            },
            .post("\(Self.tenantPath)/groups") { request, context in
                let body = try await request.json(GroupBody.self)
                return try await execute(.createGroup(body.spec), request, context, createdAt: "groups")
            },
            .get("\(Self.tenantPath)/groups/{id}") { request, context in
                try request.allowQuery("min_position")
                let tenant = try context.id("tenant"), id = try context.number("id", Int64.self)
                try await waitForPosition(request, ProjectionName.deviceGroups)
                guard let row = try await system.queries.group(tenant: tenant, id: id) else { throw Self.noGroup(id) }
                return .json(text: row.text)
            },
            .delete("\(Self.tenantPath)/groups/{id}") { request, context in
                let id = try context.number("id", Int64.self)
                return try await execute(.deleteGroup(id), request, context, createdAt: nil)
            },
            .get("\(Self.tenantPath)/groups/{id}/members") { request, context in
                try request.allowQuery("limit", "after", "min_position")
                return try await members(request, context)
            },
            .post("\(Self.tenantPath)/groups/{id}/members") { request, context in
                let id = try context.number("id", Int64.self), body = try await request.json(MembersBody.self)
                let command = CampaignCommand.changeMembers(group: id, add: body.add ?? [], remove: body.remove ?? [])
                return try await execute(command, request, context, createdAt: nil)
            },
        ]
    }

    static func noGroup(_ id: Int64) -> Problem {
        Problem(.notFound, "not_found", "there is no group \(id) in this tenant")
    }

    /// Of a list, those on it; of a query, those that it finds now.
    private func members(_ request: Request, _ context: APIContext) async throws -> Response {
        let tenant = try context.id("tenant"), id = try context.number("id", Int64.self)
        let page = try request.textPage()
        if let query = try await system.campaigns.groupQuery(tenant: tenant, id: id) {
            try await waitForPosition(request, ProjectionName.deviceStatus)
            let found = try await system.queries.resolve(tenant: tenant, query: query)
            let behind = found.drop { device in page.after.map { device <= $0 } ?? false }
            let shown = Array(behind.prefix(page.limit))
            return .page(
                JSONTextPage(
                    rows: shown.map { JSONRow(#"{"device_id":"\#($0)"}"#) },
                    next: behind.count > shown.count ? shown.last : nil))
        }
        try await waitForPosition(request, ProjectionName.deviceGroups)
        let rows = try await system.queries.groupMembers(tenant: tenant, id: id, page: page)
        if rows.rows.isEmpty, try await system.queries.group(tenant: tenant, id: id) == nil { throw Self.noGroup(id) }
        return .page(rows)
    }

    var settingsRoutes: [Route] {
        [
            .get("\(Self.tenantPath)/settings") { request, context in
                try request.allowQuery("min_position")
                let tenant = try context.id("tenant")
                try await waitForPosition(request, ProjectionName.deviceGroups)
                let row = try await system.queries.tenantSettings(tenant: tenant)
                return .json(text: row?.text ?? #"{"tenant_id":"\#(tenant)","time_zone":"UTC"}"#)
            },
            .put("\(Self.tenantPath)/settings") { request, context in
                let body = try await request.json(SettingsBody.self)
                return try await execute(.configureTenant(timeZone: body.timeZone), request, context, createdAt: nil)
            },
        ]
    }

    var deviceRoutes: [Route] {
        [
            .get("\(Self.tenantPath)/devices") { request, context in
                try request.allowQuery("status", "site", "firmware", "search", "limit", "after", "min_position")
                let tenant = try context.id("tenant")
                let filter = DeviceFilter(
                    status: try request.query("status", oneOf: ["ONLINE", "STALE", "OFFLINE"]),
                    siteID: try request.textQuery("site"), firmwareVersion: try request.textQuery("firmware"),
                    search: try request.idQuery("search"))
                let page = try request.textPage()
                try await waitForPosition(request, ProjectionName.deviceStatus)
                return .page(try await system.queries.devices(tenant: tenant, filter: filter, page: page))
            },
            .get("\(Self.tenantPath)/fleet") { request, context in
                try request.allowQuery("min_position")
                let tenant = try context.id("tenant")
                try await waitForPosition(request, ProjectionName.deviceStatus)
                return .json(text: try await system.queries.fleet(tenant: tenant).text)
            },
            .get("\(Self.tenantPath)/devices/{device}") { request, context in
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
            .get("\(Self.tenantPath)/devices/{device}/history") { request, context in
                try request.allowQuery("order", "limit", "after", "min_position")
                let tenant = try context.id("tenant"), device = try context.id("device")
                let page = try request.page(ordered: true)
                try await waitForPosition(request, ProjectionName.deviceConnectionEvents)
                return .page(try await system.queries.deviceHistory(tenant: tenant, device: device, page: page))
            },
        ]
    }

    var auditRoutes: [Route] {
        [
            .get("\(Self.tenantPath)/audit") { request, context in
                try request.allowQuery("subject", "order", "limit", "after", "min_position")
                let tenant = try context.id("tenant"), page = try request.page(ordered: true)
                let subject = try request.idQuery("subject")
                try await waitForPosition(request, ProjectionName.auditLogs)
                return .page(try await system.queries.auditLogs(tenant: tenant, subject: subject, page: page))
            }
        ]
    }

    /// A read that names `min_position` is not answered from rows older than that.
    func waitForPosition(_ request: Request, _ projection: String) async throws {
        guard let position = try request.query("min_position", 0...UInt64(Int64.max)) else { return }
        guard await system.projections.wait(for: position, in: projection, timeout: Self.waitForPosition) else {
            throw Problem.unavailable(
                "position_not_reached", "the projection \(projection) has not reached position \(position) yet",
                retryAfterSeconds: 1)
        }
    }

    /// Gives a command to the decider and answers when its decision is durable.
    /// - Parameter collection: where what was created is found; nil when nothing is created.
    func execute(
        _ command: CampaignCommand, _ request: Request, _ context: APIContext, createdAt collection: String?
    ) async throws -> Response {
        let tenant = try context.id("tenant")
        return try await execute(
            command, tenant: tenant, request, context,
            createdAt: collection.map { "/api/v1/tenants/\(tenant)/\($0)" })
    }

    func execute(
        _ command: CampaignCommand, tenant: String, _ request: Request, _ context: APIContext,
        createdAt collection: String?
    ) async throws -> Response {
        let answer = try await system.campaigns.execute(
            CommandRequest(
                tenantID: tenant, actor: context.principal.name, idempotencyKey: try request.idempotencyKey(),
                command: command))
        switch answer {
        case .accepted(let position, let id, let status):
            var response = try Response.json(
                Accepted(position: position.rawValue, id: id, status: status?.rawValue),
                status: collection == nil ? .ok : .created)
            if let collection { response.headers[.location] = "\(collection)/\(id)" }
            return response
        case .rejected(let position, let code, let reason):
            throw Problem.rejected(code, reason, position: position.rawValue)
        }
    }
}
