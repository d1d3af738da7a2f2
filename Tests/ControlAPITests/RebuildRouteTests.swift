import Foundation
import HTTPTypes
import Testing
@testable import ControlAPI

/// Takes everything but what it does not know.
struct RebuildStandIn: TableRebuilding {
    func rebuilds() async -> [RebuildRow] { [row(["device_status"])] }
    func beginRebuild(_ projections: [String], startOver: Bool, fromSnapshot: Bool) async throws -> RebuildRow {
        if projections == ["nothing"] { throw RebuildRefusal(.unknownProjection, "there is no projection nothing") }
        if startOver { throw RebuildRefusal(.busy, "another one is going on") }
        return row(projections)
    }
    func cancelRebuild() async -> RebuildRow? { nil }
    func rollback(_ projections: [String]) async throws -> RollbackRow {
        if projections == ["away"] { throw RebuildRefusal(.unavailable, "no database") }
        return RollbackRow(
            items: [.init(projection: "device_status", version: 1, position: 7, paused: true)],
            blockedMilliseconds: 12, remarks: [])
    }
    func dropTables(_ projections: [String], unfinished: Bool) async throws -> [String] {
        throw RebuildRefusal(.failed, "a view reads them")
    }

    private func row(_ projections: [String]) -> RebuildRow {
        RebuildRow(projections: projections, trigger: "operator", begun: "2026-11-21T08:00:00Z", stage: "folding")
    }
}

@Suite struct RebuildRouteTests {
    @Test(
        arguments: [
            ("GET", "rebuilds", nil, 200, "folding"),
            ("POST", "rebuilds", #"{"projections":["campaigns"]}"#, 202, "campaigns"),
            ("POST", "rebuilds", nil, 202, "folding"), ("POST", "rebuilds", #"{"start_over":true}"#, 409, "busy"),
            ("POST", "rebuilds", #"{"projections":["nothing"]}"#, 404, "not_found"),
            ("POST", "rebuilds", #"{"projection":"x"}"#, 422, "projection"),
            ("POST", "rebuilds/cancel", nil, 404, "not_found"), ("POST", "rollbacks", nil, 200, "paused"),
            ("POST", "rollbacks", #"{"projections":["away"]}"#, 503, "database_unavailable"),
            ("POST", "rebuilds/drop-previous", nil, 409, "rebuild_failed"),
            ("POST", "rebuilds/drop-unfinished", nil, 409, "rebuild_failed"),
        ] as [(String, String, String?, Int, String)])
    func routes(method: String, path: String, body: String?, status: Int, contains: String) async throws {
        let method = try #require(HTTPRequest.Method(method))
        try await StandIn().client { client in
            try await client.execute(
                uri: "/api/v1/\(path)", method: method,
                headers: [.authorization: "Bearer \(StandIn.token)", .contentType: "application/json"],
                body: body.map { .init(string: $0) }
            ) { response in
                let text = String(buffer: response.body)
                #expect(response.status.code == status, "\(text)")
                #expect(text.contains(contains), "\(text)")
            }
        }
    }
}
