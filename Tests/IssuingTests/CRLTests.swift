import Certificates
import Deciding
import Decisions
import EventModel
import Foundation
import PKI
import Primitives
import Testing
@testable import Certificates
@testable import Issuing

/// CRLs: when they are issued, what they list, and what is never published.
@Suite struct CRLTests {
    private static let halfLife: Int64 = 7 * 86_400 / 2

    // MARK: OpenSSL as the broker

    @Test(arguments: KeyAlgorithm.allCases) func opensslRefusesTheRevokedAndAcceptsTheLive(algorithm: KeyAlgorithm)
        async throws
    {
        try await Site.run { site in
            try await site.authority { $0.algorithm = algorithm }
            let live = try await site.issue("d1", .generated(algorithm)), revoked = try await site.issue("d2")
            let held = try await site.issue("d3")
            try await site.revoke(revoked.reference)
            _ = try await site.certificates.change(held.reference, CertificateChange(.hold), by: Site.by())
            let crl = try #require(try await site.issueCRLs().first), canary = try #require(crl.canary)
            #expect(crl.event.entries == 3 && crl.list.entries[canary.certificate.serial] != nil)
            #expect(crl.list.entries[held.reference.serial]?.reason == .certificateHold)
            for (issued, isGood) in [(live, true), (revoked, false), (held, false)] {
                let verified = try await site.verify(issued, crl)
                #expect((verified.code == 0) == isGood, "\(issued.deviceID): \(verified.output)")
                #expect(isGood || verified.output.contains("certificate revoked"))
            }
            // Its canary is refused where the list is in force.
            let proof = NewlyIssued(
                reference: live.reference, tenantID: "acme", deviceID: "canary", certificate: canary.certificate,
                authority: live.authority, renews: nil, privateKey: nil)
            #expect(try await site.verify(proof, crl).output.contains("certificate revoked"))
            _ = try await site.certificates.change(held.reference, CertificateChange(.release), by: Site.by())
            site.folder.pass(seconds: 2)
            let next = try #require(try await site.issueCRLs().first)
            let verified = try await site.verify(held, next)
            #expect(verified.code == 0, "\(verified.output)")
        }
    }

    @Test func anAuthorityBelowARootHasItsOwnCRL() async throws {
        try await Site.run { site in
            try await site.authority("root") { $0.algorithm = .p384 }
            try await site.authority("issuing") { $0.issuedBy = "root" }
            let issued = try await site.issue()
            try await site.revoke(issued.reference)
            let crls = try await site.issueCRLs()
            #expect(crls.map(\.event.authority) == ["root", "issuing"] && crls.map(\.event.entries) == [1, 2])
            #expect(try await site.verify(issued, crls[1]).output.contains("certificate revoked"))
            #expect(try await site.verify(issued, crls[0]).code != 0, "the root's is not about it")
        }
    }

    // MARK: When

    @Test func aCRLIsIssuedAtOnceThenAtHalfItsLife() async throws {
        try await Site.run { site in
            try await site.authority()
            let now = site.folder.now
            let first = try #require(try await site.issueCRLs().first)
            #expect(first.event.thisUpdate == Timestamp(seconds: now.wholeSeconds - 60))
            #expect(first.event.nextUpdate == Timestamp(seconds: now.wholeSeconds - 60 + 7 * 86_400))
            #expect(try await site.issueCRLs().isEmpty)
            let due = try #require(try await site.crls.nextDue())
            #expect(due.wholeSeconds == now.wholeSeconds + Self.halfLife)
            site.folder.pass(seconds: Self.halfLife - 1)
            #expect(try await site.issueCRLs().isEmpty)
            site.folder.pass(seconds: 1)
            let second = try #require(try await site.issueCRLs().first)
            #expect(second.event.number > first.event.number && second.event.thisUpdate > first.event.thisUpdate)
            #expect(second.list.entries.count == 2, "the first canary is on one list after its expiry")
        }
    }

    @Test func aThousandRevocationsAreOneCRL() async throws {
        try await Site.run { site in
            try await site.authority()
            let new = (0..<certificatesPerCommandMax).map { Site.new("d\($0)") }
            guard case .issued(_, let issued) = try await site.certificates.issue(new, by: Site.by()) else {
                return #expect(Bool(false), "not issued")
            }
            _ = try await site.issueCRLs()
            for certificate in issued { try await site.revoke(certificate.reference) }
            #expect(try await site.issueCRLs().isEmpty, "at most one in a second")
            site.folder.pass(seconds: 1)
            let crls = try await site.issueCRLs()
            #expect(crls.count == 1 && crls[0].event.entries == Int64(issued.count) + 2)
            #expect(issued.allSatisfy { crls[0].list.entries[$0.reference.serial]?.reason == .keyCompromise })
            #expect(try await site.issueCRLs().isEmpty)
        }
    }

    @Test func anEntryStaysOnOneListAfterItsCertificateExpired() async throws {
        try await Site.run { site in
            try await site.authority()
            let issued = try await site.issue { $0.validitySeconds = 3_600 }
            try await site.revoke(issued.reference)
            func isListed() async throws -> Bool {
                try #require(try await site.issueCRLs().first).list.entries[issued.reference.serial] != nil
            }
            #expect(try await isListed())
            site.folder.pass(seconds: Self.halfLife)
            #expect(try await isListed(), "the first list after its expiry (RFC 5280, section 3.3)")
            site.folder.pass(seconds: Self.halfLife)
            #expect(try await !isListed())
        }
    }

    @Test func anExpiredAuthorityHasNoMoreCRLs() async throws {
        try await Site.run { site in
            try await site.authority { $0.validitySeconds = 86_400 }
            let issued = try await site.issue()
            #expect(try await site.issueCRLs().count == 1)
            try await site.revoke(issued.reference)
            site.folder.pass(seconds: 86_401)
            #expect(try await site.issueCRLs().isEmpty)
            #expect(try await site.crls.nextDue() == nil, "nothing to wait for, nor to fail at")
        }
    }

    @Test func theRunIssuesWhatIsDueAndReportsWhatFailed() async throws {
        try await Site.withFolder { folder in
            let events = AsyncStream<Event>.makeStream()
            try await Site.run(folder) { site in
                try await site.authority()
                let running = Task {
                    await site.crls.run { _ in
                        events.continuation.yield(.issued)
                    } report: {
                        events.continuation.yield(.failed($0.count))
                    }
                }
                var seen: [Event] = []
                for await event in events.stream {
                    seen.append(event)
                    if seen.suffix(2) == [.issued, .failed(0)] { break }
                }
                #expect(seen.count { $0 == .issued } == 1 && !seen.contains(.failed(1)))
                running.cancel()
                await running.value
            }
        }
    }
    private enum Event: Equatable { case issued, failed(Int) }

    // MARK: After a restart

    @Test func theListAfterARestartHasTheSameBytes() async throws {
        try await Site.withFolder { folder in
            let (der, held, event) = try await Site.run(folder) { site in
                try await site.authority()
                let one = try await site.issue("d1"), two = try await site.issue("d2"),
                    three = try await site.issue("d3")
                try await site.revoke(one.reference)
                _ = try await site.certificates.change(two.reference, CertificateChange(.hold), by: Site.by())
                let crl = try #require(try await site.issueCRLs().first)
                return (crl.list.der, [two.reference, three.reference], crl.event)
            }
            try await Site.run(folder) { site in
                let crl = try #require(try await site.crls.current("ca"))
                #expect(crl.list.der == der && crl.event == event && crl.canary == nil)
                #expect(SHA256.digest(crl.list.tbs).description == event.tbsSHA256)
            }
            // The last list is the last list, whatever the next one will be.
            try await Site.run(folder) { site in
                _ = try await site.certificates.change(held[0], CertificateChange(.release), by: Site.by())
                try await site.revoke(held[0], .superseded)
                try await site.revoke(held[1])
                #expect(try await site.crls.current("ca")?.list.der == der)
            }
            let state = try await Site.run(folder) { site in
                #expect(try await site.crls.current("ca")?.list.der == der)
                return DeciderSnapshot(
                    state: try CertificateRegistry(stored: try await site.registry.query { $0.stored() }),
                    end: Position(site.log.durableCount))
            }
            try await Site.run(folder, snapshot: state) { site in
                #expect(try await site.crls.current("ca")?.list.der == der, "from a snapshot")
                folder.pass(seconds: 2)
                let next = try #require(try await site.issueCRLs().first)
                #expect(next.list.entries.count == 5 && next.list.entries[held[0].serial]?.reason == .superseded)
                #expect(try await site.crls.current("ca")?.list == next.list)
            }
        }
    }

    // MARK: The key is not there

    private enum Trouble: CaseIterable { case missing, otherKey, wrongPassphrase, readableByOthers, noKey, aFolder }

    /// Issuing and CRLs wait and say why; revocations are recorded; the list in force is served; and the next CRL lists
    /// them.
    @Test(arguments: Trouble.allCases) private func withoutItsKeyAnAuthorityWaits(trouble: Trouble) async throws {
        try await Site.withFolder { folder in
            let manager = FileManager.default, passphrase = "one"
            let (issued, first) = try await Site.run(folder, passphrase: passphrase) { site in
                try await site.authority()
                return (try await site.issue(), try #require(try await site.issueCRLs().first))
            }
            let path = folder.keyFiles[0], key = try Data(contentsOf: URL(fileURLWithPath: path))
            try manager.removeItem(atPath: path)
            let said: String
            switch trouble {
            case .missing: said = "No such file"
            case .otherKey:
                try PrivateKey.generate().create(path, passphrase: Array(passphrase.utf8))
                said = "does not belong to the authority ca"
            case .wrongPassphrase:
                try PrivateKey.generate().create(path, passphrase: Array("two".utf8))
                said = "passphrase"
            case .readableByOthers:
                try key.write(to: URL(fileURLWithPath: path))
                try manager.setAttributes([.posixPermissions: 0o640], ofItemAtPath: path)
                said = "chmod 600"
            case .noKey:
                try Data("nothing".utf8).write(to: URL(fileURLWithPath: path))
                try manager.setAttributes([.posixPermissions: 0o600], ofItemAtPath: path)
                said = path
            case .aFolder:
                try manager.createDirectory(atPath: path, withIntermediateDirectories: false)
                said = "not a regular file"
            }
            folder.pass(seconds: 10)
            try await Site.run(folder, passphrase: passphrase) { site in
                let refused = await failure { try await site.issue("d2") }
                #expect(refused.code == .file && refused.text.contains(said), "\(refused)")
                #expect(try await site.registry.query { $0.certificateCount } == 1)
                #expect(try await site.revoke(issued.reference).refusal == nil)
                let made = try await site.crls.issueDue(), reason = try #require(made.failures.first)
                #expect(made.issued.isEmpty && made.failures.count == 1 && reason.authority == "ca")
                #expect(reason.description.contains(said) && reason.nextUpdate == first.event.nextUpdate, "\(reason)")
                #expect(try await site.crls.current("ca")?.list.der == first.list.der)
                #expect(
                    try await site.authority(onRecord: "ca").refused == nil, "nothing was signed that could be refused")
                // The key is back, under the daemon that runs.
                try? manager.removeItem(atPath: path)
                try key.write(to: URL(fileURLWithPath: path))
                try manager.setAttributes([.posixPermissions: 0o600], ofItemAtPath: path)
                let next = try #require(try await site.issueCRLs().first)
                #expect(try await site.verify(issued, next).output.contains("certificate revoked"))
                #expect(try await site.issue("d2").certificate.commonName == "acme/d2")
            }
        }
    }

    /// The others' lists are issued all the same.
    @Test func oneAuthoritysTroubleIsNotAnothers() async throws {
        try await Site.withFolder { folder in
            try await Site.run(folder) { site in
                try await site.authority("a")
                try FileManager.default.removeItem(atPath: folder.keyFiles[0])
                try await site.authority("b")
            }
            try await Site.run(folder) { site in
                let made = try await site.crls.issueDue()
                #expect(made.issued.map(\.event.authority) == ["b"] && made.failures.map(\.authority) == ["a"])
                #expect(made.failures.first?.nextUpdate == nil, "there is no list that could end")
            }
        }
    }

    // MARK: What is never published

    @Test func aDifferenceThatNoEventExplainsIsRefused() async throws {
        try await Site.run { site in
            try await site.authority()
            let first = try #require(try await site.issueCRLs().first), canary = try #require(first.canary)
            // As if the list before had not had the entry.
            let issuer = try await site.issuer("ca")
            let planted = try RevocationList(
                der: try issuer.crl(
                    number: first.event.number, thisUpdate: first.event.thisUpdate.wholeSeconds,
                    nextUpdate: first.event.nextUpdate.wholeSeconds, entries: RevokedEntries()))
            await site.crls.plant(
                PublishedCRL(
                    event: first.event, list: planted, issuedAt: first.issuedAt, canary: nil))
            for _ in 0..<3 {
                site.folder.pass(seconds: 2)
                await #expect {
                    try await site.crls.issue("ca")
                } throws: { error in
                    "\(error)".contains("\(canary.certificate.serial) would be listed, but no event revokes it")
                }
            }
            let authority = try await site.authority(onRecord: "ca")
            #expect(authority.refused?.reason.contains("no event revokes it") == true)
            #expect(authority.lastCRL == first.event)
            #expect(try site.count(.crlRefused) == 1, "once on the record, not at every attempt")
            // The cause is gone.
            await site.crls.plant(first)
            let next = try await site.crls.issue("ca")
            #expect(next.event.entries == 2)
            #expect(try await site.authority(onRecord: "ca").refused == nil)
        }
    }

    /// After a restart the list before is made again from the record: what the record has lost shows.
    @Test func anEntryThatTheStateHasLostIsRefused() async throws {
        try await Site.withFolder { folder in
            let state = try await Site.run(folder) { site in
                try await site.authority()
                let issued = try await site.issue()
                try await site.revoke(issued.reference)
                _ = try await site.issueCRLs()
                var registry = try await site.registry.query { $0 }
                registry.authorities[0].entries.remove(issued.reference.serial)
                return DeciderSnapshot(state: registry, end: Position(site.log.durableCount))
            }
            try await Site.run(folder, snapshot: state) { site in
                await #expect(throws: PKIError.self) { try await site.crls.current("ca") }
                folder.pass(seconds: Self.halfLife)
                let made = try await site.crls.issueDue()
                #expect(made.issued.isEmpty && "\(made.failures)".contains("verify the log"), "\(made.failures)")
                #expect(try await site.authority(onRecord: "ca").refused != nil)
            }
            try await Site.run(folder) { site in
                let issued = try await site.issueCRLs()
                #expect(issued.count == 1, "from the log itself")
            }
        }
    }

    @Test func twoAtOnceAreTwoNumbers() async throws {
        try await Site.run { site in
            try await site.authority()
            let all = try await withThrowingTaskGroup(of: CRLIssued.self) { group in
                for _ in 0..<5 { group.addTask { try await site.crls.issue("ca").event } }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            #expect(Set(all.map(\.number)).count == 5 && Set(all.map(\.thisUpdate)).count == 5)
            let last = try #require(all.max { $0.number < $1.number })
            #expect(try await site.crls.current("ca")?.event == last)
            #expect(try await site.authority(onRecord: "ca").lastCRL == last)
        }
    }

    /// A clock that was set back must not hold back a list, nor make an older one of it.
    @Test func numbersAndTimesRiseWhateverTheClock() async throws {
        try await Site.run { site in
            try await site.authority()
            let issued = try await site.issue(), first = try #require(try await site.issueCRLs().first)
            site.folder.pass(seconds: -3_600)
            try await site.revoke(issued.reference)
            let second = try #require(try await site.issueCRLs().first, "it waits for no clock")
            #expect(second.event.number > first.event.number && second.event.thisUpdate > first.event.thisUpdate)
        }
    }

    /// The log's clock stays ahead of a wall clock that was set back. What is signed must not lie in the future of
    /// those who verify it, and must not end earlier.
    @Test func whatIsSignedBeginsByTheEarlierClock() async throws {
        try await Site.run { site in
            site.folder.pass(seconds: -72_000)
            try await site.authority()
            site.folder.pass(seconds: 72_000)
            site.folder.wallShift.withLock { $0 = -3_600 }
            let issued = try await site.issue(), now = site.folder.now, wall = site.folder.wall
            let crl = try #require(try await site.issueCRLs().first), live = try await site.crls.liveCanary("ca")
            #expect(crl.event.thisUpdate <= wall && crl.event.nextUpdate > now.adding(microseconds: 6 * 86_400_000_000))
            for certificate in [issued.certificate, try #require(crl.canary).certificate, live.certificate] {
                #expect(certificate.notBefore <= wall.wholeSeconds && certificate.notAfter > now.wholeSeconds)
            }
            // Set back further: the canary is signed again.
            site.folder.wallShift.withLock { $0 = -10_000 }
            #expect(await !site.crls.hasLiveCanary("ca"))
            let again = try await site.crls.liveCanary("ca").certificate
            #expect(again.notBefore <= site.folder.wall.wholeSeconds)
            // Before the authority's own beginning nothing can begin.
            site.folder.wallShift.withLock { $0 = -864_000 }
            let began = try await site.authority(onRecord: "ca").added.notBefore.wholeSeconds
            #expect(try await site.issue("d2").certificate.notBefore == began)
        }
    }

    /// No canary outlives its authority: the last one is used until the end.
    @Test func theLastCanaryIsUsedToTheEndOfItsAuthority() async throws {
        try await Site.run { site in
            try await site.authority { $0.validitySeconds = 86_400 }
            let end = try await site.authority(onRecord: "ca").added.notAfter.wholeSeconds
            site.folder.pass(seconds: end - site.folder.now.wholeSeconds - 1_800)
            let canary = try await site.crls.liveCanary("ca")
            #expect(canary.certificate.notAfter == end)
            #expect(await site.crls.hasLiveCanary("ca"))
            site.folder.pass(seconds: 1_700)
            #expect(await site.crls.hasLiveCanary("ca"))
            #expect(try await site.crls.liveCanary("ca") == canary, "none is signed again")
        }
    }

    @Test func brokersShareTheNextCRLWithACanary() async throws {
        try await Site.run { site in
            try await site.authority()
            let first = try await site.crls.issue("ca").event.number
            async let one = site.crls.issue("ca", after: first), two = site.crls.issue("ca", after: first)
            let numbers = try await (one.event.number, two.event.number)
            #expect(numbers.0 == numbers.1 && numbers.0 > first)
            #expect(try await site.crls.issue("ca", after: numbers.0).event.number > numbers.0)
        }
    }
}

extension CRLService {
    /// Puts a list in the place of the last one, as this process published it.
    func plant(_ crl: PublishedCRL) { published[crl.event.authority] = crl }
}

extension Site {
    /// An authority's signer, from its key file.
    func issuer(_ id: String) async throws -> CertificateIssuer {
        let added = try await authority(onRecord: id).added
        return try CertificateIssuer(
            certificate: Certificate(added), signer: PrivateKey.load("\(folder.keys)/\(added.spkiSHA256).key"))
    }

    /// Number of events of a schema on the record.
    func count(_ schema: CertificateSchema) throws -> Int {
        let reader = try log.reader(from: Position(0)), block = EventBlock()
        var count = 0
        while try reader.read(into: block, atLeast: 1) {
            block.forEach { record, _ in if record.topicString == schema.rawValue { count += 1 } }
        }
        return count
    }
}
