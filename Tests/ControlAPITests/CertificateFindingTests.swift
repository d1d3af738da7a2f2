import Foundation
import PKI
import Testing
@testable import ControlAPI

/// The standing audit, the life of a certificate and CRLs of brokers over HTTP.
@Suite struct CertificateFindingTests {
    @Test func findingsSayWhatIsWrongAndWhatToDo() async throws {
        try await CertificateSite.with { site in
            #expect(try await site.authority("ca", tenant: nil, #","valid_days":10"#).status == 201)
            #expect(try await site.issue("d1").status == 201)
            let answer = try await site.send(.get, "tenants/acme/certificates/findings")
            #expect(answer.status == 200, "\(answer.text)")
            #expect(answer.json["senders_unknown"].string?.contains("no database in this test") == true)
            #expect(answer.json["audited_at"].string == CertificateSite.now.description)
            #expect(answer.json["counts"]["authority_expiring"].integer == 1)
            #expect(answer.json["expiries"]["weeks"].items.map { $0.value as? Int }.first == 0)
            #expect(answer.json["expiries"]["weeks"].items.compactMap { $0.value as? Int }.reduce(0, +) == 1)
            let item = try #require(answer.json["items"].items.first)
            #expect(item["severity"].string == "critical" && item["authority"].string == "ca")
            #expect(item["remedy"].string?.contains("refold ca rotate") == true && item["device"].value == nil)
            #expect(item["evidence"].items.first?["position"].integer == 0)
            // Another tenant sees the authority of all tenants, and nothing else.
            let other = try await site.send(.get, "tenants/other/certificates/findings?code=authority_expiring")
            #expect(other.json["items"].items.count == 1 && other.json["expiries"]["later"].integer == 0)
            let none = try await site.send(.get, "tenants/acme/certificates/findings?code=key_weak")
            #expect(none.json["items"].items.isEmpty && none.json["counts"]["authority_expiring"].integer == 1)
            let two = try await site.send(.get, "tenants/acme/certificates/findings?code=key_weak,authority_expiring")
            #expect(two.json["items"].items.count == 1)
            for wrong in ["other", "", "key_weak,", "key_weak,other", "key_weak,key_weak"] {
                #expect(try await site.send(.get, "tenants/acme/certificates/findings?code=\(wrong)").status == 400)
            }
        }
    }

    @Test func findingsOfOneCertificate() async throws {
        try await CertificateSite.with { site in
            #expect(try await site.authority("ca", tenant: nil, #","valid_days":10"#).status == 201)
            let issued = try await site.issue("d1", #","valid_days":2"#)
            let serial = try #require(issued.json["items"].items.first?["serial"].string)
            func get(_ query: String, tenant: String = "acme") async throws -> CertificateSite.Answer {
                try await site.send(.get, "tenants/\(tenant)/certificates/findings?\(query)")
            }
            let own = try await get("authority=ca&serial=\(serial)")
            #expect(own.status == 200 && own.json["items"].items.isEmpty && own.json["expiries"].value == nil)
            #expect(own.json["senders_unknown"].string?.contains("no database in this test") == true)
            #expect(own.json["counts"].keys.isEmpty, "findings about the authority are not the certificate's")
            #expect(try await get("authority=ca&serial=\(serial)", tenant: "other").status == 404)
            #expect(try await get("authority=ca&serial=4f21").status == 404)
            for query in ["authority=ca", "serial=\(serial)", "authority=ca&serial=x"] {
                #expect(try await get(query).code == "query_invalid", "\(query)")
            }
        }
    }

    /// Neither whether it is there nor when it was is read from the log, which takes seconds.
    @Test func thePastOfAnAuthorityOfAnotherTenantIsNotRead() async throws {
        try await CertificateSite.with { site in
            #expect(try await site.authority("ca").status == 201)
            for path in ["tenants/other/crls/ca", "tenants/acme/crls/none"] {
                // At position 8, the stand-in fails.
                for query in ["", "?at=8", "?at=2026-06-01T12:00:00Z"] {
                    let answer = try await site.send(.get, path + query)
                    #expect(answer.status == 404 && answer.text.contains("there is no authority"), "\(answer.text)")
                }
            }
        }
    }

    /// An error of the stored bytes is not the caller's, although the same error in a request is.
    @Test func aCRLThatTheRecordDoesNotGiveIsAFaultOfTheLog() async throws {
        try await CertificateSite.with { site in
            #expect(try await site.authority("ca").status == 201)
            for (position, status, code) in [
                (8, 500, "log_unreadable"), (7, 410, "before_horizon"), (101, 404, "no_such_event"),
                (9, 404, "not_found"),
            ] {
                let answer = try await site.send(.get, "tenants/acme/crls/ca?at=\(position)")
                #expect(answer.status == status && answer.code == code, "\(position): \(answer.text)")
                if status == 500 { #expect(answer.text.contains("CRL 3 of ca: its signature is cut")) }
            }
        }
    }

    @Test func theNewestCRLAsADocument() async throws {
        try await CertificateSite.with { site in
            #expect(try await site.authority("ca").status == 201)
            #expect(try await site.send(.get, "tenants/acme/crls/ca").status == 404, "none was issued yet")
            let made = try await site.crls.issueDue()
            let answer = try await site.send(.get, "tenants/acme/crls/ca")
            #expect(answer.json["number"].integer == made.issued.first.map { Int($0.event.number) })
            #expect(
                answer.json["pem"].string == String(decoding: try #require(made.issued.first).list.pem(), as: UTF8.self)
            )
            #expect(answer.json["as_of"].value == nil && answer.json["position"].value == nil)
            #expect(try await site.send(.get, "tenants/other/crls/ca").status == 404, "another tenant's authority")
            #expect(try await site.send(.get, "tenants/acme/crls/ca?at=noon").status == 400)
            #expect(try await site.send(.get, "tenants/acme/enforcement").text == #"{"items":[]}"# + "\n")
        }
    }

    @Test func certificatesAreFoundByTheBeginningOfTheDevice() async throws {
        try await CertificateSite.with { site in
            #expect(try await site.authority("ca").status == 201)
            for device in ["press-1", "press-2", "pump-1"] { #expect(try await site.issue(device).status == 201) }
            for (query, expected) in [
                ("search=press", ["press-1", "press-2"]), ("search=p&limit=2", ["press-1", "press-2"]),
                ("search=press-1&status=REVOKED", []), ("search=x", []),
            ] {
                let answer = try await site.send(.get, "tenants/acme/certificates?\(query)")
                #expect(answer.json["items"].items.compactMap { $0["device"].string } == expected, "\(query)")
            }
        }
    }
}
