import ControlAPI
import Decisions
import EventModel
import Postgres
import Queries

/// The API's questions, answered from the tables.
struct TableAccess: ReadQueries {
    let pool: QueryPool

    func tenants(only tenant: String?) async throws(QueryError) -> [JSONRow] {
        try await ask { try await $0.tenants(only: tenant) }.map(JSONRow.init)
    }

    // MARK: devices

    func device(tenant: String, device: String) async throws(QueryError) -> JSONRow? {
        try await ask { try await $0.device(tenant: tenant, device: device) }.map(JSONRow.init)
    }

    func devices(
        tenant: String, filter: DeviceFilter, page: TextPageRequest
    ) async throws(QueryError) -> JSONTextPage {
        JSONTextPage(
            try await ask { tables in
                try await tables.devices(
                    tenant: tenant, status: filter.status, site: filter.siteID, firmwareVersion: filter.firmwareVersion,
                    search: filter.search, limit: page.limit, after: page.after)
            })
    }

    func fleet(tenant: String) async throws(QueryError) -> JSONRow {
        JSONRow(try await ask { try await $0.fleet(tenant: tenant) })
    }

    func deviceHistory(tenant: String, device: String, page: PageRequest) async throws(QueryError) -> JSONPage {
        JSONPage(try await ask { try await $0.deviceHistory(tenant: tenant, device: device, page.slice) })
    }

    func certificateEvents(
        tenant: String, authority: String, serial: String, page: PageRequest
    ) async throws(QueryError) -> JSONPage {
        JSONPage(
            try await ask {
                try await $0.certificateEvents(tenant: tenant, authority: authority, serial: serial, page.slice)
            })
    }

    func resolve(tenant: String, query: GroupQuery) async throws(QueryError) -> [String] {
        try await ask { try await $0.resolve(tenant: tenant, query: query) }
    }

    // MARK: firmware and groups

    func firmware(tenant: String, page: PageRequest) async throws(QueryError) -> JSONPage {
        JSONPage(try await ask { try await $0.firmware(tenant: tenant, page.slice) })
    }

    func firmware(tenant: String, id: Int64) async throws(QueryError) -> JSONRow? {
        try await ask { try await $0.firmware(tenant: tenant, id: id) }.map(JSONRow.init)
    }

    func groups(tenant: String, page: PageRequest) async throws(QueryError) -> JSONPage {
        JSONPage(try await ask { try await $0.groups(tenant: tenant, page.slice) })
    }

    func group(tenant: String, id: Int64) async throws(QueryError) -> JSONRow? {
        try await ask { try await $0.group(tenant: tenant, id: id) }.map(JSONRow.init)
    }

    func groupMembers(tenant: String, id: Int64, page: TextPageRequest) async throws(QueryError) -> JSONTextPage {
        JSONTextPage(
            try await ask {
                try await $0.groupMembers(tenant: tenant, id: id, limit: page.limit, after: page.after)
            })
    }

    func tenantSettings(tenant: String) async throws(QueryError) -> JSONRow? {
        try await ask { try await $0.tenantSettings(tenant: tenant) }.map(JSONRow.init)
    }

    // MARK: campaigns

    func campaigns(tenant: String, status: String?, page: PageRequest) async throws(QueryError) -> JSONPage {
        JSONPage(try await ask { try await $0.campaigns(tenant: tenant, status: status, page.slice) })
    }

    func campaign(tenant: String, id: Int64) async throws(QueryError) -> JSONRow? {
        try await ask { try await $0.campaign(tenant: tenant, id: id) }.map(JSONRow.init)
    }

    func campaignDevices(
        tenant: String, id: Int64, filter: CampaignDeviceFilter, page: TextPageRequest
    ) async throws(QueryError) -> JSONTextPage {
        JSONTextPage(
            try await ask { tables in
                try await tables.campaignDevices(
                    tenant: tenant, id: id, status: filter.status, failureKind: filter.failureKind,
                    search: filter.search,
                    limit: page.limit, after: page.after)
            })
    }

    func campaignEvents(tenant: String, id: Int64, page: PageRequest) async throws(QueryError) -> JSONPage {
        JSONPage(try await ask { try await $0.campaignEvents(tenant: tenant, id: id, page.slice) })
    }

    func campaignProgress(tenant: String, id: Int64) async throws(QueryError) -> [JSONRow] {
        try await ask { try await $0.campaignProgress(tenant: tenant, id: id) }.map(JSONRow.init)
    }

    func campaignFailures(tenant: String, id: Int64) async throws(QueryError) -> [JSONRow] {
        try await ask { try await $0.campaignFailures(tenant: tenant, id: id) }.map(JSONRow.init)
    }

    // MARK: records

    func auditLogs(tenant: String, subject: String?, page: PageRequest) async throws(QueryError) -> JSONPage {
        JSONPage(try await ask { try await $0.auditLogs(tenant: tenant, subject: subject, page.slice) })
    }

    func deadLetters(_ filter: DeadLetterFilter, page: PageRequest) async throws(QueryError) -> JSONPage {
        JSONPage(
            try await ask { tables in
                try await tables.deadLetters(
                    tenant: filter.tenantID, device: filter.deviceID, reason: filter.reason, page.slice)
            })
    }

    func deadLetters(at position: UInt64) async throws(QueryError) -> [JSONRow] {
        guard let position = Int64(exactly: position) else { return [] }
        return try await ask { try await $0.deadLetters(at: position) }.map(JSONRow.init)
    }

    /// What the caller is told names no SQL; the daemon's log gets all of it.
    private func ask<T: Sendable>(
        _ question: @Sendable (TableQueries) async throws -> T
    ) async throws(QueryError) -> T {
        do {
            return try await pool.use(question)
        } catch QueryPool.Refusal.cancelled {
            throw .cancelled
        } catch QueryPool.Refusal.busy {
            throw .busy("too many reads wait for the database")
        } catch let error as PostgresError {
            switch (error.kind, error.sqlState) {
            // The server ended the statement (57014), or did not give the lock.
            case (_, "57014"), (_, "55P03"): throw .busy("the read took too long: \(error.message)")
            case (.unavailable, _), (.serialization, _): throw .unavailable(error.message)
            default: throw .failed(error.description)
            }
        } catch {
            throw .failed("\(error)")
        }
    }
}

extension PageRequest {
    fileprivate var slice: TableQueries.Slice {
        TableQueries.Slice(limit: limit, after: after, newestFirst: newestFirst)
    }
}

extension KeyedPage {
    init(_ page: TableQueries.KeyedPage<Key>) { self.init(rows: page.rows.map(JSONRow.init), next: page.next) }
}
