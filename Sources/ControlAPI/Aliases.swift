import EventModel
import HTTPTypes
import Hummingbird

// `/customer/ota/campaigns…`: the routes that the users' own programs know. The tenant is the token's; a token of all
// tenants names it in `X-Tenant-ID`. What is sent and what is answered is as with the routes of today.

extension ControlAPI {
    var aliasRoutes: [Route] {
        let campaigns = "/customer/ota/campaigns"
        return [
            .get(campaigns, scope: .own) { request, context in
                try await list(request, tenant: try Self.tenant(request, context))
            },
            .post(campaigns, .write(.operator), scope: .own) { request, context in
                try await create(request, context, tenant: try Self.tenant(request, context), in: campaigns)
            },
            .get("\(campaigns)/{id}", scope: .own) { request, context in
                try await show(request, context, tenant: try Self.tenant(request, context))
            },
        ]
            + Steering.allCases.map { steering in
                .post("\(campaigns)/{id}/\(steering.rawValue)", .write(.operator), scope: .own) { request, context in
                    try await steer(steering, request, context, tenant: try Self.tenant(request, context))
                }
            }
    }

    private static func tenant(_ request: Request, _ context: APIContext) throws(Problem) -> String {
        let named = request.headers[.tenantID], own = context.principal.tenantID
        guard let tenant = named ?? own else {
            throw Problem(
                .badRequest, "tenant_required",
                "the token is for all tenants: name one in `X-Tenant-ID`, or use /api/v1/tenants/{tenant}/campaigns")
        }
        guard isID(tenant) else {
            throw Problem(.badRequest, "id_invalid", "X-Tenant-ID is 1 to 128 characters of A-Z a-z 0-9 . _ : -")
        }
        guard context.principal.mayAct(for: tenant) else { throw AccessPolicy.foreignTenant }
        return tenant
    }
}

extension HTTPField.Name {
    static let tenantID = HTTPField.Name("X-Tenant-ID")!
}
