import Access
import CampaignRules
import Campaigns
import Decisions
import EventModel
import Foundation
import HTTPTypes
import Hummingbird
import NIOCore
import Testing
@testable import ControlAPI

/// Campaigns, groups and settings over HTTP.
@Suite struct CampaignRouteTests {
    let system = StandIn()
    static let base = "/api/v1/tenants/acme"

    func send(
        _ method: HTTPRequest.Method, _ uri: String, _ body: String? = nil, token: String = StandIn.token,
        headers: HTTPFields = [:]
    ) async throws -> (status: Int, body: String, headers: HTTPFields) {
        var headers = headers
        headers[.authorization] = "Bearer \(token)"
        if body != nil { headers[.contentType] = "application/json" }
        return try await system.client { [headers] client in
            let response = try await client.execute(
                uri: uri, method: method, headers: headers, body: body.map { ByteBuffer(string: $0) })
            return (response.status.code, String(buffer: response.body), response.headers)
        }
    }

    var commands: [CampaignCommand] { system.requests.map(\.command) }

    @Test func aCampaignIsCreatedWithItsWholePlan() async throws {
        let answer = try await send(
            .post, "\(Self.base)/campaigns",
            """
            {"name":"night","firmware_version_id":3,"devices":["a","b"],"rollout_strategy":"canary","rollout_rate":50,
             "abort_threshold":0.02,"plan":{"tick_seconds":5,"order":"shuffled","time_zone":"Europe/Berlin",
             "stages":[{"percent":1,"soak_seconds":60,"success_min":0.9},{"percent":100}],
             "windows":[{"days":["mon","tue"],"from":"22:00","to":"04:00"}],
             "abort":{"method":"ratio","action":"pause","results_min":20,"consecutive_failures_max":5},
             "timeouts":{"download_seconds":600},"retry":{"attempts_max":3},"completion":{"share":0.95,"seconds":3600},
             "verify":"shadow","delivery":"on_connect"}}
            """)
        #expect(answer.status == 201, "\(answer.body)")
        #expect(answer.headers[.location] == "/api/v1/tenants/acme/campaigns/7")
        guard case .createCampaign(let spec)? = commands.first else { return #expect(Bool(false), "no command") }
        #expect(spec.timeZone == "Europe/Berlin" && spec.plan.tickSeconds == 5 && spec.plan.order == .shuffled)
        #expect(spec.plan.stages == [.init(percent: 1, soakSeconds: 60, successMin: 0.9), .init(percent: 100)])
        #expect(spec.plan.windows == [.init(days: ["mon", "tue"], from: "22:00", to: "04:00")])
        #expect(spec.plan.abort.method == .ratio && spec.plan.abort.consecutiveFailuresMax == 5)
        #expect(spec.plan.timeouts.downloadSeconds == 600 && spec.plan.timeouts.installSeconds == 3600)
        #expect(spec.plan.retry.attemptsMax == 3 && spec.plan.completion.share == 0.95)
        #expect(spec.plan.verify == .shadow && spec.plan.delivery == .onConnect)
    }

    /// A misspelt setting of a rollout is no detail.
    @Test(arguments: [
        #"{"tick":5}"#, #"{"abort":{"methode":"ratio"}}"#, #"{"stages":[{"percent":1,"soak":5}]}"#,
        #"{"windows":[{"from":"22:00","till":"04:00"}]}"#, #"{"timeouts":{"download":600}}"#, #"{"order":"random"}"#,
        #"{"verify":"yes"}"#, #"{"stages":[1,10]}"#, #"{"abort":[]}"#, #"{"retry":{"attempts_max":1.5}}"#, "[]", "7",
    ])
    func whatIsNoPlanIsRefused(plan: String) async throws {
        let answer = try await send(
            .post, "\(Self.base)/campaigns",
            #"{"name":"n","firmware_version_id":1,"devices":["a"],"plan":\#(plan)}"#)
        #expect(answer.status == 422 && answer.body.contains("invalid_body"), "\(answer.body)")
        #expect(commands.isEmpty)
    }

    @Test func devicesComeFromOnePlace() async throws {
        for targets in ["", #","devices":["a"],"target_group_id":1"#] {
            let answer = try await send(
                .post, "\(Self.base)/campaigns", #"{"name":"n","firmware_version_id":1\#(targets)}"#)
            #expect(answer.status == 422, "\(answer.body)")
        }
        let body = #"{"name":"n","firmware_version_id":1,"target_group_id":4}"#
        _ = try await send(.post, "\(Self.base)/campaigns", body)
        system.set { $0.groupQueries[4] = GroupQuery() }
        _ = try await send(.post, "\(Self.base)/campaigns", body)
        #expect(
            commands == [
                .createCampaign(CampaignSpec(name: "n", firmwareVersionID: 1, devices: [], targetGroupID: 4)),
                .createCampaign(
                    CampaignSpec(name: "n", firmwareVersionID: 1, devices: ["d1", "d2"], targetGroupID: 4)),
            ])
        system.set { $0.queryError = .unavailable("away") }
        let away = try await send(.post, "\(Self.base)/campaigns", body)
        #expect(away.status == 503, "who cannot be found cannot be updated")
    }

    @Test func commandsReachTheDecider() async throws {
        let campaign = "\(Self.base)/campaigns/7"
        for (method, uri, body) in [
            (HTTPRequest.Method.post, "\(campaign)/start", nil), (.post, "\(campaign)/pause", #"{"reason":"noise"}"#),
            (.post, "\(campaign)/retry", nil), (.post, "\(campaign)/retry", #"{"kinds":["DOWNLOAD","TIMED_OUT"]}"#),
            (.delete, campaign, nil),
            (.post, "\(Self.base)/groups", #"{"name":"g","devices":["a"]}"#),
            (.post, "\(Self.base)/groups", #"{"name":"q","query":{"sites":["s1"],"seen_within_seconds":60}}"#),
            (.post, "\(Self.base)/groups/2/members", #"{"add":["a"],"remove":["b"]}"#),
            (.delete, "\(Self.base)/groups/2", nil), (.put, "\(Self.base)/settings", #"{"time_zone":"Asia/Tokyo"}"#),
        ] {
            let answer = try await send(method, uri, body)
            #expect([200, 201].contains(answer.status), "\(method) \(uri): \(answer.body)")
        }
        var query = GroupQuery()
        query.sites = ["s1"]
        query.seenWithinSeconds = 60
        #expect(
            commands == [
                .start(campaign: 7), .pause(campaign: 7, reason: "noise"), .retryFailed(campaign: 7, kinds: nil),
                .retryFailed(campaign: 7, kinds: [.download, .timedOut]), .delete(campaign: 7),
                .createGroup(GroupSpec(name: "g", devices: ["a"])), .createGroup(GroupSpec(name: "q", query: query)),
                .changeMembers(group: 2, add: ["a"], remove: ["b"]), .deleteGroup(2),
                .configureTenant(timeZone: "Asia/Tokyo"),
            ])
        let kinds = try await send(.post, "\(campaign)/retry", #"{"kinds":["BAD"]}"#)
        #expect(kinds.status == 422)
        let misspelt = try await send(.post, "\(Self.base)/groups", #"{"name":"q","query":{"site":["s1"]}}"#)
        #expect(misspelt.status == 422)
    }

    @Test func whatThereIsToRead() async throws {
        for uri in [
            "groups", "groups/1", "groups/1/members", "settings", "campaigns?order=newest", "campaigns/1/devices",
            "campaigns/1/devices?status=FAILED&kind=DOWNLOAD&search=d&after=d1", "campaigns/1/timeline?order=newest",
            "campaigns/1/progress", "campaigns/1/failures", "devices?status=ONLINE&site=a%20b&search=d", "fleet",
            "devices/d1/history?order=newest", "audit?subject=campaign:7&order=newest",
        ] {
            let answer = try await send(.get, "\(Self.base)/\(uri)")
            let isObject = (try? JSONSerialization.jsonObject(with: Data(answer.body.utf8))) is [String: Any]
            #expect(answer.status == 200 && isObject, "\(uri): \(answer.body)")
        }
        for uri in [
            "campaigns/1/devices?status=failed", "campaigns/1/devices?after=%2F", "campaigns?order=up", "fleet?x=1",
            "campaigns/1/timeline?after=d1", "devices?site=%00", "audit?subject=%27",
        ] {
            let answer = try await send(.get, "\(Self.base)/\(uri)")
            #expect(answer.status == 400, "\(uri): \(answer.body)")
        }
        #expect(system.facts.withLock { $0.pages.filter(\.newestFirst).count } == 4)
    }

    @Test func aQuerysMembersComeInPages() async throws {
        system.set { $0.groupQueries[4] = GroupQuery() }
        let first = try await send(.get, "\(Self.base)/groups/4/members?limit=1")
        #expect(first.body == #"{"items":[{"device_id":"d1"}],"next":"d1"}"# + "\n")
        let second = try await send(.get, "\(Self.base)/groups/4/members?limit=1&after=d1")
        #expect(second.body == #"{"items":[{"device_id":"d2"}],"next":null}"# + "\n")
    }

    // MARK: the routes of before

    @Test func theRoutesOfBeforeKnowTheTenant() async throws {
        let campaigns = "/customer/ota/campaigns"
        let secret = system.tokens.add("customer", .operator, tenant: "acme")
        let body = #"{"name":"n","firmware_version_id":1,"devices":["a"],"rollout_rate":5,"abort_threshold":0.1}"#
        let created = try await send(.post, campaigns, body, token: secret)
        #expect(created.status == 201 && created.headers[.location] == "\(campaigns)/7")
        #expect(try await send(.get, campaigns, token: secret).status == 200)
        #expect(try await send(.get, "\(campaigns)/1", token: secret).status == 200)
        for verb in ["start", "pause", "resume", "abort"] {
            #expect(try await send(.post, "\(campaigns)/1/\(verb)", token: secret).status == 200)
        }
        #expect(Set(system.requests.map(\.tenantID)) == ["acme"] && system.requests.count == 5)

        let tenant = HTTPField.Name("X-Tenant-ID")!
        let foreign = try await send(.get, campaigns, token: secret, headers: [tenant: "other"])
        #expect(foreign.status == 403 && foreign.body.contains("foreign_tenant"))
        #expect(try await send(.post, "\(campaigns)/1/start", token: secret, headers: [tenant: "other"]).status == 403)
        #expect(try await send(.get, campaigns).status == 400, "of which tenant?")
        #expect(try await send(.get, campaigns, headers: [tenant: "other"]).status == 200)
        #expect(try await send(.get, campaigns, headers: [tenant: "a/b"]).status == 400)
        let viewer = system.tokens.add("viewer", .viewer, tenant: "acme")
        #expect(try await send(.post, "\(campaigns)/1/start", token: viewer).status == 403)
        #expect(system.requests.count == 5)
    }

    // MARK: streams

    func feed(
        _ mayGoOn: @escaping @Sendable () -> Bool, _ limiter: Limiter = Limiter(max: 128),
        _ poll: @escaping @Sendable () async throws -> [StreamEvent]
    ) throws -> EventFeed {
        EventFeed(slot: try #require(LimitedSlot(limiter)), poll: poll, mayGoOn: mayGoOn)
    }

    @Test func aStreamTellsAndEnds() async throws {
        let feed = try feed({ true }) {
            [StreamEvent("campaign", #"{"id":1}"#), StreamEvent("decision", "{}", id: 9), StreamEvent("deleted", "{}")]
        }
        var text = ""
        for try await part in feed { text += String(buffer: part) }
        #expect(
            text == "retry: 2000\n\nevent: campaign\ndata: {\"id\":1}\n\nevent: decision\nid: 9\ndata: {}\n\n"
                + "event: deleted\ndata: {}\n\n")
        #expect(StreamEvent("x", "a\nb").text == "event: x\ndata: a\ndata: b\n\n", "no line ends the event")
    }

    @Test func aStreamEndsWithTheRightToIt() async throws {
        let feed = try feed({ false }) { [StreamEvent("campaign", "{}")] }
        var parts = 0
        for try await _ in feed { parts += 1 }
        #expect(parts == 0)

        let secret = system.tokens.add("x", .viewer, tenant: "acme")
        let policy = system.api().policy
        let request = Request(
            head: HTTPRequest(
                method: .get, scheme: nil, authority: "localhost", path: "/",
                headerFields: [.authorization: "Bearer \(secret)"]),
            body: .init(buffer: ByteBuffer()))
        let principal = Principal(name: "x", role: .viewer, tenantID: "acme", tokenID: 1)
        #expect(policy.isStill(principal, request) && !policy.isStill(.anonymous, request))
        system.tokens.state.withLock { state in
            state.apply(
                .revoked(TokenRevoked(id: 1, name: "x", tenantID: "acme", actor: "test")), at: Position(9),
                time: Timestamp(microseconds: 0))
            system.tokens.tokenIndex.replace(state)
        }
        #expect(!policy.isStill(principal, request))
    }

    @Test func streamsAreBounded() throws {
        let limiter = Limiter(max: 128)
        var taken = (0..<limiter.max).compactMap { _ in LimitedSlot(limiter) }
        #expect(taken.count == limiter.max && LimitedSlot(limiter) == nil && LimitedSlot(limiter) == nil)
        taken.removeLast()
        #expect(LimitedSlot(limiter) != nil)
    }
}
