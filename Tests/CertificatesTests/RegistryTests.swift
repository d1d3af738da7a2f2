import Deciding
import Decisions
import EventModel
import PKI
import Primitives
import Testing
@testable import Certificates

/// A registry that decides and folds, without a log.
struct TestRegistry {
    var state = CertificateRegistry()
    var now = Timestamp(rfc3339: "2026-11-30T12:00:00Z")!
    var position: UInt64 = 0

    /// - Returns: nil for a repeated answer.
    @discardableResult
    mutating func run(
        _ command: RegistryCommand, tenant: String = "t", key: String? = nil, sent: String = ""
    ) throws -> RegistryAnswer {
        let request = RegistryRequest(
            tenantID: tenant, actor: "op", idempotencyKey: key, sent: Array(sent.utf8), command: command)
        switch state.decide(request, now: now) {
        case .repeated(let answer): return answer
        case .append(let events):
            let begin = Position(position)
            for event in events {
                state.apply(event, at: Position(position), time: now)
                position += 1
            }
            return try state.answer(to: request, events, at: begin..<Position(position))
        }
    }

    mutating func pass(seconds: Int64) { now = now.adding(microseconds: seconds * 1_000_000) }

    func authority(
        _ id: String, tenant: String = "*", key: AuthorityAdded.Key = .file, years: Int64 = 10, replaces: String? = nil
    ) -> RegistryCommand {
        var event = AuthorityAdded(
            id: id, tenantID: tenant, subject: "CN=\(id)", certificate: "certificate of \(id)",
            spkiSHA256: digest("key of \(id)"), key: key, notBefore: now,
            notAfter: now.adding(microseconds: years * 365 * 86_400_000_000), actor: "")
        event.replaces = replaces
        return .addAuthority(event)
    }

    func certificate(
        _ serial: UInt64, _ device: String, authority: String = "ca", tenant: String = "t", key: String? = nil,
        days: Int64 = 30, origin: CertificateAdded.Origin = .issued, renews: UInt64? = nil
    ) -> CertificateAdded {
        var event = CertificateAdded(
            origin, authority: authority, serial: SerialNumber(serial)!.description, tenantID: tenant, deviceID: device,
            commonName: "\(tenant)/\(device)", certificate: "", sha256: digest("\(serial)"),
            spkiSHA256: digest(key ?? "\(serial)"), keyAlgorithm: "P-256", notBefore: now,
            notAfter: now.adding(microseconds: days * 86_400_000_000), actor: "")
        event.renews = renews.map { "\(authority)/\(SerialNumber($0)!)" }
        return event
    }

    func digest(_ text: String) -> String { SHA256.digest(text.utf8).description }

    func reference(_ serial: UInt64, _ authority: String = "ca") -> CertificateReference {
        CertificateReference(authority: authority, serial: SerialNumber(serial)!)
    }

    func status(_ serial: UInt64) -> CertificateStatus? { state.certificate(reference(serial))?.status }

    @discardableResult
    mutating func change(_ serial: UInt64, _ kind: CertificateChange.Kind) throws -> RegistryAnswer {
        try run(.change(reference(serial), CertificateChange(kind)))
    }

    /// Drafts the next CRL of `ca` and puts it on the record.
    mutating func issueCRL(canary: UInt64? = nil, _ policy: CRLPolicy = CRLPolicy()) throws -> CRLDraft {
        let canary = canary.map {
            CRLIssued.Canary(
                serial: SerialNumber($0)!.description,
                notAfter: now.adding(microseconds: policy.canarySeconds * 1_000_000))
        }
        let draft = try #require(state.draftCRL("ca", canary: canary, policy, now: now))
        #expect(code(try run(.issueCRL(event(draft)), tenant: "*")) == nil)
        return draft
    }

    func event(_ draft: CRLDraft) -> CRLIssued {
        CRLIssued(
            authority: draft.authority.id, tenantID: draft.authority.tenantID, number: draft.number,
            thisUpdate: draft.thisUpdate, nextUpdate: draft.nextUpdate, entries: Int64(draft.entries.count),
            canary: draft.canary, tbsSHA256: "", signature: "", sha256: "", end: draft.end.rawValue, actor: "")
    }
}

/// Nil: accepted.
func code(_ answer: RegistryAnswer) -> RegistryRefusal.Code? {
    if case .rejected(_, let code, _) = answer { code } else { nil }
}

@Suite struct RegistryTests {
    var registry: TestRegistry

    init() throws {
        registry = TestRegistry()
        try registry.run(registry.authority("ca"), tenant: "*")
    }

    // MARK: Certificates

    @Test mutating func aCertificateIsLiveUntilItIsRevoked() throws {
        #expect(!registry.state.hasLiveCertificate(tenantID: "t", deviceID: "d", at: registry.now))
        let answer = try registry.run(.add([registry.certificate(1, "d")]))
        #expect(
            answer
                == .accepted(
                    position: Position(1), authority: nil, certificates: [registry.reference(1)], isRepeated: false))
        #expect(registry.state.hasLiveCertificate(tenantID: "t", deviceID: "d", at: registry.now))
        #expect(!registry.state.hasLiveCertificate(tenantID: "u", deviceID: "d", at: registry.now))
        #expect(code(try registry.change(1, .revoke(.keyCompromise))) == nil)
        #expect(registry.status(1) == .revoked)
        #expect(!registry.state.hasLiveCertificate(tenantID: "t", deviceID: "d", at: registry.now))
        #expect(code(try registry.change(1, .revoke(.keyCompromise))) == .illegalTransition)
        #expect(code(try registry.change(1, .release)) == .illegalTransition, "a revocation is final")
    }

    @Test mutating func aCertificateExpires() throws {
        try registry.run(.add([registry.certificate(1, "d", days: 1)]))
        registry.pass(seconds: 86_400)
        #expect(registry.state.hasLiveCertificate(tenantID: "t", deviceID: "d", at: registry.now))
        registry.pass(seconds: 1)
        #expect(!registry.state.hasLiveCertificate(tenantID: "t", deviceID: "d", at: registry.now))
    }

    @Test mutating func aHoldCanBeReleased() throws {
        try registry.run(.add([registry.certificate(1, "d")]))
        try registry.change(1, .hold)
        #expect(registry.status(1) == .held)
        #expect(!registry.state.hasLiveCertificate(tenantID: "t", deviceID: "d", at: registry.now))
        #expect(code(try registry.change(1, .hold)) == .illegalTransition)
        try registry.change(1, .release)
        #expect(registry.status(1) == .active)
        try registry.change(1, .hold)
        try registry.change(1, .revoke(.unspecified))
        #expect(registry.status(1) == .revoked)
    }

    @Test mutating func aRenewedCertificateStaysLiveUntilTheNewOneIsSeen() throws {
        try registry.run(.add([registry.certificate(1, "d")]))
        #expect(code(try registry.run(.add([registry.certificate(2, "d", renews: 1)]))) == nil)
        #expect(registry.status(1) == .active && registry.status(2) == .active)
        #expect(registry.state.certificate(registry.reference(2))?.renews == registry.reference(1))
        try registry.change(1, .supersede(by: registry.reference(2)))
        #expect(registry.status(1) == .superseded)
        #expect(registry.state.certificate(registry.reference(1))?.replacedBy == registry.reference(2))
        try registry.change(1, .hold)
        try registry.change(1, .release)
        #expect(registry.status(1) == .superseded, "a release gives back the status before the hold")
        #expect(code(try registry.run(.add([registry.certificate(3, "other", renews: 1)]))) == .notFound)
        try registry.change(2, .revoke(.keyCompromise))
        #expect(code(try registry.run(.add([registry.certificate(4, "d", renews: 2)]))) == .illegalTransition)
    }

    @Test mutating func allCertificatesOfADeviceAreRevokedAtOnce() throws {
        try registry.run(
            .add([registry.certificate(1, "d"), registry.certificate(2, "d"), registry.certificate(3, "e")]))
        try registry.change(1, .revoke(.unspecified))
        let answer = try registry.run(.changeDevice("d", CertificateChange(.revoke(.cessationOfOperation))))
        guard case .accepted(_, _, [registry.reference(2)], false) = answer else {
            Issue.record("\(answer)")
            return
        }
        #expect(registry.status(3) == .active)
        #expect(
            code(try registry.run(.changeDevice("d", CertificateChange(.revoke(.unspecified))))) == .illegalTransition)
        #expect(code(try registry.run(.changeDevice("x", CertificateChange(.hold)))) == .notFound)
    }

    @Test mutating func refusals() throws {
        try registry.run(registry.authority("mine", tenant: "t"))
        try registry.run(registry.authority("theirs", tenant: "u"), tenant: "u")
        try registry.run(registry.authority("external", key: .none), tenant: "*")
        try registry.run(.add([registry.certificate(1, "d")]))
        let other = registry.certificate(2, "d", tenant: "u")
        let cases: [(String, RegistryCommand, RegistryRefusal.Code)] = [
            ("unknown authority", .add([registry.certificate(2, "d", authority: "x")]), .notFound),
            ("another tenant's authority", .add([registry.certificate(2, "d", authority: "theirs")]), .notFound),
            (
                "an authority without a key", .add([registry.certificate(2, "d", authority: "external")]),
                .illegalTransition
            ),
            ("the same serial number", .add([registry.certificate(1, "d")]), .alreadyExists),
            ("twice in a command", .add([registry.certificate(2, "d"), registry.certificate(2, "d")]), .alreadyExists),
            ("another device's key", .add([registry.certificate(2, "e", key: "1")]), .invalidValue),
            (
                "one key for two devices",
                .add([registry.certificate(2, "e", key: "k"), registry.certificate(3, "f", key: "k")]), .invalidValue
            ),
            ("longer than the authority", .add([registry.certificate(2, "d", days: 3_651)]), .invalidValue),
            ("a device id that breaks the grammar", .add([registry.certificate(2, "a/b")]), .invalidValue),
            ("another tenant's device", .add([other]), .invalidValue),
            ("nothing", .add([]), .invalidValue),
            ("a certificate that is unknown", .change(registry.reference(9), CertificateChange(.hold)), .notFound),
            ("an authority for all tenants", registry.authority("all"), .invalidValue),
            ("a second authority of a name", registry.authority("mine", tenant: "t"), .alreadyExists),
            ("to retire another tenant's authority", .retireAuthority("theirs"), .notFound),
            ("to retire an authority of all tenants", .retireAuthority("ca"), .notFound),
        ]
        for (name, command, expected) in cases {
            #expect(code(try registry.run(command)) == expected, "\(name)")
        }
        #expect(registry.state.certificateCount == 1 && registry.state.authorities.count == 4)
        let foreign = registry.reference(1)
        #expect(code(try registry.run(.change(foreign, CertificateChange(.hold)), tenant: "u")) == .notFound)
    }

    @Test mutating func aDeviceHasSixteenLiveCertificatesAtMost() throws {
        let most = (1...UInt64(liveCertificatesPerDeviceMax)).map { registry.certificate($0, "d") }
        #expect(code(try registry.run(.add(most + [registry.certificate(99, "d")]))) == .limitReached)
        #expect(code(try registry.run(.add(most))) == nil)
        #expect(code(try registry.run(.add([registry.certificate(99, "d")]))) == .limitReached)
        try registry.change(1, .revoke(.superseded))
        #expect(code(try registry.run(.add([registry.certificate(99, "d")]))) == nil)
    }

    @Test mutating func anIdempotencyKeyHasOneAnswer() throws {
        let first = try registry.run(
            .add([registry.certificate(1, "d"), registry.certificate(2, "e")]), key: "k", sent: "two")
        let repeated = try registry.run(
            .add([registry.certificate(3, "d"), registry.certificate(4, "e")]), key: "k", sent: "two")
        guard case .accepted(let position, nil, let certificates, false) = first else {
            Issue.record("\(first)")
            return
        }
        #expect(certificates == [registry.reference(1), registry.reference(2)])
        #expect(
            repeated
                == .accepted(position: position, authority: nil, certificates: certificates, isRepeated: true))
        #expect(code(try registry.run(.add([registry.certificate(5, "d")]), key: "k", sent: "one")) == .keyReused)
        let others = registry.certificate(6, "d", tenant: "u")
        let other = try registry.run(.add([others]), tenant: "u", key: "k", sent: "two")
        guard case .accepted(_, nil, [registry.reference(6)], false) = other else {
            Issue.record("another tenant's key: \(other)")
            return
        }
        registry.pass(seconds: 24 * 3600)
        #expect(code(try registry.run(.add([registry.certificate(5, "d")]), key: "k", sent: "one")) == nil)
    }

    // MARK: Authorities

    @Test mutating func anAuthorityIsReplacedAndGoesOnToIssueCRLs() throws {
        try registry.run(registry.authority("next", replaces: "ca"), tenant: "*")
        #expect(registry.state.issuer(forTenant: "t", at: registry.now)?.added.id == "next")
        #expect(code(try registry.run(.add([registry.certificate(1, "d")]))) == .illegalTransition)
        #expect(registry.state.authority("ca")?.issuesCRLs == true)
        #expect(
            code(try registry.run(registry.authority("other", replaces: "ca"), tenant: "*")) == .illegalTransition)
        try registry.run(.retireAuthority("next"), tenant: "*")
        #expect(registry.state.issuer(forTenant: "t", at: registry.now) == nil)
        #expect(code(try registry.run(.retireAuthority("next"), tenant: "*")) == .illegalTransition)
        try registry.run(registry.authority("mine", tenant: "t"))
        #expect(registry.state.issuer(forTenant: "t", at: registry.now)?.added.id == "mine")
        #expect(registry.state.issuer(forTenant: "u", at: registry.now) == nil)
    }

    /// With the public key of another authority one would have its signatures.
    @Test mutating func noTwoAuthoritiesHaveOneKey() throws {
        guard case .addAuthority(var event) = registry.authority("shadow", tenant: "t", key: .none) else { return }
        event.spkiSHA256 = registry.digest("key of ca")
        #expect(code(try registry.run(.addAuthority(event))) == .alreadyExists)
    }

    /// A broker takes the CRL of an authority's name: one tenant's would hide another's.
    @Test mutating func noTwoTenantsHaveOneSubject() throws {
        guard case .addAuthority(var event) = registry.authority("mine", tenant: "u") else { return }
        for subject in ["CN=ca", "cn = CA"] {
            event.subject = subject
            #expect(code(try registry.run(.addAuthority(event), tenant: "u")) == .alreadyExists, "\(subject)")
        }
        event.subject = "CN=other"
        #expect(code(try registry.run(.addAuthority(event), tenant: "u")) == nil)
    }

    @Test mutating func aRevokedKeyIsNotCertifiedAgain() throws {
        try registry.run(.add([registry.certificate(1, "d", key: "k")]))
        #expect(code(try registry.run(.add([registry.certificate(2, "d", key: "k")]))) == nil)
        try registry.change(1, .revoke(.keyCompromise))
        #expect(code(try registry.run(.add([registry.certificate(3, "d", key: "k")]))) == .invalidValue)
        #expect(code(try registry.run(.add([registry.certificate(3, "d", key: "l")]))) == nil)
    }

    @Test mutating func anExpiredAuthorityIsPassedOver() throws {
        try registry.run(registry.authority("short", tenant: "t", years: 1))
        #expect(registry.state.issuer(forTenant: "t", at: registry.now)?.added.id == "short")
        registry.pass(seconds: 366 * 86_400)
        #expect(registry.state.issuer(forTenant: "t", at: registry.now)?.added.id == "ca")
    }

    /// Brokers need not trust an authority whose certificates are all replaced, revoked or expired.
    @Test mutating func anAuthorityIsAbandonedOnceNoneOfItsCertificatesIsInUse() throws {
        func isAbandoned() -> Bool { registry.state.isAbandoned("ca", at: registry.now) }
        try registry.run(.add((1...4).map { registry.certificate($0, "d\($0)") }))
        try registry.run(registry.authority("cb", replaces: "ca"), tenant: "*")
        try registry.run(.add([registry.certificate(11, "d1", authority: "cb", days: 60)]))
        try registry.change(1, .supersede(by: registry.reference(11, "cb")))
        for serial in [2, 3] as [UInt64] { try registry.change(serial, .revoke(.keyCompromise)) }
        try registry.change(4, .hold)
        #expect(!isAbandoned(), "one on hold may be released")
        try registry.change(4, .release)
        #expect(!isAbandoned())
        registry.pass(seconds: 31 * 86_400)
        #expect(isAbandoned() && !registry.state.isAbandoned("cb", at: registry.now), "it issues")
        #expect(!registry.state.isAbandoned("other", at: registry.now))
    }

    // MARK: CRLs

    @Test mutating func aCRLListsWhatIsRevokedAndHeld() throws {
        #expect(
            registry.state.crlDue("ca", CRLPolicy(), now: registry.now) == registry.now, "the first one is due at once")
        try registry.run(.add((1...4).map { registry.certificate($0, "d\($0)") }))
        try registry.change(1, .revoke(.keyCompromise))
        try registry.change(2, .hold)
        try registry.change(3, .hold)
        try registry.change(3, .release)
        let draft = try registry.issueCRL(canary: 1_000)
        #expect(draft.entries.map(\.serial) == [1, 2, 1_000].map { SerialNumber($0)! })
        #expect(draft.number == UInt64(registry.now.wholeSeconds))
        #expect(draft.thisUpdate.wholeSeconds == registry.now.wholeSeconds - 60)
        #expect(draft.nextUpdate.wholeSeconds == draft.thisUpdate.wholeSeconds + 7 * 86_400)
        #expect(registry.state.authority("ca")?.isChanged == false)
    }

    @Test mutating func numbersAndTimesRiseAlsoWhenTheClockIsSetBack() throws {
        let first = try registry.issueCRL()
        registry.pass(seconds: -3_600)
        let second = try registry.issueCRL()
        #expect(second.number == first.number + 1)
        #expect(second.thisUpdate.wholeSeconds == first.thisUpdate.wholeSeconds + 1)
        let third = try registry.issueCRL()
        #expect(third.number == first.number + 2 && third.thisUpdate > second.thisUpdate)
    }

    @Test mutating func aThousandRevocationsAreOneCRL() throws {
        try registry.run(.add((1...1_000).map { registry.certificate($0, "d\($0)") }))
        _ = try registry.issueCRL()
        let due = registry.now.adding(microseconds: 1_000_000)
        for serial in 1...1_000 as ClosedRange<UInt64> {
            try registry.change(serial, .revoke(.unspecified))
            #expect(registry.state.crlDue("ca", CRLPolicy(), now: registry.now)! <= due)
        }
        registry.pass(seconds: 1)
        #expect(try registry.issueCRL().entries.count == 1_000)
    }

    @Test mutating func aCRLIsIssuedAgainAtHalfItsLife() throws {
        let draft = try registry.issueCRL()
        let half = draft.thisUpdate.adding(microseconds: 60_000_000 + 7 * 43_200_000_000)
        #expect(registry.state.crlDue("ca", CRLPolicy(), now: registry.now) == half)
    }

    /// The wall clock is set back by days, which the log's does not believe: `thisUpdate` follows the earlier clock.
    @Test mutating func aCRLThatBeginsInThePastIsNotIssuedAgainAtOnce() throws {
        let start = registry.now.adding(microseconds: -5 * 86_400_000_000)
        registry.pass(seconds: 10 * 86_400)
        let draft = try #require(
            registry.state.draftCRL("ca", canary: nil, CRLPolicy(), now: registry.now, start: start))
        try registry.run(.issueCRL(registry.event(draft)), tenant: "*")
        let due = try #require(registry.state.crlDue("ca", CRLPolicy(), now: registry.now))
        #expect(due == registry.now.adding(microseconds: 7 * 43_200_000_000))
    }

    /// A longer life in the settings must not let the last CRL expire.
    @Test mutating func theNextCRLIsDueAtHalfTheLifetimeOfTheLast() throws {
        let draft = try registry.issueCRL(), begin = registry.now
        for days in [1, 30] as [Int64] {
            let due = try #require(
                registry.state.crlDue("ca", CRLPolicy(lifetimeSeconds: days * 86_400), now: registry.now))
            #expect(due == begin.adding(microseconds: 7 * 43_200_000_000) && due < draft.nextUpdate)
        }
    }

    @Test mutating func anOutdatedCRLIsNotPutOnTheRecord() throws {
        try registry.run(.add([registry.certificate(1, "d"), registry.certificate(2, "e")]))
        let draft = try #require(registry.state.draftCRL("ca", canary: nil, CRLPolicy(), now: registry.now))
        try registry.change(1, .revoke(.unspecified))
        #expect(code(try registry.run(.issueCRL(registry.event(draft)), tenant: "*")) == .outdated)
        let now = try #require(registry.state.draftCRL("ca", canary: nil, CRLPolicy(), now: registry.now))
        var lost = registry.event(now)
        lost.entries = 0
        #expect(code(try registry.run(.issueCRL(lost), tenant: "*")) == .invalidValue, "an entry vanished")
        #expect(code(try registry.run(.issueCRL(registry.event(now)), tenant: "*")) == nil)
        #expect(code(try registry.run(.issueCRL(registry.event(now)), tenant: "*")) == .outdated, "the same number")
    }

    @Test mutating func anEntryLeavesOnceACRLWasIssuedAfterItsExpiry() throws {
        try registry.run(.add([registry.certificate(1, "d", days: 1)]))
        try registry.change(1, .revoke(.unspecified))
        registry.pass(seconds: 86_400)
        #expect(try registry.issueCRL().entries.count == 1)
        registry.pass(seconds: 61)
        #expect(try registry.issueCRL().entries.count == 1, "the first CRL after the expiry")
        registry.pass(seconds: 3)
        #expect(try registry.issueCRL().entries.count == 0)
    }

    @Test mutating func everyCRLOfThePastCanBeMadeAgain() throws {
        try registry.run(.add((1...9).map { registry.certificate($0, "d\($0)", days: Int64($0)) }))
        var past: [(before: CertificateRegistry, draft: CRLDraft)] = []
        for serial in 1...9 as ClosedRange<UInt64> {
            try registry.change(serial, serial % 2 == 0 ? .hold : .revoke(.superseded))
            let before = registry.state
            past.append((before, try registry.issueCRL(canary: 1_000 + serial)))
            if serial % 4 == 0 { try registry.change(serial, .release) }
            registry.pass(seconds: 86_400)
        }
        for (before, draft) in past {
            let again = try #require(before.draft(of: registry.event(draft)))
            #expect(again.entries == draft.entries && again.end == draft.end)
        }
    }

    // MARK: Enforcement

    @Test mutating func aCRLIsWrittenThenReloadedThenProved() throws {
        let number = try registry.issueCRL(canary: 1_000).number
        func step(_ step: CRLEnforced.Step, _ number: UInt64, error: String? = nil) -> RegistryCommand {
            var event = CRLEnforced(
                step, broker: "north", authority: "ca", tenantID: "*", number: number, actor: "")
            event.error = error
            return .enforce(event)
        }
        func known() -> Enforcement? {
            registry.state.enforcements[EnforcementKey(broker: "north", authority: "ca")]
        }
        #expect(code(try registry.run(step(.proved, number), tenant: "*")) == .illegalTransition)
        #expect(code(try registry.run(step(.written, number + 1), tenant: "*")) == .notFound)
        #expect(code(try registry.run(step(.unproved, number, error: "disk full"), tenant: "*")) == nil)
        #expect(known()?.error == "disk full")
        #expect(code(try registry.run(step(.written, number), tenant: "*")) == nil)
        #expect(known()?.error == nil && known()?.written == number && known()?.proved == 0)
        #expect(code(try registry.run(step(.reloaded, number), tenant: "*")) == nil)
        #expect(code(try registry.run(step(.proved, number), tenant: "*")) == nil)
        #expect(known()?.proved == number && known()?.provedAt == registry.now)
        let restored = try CertificateRegistry(stored: registry.state.stored())
        #expect(restored.enforcements == registry.state.enforcements)
    }

    // MARK: Snapshots

    @Test mutating func aSnapshotGivesTheSameState() throws {
        try registry.run(registry.authority("next", replaces: "ca"), tenant: "*", key: "a")
        for serial in 1...40 as ClosedRange<UInt64> {
            let renews = serial % 7 == 0 ? serial - 1 : nil
            let device = "d\((renews ?? serial) / 3)"
            let certificate = registry.certificate(
                serial, device, authority: "next", days: Int64(serial), renews: renews)
            try registry.run(.add([certificate]), key: serial % 5 == 0 ? "k\(serial)" : nil)
        }
        func reference(_ serial: UInt64) -> CertificateReference { registry.reference(serial, "next") }
        for serial in [3, 9, 12] as [UInt64] {
            try registry.run(.change(reference(serial), CertificateChange(.revoke(.keyCompromise))))
        }
        try registry.run(.change(reference(4), CertificateChange(.hold)))
        let stored = registry.state.stored()
        var restored = registry
        restored.state = try CertificateRegistry(stored: stored)
        #expect(restored.state.stored() == stored)
        for serial in 1...40 as ClosedRange<UInt64> {
            #expect(restored.state.certificate(reference(serial)) == registry.state.certificate(reference(serial)))
        }
        // And it goes on as before.
        for step in 0..<3 {
            let hold = RegistryCommand.change(reference(20 + UInt64(step)), CertificateChange(.hold))
            try registry.run(hold)
            try restored.run(hold)
        }
        #expect(restored.state.stored() == registry.state.stored())
    }

    @Test mutating func aDamagedSnapshotIsRefused() throws {
        try registry.run(.add((1...3).map { registry.certificate($0, "d") }))
        try registry.change(2, .revoke(.unspecified))
        let stored = registry.state.stored()
        for count in 0..<stored.count {
            #expect(throws: UnreadableDecision.self, "\(count) bytes") {
                try CertificateRegistry(stored: Array(stored[..<count]))
            }
        }
    }
}
