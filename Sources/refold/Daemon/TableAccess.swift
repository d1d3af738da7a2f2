import ControlAPI
import Postgres
import Queries

/// The API's questions, answered from the tables.
struct TableAccess: ReadQueries {
    let tables: TableQueries

    func device(tenant: String, device: String) async throws(QueryError) -> JSONRow? {
        try await ask { () async throws(PostgresError) in
            try await tables.device(tenant: tenant, device: device)
        }.map(JSONRow.init)
    }

    func firmware(tenant: String, page: PageRequest) async throws(QueryError) -> JSONPage {
        JSONPage(try await ask { () async throws(PostgresError) in
            try await tables.firmware(tenant: tenant, limit: page.limit, after: page.after)
        })
    }

    func firmware(tenant: String, id: Int64) async throws(QueryError) -> JSONRow? {
        try await ask { () async throws(PostgresError) in try await tables.firmware(tenant: tenant, id: id) }
            .map(JSONRow.init)
    }

    func campaigns(tenant: String, status: String?, page: PageRequest) async throws(QueryError) -> JSONPage {
        JSONPage(try await ask { () async throws(PostgresError) in
            try await tables.campaigns(tenant: tenant, status: status, limit: page.limit, after: page.after)
        })
    }

    func campaign(tenant: String, id: Int64) async throws(QueryError) -> JSONRow? {
        try await ask { () async throws(PostgresError) in try await tables.campaign(tenant: tenant, id: id) }
            .map(JSONRow.init)
    }

    func deadLetters(_ filter: DeadLetterFilter, page: PageRequest) async throws(QueryError) -> JSONPage {
        JSONPage(try await ask { () async throws(PostgresError) in
            try await tables.deadLetters(
                    tenant: filter.tenantID, device: filter.deviceID, reason: filter.reason,
                    limit: page.limit, after: page.after)
        })
    }

    func deadLetters(at position: UInt64) async throws(QueryError) -> [JSONRow] {
        guard let position = Int64(exactly: position) else { return [] }
        return try await ask { () async throws(PostgresError) in try await tables.deadLetters(at: position) }
            .map(JSONRow.init)
    }

    private func ask<T: Sendable>(_ question: () async throws(PostgresError) -> T) async throws(QueryError) -> T {
        do {
            return try await question()
        } catch {
            throw error.kind == .unavailable ? .unavailable(error.description) : .failed(error.description)
        }
    }
}

extension JSONPage {
    init(_ page: TableQueries.Page) { self.init(rows: page.rows.map(JSONRow.init), next: page.next) }
}
