import Campaigns
import EventLog
import EventModel
import Foundation
import Hummingbird
import Testing
@testable import ControlAPI

private let authorized: HTTPFields = [.authorization: "Bearer \(StandIn.token)", .contentType: "application/json"]
private let firmware = "/api/v1/tenants/t1/firmware"
private let campaigns = "/api/v1/tenants/t1/campaigns"

private func json(_ response: RouterClient.Response) throws -> [String: Any] {
    try #require(try JSONSerialization.jsonObject(with: Data(buffer: response.body)) as? [String: Any])
}

@Suite struct RouteTests {
    let system = StandIn()

    func send(
        _ method: HTTPRequest.Method, _ uri: String, _ body: String? = nil, headers: HTTPFields = authorized,
        bindHost: String = "127.0.0.1"
    ) async throws -> RouterClient.Response {
        try await system.client(bindHost: bindHost) { client in
            try await client.execute(
                uri: uri, method: method, headers: headers, body: body.map { ByteBuffer(string: $0) })
        }
    }

    @Test func parkedKeysAreShownAndTakenUp() async throws {
        let shown = try json(try await send(.get, "/api/v1/parked-keys?projection=device_status"))
        #expect((shown["items"] as? [[String: Any]])?.first?["key"] as? String == "tenant/acme/device/d1")
        let none = try json(try await send(.get, "/api/v1/parked-keys?projection=campaigns"))
        #expect((none["items"] as? [Any])?.isEmpty == true)
        let all = try await send(.post, "/api/v1/parked-keys/retry")
        let unparked = try json(all)["unparked"] as? [Any]
        #expect(all.status == .ok && unparked?.count == 1)
        _ = try await send(.post, "/api/v1/parked-keys/retry", #"{"projection":"device_status","key":"k"}"#)
        let slow = try await send(.post, "/api/v1/parked-keys/retry", #"{"key":"slow"}"#)
        let code = try json(slow)["code"] as? String
        #expect(slow.status == .serviceUnavailable && code == "retry_in_progress")
        let unknown = try await send(.post, "/api/v1/parked-keys/retry", #"{"projection":"none"}"#)
        #expect(unknown.status == .notFound)
        #expect(
            system.facts.withLock { $0.retries } == [
                ParkedRetryRequest(projection: nil, key: nil),
                ParkedRetryRequest(projection: "device_status", key: "k"),
                ParkedRetryRequest(projection: nil, key: "slow"),
            ])
    }

    /// A request that must fail, and how.
    struct Failure: Sendable, CustomTestStringConvertible {
        let name: String
        let method: HTTPRequest.Method
        let uri: String
        var body: String?
        var headers = authorized
        let status: Int
        let code: String
        var testDescription: String { name }
    }

    static let failures: [Failure] = [
        Failure(name: "no such path", method: .get, uri: "/nothing", status: 404, code: "no_such_route"),
        Failure(
            name: "no such path below a route", method: .get, uri: campaigns + "/1/explode", status: 404,
            code: "no_such_route"),
        Failure(name: "wrong method", method: .delete, uri: firmware, status: 405, code: "method_not_allowed"),
        Failure(
            name: "GET where only POST is", method: .get, uri: campaigns + "/1/start", status: 405,
            code: "method_not_allowed"),
        Failure(
            name: "no token", method: .post, uri: firmware, body: "{}", headers: [.contentType: "application/json"],
            status: 401, code: "token_required"),
        Failure(
            name: "another token", method: .post, uri: firmware, body: "{}",
            headers: [.authorization: "Bearer \(String(StandIn.token.reversed()))"], status: 401,
            code: "token_invalid"),
        Failure(
            name: "the token's beginning", method: .post, uri: firmware, body: "{}",
            headers: [.authorization: "Bearer 0123"], status: 401, code: "token_invalid"),
        Failure(
            name: "the token and more", method: .post, uri: firmware, body: "{}",
            headers: [.authorization: "Bearer \(StandIn.token)0"], status: 401, code: "token_invalid"),
        Failure(
            name: "basic authentication", method: .post, uri: firmware, body: "{}",
            headers: [.authorization: "Basic \(StandIn.token)"], status: 401, code: "token_invalid"),
        Failure(
            name: "a page of another origin", method: .post, uri: firmware, body: "{}",
            headers: [.authorization: "Bearer \(StandIn.token)", .origin: "https://evil.example"], status: 403,
            code: "foreign_origin"),
        Failure(
            name: "an origin that only begins like ours", method: .post, uri: firmware, body: "{}",
            headers: [.authorization: "Bearer \(StandIn.token)", .origin: "http://localhost.evil.example"],
            status: 403, code: "foreign_origin"),
        Failure(
            name: "a sandboxed page", method: .post, uri: firmware, body: "{}",
            headers: [.authorization: "Bearer \(StandIn.token)", .origin: "null"], status: 403,
            code: "foreign_origin"),
        Failure(name: "no body", method: .post, uri: firmware, status: 400, code: "body_required"),
        Failure(name: "not JSON", method: .post, uri: firmware, body: "{", status: 400, code: "invalid_json"),
        Failure(
            name: "a form", method: .post, uri: firmware, body: "version=1",
            headers: [
                .authorization: "Bearer \(StandIn.token)", .contentType: "application/x-www-form-urlencoded",
            ], status: 415, code: "unsupported_media_type"),
        Failure(
            name: "no media type", method: .post, uri: firmware, body: "{}",
            headers: [.authorization: "Bearer \(StandIn.token)"], status: 415, code: "unsupported_media_type"),
        Failure(
            name: "a missing field", method: .post, uri: firmware, body: #"{"version":"1"}"#, status: 422,
            code: "invalid_body"),
        Failure(
            name: "a misspelt field", method: .post, uri: firmware,
            body: #"{"version":"1","file_url":"https://h/f","devicetype":"x"}"#, status: 422, code: "invalid_body"),
        Failure(
            name: "a string for a number", method: .post, uri: campaigns,
            body: #"{"name":"n","firmware_version_id":"1","devices":["a"]}"#, status: 422, code: "invalid_body"),
        Failure(
            name: "a number in the device list", method: .post, uri: campaigns,
            body: #"{"name":"n","firmware_version_id":1,"devices":["a",2]}"#, status: 422, code: "invalid_body"),
        Failure(
            name: "an array for an object", method: .post, uri: firmware, body: "[]", status: 422,
            code: "invalid_body"),
        Failure(
            name: "a body beyond the limit", method: .post, uri: firmware,
            body: String(repeating: " ", count: ControlAPI.bodyBytesMax + 1), status: 413, code: "too_large"),
        Failure(
            name: "an idempotency key with a space", method: .post, uri: firmware,
            body: #"{"version":"1","file_url":"https://h/f"}"#,
            headers: [
                .authorization: "Bearer \(StandIn.token)", .contentType: "application/json", .idempotencyKey: "a b",
            ], status: 400, code: "idempotency_key_invalid"),
        Failure(
            name: "a tenant with an escaped slash", method: .get, uri: "/api/v1/tenants/a%2Fb/firmware",
            status: 400, code: "id_invalid"),
        Failure(
            name: "a tenant with NUL", method: .get, uri: "/api/v1/tenants/a%00/firmware", status: 400,
            code: "id_invalid"),
        Failure(
            name: "a device of 129 characters", method: .get,
            uri: "/api/v1/tenants/t1/devices/" + String(repeating: "x", count: 129), status: 400,
            code: "id_invalid"),
        Failure(
            name: "an unknown device", method: .get, uri: "/api/v1/tenants/t1/devices/gone", status: 404,
            code: "not_found"),
        Failure(name: "unknown firmware", method: .get, uri: firmware + "/2", status: 404, code: "not_found"),
        Failure(name: "firmware that is no number", method: .get, uri: firmware + "/x", status: 404, code: "not_found"),
        Failure(name: "an unknown campaign", method: .get, uri: campaigns + "/2", status: 404, code: "not_found"),
        Failure(
            name: "a campaign beyond int64", method: .post, uri: campaigns + "/99999999999999999999/start",
            status: 404, code: "not_found"),
        Failure(
            name: "an unknown status", method: .get, uri: campaigns + "?status=running", status: 400,
            code: "query_invalid"),
        Failure(
            name: "an unknown parameter", method: .get, uri: campaigns + "?stauts=RUNNING", status: 400,
            code: "query_unknown"),
        Failure(name: "limit 0", method: .get, uri: campaigns + "?limit=0", status: 400, code: "query_invalid"),
        Failure(name: "limit 1001", method: .get, uri: campaigns + "?limit=1001", status: 400, code: "query_invalid"),
        Failure(
            name: "a position that is none", method: .get, uri: campaigns + "?min_position=-1", status: 400,
            code: "query_invalid"),
        Failure(
            name: "a position beyond int64", method: .get, uri: campaigns + "?min_position=9223372036854775808",
            status: 400, code: "query_invalid"),
        Failure(
            name: "a reason with NUL", method: .get, uri: "/api/v1/dead-letters?reason=%00", status: 400,
            code: "query_invalid"),
        Failure(
            name: "no dead letter there", method: .get, uri: "/api/v1/dead-letters/6", status: 404,
            code: "not_found"),
        Failure(
            name: "an unknown projection", method: .get, uri: "/api/v1/projections/nope", status: 404,
            code: "not_found"),
        Failure(
            name: "an unknown projection paused", method: .post, uri: "/api/v1/projections/nope/pause", status: 404,
            code: "not_found"),
    ]

    @Test(arguments: failures)
    func everyErrorIsAProblem(failure: Failure) async throws {
        let response = try await send(failure.method, failure.uri, failure.body, headers: failure.headers)
        #expect(response.status.code == failure.status)
        #expect(response.headers[.contentType] == "application/problem+json")
        let problem = try json(response)
        #expect(problem["code"] as? String == failure.code)
        #expect(problem["status"] as? Int == failure.status)
        #expect(problem["type"] as? String == "tag:refold,2026:problem/\(failure.code)")
        #expect(problem["instance"] as? String == String(failure.uri.prefix { $0 != "?" }))
        #expect((problem["detail"] as? String)?.isEmpty == false)
        #expect(system.requests.isEmpty, "nothing reached the decider")
    }

    @Test func errorsNameWhatToDo() async throws {
        let missing = try json(try await send(.post, firmware, #"{"version":"1"}"#))
        #expect(missing["detail"] as? String == "file_url is required")
        let type = try json(
            try await send(.post, campaigns, #"{"name":"n","firmware_version_id":1,"devices":["a",2]}"#))
        #expect(type["detail"] as? String == "devices[1] must be a string")
        let unknown = try json(try await send(.post, firmware, #"{"vresion":"1"}"#))
        #expect((unknown["detail"] as? String)?.hasPrefix("vresion is not a field; there are: version") == true)
        #expect(try await send(.delete, firmware).headers[.allow] == "GET, POST, HEAD")
        #expect(try await send(.post, firmware, "{}", headers: [:]).headers[.wwwAuthenticate] != nil)
    }

    @Test func aWriteReachesTheDecider() async throws {
        var headers = authorized
        headers[.idempotencyKey] = "key-1"
        headers[.origin] = "http://localhost"
        let response = try await send(
            .post, campaigns,
            #"{"name":"n","firmware_version_id":1,"devices":["a","b"],"rollout_rate":5,"abort_threshold":0.1}"#,
            headers: headers)
        #expect(response.status == .created)
        #expect(response.headers[.location] == "/api/v1/tenants/t1/campaigns/7")
        #expect(String(buffer: response.body) == #"{"id":7,"position":41,"status":"CREATED"}"# + "\n")
        #expect(
            system.requests == [
                CommandRequest(
                    tenantID: "t1", actor: "admin", idempotencyKey: "key-1",
                    command: .createCampaign(
                        CampaignSpec(
                            name: "n", firmwareVersionID: 1, devices: ["a", "b"], rolloutRate: 5, abortThreshold: 0.1)))
            ])
    }

    @Test(arguments: [
        ("start", "", CampaignCommand.start(campaign: 9)),
        ("pause", #"{"reason":"noise"}"#, .pause(campaign: 9, reason: "noise")),
        ("pause", "{}", .pause(campaign: 9, reason: nil)),
        ("resume", "", .resume(campaign: 9)),
        ("abort", #"{"reason":null}"#, .abort(campaign: 9, reason: nil)),
    ])
    func transitionsReachTheDecider(verb: String, body: String, command: CampaignCommand) async throws {
        let response = try await send(.post, "/api/v1/tenants/a%3Ab/campaigns/9/\(verb)", body)
        #expect(response.status == .ok)
        #expect(system.requests == [CommandRequest(tenantID: "a:b", actor: "admin", command: command)])
    }

    @Test(arguments: [
        (RejectionCode.notFound, 404), (.illegalTransition, 409), (.invalidValue, 422), (.keyReused, 422),
    ])
    func refusalsAreProblemsWithTheirPosition(code: RejectionCode, status: Int) async throws {
        system.set { $0.answer = .rejected(position: Position(12), code: code, reason: "because") }
        let response = try await send(.post, campaigns + "/1/start")
        #expect(response.status.code == status)
        let problem = try json(response)
        #expect(problem["code"] as? String == code.rawValue && problem["position"] as? Int == 12)
        #expect(problem["detail"] as? String == "because")
    }

    @Test(arguments: [(AppendError.full("no space"), "log_full"), (.failed("EIO"), "log_failed")])
    func aLogThatTakesNothingIsNoSuccess(error: AppendError, code: String) async throws {
        system.set { $0.appendError = error }
        let response = try await send(.post, campaigns + "/1/start")
        #expect(response.status == .serviceUnavailable && response.headers[.retryAfter] != nil)
        #expect(try json(response)["code"] as? String == code)
    }

    static let reads = [
        firmware, firmware + "/1", campaigns, campaigns + "/1", "/api/v1/tenants/t1/devices/d1", "/api/v1/dead-letters",
        "/api/v1/dead-letters/5",
    ]

    @Test(arguments: reads)
    func readsFailWithoutTheDatabaseAndWaitForPositions(path: String) async throws {
        #expect(try await send(.get, path).status == .ok)
        #expect(try await send(.get, path + "?min_position=7").status == .ok)
        #expect(system.facts.withLock { $0.waits.map(\.0) } == [7])
        system.set { $0.reached = false }
        let late = try await send(.get, path + "?min_position=7")
        #expect(late.status == .serviceUnavailable && late.headers[.retryAfter] == "1")
        system.set { $0.queryError = .unavailable("connection refused") }
        let away = try await send(.get, path)
        #expect(away.status == .serviceUnavailable && away.headers[.retryAfter] != nil)
        #expect(try json(away)["code"] as? String == "database_unavailable")
        #expect(try await send(.post, campaigns + "/1/start").status == .ok, "writes go on")
        system.set { $0.queryError = .failed("syntax error at secret") }
        let broken = try await send(.get, path)
        #expect(broken.status == .internalServerError)
        #expect(!String(buffer: broken.body).contains("secret"), "nothing of the inside leaks")
    }

    /// JSON has no infinity: the answer is a problem like any other, and the daemon's log has the error.
    @Test(arguments: ["/api/v1/projections", "/api/v1/status"])
    func anAnswerThatCannotBeEncodedIsALoggedProblem(path: String) async throws {
        system.set { $0.lagSeconds = .infinity }
        let response = try await send(.get, path)
        #expect(response.status == .internalServerError)
        #expect(response.headers[.contentType] == "application/problem+json")
        let problem = try json(response)
        #expect(problem["code"] as? String == "internal" && problem["instance"] as? String == path)
        #expect(system.recorder.lines.count == 1, "\(system.recorder.lines)")
        #expect(system.recorder.lines.first?.hasPrefix("request failed") == true)
    }

    @Test func pagesAndRowsPassThrough() async throws {
        #expect(
            String(buffer: try await send(.get, campaigns + "?limit=2&after=9&status=RUNNING").body)
                == #"{"items":[{"id":1},{"id":2}],"next":2}"# + "\n")
        #expect(system.facts.withLock { $0.pages } == [PageRequest(limit: 2, after: 9)])
        #expect(
            String(buffer: try await send(.get, "/api/v1/tenants/t1/devices/d1").body)
                == #"{"device":{"tenant_id":"t1","device_id":"d1"},"#
                + #""gate":{"accepted":3,"rate_limited":1,"without_certificate":2,"tokens":9.5}}"#
                + "\n")
        #expect(
            String(buffer: try await send(.get, "/api/v1/tenants/t1/devices/quiet").body).hasSuffix(
                #""gate":null}"# + "\n"))
    }

    @Test func statusHasEveryKeyOfTheContract() async throws {
        let status = try json(try await send(.get, "/api/v1/status"))
        let projection = try #require((status["projections"] as? [[String: Any]])?.first)
        #expect(
            Set(projection.keys) == [
                "name", "version", "partition", "position", "lag_events", "lag_seconds", "state", "last_error",
                "parked_keys", "parked_position", "rebuild",
            ])
        #expect(projection["position"] is NSNull && projection["last_error"] is NSNull)
        #expect(
            Set(try #require((status["brokers"] as? [[String: Any]])?.first).keys)
                == [
                    "name", "client_id", "connected", "subscribed", "session_present", "last_error",
                    "without_certificate", "commands",
                ])
        #expect(
            Set(try #require(status["log"] as? [String: Any]).keys) == [
                "head", "durable", "segments", "bytes", "keeping",
            ])
        #expect(Set(try #require(status["database"] as? [String: Any]).keys) == ["connected", "last_error"])
    }

    @Test func projectionsArePausedAndResumed() async throws {
        #expect(
            try json(try await send(.post, "/api/v1/projections/device_status/pause"))["state"] as? String
                == "paused")
        #expect(try json(try await send(.get, "/api/v1/projections/device_status"))["state"] as? String == "paused")
        #expect(
            try json(try await send(.post, "/api/v1/projections/device_status/resume"))["state"] as? String
                == "running")
    }

    @Test func alarmsOfABrokerAreAcknowledgedOnRecord() async throws {
        let path = "/api/v1/brokers/b/acknowledge"
        let answer = try await send(.post, path, #"{"reason":"reinstalled"}"#)
        #expect(answer.status == .ok)
        #expect(try json(answer)["position"] as? Int == 12)
        let recorded = system.facts.withLock { $0.acknowledged }
        #expect(recorded.count == 1 && recorded.first?.first == "b" && recorded.first?.last == "reinstalled")
        #expect(try await send(.post, path, #"{"reason":""}"#).status == .unprocessableContent)
        #expect(try await send(.post, path).status != .ok, "a reason is needed")
        let unknown = try await send(.post, "/api/v1/brokers/x/acknowledge", #"{"reason":"r"}"#)
        #expect(unknown.status == .notFound && String(buffer: unknown.body).contains("there are: b"))
        #expect(try await send(.post, path, #"{"reason":"r"}"#, headers: [:]).status == .unauthorized)
    }

    @Test func probesAndMetrics() async throws {
        #expect(try await send(.get, "/healthz").status == .ok)
        system.set { $0.stuck = ["the thread of broker main has not moved"] }
        let stuck = try await send(.get, "/healthz")
        #expect(stuck.status == .serviceUnavailable)
        #expect(try json(stuck)["reasons"] as? [String] == ["the thread of broker main has not moved"])
        system.set { $0.stuck = [] }
        #expect(try await send(.get, "/readyz").status == .ok)
        system.set { $0.notReady = ["broker main is not subscribed"] }
        let unready = try await send(.get, "/readyz")
        #expect(unready.status == .serviceUnavailable)
        #expect(try json(unready)["reasons"] as? [String] == ["broker main is not subscribed"])
        let metrics = try await send(.get, "/metrics")
        #expect(metrics.headers[.contentType] == "text/plain; version=0.0.4; charset=utf-8")
        #expect(String(buffer: metrics.body).contains("refold_log_durable_events 11\n"))
        #expect(try await send(.head, "/api/v1/status").status == .ok)
    }

    /// Beyond loopback only the probes are free.
    @Test(arguments: reads + ["/api/v1/status", "/api/v1/projections", "/metrics"])
    func readsNeedTheTokenBeyondLoopback(path: String) async throws {
        #expect(try await send(.get, path, headers: [:]).status == .ok)
        #expect(try await send(.get, path, headers: [:], bindHost: "0.0.0.0").status == .unauthorized)
        #expect(try await send(.get, path, bindHost: "0.0.0.0").status == .ok)
        #expect(try await send(.get, "/healthz", headers: [:], bindHost: "0.0.0.0").status == .ok)
        #expect(try await send(.get, "/readyz", headers: [:], bindHost: "0.0.0.0").status == .ok)
    }
}
