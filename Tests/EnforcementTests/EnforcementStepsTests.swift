import Decisions
import EventModel
import Issuing
import PKI
import Testing
@testable import Enforcement

/// The order of steps at a broker, without one.
@Suite struct EnforcementStepsTests {
    private let now: Int64 = 1_780_272_000
    private let list: RevocationList

    init() throws {
        let key = try PrivateKey.generate()
        let profile = CertificateProfile(
            .authority(pathLength: 0), subject: try DistinguishedName(commonName: "ca"), notBefore: now - 60,
            notAfter: now + 86_400)
        let authority = try CertificateIssuer.selfSigned(profile, signer: key, serial: .random())
        list = try RevocationList(
            der: CertificateIssuer(certificate: authority, signer: key)
                .crl(number: 1, thisUpdate: now, nextUpdate: now + 3_600, entries: RevokedEntries()))
    }

    private func crl(_ authority: String, _ number: UInt64) -> PublishedCRL {
        let event = CRLIssued(
            authority: authority, tenantID: "acme", number: number, thisUpdate: Timestamp(seconds: now),
            nextUpdate: Timestamp(seconds: now + 3_600), entries: 0, canary: nil, tbsSHA256: "", signature: "",
            sha256: "", end: 0, actor: "test")
        return PublishedCRL(event: event, list: list, issuedAt: Timestamp(seconds: now), canary: nil)
    }

    /// `b` issues a CRL each second, so that every round is outdated. The broker locks out the devices of `a`.
    @Test func anInterruptedProofIsNotPutOffForEver() {
        var steps = EnforcementSteps(broker: "north", reloads: true, proves: true, proofMicroseconds: 5_000_000)
        var unproved: [(authority: String, at: Int64)] = [], provedCount = 0
        for second in 0..<30 as Range<Int64> {
            let time = second * 1_000_000
            steps.begin([crl("a", 1), crl("b", UInt64(second + 1))], live: ["a", "b"], now: time)
            while let step = steps.next {
                var outcome = EnforcementSteps.Outcome.done, isOutdated = false
                if case .prove(let crl) = step {
                    isOutdated = true
                    if crl.event.authority == "a" {
                        outcome = steps.isOverdue("a", now: time) ? .failed("locked out") : .interrupted
                    }
                }
                let events = steps.finish(
                    outcome, isOutdated: isOutdated, now: time, at: Timestamp(seconds: now + second))
                for event in events where event.step == .unproved { unproved.append((event.authority, second)) }
                provedCount += events.count { $0.step == .proved }
            }
        }
        #expect(unproved.map(\.authority).allSatisfy { $0 == "a" } && unproved.count >= 2)
        #expect(unproved.first.map { $0.at <= 7 } == true, "\(unproved)")
        #expect(provedCount >= 15, "the other one goes on")
    }
}
