import Access
import Decisions
import EventModel
import Foundation
import HTTPTypes
import Jobs
import NIOCore
import Testing
@testable import ControlAPI

/// Jobs, workers and queues over HTTP.
@Suite struct JobRouteTests {
    static let path = "v1/tenants/acme/jobs"

    // MARK: Refusals

    @Test(arguments: [
        (JobRefusal.Code.notFound, 404), (.illegalTransition, 409), (.alreadyExists, 409), (.invalidValue, 422),
        (.keyReused, 422), (.limitReached, 422),
    ])
    func everyRefusalHasItsStatus(code: JobRefusal.Code, status: Int) async throws {
        let system = StandIn()
        system.jobs.facts.withLock { $0.answer = .rejected(position: Position(7), code: code, reason: "why") }
        for (method, path, body) in [
            (HTTPRequest.Method.post, "tenants/acme/jobs", #"{"kind":"k"}"#), (.post, "tenants/acme/jobs/1/retry", ""),
            (.post, "tenants/acme/jobs/1/cancel", ""), (.post, "tenants/acme/jobs/1/move", #"{"queue":"low"}"#),
            (.post, "jobs/lease", #"{"worker":"w"}"#), (.post, "queues/low/pause", ""),
            (.post, "queues/low/resume", ""), (.put, "queues/limits/k", #"{"rate":null}"#),
        ] {
            let response = try await system.client { client in
                try await client.execute(
                    uri: "/api/v1/\(path)", method: method,
                    headers: [.authorization: "Bearer \(StandIn.token)", .contentType: "application/json"],
                    body: ByteBuffer(string: body))
            }
            let answer = CertificateSite.Answer(
                status: response.status.code, headers: response.headers, body: response.body)
            #expect(answer.status == status && answer.code == code.rawValue, "\(path): \(answer.text)")
            #expect(answer.json["position"].integer == 7 && answer.json["detail"].string == "why")
        }
    }

    @Test(arguments: [
        #"{}"#, #"{"kind":""}"#, #"{"kind":"A B"}"#, #"{"kind":"k","queue":"urgent"}"#,
        #"{"kind":"k","run_at":"soon"}"#,
        #"{"kind":"k","attempts_max":0}"#, #"{"kind":"k","attempts_max":1.5}"#, #"{"kind":"k","key":""}"#,
        #"{"kind":"k","prio":1}"#, #"{"items":[]}"#, #"{"items":[{"kind":"k"}],"queue":"low"}"#, "[]",
        #"{"kind":"k","deadline":"2026-13-01T00:00:00Z"}"#,
    ])
    func aJobThatMakesNoSenseIsRefused(body: String) async throws {
        try await JobSite.with { site in
            let answer = try await site.send(.post, Self.path, body)
            #expect(answer.status == 422, "\(body): \(answer.text)")
            #expect(try await site.send(.get, Self.path).json["items"].items.isEmpty)
        }
    }

    @Test(arguments: [
        ("lease", #"{"worker":""}"#), ("lease", #"{"worker":"w","count":0}"#), ("lease", #"{"worker":"w","kinds":[]}"#),
        ("lease", #"{"worker":"w","lease_seconds":0}"#), ("lease", #"{"worker":"w","wait_seconds":61}"#),
        ("lease", #"{"worker":"w","queues":["urgent"]}"#), ("lease", "{}"),
        ("1/heartbeat", #"{"worker":"w"}"#), ("1/heartbeat", #"{"worker":"w","token":-1}"#),
        ("1/result", #"{"worker":"w","token":1,"outcome":"done"}"#),
        ("1/result", #"{"worker":"","token":1,"outcome":"succeeded"}"#),
        ("1/result", #"{"worker":"w","token":1,"outcome":"failed"}"#),
        ("1/result", #"{"worker":"w","token":1,"outcome":"limited","retry_after_seconds":0}"#),
        ("results", #"{"worker":"w","items":[]}"#),
        ("results", #"{"worker":"w","items":[{"id":1,"token":1,"outcome":"succeeded","x":1}]}"#),
    ])
    func aWorkersRequestThatMakesNoSenseIsRefused(path: String, body: String) async throws {
        try await JobSite.with { site in
            let answer = try await site.send(.post, "v1/jobs/\(path)", body)
            #expect(answer.status == 422, "\(path) \(body): \(answer.text)")
        }
    }

    // MARK: Jobs

    @Test func aJobIsQueuedShownAndListed() async throws {
        try await JobSite.with { site in
            let sent = #"{"kind":"report","queue":"high","key":"june","arguments":{"n":[1,2.5,"a",null,true]}}"#
            let first = try await site.send(.post, Self.path, sent, key: "k1")
            #expect(first.status == 201 && first.json["position"].integer != nil, "\(first.text)")
            let id = try #require(first.json["items"].items.first?["id"].integer)
            let again = try await site.send(.post, Self.path, sent, key: "k1")
            #expect(again.status == 201 && again.json["items"].items.first?["id"].integer == id)
            let other = try await site.send(.post, Self.path, #"{"kind":"other"}"#, key: "k1")
            #expect(other.status == 422 && other.code == "idempotency_key_reused")
            let open = try await site.send(.post, Self.path, sent)
            #expect(open.status == 200 && open.json["position"].isNull, "the key is taken: \(open.text)")
            let job = try await site.send(.get, "\(Self.path)/\(id)").json
            #expect(job["status"].string == "WAITING" && job["queue"].string == "high")
            #expect(job["arguments"]["n"].items.count == 5 && job["delay"]["reason"].string?.contains("worker") == true)
            #expect(try await site.send(.get, "queue/jobs/\(id)").json["id"].integer == id)
        }
    }

    @Test func pagesOfJobsAreFilteredAndLeadOn() async throws {
        try await JobSite.with { site in
            for number in 1...5 { _ = try await site.queue(#""kind":"a","key":"\#(number)""#) }
            _ = try await site.queue(#""kind":"b","queue":"low""#)
            _ = try await site.queue(#""kind":"a""#, tenant: "other")
            let first = try await site.send(.get, "\(Self.path)?kind=a&limit=3").json
            #expect(first["items"].items.count == 3)
            let next = try #require(first["next"].integer)
            let second = try await site.send(.get, "\(Self.path)?kind=a&limit=3&after=\(next)").json
            #expect(second["items"].items.count == 2 && second["next"].isNull)
            #expect(try await site.send(.get, "\(Self.path)?queue=low").json["items"].items.count == 1)
            #expect(try await site.send(.get, "\(Self.path)?status=RUNNING").json["items"].items.isEmpty)
            for query in ["queue=urgent", "status=SUCCEEDED", "state=RUNNING", "limit=0"] {
                #expect(try await site.send(.get, "\(Self.path)?\(query)").status == 400, "\(query)")
            }
        }
    }

    @Test func operatorsCancelRetryAndMove() async throws {
        try await JobSite.with { site in
            let id = try await site.queue(), path = "\(Self.path)/\(id)"
            #expect(try await site.send(.post, "\(path)/move", #"{"queue":"critical"}"#).status == 200)
            #expect(try await site.send(.get, path).json["queue"].string == "critical")
            #expect(try await site.send(.post, "\(path)/move", #"{"queue":"urgent"}"#).status == 422)
            let cancelled = try await site.send(.post, "\(path)/cancel", #"{"reason":"no need"}"#)
            #expect(cancelled.json["status"].string == "CANCELLED" && cancelled.json["position"].integer != nil)
            #expect(try await site.send(.post, "\(path)/cancel").code == "illegal_transition")
            #expect(try await site.send(.get, path).json["ended_at"].string != nil)
            #expect(try await site.send(.post, "\(path)/retry").json["status"].string == "WAITING")
            #expect(try await site.send(.post, "\(Self.path)/999/retry").status == 404)
        }
    }

    @Test func anotherTenantsJobIsNotThere() async throws {
        try await JobSite.with { site in
            let id = try await site.queue(tenant: "other")
            let secret = site.system.tokens.add("acme-admin", .admin, tenant: "acme")
            for (method, path) in [
                (HTTPRequest.Method.get, ""), (.post, "/retry"), (.post, "/cancel"),
            ] {
                let theirs = try await site.send(method, "\(Self.path)/\(id)\(path)", token: secret)
                let nobodys = try await site.send(method, "\(Self.path)/777\(path)", token: secret)
                #expect(theirs.status == 404 && nobodys.status == 404, "\(path): \(theirs.text)")
            }
            #expect(try await site.send(.get, "queue/jobs/\(id)", token: secret).status == 404)
            #expect(try await site.send(.get, Self.path, token: secret).json["items"].items.isEmpty)
            for path in ["v1/jobs/lease", "v1/jobs/\(id)/result", "v1/jobs/results", "v1/queues/low/pause"] {
                #expect(try await site.send(.post, path, "{}", token: secret).code == "all_tenants_required", "\(path)")
            }
            for path in ["v1/queues", "v1/workers", "queue/statistics"] {
                #expect(try await site.send(.get, path, token: secret).status == 403, "\(path)")
            }
        }
    }

    @Test func viewersReadAndDoNotWrite() async throws {
        try await JobSite.with { site in
            let secret = site.system.tokens.add("all-viewer", .viewer)
            for path in [Self.path, "v1/queues", "v1/workers", "queue/statistics"] {
                let answer = try await site.send(.get, path, token: secret)
                #expect(answer.status == 200, "\(path)")
            }
            for path in [Self.path, "v1/jobs/lease", "v1/jobs/1/heartbeat", "v1/queues/low/pause"] {
                let answer = try await site.send(.post, path, "{}", token: secret)
                #expect(answer.code == "role_insufficient", "\(path)")
            }
            let limited = try await site.send(.put, "v1/queues/limits/k", "{}", token: secret)
            #expect(limited.code == "role_insufficient")
        }
    }

    // MARK: Workers

    @Test func aWorkerLeasesReportsAndIsToldWhenItIsLate() async throws {
        try await JobSite.with { site in
            let id = try await site.queue(#""kind":"report","arguments":{"month":6}"#)
            let job = try await site.lease(#","queues":["normal"],"wait_seconds":10"#)
            #expect(job["id"].integer == id && job["attempt"].integer == 1 && job["tenant"].string == "acme")
            #expect(job["arguments"]["month"].integer == 6 && job["timeout_seconds"].integer == 600)
            let token = job["token"].integer ?? 0
            let beat = #"{"worker":"w","token":\#(token)}"#
            #expect(try await site.send(.post, "v1/jobs/\(id)/heartbeat", beat).status == 200)
            let wrong = try await site.send(.post, "v1/jobs/\(id)/heartbeat", #"{"worker":"x","token":\#(token)}"#)
            #expect(wrong.status == 409 && wrong.code == "attempt_ended")
            let running = try await site.send(.get, "\(Self.path)/\(id)").json
            #expect(running["running"]["worker"].string == "w" && running["running"]["token"].integer == token)
            let workers = try await site.send(.get, "v1/workers").json["items"].items
            #expect(workers.first?["running"].items.first?["id"].integer == id)
            let outcome = #""outcome":"succeeded","result":"3 pages""#
            #expect(try await site.report(job, outcome).json["status"].string == "recorded")
            #expect(try await site.report(job, outcome).json["status"].string == "repeated")
            let late = try await site.report(job, #""outcome":"failed","error":"no""#)
            #expect(late.status == 200 && late.json["status"].string == "late", "\(late.text)")
            #expect(try await site.send(.get, "\(Self.path)/\(id)").status == 404)
            #expect(try await site.send(.post, "v1/jobs/\(id)/heartbeat", beat).status == 409)
        }
    }

    @Test func failedLimitedAndReleasedAttemptsWait() async throws {
        try await JobSite.with { site in
            let id = try await site.queue(), path = "\(Self.path)/\(id)"
            _ = try await site.report(try await site.lease(#","wait_seconds":10"#), #""outcome":"released""#)
            let failed = try await site.report(try await site.lease(), #""outcome":"failed","error":"no route""#)
            #expect(failed.json["status"].string == "recorded")
            let waiting = try await site.send(.get, path).json
            #expect(waiting["failures"].integer == 1 && waiting["delay"]["until"].string != nil)
            #expect(try await site.send(.post, "\(path)/retry").status == 200)
            let limited = try await site.report(
                try await site.lease(), #""outcome":"limited","retry_after_seconds":120,"error":"429""#)
            #expect(limited.json["status"].string == "recorded")
            let delayed = try await site.send(.get, path).json
            #expect(
                delayed["failures"].integer == 1 && delayed["delay"]["reason"].string?.contains("Retry-After") == true)
            let limits = try await site.send(.get, "v1/queues").json["limits"].items
            #expect(limits.first?["kind"].string == "report" && limits.first?["opens_at"].string != nil)
            site.clock.pass(seconds: 121)
            let ended = try await site.report(
                try await site.lease(), #""outcome":"failed","error":"gone","final":true"#)
            #expect(ended.json["status"].string == "recorded")
            #expect(try await site.send(.get, path).json["status"].string == "FAILED")
        }
    }

    @Test func resultsComeInBatches() async throws {
        try await JobSite.with { site in
            for _ in 1...3 { _ = try await site.queue() }
            let leased = try await site.send(.post, "v1/jobs/lease", #"{"worker":"w","count":3,"wait_seconds":10}"#)
            let jobs = leased.json["items"].items
            #expect(jobs.count == 3)
            let items = jobs.map { job in
                #"{"id":\#(job["id"].integer ?? 0),"token":\#(job["token"].integer ?? 0),"outcome":"succeeded"}"#
            }
            let stranger = #"{"id":\#(jobs[0]["id"].integer ?? 0),"token":0,"outcome":"succeeded"}"#
            let body = #"{"worker":"w","items":[\#((items.dropFirst() + [stranger]).joined(separator: ","))]}"#
            let answer = try await site.send(.post, "v1/jobs/results", body)
            #expect(answer.json["items"].items.map { $0["status"].string } == ["recorded", "recorded", "late"])
            let totals = try await site.send(.get, "queue/statistics").json
            #expect(totals["completed_24h"].integer == 2 && totals["running"].integer == 1)
            #expect(totals["queued"].integer == 0 && totals["failed_24h"].integer == 0)
        }
    }

    // MARK: Queues

    @Test func queuesArePausedAndKindsLimited() async throws {
        try await JobSite.with { site in
            let paused = try await site.send(.post, "v1/queues/normal/pause", #"{"note":"CA is down"}"#, key: "p")
            #expect(paused.status == 200 && paused.json["position"].integer != nil, "\(paused.text)")
            let again = try await site.send(.post, "v1/queues/normal/pause", #"{"note":"CA is down"}"#, key: "p")
            #expect(again.status == 200 && again.json["position"].integer == paused.json["position"].integer)
            #expect(try await site.send(.post, "v1/queues/normal/pause").status == 409)
            #expect(try await site.send(.post, "v1/queues/urgent/pause").status == 404)
            let id = try await site.queue()
            let reason = try await site.send(.get, "\(Self.path)/\(id)").json["delay"]["reason"].string
            #expect(reason?.hasSuffix("paused the queue normal: CA is down") == true, "\(reason ?? "")")
            #expect(try await site.lease()["id"].integer == nil)
            #expect(try await site.send(.post, "v1/queues/normal/resume").status == 200)
            #expect(try await site.send(.put, "v1/queues/limits/report", #"{"rate":"1/h"}"#).status == 200)
            #expect(try await site.lease(#","wait_seconds":10"#)["id"].integer == id)
            let next = try await site.queue()
            let delay = try await site.send(.get, "\(Self.path)/\(next)").json["delay"]
            #expect(delay["reason"].string?.contains("1/h") == true && delay["until"].string != nil)
            #expect(try await site.send(.put, "v1/queues/limits/report", #"{"rate":null}"#).status == 200)
            #expect(try await site.lease()["id"].integer == next)
            for body in ["{}", #"{"rate":"1/w"}"#, #"{"rate":"0/m"}"#, #"{"rate":1}"#] {
                #expect(try await site.send(.put, "v1/queues/limits/report", body).status == 422, "\(body)")
            }
            let answer = try await site.send(.get, "v1/queues")
            let names = answer.json["queues"].items.map { $0["name"].string }
            #expect(names == ["critical", "high", "normal", "low"])
        }
    }
}
