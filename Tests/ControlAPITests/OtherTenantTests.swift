import Access
import Campaigns
import Deciding
import Decisions
import EventLog
import EventModel
import Foundation
import Hummingbird
import NIOCore
import Testing
@testable import ControlAPI

/// A token of tenant `a` that names, under its own tenant, what is tenant `b`'s: through the routes, with the real
/// decider on a real log.
@Suite struct OtherTenantTests {
    @Test func whatAnotherTenantHasIsNotThere() async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("refold-api-\(UUID().uuidString)")
        let log = try FileLog.open(directory: folder.path)
        defer {
            log.close()
            try? FileManager.default.removeItem(at: folder)
        }
        let system = StandIn(), secret = system.tokens.add("a-admin", .admin, tenant: "a")
        let decider = DeciderService<CampaignState>(
            writer: DecisionWriter(log), source: log, clock: { Timestamp(microseconds: 1_700_000_000_000_000) })
        var access = system.api().system
        access.campaigns = decider
        let api = ControlAPI(system: access, policy: system.api().policy)
        var query = GroupQuery()
        query.sites = ["s1"]
        for command: CampaignCommand in [
            .addFirmware(FirmwareSpec(version: "1", fileURL: "https://h/f")),
            .createGroup(GroupSpec(name: "list", devices: ["d1"])),
            .createGroup(GroupSpec(name: "query", query: query)),
            .createCampaign(CampaignSpec(name: "of b", firmwareVersionID: 1, devices: ["d1"])),
        ] {
            let answer = try await decider.execute(
                CommandRequest(tenantID: "b", actor: "b-admin", idempotencyKey: "key-of-b", command: command))
            if case .rejected(_, .invalidValue, let reason) = answer { Issue.record("\(reason)") }
            _ = try await decider.execute(CommandRequest(tenantID: "b", actor: "b-admin", command: command))
        }
        let client = RouterClient(api.router())
        func ask(
            _ method: HTTPRequest.Method, _ path: String, _ body: String? = nil
        ) async throws -> RouterClient.Response {
            try await client.execute(
                uri: "/api/v1/tenants/a/\(path)", method: method,
                headers: [.authorization: "Bearer \(secret)", .contentType: "application/json"],
                body: body.map { ByteBuffer(string: $0) })
        }
        func campaign(_ rest: String) -> String { #"{"name":"n","firmware_version_id":1,\#(rest)}"# }
        let attempts: [(HTTPRequest.Method, String, String?)] = [
            (.post, "campaigns", campaign(#""devices":["d1"]"#)),
            (.post, "campaigns", campaign(#""target_group_id":1"#)),
            (.post, "campaigns", campaign(#""target_group_id":2"#)),
            (.post, "campaigns/1/start", nil), (.post, "campaigns/1/pause", nil),
            (.post, "campaigns/1/resume", nil), (.post, "campaigns/1/abort", #"{"reason":"mine now"}"#),
            (.post, "campaigns/1/retry", nil), (.delete, "campaigns/1", nil), (.delete, "groups/1", nil),
            (.post, "groups/1/members", #"{"add":["d9"]}"#),
        ]
        for (method, path, body) in attempts {
            let theirs = try await ask(method, path, body)
            #expect(theirs.status == .notFound, "\(method) \(path): \(String(buffer: theirs.body))")
            let nobodys = try await ask(
                method, path.replacing("/1", with: "/7"),
                body?.replacing("id\":1", with: "id\":7").replacing("id\":2", with: "id\":7"))
            #expect(Self.detail(nobodys) == Self.detail(theirs), "what exists elsewhere is told apart")
        }
        // The same idempotency key in another tenant is another key.
        let key: HTTPFields = [
            .authorization: "Bearer \(secret)", .contentType: "application/json", .idempotencyKey: "key-of-b",
        ]
        let own = try await client.execute(
            uri: "/api/v1/tenants/a/firmware", method: .post, headers: key,
            body: ByteBuffer(string: #"{"version":"1","file_url":"https://h/f"}"#))
        #expect(own.status == .created && String(buffer: own.body).contains(#""id":3"#))
    }

    /// Without the number that was asked for.
    static func detail(_ response: RouterClient.Response) -> String {
        let object = try? JSONSerialization.jsonObject(with: Data(buffer: response.body)) as? [String: Any]
        return (object?["detail"] as? String ?? "").filter { !$0.isNumber }
    }
}
