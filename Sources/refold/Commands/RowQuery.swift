import Foundation

/// What `list` and `show` ask for: the same query goes to the daemon or to the files.
enum RowQuery: Sendable {
    case firmware(tenant: String)
    case firmwareByID(tenant: String, id: Int64)
    case campaigns(tenant: String, status: String?)
    case campaignByID(tenant: String, id: Int64)
    case deadLetters(tenant: String?, device: String?, reason: String?, after: Int64?)
    case deadLettersAt(position: UInt64)

    private var path: String {
        func tenants(_ tenant: String) -> String { "/api/v1/tenants/\(DaemonClient.escape(tenant))" }
        return switch self {
        case .firmware(let tenant): "\(tenants(tenant))/firmware"
        case .firmwareByID(let tenant, let id): "\(tenants(tenant))/firmware/\(id)"
        case .campaigns(let tenant, _): "\(tenants(tenant))/campaigns"
        case .campaignByID(let tenant, let id): "\(tenants(tenant))/campaigns/\(id)"
        case .deadLetters: "/api/v1/dead-letters"
        case .deadLettersAt(let position): "/api/v1/dead-letters/\(position)"
        }
    }

    /// Page by page, until `limit` rows are there or no more are.
    func rows(_ client: DaemonClient, limit: Int?) async throws -> [[String: Any]] {
        switch self {
        case .firmwareByID, .campaignByID: return [try await client.get(path).object()]
        case .deadLettersAt: return try await client.get(path).object()["items"] as? [[String: Any]] ?? []
        case .firmware: return try await pages(client, [], after: nil, limit: limit)
        case .campaigns(_, let status): return try await pages(client, [("status", status)], after: nil, limit: limit)
        case .deadLetters(let tenant, let device, let reason, let after):
            return try await pages(
                client, [("tenant", tenant), ("device", device), ("reason", reason)], after: after, limit: limit)
        }
    }

    private func pages(
        _ client: DaemonClient, _ query: [(String, String?)], after: Int64?, limit: Int?
    ) async throws -> [[String: Any]] {
        var rows: [[String: Any]] = [], next = after
        repeat {
            let count = min(1_000, (limit ?? .max) - rows.count)
            let page = try await client.get(
                path, query: query + [("limit", String(count)), ("after", next.map { String($0) })]
            ).object()
            rows += page["items"] as? [[String: Any]] ?? []
            let following = (page["next"] as? NSNumber)?.int64Value
            // A page that does not lead on ends the list, whatever it says.
            next = following.flatMap { $0 > next ?? -1 ? $0 : nil }
        } while next != nil && rows.count < limit ?? .max
        return rows
    }
}
