import Certificates
import Decisions
import EventModel
import Foundation
import PKI
import Testing
@testable import Issuing

/// Certificates of devices: issued, renewed, imported.
@Suite struct CertificateTests {
    @Test(arguments: [true, false]) func aRequestOfOpenSSLIsSigned(isDER: Bool) async throws {
        try await Site.run { site in
            try await site.authority()
            var request = try site.folder.request()
            if isDER { request = try CertificateRequest(pem: request).der }
            let issued = try await site.issue("d1", .request(request)) {
                $0.alternativeNames = [.dns("d1.example"), .uri("urn:d1")]
                $0.validitySeconds = 3600
            }
            #expect(issued.privateKey == nil && issued.certificate.commonName == "acme/d1", "not what the request says")
            #expect(issued.certificate.alternativeNames == [.dns("d1.example"), .uri("urn:d1")])
            let now = site.folder.now.wholeSeconds
            #expect(issued.certificate.notBefore == now - 300 && issued.certificate.notAfter == now + 3600)
            #expect(try await site.verify(issued, nil).code == 0)
            let text = try openssl(
                [
                    "openssl", "x509", "-noout", "-purpose", "-in",
                    try site.folder.file("d1.pem", issued.certificate.pem()),
                ])
            #expect(text.output.contains("SSL client : Yes\n") && text.output.contains("SSL server : No\n"))
            let stored = try #require(try await site.certificates.certificate(issued.reference, tenantID: "acme"))
            #expect(try await site.certificates.pem(of: stored) == issued.pem, "read back from the log")
        }
    }

    @Test func aGeneratedKeyBelongsToItsCertificateAndIsHandedOutOnce() async throws {
        try await Site.run { site in
            try await site.authority()
            let by = Site.by(key: "k", sent: "d1"), issued = try await site.issue("d1", .generated(.p384), by: by)
            let key = try PrivateKey(pem: try #require(issued.privateKey))
            #expect(key.publicKey == issued.certificate.publicKey && key.algorithm == .p384)
            let again = try await site.certificates.issue([Site.new("d1", .generated(.p384))], by: by)
            guard case .repeated(_, let references) = again else { return #expect(Bool(false), "\(again)") }
            #expect(references == [issued.reference])
        }
    }

    @Test func aTenantIssuesByItsOwnAuthorityBeforeThatOfAllTenants() async throws {
        try await Site.run { site in
            #expect(await failure { try await site.issue() }.text.contains("refold ca init"))
            try await site.authority("acme")
            try await site.authority("all", tenant: Envelope.everyTenant)
            #expect(try await site.issue().reference.authority == "acme")
            #expect(try await site.issue(by: Site.by("other")).reference.authority == "all")
            #expect(try await site.issue { $0.authority = "all" }.reference.authority == "all")
            // Another tenant's authority is not there, and signs nothing.
            for name in ["acme", "none"] {
                let refused = await failure { try await site.issue(by: Site.by("other")) { $0.authority = name } }
                #expect(refused.code == .invalid && refused.text == "there is no authority \(name)")
            }
        }
    }

    @Test func aCertificateEndsNoLaterThanItsAuthority() async throws {
        try await Site.run { site in
            try await site.authority { $0.validitySeconds = 86_400 }
            let issued = try await site.issue { $0.validitySeconds = 365 * 86_400 }
            #expect(issued.certificate.notAfter == site.folder.now.wholeSeconds + 86_400)
        }
    }

    @Test func aRenewalNamesTheCertificateBefore() async throws {
        try await Site.run { site in
            try await site.authority()
            let first = try await site.issue(), second = try await site.issue { $0.renews = first.reference }
            let stored = try #require(try await site.certificates.certificate(second.reference, tenantID: "acme"))
            #expect(stored.renews == first.reference && stored.status == .active)
            let other = try await site.certificates.issue(
                [Site.new("d2") { $0.renews = first.reference }], by: Site.by())
            #expect(other.refusal == .notFound, "another device's")
            try await site.revoke(first.reference)
            let revoked = try await site.certificates.issue(
                [Site.new("d1") { $0.renews = first.reference }], by: Site.by())
            #expect(revoked.refusal == .illegalTransition)
        }
    }

    @Test func allOfACommandOrNothing() async throws {
        try await Site.run { site in
            try await site.authority()
            let request = try site.folder.request()
            let twice = [Site.new("d1", .request(request)), Site.new("d2", .request(request))]
            #expect(
                try await site.certificates.issue(twice, by: Site.by()).refusal == .invalidValue, "one key, two devices"
            )
            #expect(try await site.certificates.issue([], by: Site.by()).refusal == .invalidValue)
            let names = [Site.new("d1"), Site.new("d 2")]
            #expect(try await site.certificates.issue(names, by: Site.by()).refusal == .invalidValue)
            #expect(try await site.registry.query { $0.certificateCount } == 0)
            try await site.issue("d1", .request(request))
            #expect(
                try await site.certificates.issue([Site.new("d2", .request(request))], by: Site.by()).refusal
                    == .invalidValue)
            for _ in 1..<liveCertificatesPerDeviceMax { try await site.issue("d1") }
            #expect(try await site.certificates.issue([Site.new("d1")], by: Site.by()).refusal == .limitReached)
        }
    }

    // MARK: Requests that are refused

    /// Several threads sign: the certificates come in the order of the requests, and of several errors the first.
    @Test func manyAreSignedInTheirOrder() async throws {
        try await Site.run { site in
            try await site.authority()
            var new = try (0..<200).map { number in
                let request = try CertificateRequest.create(key: PrivateKey.generate(), commonName: "x")
                return NewCertificate(tenantID: "acme", deviceID: "d\(number)", key: .request(request.der))
            }
            guard case .issued(_, let issued) = try await site.certificates.issue(new, by: Site.by()) else {
                Issue.record("not issued")
                return
            }
            #expect(issued.map(\.deviceID) == new.map(\.deviceID))
            #expect(issued.map(\.certificate.commonName) == new.map { "acme/\($0.deviceID)" })
            for bad in [40, 190] { new[bad].key = .request([0x30, 0]) }
            let error = await #expect(throws: PKIError.self) {
                try await site.certificates.issue(new, by: Site.by())
            }
            #expect(error?.description.contains("device d40:") == true, "\(error.debugDescription)")
        }
    }

    @Test func aWeakOrUnsignedRequestIsRefused() async throws {
        try await Site.run { site in
            try await site.authority()
            let weak = try site.folder.request("weak", algorithm: ["rsa:1024"])
            let refused = await failure { try await site.issue("d1", .request(weak)) }
            #expect(refused.code == .weak && refused.text.contains("device d1"), "\(refused)")
            var der = try CertificateRequest(pem: try site.folder.request()).der
            der[der.count - 1] ^= 1
            let unsigned = await failure { [der] in try await site.issue("d1", .request(der)) }
            #expect(unsigned.code == .untrusted || unsigned.code == .malformed, "\(unsigned)")
            for bytes in [
                Array("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n".utf8), [],
                [0x30],
            ] {
                #expect(await failure { try await site.issue("d1", .request(bytes)) }.code == .malformed)
            }
            let curve = try site.folder.request("curve", algorithm: ["ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"])
            #expect(await failure { try await site.issue("d1", .request(curve)) }.code != nil)
            #expect(try await site.registry.query { $0.certificateCount } == 0)
        }
    }

    // MARK: Idempotency

    @Test func aRepeatedRequestSignsNothing() async throws {
        try await Site.withFolder { folder in
            let made = try openssl(
                [
                    "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-subj",
                    "/CN=counted", "-days", "36500", "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-keyout",
                    "\(folder.path)/ca.key", "-out", "\(folder.path)/ca.pem",
                ])
            try #require(made.code == 0, "\(made.output)")
            folder.pass(seconds: max(0, Int64(Date().timeIntervalSince1970) + 60 - folder.now.wholeSeconds))
            let command = "echo >> \(folder.path)/count; openssl dgst -sha256 -sign \(folder.path)/ca.key"
            func count() throws -> Int { try folder.bytes("count").count }
            try await Site.run(folder, signCommand: command) { site in
                var foreign = ForeignAuthority(
                    id: "ca", tenantID: Envelope.everyTenant, certificates: try folder.bytes("ca.pem"))
                foreign.usesSignCommand = true
                let taking = Site.by(Envelope.everyTenant, key: "take", sent: "ca")
                let first = try await site.certificates.take(foreign, by: taking)
                #expect(try count() == 1, "a signature to try")
                let second = try await site.certificates.take(foreign, by: taking)
                #expect(first.isNew && !second.isNew && second.refusal == nil)
                #expect(try count() == 1)
                let by = Site.by(key: "k", sent: "d1"), request = NewCertificate.Key.request(try folder.request())
                let issued = try await site.issue("d1", request, by: by)
                #expect(try count() == 2)
                for _ in 0..<3 {
                    let again = try await site.certificates.issue([Site.new("d1", request)], by: by)
                    guard case .repeated(_, [issued.reference]) = again else { return #expect(Bool(false), "\(again)") }
                }
                #expect(try count() == 2)
            }
            // Nor after a restart, and whatever has become of the key.
            try await Site.run(folder, signCommand: "false") { site in
                let again = try await site.certificates.issue([Site.new("d1")], by: Site.by(key: "k", sent: "d1"))
                guard case .repeated = again else { return #expect(Bool(false), "\(again)") }
                let other = await failure {
                    try await site.certificates.issue([Site.new("d2")], by: Site.by(key: "k", sent: "d2"))
                }
                #expect(other.code == .command, "it is another request")
            }
        }
    }

    // MARK: Import

    @Test func certificatesOfAKnownAuthorityAreImported() async throws {
        try await Site.withFolder { folder in
            let key = try PrivateKey.generate(), now = folder.now.wholeSeconds
            let elsewhere = try CertificateIssuer(
                certificate: CertificateIssuer.selfSigned(
                    CertificateProfile(
                        .authority(pathLength: nil), subject: try DistinguishedName(commonName: "elsewhere"),
                        notBefore: now - 60, notAfter: now + 86_400), signer: key, serial: .random()), signer: key)
            func device(_ name: String) throws -> [UInt8] {
                let profile = CertificateProfile(
                    .tlsClient, subject: try DistinguishedName(commonName: name), notBefore: now, notAfter: now + 3600)
                return try elsewhere.issue(profile, publicKey: PrivateKey.generate().publicKey, serial: .random()).pem()
            }
            try await Site.run(folder) { site in
                func put(_ pem: [UInt8], _ device: String? = nil, tenant: String = "acme") async throws
                    -> RegistryAnswer
                {
                    try await site.certificates.importCertificates(
                        [(pem, device)], tenantID: tenant, by: Site.by(tenant))
                }
                let one = try device("acme/d1"), two = try device("acme/d2")
                #expect(await failure { try await put(one) }.code == .untrusted, "its authority is not on the record")
                let foreign = ForeignAuthority(
                    id: "old", tenantID: "acme", certificates: try elsewhere.certificate.pem())
                #expect(try await site.certificates.take(foreign, by: Site.by()).refusal == nil)
                guard case .accepted(_, _, let added, _) = try await put(one + two) else { return #expect(Bool(false)) }
                #expect(added.count == 2 && added.allSatisfy { $0.authority == "old" })
                let stored = try #require(try await site.certificates.certificate(added[1], tenantID: "acme"))
                #expect(stored.deviceID == "d2" && stored.isImported)
                #expect(
                    try await site.certificates.pem(of: stored)?.hasPrefix(String(decoding: two, as: UTF8.self)) == true
                )
                #expect(try await put(one).refusal == .alreadyExists)
                for name in ["other/d3", "d3", "acme/", "acme/d 3"] {
                    let pem = try device(name), refused = await failure { try await put(pem) }
                    #expect(refused.code == .invalid || name == "acme/d 3", "\(name): \(refused)")
                    #expect(try await put(pem, "d-\(name.utf8.count)").refusal == nil, "\(name)")
                }
                #expect(await failure { try await put(try device("other/d1"), tenant: "other") }.code == .untrusted)
                // It is revoked on the record, though its key is elsewhere.
                #expect(try await site.revoke(added[0]).refusal == nil)
            }
        }
    }
}
