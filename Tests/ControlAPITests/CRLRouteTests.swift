import Certificates
import Decisions
import Foundation
import HTTPTypes
import PKI
import Testing
@testable import ControlAPI
@testable import Issuing

/// CRLs over HTTP: their bytes for brokers, their state for operators.
@Suite struct CRLRouteTests {
    @Test func anyoneFetchesACRLInBothForms() async throws {
        try await CertificateSite.with { site in
            #expect(try await site.authority("ca").status == 201)
            #expect(try await site.open(.get, "/crl/ca.crl").status == 404, "none was issued yet")
            let made = try await site.crls.issueDue()
            #expect(made.issued.count == 1 && made.failures.isEmpty)
            _ = site.system.tokens.add("so that reading is closed", .viewer)
            let der = try await site.open(.get, "/crl/ca.crl"), pem = try await site.open(.get, "/crl/ca.pem")
            #expect(der.status == 200 && der.headers[.contentType] == "application/pkix-crl")
            #expect(pem.status == 200 && pem.headers[.contentType] == "application/x-pem-file")
            let list = try RevocationList(der: Array(buffer: der.body))
            #expect(try RevocationList.all(pem: Array(buffer: pem.body)) == [list])
            #expect(list == made.issued[0].list)
            for answer in [der, pem] {
                #expect(
                    answer.headers[.cacheControl] == "no-cache"
                        && answer.headers[HTTPField.Name("X-Content-Type-Options")!] == "nosniff")
            }
        }
    }

    @Test func aCRLThatIsKnownIsNotSentAgain() async throws {
        try await CertificateSite.with { site in
            #expect(try await site.authority("ca").status == 201)
            _ = try await site.crls.issueDue()
            let first = try await site.open(.get, "/crl/ca.crl"), tag = try #require(first.headers[.eTag])
            #expect(try await site.open(.get, "/crl/ca.pem").headers[.eTag] != tag, "other bytes have another tag")
            let known = try await site.open(.get, "/crl/ca.crl", [.ifNoneMatch: tag])
            #expect(known.status == 304 && known.body.readableBytes == 0 && known.headers[.eTag] == tag)
            let head = try await site.open(.head, "/crl/ca.crl")
            #expect(head.status == 200 && head.body.readableBytes == 0 && head.headers[.eTag] == tag)
            #expect(head.headers[.contentLength] == "\(first.body.readableBytes)")
            #expect(try await site.send(.post, "authorities/ca/crl").status == 201)
            let next = try await site.open(.get, "/crl/ca.crl", [.ifNoneMatch: tag])
            #expect(next.status == 200 && next.headers[.eTag] != tag)
        }
    }

    @Test(arguments: [
        "ca", "ca.txt", "ca.CRL", ".crl", "..crl", "../authorities/ca.crl", "%2e%2e%2fauthorities%2fca.crl",
        "ca.crl%00",
        "%00.crl", "*.crl", "ca.pem.crl", "ca%2ecrl", "ca.crl/x", "ca.crl.", "ca .crl", "acme%2Fca.crl",
        "\(String(repeating: "a", count: 4_000)).crl", "%ff.crl", "ca.crl;x.pem",
    ])
    func otherNamesAreNotThere(name: String) async throws {
        try await CertificateSite.with { site in
            #expect(try await site.authority("ca").status == 201)
            _ = try await site.crls.issueDue()
            let answer = try await site.open(.get, "/crl/\(name)")
            let isRefused = [400, 404].contains(answer.status)
            // RFC 3986, 6.2.2.2: %2e is a dot.
            #expect(isRefused || (name == "ca%2ecrl" && answer.status == 200), "\(name): \(answer.status)")
            #expect(!isRefused || answer.headers[.contentType] == "application/problem+json")
        }
    }

    @Test func aQueryIsRefused() async throws {
        try await CertificateSite.with { site in
            let query = try await site.open(.get, "/crl/ca.crl?delta=1"),
                post = try await site.open(.post, "/crl/ca.crl")
            #expect(query.code == "query_unknown" && post.status == 405)
        }
    }

    @Test func operatorsSeeAndIssueCRLs() async throws {
        try await CertificateSite.with { site in
            #expect(try await site.authority("ca").status == 201)
            #expect(try await site.authority("theirs", tenant: "other").status == 201)
            #expect(try await site.send(.get, "tenants/acme/crls").json["items"].items.isEmpty)
            _ = try await site.crls.issueDue()
            let first = try #require(try await site.send(.get, "tenants/acme/crls").json["items"].items.first)
            #expect(first["authority"].string == "ca" && first["entries"].integer == 1, "its canary")
            #expect(first["is_outdated"].value as? Bool == false)
            #expect(try await site.issue("d1").status == 201)
            #expect(try await site.send(.post, "tenants/acme/devices/d1/certificates/revoke").status == 200)
            let rows = try await site.send(.get, "tenants/acme/crls").json["items"].items
            #expect(rows.count == 1 && rows[0]["is_outdated"].value as? Bool == true)
            // What brokers were given last is served until the next one.
            #expect(try await site.open(.get, "/crl/ca.crl").status == 200)
            let issued = try await site.send(.post, "authorities/ca/crl")
            #expect(issued.status == 201 && issued.json["entries"].integer == 3, "\(issued.text)")
            #expect(issued.json["number"].integer! > first["number"].integer!)
            #expect(try await site.send(.post, "authorities/none/crl").status == 404)
        }
    }

    /// Errors of an authority of all tenants may name devices of any of them.
    @Test func theBrokersWhereACRLIsInForce() async throws {
        let system = StandIn(), now = CertificateSite.now
        system.certificates.set { facts in
            for (id, tenant) in [("own", "acme"), ("shared", "*")] {
                let events: [RegistryEvent] = [
                    .authorityAdded(
                        .init(
                            id: id, tenantID: tenant, subject: "CN=\(id)", certificate: "", spkiSHA256: id, key: .file,
                            notBefore: now, notAfter: now, actor: "test")),
                    .crlIssued(
                        .init(
                            authority: id, tenantID: tenant, number: 7, thisUpdate: now, nextUpdate: now, entries: 0,
                            canary: nil, tbsSHA256: "", signature: "", sha256: "", end: 0, actor: "test")),
                ]
                for event in events { facts.registry.apply(event, at: .init(0), time: now) }
                for (broker, step) in [("north", CRLEnforced.Step.proved), ("south", .unproved)] {
                    var event = CRLEnforced(step, broker: broker, authority: id, tenantID: tenant, number: 7, actor: "")
                    (event.milliseconds, event.error) = (
                        step == .proved ? 40 : nil, step == .proved ? nil : "it is away"
                    )
                    facts.registry.apply(.crlEnforced(event), at: .init(0), time: now)
                }
            }
        }
        func get(_ path: String) async throws -> [CertificateSite.JSONObject] {
            let response = try await system.client { client in
                try await client.execute(
                    uri: "/api/v1/tenants/acme/\(path)", method: .get,
                    headers: [.authorization: "Bearer \(StandIn.token)"])
            }
            let json = try JSONSerialization.jsonObject(with: Data(buffer: response.body))
            return CertificateSite.JSONObject(json)["items"].items
        }
        let rows = try await get("crls"), all = try await get("enforcement")
        #expect(rows.map(\.["authority"].string) == ["own", "shared"] && all.count == 4)
        for row in rows {
            let brokers = row["brokers"].items, id = row["authority"].string
            #expect(brokers.map(\.["broker"].string) == ["north", "south"])
            #expect(brokers[0]["state"].string == "PROVED" && brokers[0]["proved_ms"].integer == 40)
            #expect(brokers[0]["proved"].integer == 7 && brokers[0]["this_update"].string == now.description)
            #expect(brokers[1]["state"].string == "UNPROVED" && brokers[1]["proved"].integer == 0)
            // The text is withheld, the fact is not.
            #expect(brokers[1]["error"].string == (id == "own" ? "it is away" : nil))
            #expect(brokers[1]["error_at"].string == now.description && brokers[0]["error_at"].value == nil)
            for broker in brokers {
                let same = all.first { $0["authority"].string == id && $0["broker"].string == broker["broker"].string }
                #expect(same?.value as? NSDictionary == broker.value as? NSDictionary)
            }
        }
        // A client that cannot be disconnected does not make the CRL unproved.
        system.certificates.set { facts in
            var event = CRLEnforced(
                .uncut, broker: "north", authority: "own", tenantID: "acme", number: 7, actor: "")
            event.error = "refused"
            facts.registry.apply(.crlEnforced(event), at: .init(0), time: now)
        }
        let proved = try #require(try await get("crls").first?["brokers"].items.first)
        #expect(proved["state"].string == "PROVED" && proved["error_at"].value == nil)
    }

    /// With the authority `ca`, which has no CRL.
    private func withAuthority(ofTenant tenant: String) -> StandIn {
        let system = StandIn(), now = CertificateSite.now
        system.certificates.set { facts in
            facts.registry.apply(
                .authorityAdded(
                    .init(
                        id: "ca", tenantID: tenant, subject: "CN=ca", certificate: "", spkiSHA256: "", key: .file,
                        notBefore: now, notAfter: now, actor: "test")),
                at: .init(0), time: now)
        }
        return system
    }

    /// A rebuild reads all certificates: those who wait for one must not take all connections.
    @Test func fewWaitForCRLsOfThePast() async throws {
        let system = withAuthority(ofTenant: "acme")
        let api = system.api(), client = RouterClient(api.router())
        func answer() async throws -> (status: Int, retryAfter: String?) {
            try await client.execute(uri: "/api/v1/tenants/acme/crls/ca?at=5", method: .get) {
                ($0.status.code, $0.headers[.retryAfter])
            }
        }
        var slots = (0..<api.crlRebuilds.max).compactMap { _ in LimitedSlot(api.crlRebuilds) }
        #expect(slots.count == api.crlRebuilds.max)
        #expect(try await answer() == (503, "5"))
        slots = []
        for _ in 0..<2 * api.crlRebuilds.max { #expect(try await answer().status == 404, "it had none then") }
    }

    @Test func aCRLThatCannotBeIssuedSaysUntilWhen() async throws {
        let system = withAuthority(ofTenant: "*")
        let response = try await system.client { client in
            try await client.execute(
                uri: "/api/v1/authorities/ca/crl", method: .post, headers: [.authorization: "Bearer \(StandIn.token)"])
        }
        let text = String(buffer: response.body)
        #expect(response.status.code == 503 && response.headers[.retryAfter] == "10")
        #expect(
            text.contains("crl_not_issued") && text.contains("there is no key") && text.contains("1970-01-01T00:00:00")
        )
    }
}
