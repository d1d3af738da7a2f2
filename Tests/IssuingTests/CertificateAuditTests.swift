import Certificates
import EventModel
import Foundation
import PKI
import Synchronization
import Testing
@testable import Issuing

/// The standing audit over a real registry, keys and certificates of openssl.
@Suite struct CertificateAuditTests {
    private struct NoDatabase: Error, CustomStringConvertible {
        var description: String { "the database is away" }
    }

    private func audit(
        _ site: Site, refused: [LastMessage] = [],
        _ lastMessages: @escaping CertificateAudit.LastMessages = { _, _, _, _ in [] }
    ) -> CertificateAudit {
        let keys = AuthorityKeys(
            folder: site.folder.keys, passphrase: nil, signCommand: nil, commandTimeoutSeconds: 10)
        return CertificateAudit(
            registry: site.registry, keys: keys, clock: { site.folder.now },
            refusedMessages: { device in
                refused.filter { message in
                    device.map { $0 == (message.tenantID, message.deviceID) } ?? true
                }
            },
            lastMessages: lastMessages)
    }

    /// `device_status` does not include refused messages; the gate records their time.
    @Test func sendersThatTheGateRefusesAreFound() async throws {
        try await Site.run { site in
            try await site.authority()
            let revoked = try await site.issue("d1")
            try await site.issue("d2")
            try await site.revoke(revoked.reference)
            let begin = site.folder.now
            @Sendable func at(_ seconds: Int64) -> Timestamp { begin.adding(microseconds: seconds * 1_000_000) }
            site.folder.pass(seconds: 3_600)
            let refused = [
                sender("d1", at(30)), sender("d1", at(600)), sender("d1", at(90)), sender("x", at(60)),
                sender("gone", at(-90_000)),
                LastMessage(tenantID: "other", deviceID: "y", at: at(60), position: nil),
            ].map { LastMessage(tenantID: $0.tenantID, deviceID: $0.deviceID, at: $0.at, position: nil) }
            let audit = audit(site, refused: refused) { _, _, _, _ in
                [sender("d1", at(-60)), sender("d2", at(60)), sender("x", at(-60))]
            }
            let found = try await next(audit).findings(of: "acme")
            #expect(found.map(\.code) == [.revokedSending, .noCertificate], "each once")
            #expect(found.first?.text.contains("\(at(600))") == true, "the newest: \(found)")
            let one = try await audit.report(about: revoked.reference, tenantID: "acme")
            #expect(one?.findings(of: "acme").map(\.code) == [.revokedSending])
            // The database is not needed for them.
            let away = self.audit(site, refused: refused) { _, _, _, _ in throw NoDatabase() }
            let report = try await next(away)
            #expect(report.findings(of: "acme").map(\.code) == [.revokedSending, .noCertificate])
            #expect(report.totals[.revokedSending] == 1 && report.totals[.noCertificate] == 1)
        }
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
            #expect(try await next(audit).counts(of: "acme") == [:])
            let key = try #require(site.folder.keyFiles.first)
            try FileManager.default.moveItem(atPath: key, toPath: key + ".aside")
            site.folder.pass(seconds: 60)
            let since = site.folder.now, first = try await next(audit).findings(of: "acme")
            #expect(
                first.map(\.code) == [.authorityKeyMissing] && first[0].text.contains(key) && first[0].since == since)
            site.folder.pass(seconds: 60)
            #expect(try await next(audit).findings(of: "acme").map(\.since) == [since])
            #expect(try await next(audit).findings(of: "other") == [], "another tenant's authority")
            try FileManager.default.moveItem(atPath: key + ".aside", toPath: key)
            site.folder.pass(seconds: 60)
            #expect(try await next(audit).counts(of: "acme") == [:])
        }
    }

    /// All pages of last messages are read, and counted though not listed; without a database the rest is still there.
    @Test func sendersArePagedAndMayBeUnknown() async throws {
        try await Site.run { site in
            try await site.authority()
            try await site.issue("d1")
            let now = site.folder.now
            let paged = audit(site) { tenants, _, after, limit in
                #expect(tenants == ["acme"])
                let begin = after.flatMap { Int($0.deviceID.dropFirst()) } ?? 10_000
                return (begin + 1...begin + limit).prefix(while: { $0 <= 22_000 }).map {
                    LastMessage(tenantID: "acme", deviceID: "x\($0)", at: now, position: Position(UInt64($0)))
                }
            }
            let report = try await paged.report()
            #expect(report.counts(of: "acme") == [.noCertificate: 12_000] && report.sendersUnknown == nil)
            #expect(report.findings(of: "acme").count == CertificateAudit.Report.listedMax)
            let away = try await audit(site) { _, _, _, _ in throw NoDatabase() }.report()
            #expect(away.sendersUnknown == "the database is away" && away.counts(of: "acme") == [:])
            #expect(away.expiries["acme"]?.weeks.reduce(0, +) == 1)
        }
    }

    private func sender(_ device: String, _ at: Timestamp) -> LastMessage {
        LastMessage(tenantID: "acme", deviceID: device, at: at, position: Position(1))
    }

    /// Why the next audit fails; nil: it does not.
    private func failure(_ audit: CertificateAudit) async -> String? {
        let (reports, continuation) = AsyncStream.makeStream(of: String?.self)
        let task = Task { await audit.run { continuation.yield($0.map { "\($0)" }) } }
        defer { task.cancel() }
        for await report in reports { return report }
        return nil
    }

    /// The report of an audit that begins now.
    private func next(_ audit: CertificateAudit) async throws -> CertificateAudit.Report {
        #expect(await failure(audit) == nil)
        return try #require(audit.latest)
    }

    /// While the database is away, the metric keeps the last counts of senders: 0 would resolve an alert.
    @Test func countsOfSendersOutliveTheDatabase() async throws {
        try await Site.run { site in
            try await site.authority()
            try await site.issue("d1")
            let now = site.folder.now, isAway = Mutex(true)
            let audit = audit(site) { _, _, _, _ in
                if isAway.withLock({ $0 }) { throw NoDatabase() }
                return [sender("x1", now), sender("x2", now)]
            }
            let unknown = try await next(audit).totals
            #expect(unknown[.noCertificate] == nil && unknown[.revokedSending] == nil && unknown[.keyWeak] == 0)
            isAway.withLock { $0 = false }
            let known = try await next(audit).totals
            #expect(known[.noCertificate] == 2 && known[.revokedSending] == 0)
            isAway.withLock { $0 = true }
            for _ in 0..<2 {
                let kept = try await next(audit).totals
                #expect(kept == known, "the counts of the last report that had them")
            }
        }
    }

    @Test func anAuditThatFailsIsReported() async throws {
        try await Site.run { site in
            var batch = RecordBatch()
            batch.append(
                kind: .decision, schema: "certificate.revoked/1", receivedAt: site.folder.now, json: Array("{}".utf8))
            _ = try site.log.append(&batch)
            #expect(await failure(audit(site))?.contains("certificate.revoked/1") == true)
        }
    }

    /// Also those that the lists of a report have no room for.
    @Test func findingsAboutOneCertificate() async throws {
        try await Site.run { site in
            try await site.authority()
            let revoked = try await site.issue("d1"), live = try await site.issue("d2") { $0.validitySeconds = 86_400 }
            site.folder.pass(seconds: 70_000)
            try await site.revoke(revoked.reference)
            let at = site.folder.now.adding(microseconds: 61_000_000)
            site.folder.pass(seconds: 62)
            let audit = audit(site) { _, device, _, _ in
                #expect(device == "d1" || device == "d2")
                return [sender(device ?? "", at)]
            }
            func codes(_ issued: NewlyIssued, _ tenant: String = "acme") async throws -> [CertificateFinding.Code]? {
                try await audit.report(about: issued.reference, tenantID: tenant)?.findings(of: tenant)
                    .map(\.code)
            }
            #expect(try await codes(revoked) == [.revokedSending])
            #expect(try await codes(live) == [.certificateExpiring])
            #expect(try await codes(live, "other") == nil, "another tenant's certificate")
        }
    }
}
