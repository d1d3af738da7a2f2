import Hummingbird

// What pages show besides rows: who there is, and the events behind what is said.

/// An event of the log as `refold log cat --json` prints it.
public struct RecordedEvent: Sendable, Equatable {
    public var row: JSONRow
    /// Whose it is; nil: no tenant's.
    public var tenantID: String?

    public init(row: JSONRow, tenantID: String?) {
        self.row = row
        self.tenantID = tenantID
    }
}

extension ControlAPI {
    var eventRoutes: [Route] {
        [
            .get("/api/v1/tenants", scope: .own) { request, context in
                try request.allowQuery()
                return .page(JSONPage(rows: try await system.queries.tenants(only: context.principal.tenantID)))
            },
            .get("/api/v1/tenants/{tenant}/events/{position}") { request, context in
                try request.allowQuery()
                let tenant = try context.id("tenant"), position = try context.number("position", UInt64.self)
                // Another tenant's event is as if it were not there.
                guard let event = try await system.event(position), event.tenantID == tenant else {
                    throw Problem(.notFound, "not_found", "there is no event of this tenant at position \(position)")
                }
                return .json(text: event.row.text)
            },
        ]
    }
}
