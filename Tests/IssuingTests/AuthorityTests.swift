import Certificates
import Decisions
import EventModel
import Foundation
import PKI
import Testing
@testable import Issuing

/// Authorities: created, taken over, rotated; and where their keys are.
@Suite struct AuthorityTests {
    @Test func aRootAndAnAuthorityBelowItIssue() async throws {
        var options = IssuingOptions()
        options.crlBaseURL = "http://refold.example:7480"
        options.organization = "Fleet"
        try await Site.run(options) { site in
            try await site.authority("root", tenant: Envelope.everyTenant) { $0.algorithm = .p384 }
            try await site.authority("issuing") { ($0.issuedBy, $0.commonName) = ("root", "Acme Issuing") }
            let added = try await site.authority(onRecord: "issuing").added, certificate = try Certificate(added)
            #expect(certificate.commonName == "Acme Issuing" && certificate.pathLength == 0)
            #expect(certificate.subjectText.contains("O=Fleet"))
            #expect(certificate.crlDistributionPoints == ["http://refold.example:7480/crl/root.crl"])
            let issued = try await site.issue()
            #expect(
                issued.authority.id == "issuing"
                    && issued.certificate.crlDistributionPoints.first?.hasSuffix("/issuing.crl") == true)
            #expect(try Certificate.chain(pem: Array(issued.pem.utf8)).count == 3)
            let verified = try await site.verify(issued, nil)
            #expect(verified.code == 0, "\(verified.output)")
            // The one below ends no later than the one above.
            try await site.authority("long") { ($0.issuedBy, $0.validitySeconds) = ("root", 100 * 365 * 86_400) }
            let root = try await site.authority(onRecord: "root").added
            #expect(try await site.authority(onRecord: "long").added.notAfter == root.notAfter)
            let tooDeep = await failure { try await site.authority("deep") { $0.issuedBy = "issuing" } }
            #expect(tooDeep.code == .invalid && tooDeep.text.contains("path length"))
        }
    }

    @Test func keysAreFilesThatOnlyTheirOwnerReads() async throws {
        try await Site.withFolder { folder in
            try await Site.run(folder, passphrase: "correct horse") { site in
                try await site.authority()
                let spki = try await site.authority(onRecord: "ca").added.spkiSHA256
                #expect(folder.keyFiles == ["\(folder.keys)/\(spki).key"])
                func mode(_ path: String) throws -> Int? {
                    try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
                }
                #expect(try mode(folder.keys) == 0o700 && mode(folder.keyFiles[0]) == 0o600)
                let text = try String(contentsOfFile: folder.keyFiles[0], encoding: .utf8)
                #expect(text.contains("BEGIN ENCRYPTED PRIVATE KEY"))
                let read = try openssl(
                    ["openssl", "pkey", "-in", folder.keyFiles[0], "-passin", "pass:correct horse", "-noout", "-check"])
                #expect(read.code == 0, "\(read.output)")
            }
        }
    }

    @Test func noKeyIsInTheLog() async throws {
        try await Site.withFolder { folder in
            try await Site.run(folder) { site in
                try await site.authority()
                try await site.issue()
                _ = try await site.issueCRLs()
            }
            let key = try String(contentsOfFile: folder.keyFiles[0], encoding: .utf8).split(separator: "\n")[1]
            let log = try FileManager.default.subpathsOfDirectory(atPath: folder.path + "/log")
            #expect(!log.isEmpty)
            for name in log {
                guard let data = FileManager.default.contents(atPath: "\(folder.path)/log/\(name)") else { continue }
                #expect(data.range(of: Data("PRIVATE".utf8)) == nil && data.range(of: Data(key.utf8)) == nil, "\(name)")
            }
        }
    }

    // MARK: Import

    /// An authority of openssl's, with its key in a file.
    private static func foreign(_ folder: Site.Folder, passphrase: String? = nil) throws -> ForeignAuthority {
        let made = try openssl(
            [
                "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-subj",
                "/CN=Elsewhere",
                "-days", "36500", "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-keyout",
                "\(folder.path)/ca.key",
                "-out", "\(folder.path)/ca.pem",
            ] + (passphrase.map { ["-passout", "pass:\($0)"] } ?? ["-nodes"]))
        try #require(made.code == 0, "\(made.output)")
        // It begins now, by the real clock.
        folder.pass(seconds: max(0, Int64(Date().timeIntervalSince1970) + 60 - folder.now.wholeSeconds))
        return ForeignAuthority(id: "old", tenantID: "acme", certificates: try folder.bytes("ca.pem"))
    }

    @Test func anAuthorityIsImportedWithItsEncryptedKey() async throws {
        try await Site.withFolder { folder in
            var foreign = try Self.foreign(folder, passphrase: "swordfish")
            foreign.key = try folder.bytes("ca.key")
            try await Site.run(folder) { site in
                for passphrase in [nil, "wrong"] {
                    foreign.passphrase = passphrase.map { Array($0.utf8) }
                    let refused = await failure { [foreign] in try await site.certificates.take(foreign, by: Site.by())
                    }
                    #expect(refused.code == .passphrase, "\(refused)")
                }
                foreign.passphrase = Array("swordfish".utf8)
                #expect(try await site.certificates.take(foreign, by: Site.by()).refusal == nil)
                #expect(folder.keyFiles.count == 1)
                let issued = try await site.issue(), crl = try #require(try await site.issueCRLs().first)
                let verified = try await site.verify(issued, crl)
                #expect(verified.code == 0, "\(verified.output)")
            }
        }
    }

    @Test func anAuthorityIsImportedWithoutAKeyToKnowItsCertificates() async throws {
        try await Site.withFolder { folder in
            let foreign = try Self.foreign(folder)
            try await Site.run(folder) { site in
                let taken = try await site.certificates.take(foreign, by: Site.by())
                #expect(taken.refusal == nil)
                #expect(try await site.authority(onRecord: "old").added.key == .none)
                #expect(await failure { try await site.issue() }.code == .invalid)
                let named = await failure { try await site.issue { $0.authority = "old" } }
                #expect(named.code == .invalid && named.text.contains("imported without"), "\(named)")
                #expect(try await site.issueCRLs().isEmpty)
                #expect(try await site.crls.current("old") == nil)
                await #expect(throws: CRLFailure.self) { try await site.crls.issue("old") }
            }
        }
    }

    @Test func anAuthorityWhoseKeyIsBehindACommandSigns() async throws {
        try await Site.withFolder { folder in
            var foreign = try Self.foreign(folder)
            foreign.usesSignCommand = true
            let all = Site.by(Envelope.everyTenant)
            try await Site.run(folder, signCommand: "true") { [foreign] site in
                let tenants = await failure { try await site.certificates.take(foreign, by: Site.by()) }
                #expect(tenants.code == .invalid, "its signatures are every tenant's")
            }
            foreign.tenantID = Envelope.everyTenant
            try await Site.run(folder) { [foreign] site in
                let unset = await failure { try await site.certificates.take(foreign, by: all) }
                #expect(unset.code == .command && unset.text.contains("certificates.sign_command"))
            }
            try await Site.run(folder, signCommand: "false") { [foreign] site in
                let failed = await failure { try await site.certificates.take(foreign, by: all) }
                let count = try await site.registry.query { $0.authorities.count }
                #expect(failed.code == .command && count == 0)
            }
            let command = "openssl dgst -sha256 -sign \(folder.path)/ca.key"
            try await Site.run(folder, signCommand: command) { [foreign] site in
                #expect(try await site.certificates.take(foreign, by: all).refusal == nil)
                #expect(folder.keyFiles.isEmpty)
                let issued = try await site.issue(), crl = try #require(try await site.issueCRLs().first)
                #expect(try await site.verify(issued, crl).code == 0)
            }
            // Whatever signs now: another key's signature is never used.
            _ = try openssl(["openssl", "genpkey", "-algorithm", "ed25519", "-out", "\(folder.path)/ca.key"])
            try await Site.run(folder, signCommand: "head -c 64 /dev/urandom") { site in
                #expect(await failure { try await site.issue("d2") }.code == .command)
                folder.pass(seconds: 4 * 86_400)
                let made = try await site.crls.issueDue()
                #expect(made.issued.isEmpty && made.failures.first?.nextUpdate != nil, "\(made)")
            }
        }
    }

    /// The other authorities' CRLs are issued and published while it hangs.
    @Test func aSignCommandThatHangsHoldsUpItsAuthorityOnly() async throws {
        try await Site.withFolder { folder in
            var foreign = try Self.foreign(folder)
            (foreign.usesSignCommand, foreign.tenantID) = (true, Envelope.everyTenant)
            let hang = folder.path + "/hang"
            let command =
                "while test -e \(hang); do sleep 0.05; done; openssl dgst -sha256 -sign \(folder.path)/ca.key"
            try await Site.run(folder, signCommand: command) { [foreign] site in
                let refusal = try await site.certificates.take(foreign, by: Site.by(Envelope.everyTenant)).refusal
                #expect(refusal == nil)
                try await site.authority("files")
                let own = try await site.issue { $0.authority = "files" },
                    more = try await site.issue("d2") { $0.authority = "files" }
                let other = try await site.issue("d3") { $0.authority = foreign.id }
                let published = AsyncStream<String>.makeStream()
                let running = Task {
                    await site.crls.run {
                        published.continuation.yield($0.event.authority)
                    } report: { _ in
                    }
                }
                var names = published.stream.makeAsyncIterator()
                let first = [await names.next(), await names.next()].compactMap(\.self)
                #expect(Set(first) == ["files", foreign.id])
                try Data().write(to: URL(fileURLWithPath: hang))
                try await site.revoke(other.reference)
                for reference in [own.reference, more.reference] {
                    try await site.revoke(reference)
                    folder.pass(seconds: 2)
                    site.executor.wake()
                    #expect(await names.next() == "files")
                }
                try FileManager.default.removeItem(atPath: hang)
                #expect(await names.next() == foreign.id)
                running.cancel()
                await running.value
            }
        }
    }

    @Test func whatIsNoAuthorityIsNotTakenOver() async throws {
        try await Site.withFolder { folder in
            var foreign = try Self.foreign(folder)
            let leaf = try openssl(
                [
                    "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-subj",
                    "/CN=leaf", "-addext", "basicConstraints=CA:FALSE", "-keyout", "\(folder.path)/leaf.key", "-out",
                    "\(folder.path)/leaf.pem",
                ])
            try #require(leaf.code == 0, "\(leaf.output)")
            try await Site.run(folder) { site in
                let good = foreign, other = try folder.bytes("leaf.pem")
                for (certificates, key, code) in [
                    (other, nil, PKIError.Code.invalid), (good.certificates + other, nil, .untrusted),
                    (Array("no PEM".utf8), nil, .malformed),
                    (good.certificates, try folder.bytes("leaf.key"), .untrusted),
                ] {
                    (foreign.certificates, foreign.key) = (certificates, key)
                    let refused = await failure { [foreign] in try await site.certificates.take(foreign, by: Site.by())
                    }
                    #expect(refused.code == code, "\(refused)")
                }
                #expect(folder.keyFiles.isEmpty)
                #expect(try await site.registry.query { $0.authorities.isEmpty })
            }
        }
    }

    /// The public half of a key is in its certificate: whoever makes another certificate with it gets no signature.
    @Test func aForgedAuthorityGetsNoSignatureOfTheRealOne() async throws {
        try await Site.withFolder { folder in
            try await Site.run(folder) { site in
                try await site.authority("victim")
                _ = try await site.issueCRLs()
                // A certificate of the same subject and key, signed by another one.
                let real = try await site.authority(onRecord: "victim"), forger = try PrivateKey.generate()
                let now = site.folder.now.wholeSeconds
                let profile = CertificateProfile(
                    .authority(pathLength: nil), subject: try DistinguishedName(commonName: "forger"), notBefore: now,
                    notAfter: now + 86_400)
                let root = try CertificateIssuer.selfSigned(profile, signer: forger, serial: .random())
                let forged = try CertificateIssuer(certificate: root, signer: forger).issue(
                    CertificateProfile(
                        .authority(pathLength: nil), subject: try DistinguishedName(commonName: "victim"),
                        notBefore: now,
                        notAfter: now + 86_400), publicKey: try Certificate(real.added).publicKey, serial: .random())
                let shadow = ForeignAuthority(id: "shadow", tenantID: "evil", certificates: try forged.pem())
                let answer = try await site.certificates.take(shadow, by: Site.by("evil"))
                #expect(answer.refusal == .alreadyExists)
                // And if it were on the record.
                var added = real.added
                (added.id, added.tenantID, added.key) = ("shadow", "evil", .none)
                let keys = site.certificates.keys
                _ = try keys.signer(for: real.added)
                #expect(throws: PKIError.self) { try keys.signer(for: added) }
            }
        }
    }

    /// Else a tenant's operator could revoke another tenant's authority, whose certificate is public.
    @Test func aTenantClaimsOnlyItsOwnCertificatesOfASharedAuthority() async throws {
        try await Site.withFolder { folder in
            try await Site.run(folder) { site in
                let all = Site.by(Envelope.everyTenant)
                _ = try await site.certificates.create(
                    NewAuthority(id: "root", tenantID: Envelope.everyTenant), by: all)
                var below = NewAuthority(id: "acme-ca", tenantID: "acme")
                below.issuedBy = "root"
                _ = try await site.certificates.create(below, by: Site.by("acme"))
                let authority = try Certificate(try await site.authority(onRecord: "acme-ca").added)
                let key = try PrivateKey.generate(), now = site.folder.now.wholeSeconds
                let root = try await site.issuer("root")
                let device = try root.issue(
                    CertificateProfile(
                        .tlsClient, subject: try DistinguishedName(commonName: "acme/d1"), notBefore: now,
                        notAfter: now + 86_400), publicKey: key.publicKey, serial: .random())
                for pem in [try authority.pem(), try device.pem()] {
                    let claim: [(pem: [UInt8], deviceID: String?)] = [(pem, "x")]
                    let refused = await failure {
                        try await site.certificates.importCertificates(claim, tenantID: "evil", by: Site.by("evil"))
                    }
                    #expect(refused.code == .invalid)
                }
                let own: [(pem: [UInt8], deviceID: String?)] = [(try device.pem(), nil)]
                let answer = try await site.certificates.importCertificates(
                    own, tenantID: "acme", by: Site.by("acme"))
                #expect(answer.refusal == nil)
                // A retired authority signs no authority below it either.
                _ = try await site.certificates.retire("root", by: all)
                below.id = "late"
                let late = await failure { [below] in
                    try await site.certificates.create(below, by: Site.by("acme"))
                }
                #expect(late.code == .invalid)
            }
        }
    }

    // MARK: Key files

    @Test func theKeyOfARefusedAuthorityIsRemovedAndNoOtherEver() async throws {
        try await Site.withFolder { folder in
            var foreign = try Self.foreign(folder)
            foreign.key = try folder.bytes("ca.key")
            try await Site.run(folder) { [foreign] site in
                try await site.authority("ca")
                let own = folder.keyFiles
                #expect(try await site.authority("ca").refusal == .alreadyExists)
                #expect(folder.keyFiles == own, "the key that was made for nothing")
                #expect(try await site.certificates.take(foreign, by: Site.by()).refusal == nil)
                let both = folder.keyFiles
                #expect(both.count == 2)
                // The same authority again, under another name.
                var again = foreign
                again.id = "again"
                #expect(try await site.certificates.take(again, by: Site.by()).refusal == .alreadyExists)
                #expect(try await site.certificates.take(foreign, by: Site.by()).refusal == .alreadyExists)
                #expect(folder.keyFiles == both)
                #expect(try await site.issue { $0.authority = "old" }.reference.authority == "old")
            }
        }
    }

    /// The one that is put on the record keeps the key file that a refused one wrote.
    @Test func importsOfOneAuthorityAtOnceLeaveItItsKey() async throws {
        try await Site.withFolder { folder in
            var foreign = try Self.foreign(folder)
            foreign.key = try folder.bytes("ca.key")
            try await Site.run(folder) { [foreign] site in
                let answers = try await withThrowingTaskGroup(of: RegistryAnswer.self) { group in
                    for number in 0..<8 {
                        group.addTask {
                            var own = foreign
                            own.id = "old-\(number)"
                            return try await site.certificates.take(own, by: Site.by())
                        }
                    }
                    return try await group.reduce(into: []) { $0.append($1) }
                }
                #expect(answers.filter { $0.refusal == nil }.count == 1)
                #expect(folder.keyFiles.count == 1)
            }
        }
    }

    @Test func aKeyIsSettledByTheLastAttempt() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("refold-keys-\(UUID().uuidString)")
            .path
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let keys = AuthorityKeys(folder: folder, passphrase: nil, signCommand: nil, commandTimeoutSeconds: 1)
        let key = try PrivateKey.generate()
        func exists() -> Bool {
            FileManager.default.fileExists(atPath: keys.path(key.publicKey.spkiSHA256.description))
        }
        for outcomes in [[false, false], [true, false], [false, true]] {
            for _ in outcomes { try keys.store(key) }
            keys.settle(key, isOnRecord: outcomes[0])
            #expect(exists(), "\(outcomes): an attempt is under way")
            keys.settle(key, isOnRecord: outcomes[1])
            #expect(exists() == outcomes.contains(true), "\(outcomes)")
            if !exists() { continue }
            // It is on the record: no later attempt removes it.
            try keys.store(key)
            keys.settle(key, isOnRecord: false)
            #expect(exists())
            try FileManager.default.removeItem(atPath: keys.path(key.publicKey.spkiSHA256.description))
        }
    }

    // MARK: Rotation

    @Test func anAuthorityIsReplacedWithAnOverlap() async throws {
        try await Site.run { site in
            try await site.authority("2026")
            let old = try await site.issue("d1")
            _ = try await site.issueCRLs()
            try await site.authority("2027") { $0.replaces = "2026" }
            let new = try await site.issue("d1") { $0.renews = old.reference }
            #expect(new.reference.authority == "2027")
            let named = try await site.certificates.issue(
                [Site.new("d2") { $0.authority = "2026" }], by: Site.by())
            #expect(named.refusal == .illegalTransition)
            // Devices of both are checked by CRLs until the last certificate of the old one has expired.
            site.folder.pass(seconds: 2)
            try await site.revoke(old.reference)
            let crls = try await site.issueCRLs()
            #expect(Set(crls.map(\.event.authority)) == ["2026", "2027"])
            for (issued, authority, isGood) in [(old, "2026", false), (new, "2027", true)] {
                let crl = try #require(crls.first { $0.event.authority == authority })
                let verified = try await site.verify(issued, crl)
                #expect((verified.code == 0) == isGood, "\(verified.output)")
            }
            #expect(try await site.authority("2028") { $0.replaces = "2026" }.refusal == .illegalTransition)
            #expect(try await site.certificates.retire("2027", by: Site.by()).refusal == nil)
            #expect(await failure { try await site.issue("d3") }.code == .invalid, "none is left")
            site.folder.pass(seconds: 4 * 86_400)
            #expect(try await site.issueCRLs().count == 2, "also those that issue no certificates")
        }
    }

    // MARK: Refusals

    @Test(arguments: ["", ".", "..", "a/b", "a b", "ä", String(repeating: "a", count: 65)])
    func aNameThatIsNoneIsRefused(name: String) async throws {
        try await Site.run { site in
            #expect(await failure { try await site.authority(name) }.code == .invalid)
            #expect(site.folder.keyFiles.isEmpty)
        }
    }

    @Test func anAuthorityAboveMustBeThere() async throws {
        try await Site.run { site in
            try await site.authority("theirs", tenant: "other")
            for name in ["none", "theirs"] {
                let refused = await failure { try await site.authority { $0.issuedBy = name } }
                #expect(refused.code == .invalid && refused.text == "there is no authority \(name) to issue ca")
            }
            #expect(try await site.authority { $0.replaces = "theirs" }.refusal == .notFound)
            #expect(site.folder.keyFiles.count == 1)
        }
    }
}

extension Site {
    static func new(
        _ device: String, _ key: NewCertificate.Key = .generated(.p256), tenant: String = "acme",
        _ change: (inout NewCertificate) -> Void = { _ in }
    ) -> NewCertificate {
        var new = NewCertificate(tenantID: tenant, deviceID: device, key: key)
        change(&new)
        return new
    }
}
