import Certificates
import EventModel
import Foundation
import PKI
import Testing
@testable import Issuing

/// The standing audit over a real registry, keys and certificates of openssl.
@Suite struct CertificateAuditTests {
    private struct NoDatabase: Error, CustomStringConvertible {
        var description: String { "the database is away" }
    }

    private func audit(
        _ site: Site, _ lastMessages: @escaping CertificateAudit.LastMessages = { _, _, _ in [] }
    ) -> CertificateAudit {
        let keys = AuthorityKeys(
            folder: site.folder.keys, passphrase: nil, signCommand: nil, commandTimeoutSeconds: 10)
        return CertificateAudit(
            registry: site.registry, keys: keys, clock: { site.folder.now }, lastMessages: lastMessages)
    }

    /// SHA-1 and short keys, as older systems made them.
    @Test func weakCertificatesOfOpenSSLAreFound() async throws {
        try await Site.run { site in
            func make(_ name: String, _ arguments: String...) throws -> [UInt8] {
                let path = try site.folder.file("\(name).pem", "")
                let command =
                    [
                        "openssl", "req", "-new", "-x509", "-nodes", "-days", "365", "-keyout", path + ".key", "-out",
                        path,
                    ]
                let made = try openssl(command + arguments)
                #expect(made.code == 0, "\(made.output)")
                return try site.folder.bytes("\(name).pem")
            }
            let ca = try make("ca", "-newkey", "rsa:2048", "-subj", "/CN=ca")
            func leaf(_ device: String, _ key: String, _ digest: String) throws -> [UInt8] {
                let path = site.folder.path, request = path + "/\(device).csr"
                let made = try openssl([
                    "openssl", "req", "-new", "-nodes", "-newkey", key, "-keyout", request + ".key", "-subj",
                    "/CN=acme\\/\(device)", "-out", request,
                ])
                #expect(made.code == 0, "\(made.output)")
                let signed = try openssl([
                    "openssl", "x509", "-req", "-in", request, "-CA", path + "/ca.pem", "-CAkey", path + "/ca.pem.key",
                    "-CAcreateserial", "-days", "90", "-\(digest)", "-out", path + "/\(device).pem",
                ])
                #expect(signed.code == 0, "\(signed.output)")
                return try site.folder.bytes("\(device).pem")
            }
            _ = try await site.certificates.take(
                ForeignAuthority(id: "old", tenantID: "acme", certificates: ca), by: Site.by())
            for (device, key, digest) in [
                ("short", "rsa:1024", "sha256"), ("old-hash", "rsa:2048", "sha1"), ("fine", "rsa:2048", "sha256"),
            ] {
                _ = try await site.certificates.importCertificates(
                    [(try leaf(device, key, digest), device)], tenantID: "acme", by: Site.by())
            }
            let weak = try await audit(site).report().findings(of: "acme").filter { $0.code == .keyWeak }
            let texts = weak.map { "\($0.subject): \($0.text)" }.sorted()
            #expect(weak.count == 2, "\(texts)")
            #expect(texts.contains { $0.contains("short") && $0.contains("too short") })
            #expect(texts.contains { $0.contains("old-hash") && $0.contains("SHA-1") })
        }
    }

    @Test func aKeyThatIsGoneIsFoundAndItsTimeKept() async throws {
        try await Site.run { site in
            try await site.authority()
            let audit = audit(site)
            #expect(try await audit.report().counts(of: "acme") == [:])
            let key = try #require(site.folder.keyFiles.first)
            try FileManager.default.moveItem(atPath: key, toPath: key + ".aside")
            site.folder.pass(seconds: 60)
            let since = site.folder.now, first = try await audit.report().findings(of: "acme")
            #expect(
                first.map(\.code) == [.authorityKeyMissing] && first[0].text.contains(key) && first[0].since == since)
            site.folder.pass(seconds: 60)
            #expect(try await audit.report().findings(of: "acme").map(\.since) == [since])
            #expect(try await audit.report().findings(of: "other") == [], "another tenant's authority")
            try FileManager.default.moveItem(atPath: key + ".aside", toPath: key)
            site.folder.pass(seconds: 60)
            #expect(try await audit.report().counts(of: "acme") == [:])
        }
    }

    /// All pages of last messages are read, and counted though not listed; without a database the rest is still there.
    @Test func sendersArePagedAndMayBeUnknown() async throws {
        try await Site.run { site in
            try await site.authority()
            try await site.issue("d1")
            let now = site.folder.now
            let paged = audit(site) { tenants, after, limit in
                #expect(tenants == ["acme"])
                let begin = after.flatMap { Int($0.deviceID.dropFirst()) } ?? 10_000
                return (begin + 1...begin + limit).prefix(while: { $0 <= 22_000 }).map {
                    LastMessage(tenantID: "acme", deviceID: "x\($0)", at: now, position: Position(UInt64($0)))
                }
            }
            let report = try await paged.report()
            #expect(report.counts(of: "acme") == [.noCertificate: 12_000] && report.sendersUnknown == nil)
            #expect(report.findings(of: "acme").count == CertificateAudit.Report.listedMax)
            let away = try await audit(site) { _, _, _ in throw NoDatabase() }.report()
            #expect(away.sendersUnknown == "the database is away" && away.counts(of: "acme") == [:])
            #expect(away.expiries["acme"]?.weeks.reduce(0, +) == 1)
        }
    }
}
