import Access
import Certificates
import Decisions
import EventModel
import Foundation
import HTTPTypes
import NIOCore
import PKI
import Testing
@testable import ControlAPI

/// Authorities and certificates over HTTP.
@Suite struct CertificateRouteTests {
    static let path = "tenants/acme/certificates"

    // MARK: Refusals

    @Test(arguments: [
        (RegistryRefusal.Code.notFound, 404), (.illegalTransition, 409), (.alreadyExists, 409), (.outdated, 409),
        (.invalidValue, 422), (.keyReused, 422), (.limitReached, 422),
    ])
    func everyRefusalHasItsStatus(code: RegistryRefusal.Code, status: Int) async throws {
        let system = StandIn()
        system.certificates.set { $0.answer = .rejected(position: Position(7), code: code, reason: "for a reason") }
        for (path, body) in [
            ("authorities", #"{"id":"ca"}"#), ("tenants/acme/authorities", #"{"id":"ca"}"#),
            ("tenants/acme/authorities/import", #"{"id":"ca","certificates":""}"#),
            ("tenants/acme/authorities/ca/retire", "{}"), (Self.path, #"{"device":"d","generate_key":"P-256"}"#),
            ("\(Self.path)/import", #"{"certificates":""}"#), ("\(Self.path)/ca/4d/revoke", ""),
            ("tenants/acme/devices/d/certificates/hold", ""),
        ] {
            let answer = try await Self.post(system, path, body)
            #expect(answer.status == status && answer.code == code.rawValue, "\(path): \(answer.text)")
            #expect(answer.json["position"].integer == 7 && answer.json["detail"].string == "for a reason")
        }
    }

    @Test(arguments: [
        (PKIError.Code.malformed, 422, "invalid_value"), (.unsupported, 422, "invalid_value"),
        (.weak, 422, "invalid_value"), (.untrusted, 422, "invalid_value"), (.passphrase, 422, "invalid_value"),
        (.invalid, 422, "invalid_value"), (.file, 503, "key_unavailable"), (.command, 503, "key_unavailable"),
        (.crypto, 503, "key_unavailable"),
    ])
    func everyFailureToSignHasItsStatus(code: PKIError.Code, status: Int, name: String) async throws {
        let system = StandIn()
        system.certificates.set { $0.error = PKIError(code, "what failed") }
        let answer = try await Self.post(system, Self.path, #"{"device":"d","generate_key":"P-256"}"#)
        #expect(answer.status == status && answer.code == name && answer.json["detail"].string == "what failed")
        #expect((answer.headers[.retryAfter] != nil) == (status == 503))
    }

    private static func post(_ system: StandIn, _ path: String, _ body: String) async throws -> CertificateSite.Answer {
        try await system.client { client in
            let response = try await client.execute(
                uri: "/api/v1/\(path)", method: .post,
                headers: [.authorization: "Bearer \(StandIn.token)", .contentType: "application/json"],
                body: ByteBuffer(string: body))
            return CertificateSite.Answer(status: response.status.code, headers: response.headers, body: response.body)
        }
    }

    // MARK: Authorities

    @Test func anAuthorityIsCreatedReplacedAndRetired() async throws {
        try await CertificateSite.with { site in
            let root = try await site.authority("root", tenant: nil, #","key_algorithm":"P-384","valid_days":3650"#)
            #expect(root.status == 201, "\(root.text)")
            #expect(root.json["tenant"].string == "*" && root.json["status"].string == "ACTIVE")
            #expect(root.json["key"].string == "file" && root.json["position"].integer != nil)
            #expect(root.json["certificate"].string?.hasPrefix("-----BEGIN CERTIFICATE-----\n") == true)
            let below = try await site.authority("issuing", #","issued_by":"root","organization":"Acme""#)
            #expect(below.status == 201 && below.json["subject"].string?.contains("O=Acme") == true, "\(below.text)")
            #expect(below.json["certificate"].string?.components(separatedBy: "BEGIN").count == 3, "the chain")
            let next = try await site.authority("issuing-2", #","issued_by":"root","replaces":"issuing""#)
            #expect(next.status == 201 && next.json["replaces"].string == "issuing")
            let retired = try await site.send(.post, "tenants/acme/authorities/issuing/retire")
            #expect(retired.status == 200 && retired.json["status"].string == "RETIRED", "\(retired.text)")
            #expect(try await site.send(.post, "tenants/acme/authorities/issuing/retire").code == "illegal_transition")
            let list = try await site.send(.get, "tenants/acme/authorities").json["items"].items
            #expect(list.compactMap { $0["id"].string } == ["root", "issuing", "issuing-2"])
            #expect(list[1]["replaced_by"].string == "issuing-2")
        }
    }

    @Test(arguments: [
        #"{}"#, #"{"id":"ca","key_algorithm":"MD5"}"#, #"{"id":"ca","valid_days":0}"#,
        #"{"id":"ca","valid_days":36501}"#,
        #"{"id":"ca","days":1}"#, #"{"id":"a/b"}"#, #"{"id":".."}"#, #"{"id":""}"#, #"{"id":"ca","issued_by":"none"}"#,
        #"{"id":"ca","common_name":""}"#, #"{"id":7}"#, "[]",
    ])
    func anAuthorityThatMakesNoSenseIsRefused(body: String) async throws {
        try await CertificateSite.with { site in
            let answer = try await site.send(.post, "authorities", body)
            #expect(answer.status == 422, "\(body): \(answer.text)")
            #expect(try await site.send(.get, "authorities").json["items"].items.isEmpty)
        }
    }

    @Test func aForeignAuthorityIsTakenOver() async throws {
        let key = try PrivateKey.generate()
        let profile = CertificateProfile(
            .authority(pathLength: nil), subject: try DistinguishedName(commonName: "elsewhere"),
            notBefore: CertificateSite.now.wholeSeconds - 60, notAfter: CertificateSite.now.wholeSeconds + 86_400 * 100)
        let certificate = try CertificateIssuer.selfSigned(profile, signer: key, serial: .random())
        func text(_ pem: [UInt8]) -> String { String(decoding: pem, as: UTF8.self).replacing("\n", with: "\\n") }
        let pem = text(try certificate.pem()), secret = text(try key.pem(passphrase: Array("open".utf8)))
        try await CertificateSite.with { site in
            let path = "tenants/acme/authorities/import"
            let wrong = try await site.send(
                .post, path, #"{"id":"ca","certificates":"\#(pem)","key":"\#(secret)","passphrase":"shut"}"#)
            #expect(wrong.status == 422 && !wrong.text.contains("shut"), "\(wrong.text)")
            let answer = try await site.send(
                .post, path, #"{"id":"ca","certificates":"\#(pem)","key":"\#(secret)","passphrase":"open"}"#)
            #expect(answer.status == 201 && answer.json["key"].string == "file", "\(answer.text)")
            #expect(!answer.text.contains("PRIVATE"))
            #expect(try await site.issue("d1").status == 201)
        }
    }

    // MARK: Certificates

    @Test func aCertificateIsIssuedShownAndRevoked() async throws {
        try await CertificateSite.with { site in
            #expect(try await site.authority("ca").status == 201)
            let body =
                #"{"device":"d1","csr":"\#(try CertificateSite.request())","valid_days":10,"dns":["d1.example"]}"#
            let issued = try await site.send(.post, Self.path, body)
            #expect(issued.status == 201, "\(issued.text)")
            let one = try #require(issued.json["items"].items.first)
            #expect(one["private_key"].string == nil, "the device has its key")
            #expect(one["device"].string == "d1" && one["authority"].string == "ca" && one["status"].string == "ACTIVE")
            let pem = try #require(one["certificate"].string), serial = try #require(one["serial"].string)
            let chain = try Certificate.chain(pem: Array(pem.utf8))
            #expect(
                chain.count == 2 && chain[0].commonName == "acme/d1"
                    && chain[0].alternativeNames == [.dns("d1.example")])
            #expect(chain[0].notAfter == CertificateSite.now.wholeSeconds + 10 * 86_400)
            let shown = try await site.send(.get, "\(Self.path)/ca/\(serial)")
            #expect(shown.status == 200 && shown.json["certificate"].string == pem, "\(shown.text)")
            let revoked = try await site.send(
                .post, "\(Self.path)/ca/\(serial)/revoke", #"{"reason":"keyCompromise","note":"stolen"}"#)
            #expect(revoked.status == 200 && revoked.json["items"].items.first?["reason"].string == "keyCompromise")
            #expect(try await site.send(.post, "\(Self.path)/ca/\(serial)/revoke").code == "illegal_transition")
            #expect(try await site.send(.get, "\(Self.path)/ca/\(serial)").json["status"].string == "REVOKED")
        }
    }

    @Test func aHoldIsReleasedAndADevicesCertificatesChangeTogether() async throws {
        try await CertificateSite.with { site in
            #expect(try await site.authority("ca").status == 201)
            for _ in 0..<2 { #expect(try await site.issue("d1").status == 201) }
            let device = "tenants/acme/devices/d1/certificates"
            for (verb, status) in [("hold", "HELD"), ("release", "ACTIVE"), ("revoke", "REVOKED")] {
                let answer = try await site.send(.post, "\(device)/\(verb)")
                #expect(answer.status == 200 && answer.json["items"].items.count == 2, "\(answer.text)")
                #expect(answer.json["items"].items.allSatisfy { $0["status"].string == status })
                #expect(try await site.send(.post, "\(device)/\(verb)").status == 409, "there is nothing left to do")
            }
            #expect(try await site.send(.post, "tenants/acme/devices/d9/certificates/revoke").status == 404)
        }
    }

    @Test(arguments: [
        ("revoke", #"{"reason":"certificateHold"}"#), ("revoke", #"{"reason":"because"}"#),
        ("hold", #"{"reason":"keyCompromise"}"#), ("release", #"{"reason":"keyCompromise"}"#),
        ("revoke", #"{"why":"x"}"#), ("revoke", #"{"note":"\#(String(repeating: "n", count: 4_097))"}"#),
        ("revoke", "[]"), ("revoke", #"{"note":7}"#),
    ])
    func aChangeThatMakesNoSenseIsRefused(verb: String, body: String) async throws {
        try await CertificateSite.with { site in
            for path in ["certificates/ca/4d", "devices/d1/certificates"] {
                let answer = try await site.send(.post, "tenants/acme/\(path)/\(verb)", body)
                #expect(answer.status == 422, "\(answer.text)")
            }
        }
    }

    @Test func oneBodyOrManyItems() async throws {
        try await CertificateSite.with { site in
            #expect(try await site.authority("ca").status == 201)
            let many = (1...3).map { #"{"device":"d\#($0)","generate_key":"Ed25519"}"# }.joined(separator: ",")
            let answer = try await site.send(.post, Self.path, #"{"items":[\#(many)]}"#)
            #expect(answer.status == 201, "\(answer.text)")
            #expect(answer.json["items"].items.compactMap { $0["device"].string } == ["d1", "d2", "d3"])
            #expect(answer.json["items"].items.allSatisfy { $0["private_key"].string?.contains("PRIVATE KEY") == true })
            // All of them, or none.
            let twice = try await site.send(
                .post, Self.path,
                #"{"items":[{"device":"d4","generate_key":"P-256"},{"device":"d 5","generate_key":"P-256"}]}"#)
            #expect(twice.status == 422, "\(twice.text)")
            #expect(try await site.send(.get, Self.path).json["items"].items.count == 3)
        }
    }

    @Test(arguments: [
        #"{"device":"d1"}"#, #"{"device":"d1","csr":"x","generate_key":"P-256"}"#, #"{"device":"d1","csr":"x"}"#,
        #"{"device":"d1","generate_key":"P-521"}"#, #"{"generate_key":"P-256"}"#, #"{"items":[]}"#, #"{"items":{}}"#,
        #"{"device":"d1","generate_key":"P-256","valid_days":0}"#,
        #"{"device":"d1","generate_key":"P-256","renews":"7"}"#,
        #"{"device":"d1","generate_key":"P-256","days":1}"#,
        #"{"items":[{"device":"d1","generate_key":"P-256","days":1}]}"#,
        #"{"items":[{"device":"d1","generate_key":"P-256"}],"authority":"ca"}"#,
        #"{"device":"d1","generate_key":"P-256","authority":"none"}"#,
        #"{"device":"d1","generate_key":"P-256","dns":["a b"]}"#, #"{"device":"d/1","generate_key":"P-256"}"#,
    ])
    func aCertificateThatMakesNoSenseIsRefused(body: String) async throws {
        try await CertificateSite.with { site in
            #expect(try await site.authority("ca").status == 201)
            let answer = try await site.send(.post, Self.path, body)
            #expect(answer.status == 422 || answer.status == 404, "\(body): \(answer.text)")
            #expect(try await site.send(.get, Self.path).json["items"].items.isEmpty)
        }
    }

    @Test(arguments: [
        #"{"certificates":"x"}"#, #"{}"#, #"{"items":[]}"#, #"{"items":[{"certificates":"x","devise":"d"}]}"#,
        #"{"certificates":"x","items":[]}"#,
    ])
    func anImportThatMakesNoSenseIsRefused(body: String) async throws {
        try await CertificateSite.with { site in
            let answer = try await site.send(.post, "\(Self.path)/import", body)
            #expect(answer.status == 422, "\(body): \(answer.text)")
        }
    }

    @Test func certificatesAreImportedWithTheDeviceOfTheirCommonName() async throws {
        let key = try PrivateKey.generate(), now = CertificateSite.now.wholeSeconds
        let root = try CertificateIssuer(
            certificate: CertificateIssuer.selfSigned(
                CertificateProfile(
                    .authority(pathLength: nil), subject: try DistinguishedName(commonName: "elsewhere"),
                    notBefore: now - 60, notAfter: now + 86_400), signer: key, serial: .random()), signer: key)
        func device(_ name: String) throws -> String {
            let profile = CertificateProfile(
                .tlsClient, subject: try DistinguishedName(commonName: name), notBefore: now, notAfter: now + 3600)
            let certificate = try root.issue(profile, publicKey: PrivateKey.generate().publicKey, serial: .random())
            return String(decoding: try certificate.pem(), as: UTF8.self).replacing("\n", with: "\\n")
        }
        let pem = String(decoding: try root.certificate.pem(), as: UTF8.self).replacing("\n", with: "\\n")
        try await CertificateSite.with { site in
            let path = "\(Self.path)/import", known = try device("acme/d1"), other = try device("d2")
            #expect(try await site.send(.post, path, #"{"certificates":"\#(known)"}"#).status == 422, "unknown issuer")
            let authority = try await site.send(
                .post, "tenants/acme/authorities/import", #"{"id":"old","certificates":"\#(pem)"}"#)
            #expect(authority.status == 201 && authority.json["key"].string == "none", "\(authority.text)")
            let one = try await site.send(.post, path, #"{"certificates":"\#(known)"}"#)
            #expect(one.status == 201 && one.json["items"].items.first?["device"].string == "d1", "\(one.text)")
            #expect(try await site.send(.post, path, #"{"certificates":"\#(known)"}"#).code == "already_exists")
            #expect(try await site.send(.post, path, #"{"certificates":"\#(other)"}"#).status == 422, "whose?")
            let two = try await site.send(.post, path, #"{"items":[{"certificates":"\#(other)","device":"d2"}]}"#)
            #expect(two.status == 201 && two.json["items"].items.first?["device"].string == "d2", "\(two.text)")
            #expect(try await site.issue("d3").status == 422, "the key is elsewhere")
        }
    }

    // MARK: Who may

    @Test func rolesAndTenantsAreKept() async throws {
        try await CertificateSite.with { site in
            let tokens = site.system.tokens
            let viewer = tokens.add("viewer", .viewer, tenant: "acme"),
                other = tokens.add("other", .admin, tenant: "other")
            let operators = tokens.add("operator", .operator, tenant: "acme"),
                admin = tokens.add("admin", .admin, tenant: "acme")
            #expect(try await site.authority("all", tenant: nil).status == 201)
            let issue = #"{"device":"d1","generate_key":"P-256"}"#
            #expect(try await site.send(.post, Self.path, issue, token: viewer).code == "role_insufficient")
            let issued = try await site.send(.post, Self.path, issue, token: operators)
            #expect(issued.status == 201 && issued.json["items"].items.first?["authority"].string == "all")
            let serial = try #require(issued.json["items"].items.first?["serial"].string)
            // An authority signs whatever a tenant's brokers trust: that is an admin's decision.
            let create = #"{"id":"own"}"#, own = "tenants/acme/authorities"
            #expect(try await site.send(.post, own, create, token: operators).code == "role_insufficient")
            #expect(try await site.send(.post, "authorities", create, token: admin).code == "all_tenants_required")
            #expect(try await site.send(.post, "authorities/all/crl", token: admin).code == "all_tenants_required")
            #expect(try await site.send(.post, own, create, token: admin).status == 201)
            #expect(
                try await site.send(.post, "\(own)/all/retire", token: admin).status == 404, "it is not the tenant's")
            // Another tenant sees none of it.
            for (method, path) in [
                (HTTPRequest.Method.get, Self.path), (.get, "\(Self.path)/all/\(serial)"), (.get, own),
                (.post, "\(Self.path)/all/\(serial)/revoke"),
            ] {
                #expect(try await site.send(method, path, token: other).code == "foreign_tenant", "\(path)")
            }
            let theirs = "tenants/other/certificates"
            #expect(try await site.send(.get, "\(theirs)/all/\(serial)", token: other).status == 404)
            #expect(try await site.send(.post, "\(theirs)/all/\(serial)/revoke", token: other).status == 404)
            #expect(try await site.send(.get, theirs, token: other).json["items"].items.isEmpty)
            let seen = try await site.send(.get, "tenants/other/authorities", token: other).json["items"].items
            #expect(seen.compactMap { $0["id"].string } == ["all"])
            let named = #"{"device":"d1","generate_key":"P-256","authority":"own"}"#
            let foreign = try await site.send(.post, theirs, named, token: other)
            let missing = try await site.send(.post, theirs, named.replacing("own", with: "not"), token: other)
            #expect(
                foreign.status == missing.status && foreign.code == missing.code, "what exists elsewhere is told apart")
            #expect(foreign.json["detail"].string == missing.json["detail"].string?.replacing("not", with: "own"))
        }
    }

    @Test func anIdempotencyKeyGivesTheSameCertificateAndNoSecondKey() async throws {
        try await CertificateSite.with { site in
            #expect(try await site.authority("ca").status == 201)
            let body = #"{"device":"d1","generate_key":"P-256"}"#
            let first = try await site.send(.post, Self.path, body, key: "k").json
            let again = try await site.send(.post, Self.path, body, key: "k")
            #expect(again.status == 201 && again.json["position"].integer == first["position"].integer)
            let (one, two) = (try #require(first["items"].items.first), try #require(again.json["items"].items.first))
            #expect(one["serial"].string == two["serial"].string && one["private_key"].string != nil)
            #expect(two["private_key"].string == nil && two["certificate"].string == one["certificate"].string)
            let other = try await site.send(.post, Self.path, body.replacing("d1", with: "d2"), key: "k")
            #expect(other.status == 422 && other.code == "idempotency_key_reused", "\(other.text)")
            #expect(try await site.send(.get, Self.path).json["items"].items.count == 1)
            let serial = try #require(one["serial"].string), revoke = "\(Self.path)/ca/\(serial)/revoke"
            let revoked = try await site.send(.post, revoke, key: "r")
            #expect(try await site.send(.post, revoke, key: "r").text == revoked.text && revoked.status == 200)
            #expect(try await site.send(.post, revoke, key: "bad key").status == 400)
            // A key is a tenant's.
            #expect(try await site.authority("theirs", tenant: "other").status == 201)
            #expect(try await site.send(.post, "tenants/other/certificates", body, key: "k").status == 201)
        }
    }

    // MARK: Lists

    @Test func listsHavePagesAndFilters() async throws {
        try await CertificateSite.with { site in
            #expect(try await site.authority("ca").status == 201)
            for number in 1...5 {
                #expect(try await site.issue("d\(number)", #","valid_days":\#(number * 10)"#).status == 201)
            }
            var seen: [String] = [], next: Int?
            for _ in 0..<10 {
                let page = try await site.send(.get, "\(Self.path)?limit=2\(next.map { "&after=\($0)" } ?? "")")
                #expect(
                    page.status == 200 && page.json["items"].items.count <= 2 && page.json.keys == ["items", "next"])
                seen += page.json["items"].items.compactMap { $0["device"].string }
                next = page.json["next"].integer
                if next == nil { break }
            }
            #expect(next == nil && seen.sorted() == ["d1", "d2", "d3", "d4", "d5"])
            #expect(try await site.send(.post, "tenants/acme/devices/d1/certificates/revoke").status == 200)
            for (query, devices) in [
                ("device=d2", ["d2"]), ("status=REVOKED", ["d1"]), ("expiring_days=25", ["d1", "d2"]),
                ("expiring_days=25&status=ACTIVE", ["d2"]), ("status=EXPIRED", []), ("authority=none", []),
                ("authority=ca&device=d5", ["d5"]), ("expiring_days=0", []),
            ] {
                let items = try await site.send(.get, "\(Self.path)?\(query)").json["items"].items
                #expect(items.compactMap { $0["device"].string }.sorted() == devices, "\(query)")
            }
            for query in ["status=active", "expiring_days=-1", "limit=0", "after=x", "colour=red", "device=a/b"] {
                #expect(try await site.send(.get, "\(Self.path)?\(query)").status == 400, "\(query)")
            }
            for path in ["ca/zz", "ca/00", "none/4d", "ca/\(String(repeating: "4", count: 42))"] {
                #expect(try await site.send(.get, "\(Self.path)/\(path)").status == 404, "\(path)")
            }
        }
    }
}
