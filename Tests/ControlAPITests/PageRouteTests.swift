import Hummingbird
import Testing
import WebPages
@testable import ControlAPI

/// How pages are served, and the routes that only they ask.
@Suite struct PageRouteTests {
    private func get(
        _ uri: String, _ headers: HTTPFields = [:], api: ControlAPI = StandIn().api()
    ) async throws -> RouterClient.Response {
        try await RouterClient(api.router()).execute(uri: uri, method: .get, headers: headers)
    }

    @Test func everyPageIsTheSameDocumentUnderTheSamePolicy() async throws {
        for path in ControlAPI.pagePaths {
            let uri = path.replacing("{tenant}", with: "acme").replacing("{id}", with: "1")
                .replacing("{device}", with: "d1")
            let answer = try await get(uri)
            #expect(answer.status == .ok && String(buffer: answer.body) == WebPages.page.text, "\(uri)")
            let policy = try #require(answer.headers[.contentSecurityPolicy])
            #expect(policy.contains("default-src 'none'") && policy.contains("trusted-types 'none'"))
            #expect(!policy.contains("unsafe") && !policy.contains("http"))
        }
    }

    @Test func whatIsKeptIsAskedForAgainAndNotSentAgain() async throws {
        let first = try await get("/assets/core/app.js")
        #expect(first.status == .ok && first.headers[.contentType] == "text/javascript; charset=utf-8")
        let tag = try #require(first.headers[.eTag])
        let second = try await get("/assets/core/app.js", [.ifNoneMatch: "\"other\", \(tag)"])
        #expect(second.status == .notModified && second.body.readableBytes == 0)
        #expect(try await get("/assets/core/app.js", [.ifNoneMatch: "\"other\""]).status == .ok)
        for path in ["/assets/core/none.js", "/assets/..%2f/index.html", "/assets/index.html/x"] {
            #expect(try await get(path).status == .notFound, "\(path)")
        }
    }

    /// Whatever a module imports or a document names is there.
    @Test func filesNameOnlyFilesThatAreThere() throws {
        for file in WebPages.files.values {
            for match in file.text.matches(of: /(?:from|import) '(\.\.?\/[^']+)'/) {
                var parts = file.path.split(separator: "/").dropLast().map(String.init)
                for part in match.1.split(separator: "/") where part != "." {
                    if part == ".." { parts.removeLast() } else { parts.append(String(part)) }
                }
                #expect(WebPages.files[parts.joined(separator: "/")] != nil, "\(file.path) imports \(match.1)")
            }
            for match in file.text.matches(of: /\/assets\/([a-z\/]+\.[a-z]+)/) {
                #expect(WebPages.files[String(match.1)] != nil, "\(file.path) names \(match.1)")
            }
            #expect(!file.text.contains("innerHTML") && !file.text.contains("insertAdjacentHTML"), "\(file.path)")
        }
    }

    @Test func anEventIsItsOwnTenantsToSee() async throws {
        let base = StandIn().api()
        var system = base.system
        system.event = { position in
            switch position {
            case 1: RecordedEvent(row: JSONRow(#"{"position":1}"#), tenantID: "acme")
            case 2: RecordedEvent(row: JSONRow(#"{"position":2}"#), tenantID: nil)
            default: nil
            }
        }
        let api = ControlAPI(system: system, policy: base.policy)
        let own = try await get("/api/v1/tenants/acme/events/1", api: api)
        #expect(own.status == .ok && String(buffer: own.body) == "{\"position\":1}\n")
        for path in ["globex/events/1", "acme/events/2", "acme/events/3"] {
            #expect(try await get("/api/v1/tenants/\(path)", api: api).status == .notFound, "\(path)")
        }
    }
}
