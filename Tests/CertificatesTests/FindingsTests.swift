import Decisions
import EventModel
import PKI
import Testing
@testable import Certificates

/// The rules of the standing audit.
@Suite struct FindingsTests {
    typealias Finding = CertificateFinding
    var registry: TestRegistry

    init() throws {
        registry = TestRegistry()
        try registry.run(registry.authority("ca"), tenant: "*")
    }

    /// Of all certificates, in steps of 7.
    private var step: (findings: [Finding], expiries: CertificateExpiries) {
        var found: [Finding] = [], expiries = CertificateExpiries(), next: UInt32?
        repeat {
            let step = registry.state.auditStep(after: next, count: 7, now: registry.now)
            found += step.findings
            for (tenant, some) in step.expiries where tenant == "t" { expiries = expiries + some }
            next = step.next
        } while next != nil
        return (found, expiries)
    }

    private func message(_ device: String, tenant: String = "t") -> [LastMessage] {
        [LastMessage(tenantID: tenant, deviceID: device, at: registry.now, position: Position(99))]
    }

    private func senders(_ device: String) -> [Finding] {
        registry.state.findings(about: message(device), now: registry.now)
    }

    @Test(
        arguments: [
            (-31, nil), (-30, Finding.Severity.critical), (-1, .critical), (0, .high), (7, .high), (8, .medium),
            (14, .medium),
            (15, .low), (30, .low), (31, nil),
        ] as [(Int64, Finding.Severity?)])
    mutating func aCertificateExpires(daysLeft: Int64, severity: Finding.Severity?) throws {
        try registry.run(.add([registry.certificate(1, "d", days: 90)]))
        registry.pass(seconds: (90 - daysLeft) * 86_400)
        let found = step.findings
        #expect(found.map(\.severity) == (severity.map { [$0] } ?? []))
        #expect(found.allSatisfy { $0.code == .certificateExpiring && $0.evidence.map(\.position) == [Position(1)] })
        #expect(found.allSatisfy { $0.subject == .certificate(registry.reference(1), deviceID: "d") })
    }

    @Test mutating func aRenewedCertificateIsNoFinding() throws {
        try registry.run(.add([registry.certificate(1, "d", days: 10)]))
        registry.pass(seconds: 8 * 86_400)
        #expect(step.findings.map(\.severity) == [.high])
        try registry.run(.add([registry.certificate(2, "d", days: 90, renews: 1)]))
        #expect(step.findings == [])
        // One that is held is no renewal.
        try registry.change(2, .hold)
        #expect(step.findings.count == 1)
        try registry.change(1, .revoke(.superseded))
        #expect(step.findings == [], "a revoked one may expire")
    }

    /// A certificate that lives for a day is not expiring from its first minute on.
    @Test mutating func shortLivesCountByTheirThird() throws {
        try registry.run(.add([registry.certificate(1, "d", days: 1)]))
        registry.pass(seconds: 16 * 3_600 - 1)
        #expect(step.findings == [])
        registry.pass(seconds: 1)
        #expect(step.findings.count == 1)
    }

    @Test mutating func expiriesAreCountedByWeek() throws {
        let days: [Int64] = [1, 6, 8, 90, 91, 365]
        try registry.run(
            .add(days.enumerated().map { registry.certificate(UInt64($0 + 1), "d\($0)", days: $1) }))
        try registry.run(
            .add([registry.certificate(7, "e", days: 1), registry.certificate(8, "f", tenant: "u")]), tenant: "*")
        try registry.change(7, .revoke(.unspecified))
        let expiries = step.expiries
        #expect(expiries.weeks == [2, 1] + [Int](repeating: 0, count: 10) + [1] && expiries.later == 2)
    }

    @Test mutating func aSharedKeyIsFoundOnBothSides() throws {
        try registry.run(.add([registry.certificate(1, "d", key: "k", origin: .imported)]))
        let imported = registry.certificate(2, "e", key: "k", origin: .imported)
        let foreign = registry.certificate(3, "f", tenant: "u", key: "k", origin: .imported)
        registry.state.apply(.added(imported), at: Position(50), time: registry.now)
        let shared = step.findings.filter { $0.code == .keyShared }
        #expect(shared.map(\.severity) == [.high, .high])
        #expect(shared.first?.evidence.map(\.position) == [Position(1), Position(50)])
        #expect(shared.first?.text.contains("device e") == true)
        // A second certificate of the same device may have its key; a revoked one is in nobody's way.
        try registry.change(2, .revoke(.keyCompromise))
        #expect(!step.findings.contains { $0.code == .keyShared })
        registry.state.apply(.added(foreign), at: Position(60), time: registry.now)
        let other = step.findings.filter { $0.code == .keyShared && $0.tenantID == "t" }
        #expect(other.count == 1 && other[0].text.contains("another tenant") && other[0].evidence.count == 1)
        #expect(!other[0].text.contains("f") || !other[0].text.contains("device f"))
    }

    @Test(arguments: [("RSA-1024", true), ("EC secp256k1", true), ("P-256", false), ("RSA-2048", false)])
    mutating func weakKeysThatWereImportedAreFound(name: String, isWeak: Bool) throws {
        // The contents of a certificate with ECDSA and SHA-256, and its signature algorithm alone.
        var event = registry.certificate(1, "d", days: 90, origin: .imported)
        event.certificate = "MBAwADAMBggqhkjOPQQDAgUA"
        event.keyAlgorithm = name
        registry.state.apply(.added(event), at: Position(7), time: registry.now)
        #expect(step.findings.map(\.code) == (isWeak ? [.keyWeak] : []))
        let restored = try CertificateRegistry(stored: registry.state.stored())
        #expect(restored.auditStep(after: nil, count: 9, now: registry.now).findings == step.findings)
    }

    @Test mutating func whoSendsWithoutACertificate() throws {
        #expect(registry.state.tenantsWithCertificates == [])
        #expect(senders("d").map(\.code) == [.noCertificate])
        try registry.run(.add([registry.certificate(1, "d", days: 90)]))
        #expect(registry.state.tenantsWithCertificates == ["t"])
        #expect(senders("d") == [])
        #expect(senders("e").map(\.code) == [.noCertificate] && senders("e")[0].subject == .device("e"))
        registry.pass(seconds: 91 * 86_400)
        #expect(senders("d").map(\.code) == [.noCertificate] && senders("d")[0].text.contains("valid certificate"))
    }

    @Test mutating func whoSendsAfterARevocation() throws {
        try registry.run(.add([registry.certificate(1, "d", days: 90)]))
        try registry.change(1, .hold)
        registry.pass(seconds: 60)
        #expect(senders("d") == [], "it may have been on its way")
        registry.pass(seconds: 1)
        #expect(senders("d").map(\.code) == [.revokedSending] && senders("d")[0].text.contains("on hold"))
        try registry.change(1, .release)
        #expect(senders("d") == [])
        try registry.change(1, .revoke(.keyCompromise))
        registry.pass(seconds: 61)
        let found = senders("d")
        #expect(found.map(\.severity) == [.critical])
        #expect(found[0].evidence.map(\.position) == [Position(1), Position(4), Position(99)])
        // The evidence comes out of a snapshot as well.
        let restored = try CertificateRegistry(stored: registry.state.stored())
        #expect(restored.findings(about: message("d"), now: registry.now) == found)
        try registry.run(.add([registry.certificate(2, "d", days: 90)]))
        #expect(senders("d") == [])
    }

    @Test mutating func senderWithExpiredCertificateAfterRevocation() throws {
        try registry.run(.add([registry.certificate(1, "d", days: 90)]))
        try registry.change(1, .revoke(.keyCompromise))
        try registry.run(.add([registry.certificate(2, "d", days: 10)]))
        registry.pass(seconds: 11 * 86_400)
        #expect(senders("d").map(\.code) == [.noCertificate], "its replacement was live after the revocation")
        try registry.run(.add([registry.certificate(3, "d", days: 90)]))
        try registry.change(3, .revoke(.keyCompromise))
        registry.pass(seconds: 61)
        #expect(senders("d").map(\.code) == [.revokedSending], "the replacement expired before the last revocation")
        // The newer key is stolen: the older certificate, which it replaced, expires later.
        try registry.run(.add([registry.certificate(11, "e", days: 20), registry.certificate(12, "e", days: 90)]))
        try registry.change(11, .supersede(by: registry.reference(12)))
        try registry.change(12, .revoke(.keyCompromise))
        registry.pass(seconds: 21 * 86_400)
        #expect(senders("e").map(\.code) == [.revokedSending], "a superseded one says nothing about who sends")
    }

    /// Snapshots of earlier versions say nothing of weaknesses and of the events that changed a status.
    @Test mutating func anEarlierSnapshotIsReadToo() throws {
        try registry.run(.add([registry.certificate(1, "d"), registry.certificate(2, "e")]))
        try registry.change(1, .revoke(.keyCompromise))
        var stored = registry.state.stored()
        let length = stored[..<4].enumerated().reduce(0) { $0 | Int($1.element) << (8 * $1.offset) }
        let header = String(decoding: stored[4..<(4 + length)], as: UTF8.self)
        let earlier = Array(header.replacing(#","hasChanges":true"#, with: "").utf8)
        #expect(earlier.count < length)
        let size = UInt32(earlier.count)
        stored.replaceSubrange(
            ..<(4 + length), with: (0..<4).map { UInt8(truncatingIfNeeded: size >> (8 * $0)) } + earlier)
        let restored = try CertificateRegistry(stored: stored.dropLast(2 * 9))
        for serial in [1, 2] as [UInt64] {
            #expect(
                restored.certificate(registry.reference(serial))
                    == registry.state.certificate(registry.reference(serial)))
        }
        registry.pass(seconds: 61)
        let found = restored.findings(about: message("d"), now: registry.now)
        #expect(
            found.map(\.code) == [.revokedSending] && found[0].evidence.map(\.position) == [Position(1), Position(99)])
    }

    @Test mutating func authoritiesAndTheirCRLs() throws {
        func found(_ unusable: [String: (reason: String, since: Timestamp)] = [:]) -> [Finding] {
            registry.state.findings(unusable: unusable, now: registry.now)
        }
        #expect(found() == [] && registry.state.authoritiesExpiring(registry.now) == [:])
        let missing = found(["ca": ("no such file", registry.now)])
        #expect(missing.map(\.code) == [.authorityKeyMissing] && missing[0].text.contains("no such file"))
        _ = try registry.issueCRL()
        let quarter: Int64 = 7 * 86_400 / 4
        registry.pass(seconds: 7 * 86_400 - 60 - quarter - 1)
        #expect(found() == [])
        registry.pass(seconds: 1)
        #expect(found().map(\.code) == [.crlExpiring] && found()[0].severity == .high)
        registry.pass(seconds: quarter)
        #expect(found().map(\.severity) == [.critical])
        _ = try registry.issueCRL()
        #expect(found() == [])
        // Ten years are over soon.
        registry.pass(seconds: (3_650 - 7 - 100) * 86_400 + 60)
        _ = try registry.issueCRL()
        #expect(found() == [])
        for (days, severity) in [(10, Finding.Severity.medium), (60, .high), (16, .critical)]
            as [(Int64, Finding.Severity)]
        {
            registry.pass(seconds: days * 86_400)
            _ = try registry.issueCRL()
            #expect(found().filter { $0.code == .authorityExpiring }.map(\.severity) == [severity])
            #expect(
                registry.state.authoritiesExpiring(registry.now).keys.sorted() == (severity == .medium ? [] : ["ca"]))
        }
        let before = registry.now
        registry.pass(seconds: 15 * 86_400)
        #expect(found() == [] && registry.state.authoritiesExpiring(registry.now) == [:], "it has expired")
        registry.now = before
        try registry.run(registry.authority("next", replaces: "ca"), tenant: "*")
        #expect(found() == [] && registry.state.authoritiesExpiring(registry.now) == [:])
    }
}
