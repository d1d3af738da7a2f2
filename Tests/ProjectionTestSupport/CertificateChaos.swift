import Decisions
import EventModel

/// Decisions about few certificates, authorities and CRLs, at random and in any order: about unknown ones, twice, and
/// after the end.
public enum CertificateChaos {
    public static func decide(
        using random: inout some RandomNumberGenerator
    ) -> (CertificateSchema, any Encodable & Sendable) {
        func number(_ range: Range<Int>) -> Int { Int.random(in: range, using: &random) }
        let of = number(1..<4), authority = "ca\(of)", tenant = ["acme", "b.corp"][number(0..<2)]
        // A certificate is that of one device. The draw is unused: without it, histories of other decisions change.
        _ = number(0..<6)
        let index = number(1..<6), serial = "a\(index)", device = "d\((of + index) % 6)"
        let other = "ca\(number(1..<4))/a\(number(1..<6))"
        let from = Timestamp(seconds: 1_772_000_000 + Int64(number(0..<1000)))
        let until = from.adding(microseconds: 3_600_000_000)
        switch number(0..<22) {
        case 0:
            var event = AuthorityAdded(
                id: authority, tenantID: number(0..<3) == 0 ? "*" : tenant, subject: "CN=\(authority)",
                certificate: "MAA=", spkiSHA256: "\(number(0..<9))", key: [.file, .command, .none][number(0..<3)],
                notBefore: from, notAfter: until, actor: "ann")
            event.replaces = number(0..<2) == 0 ? "ca\(number(1..<4))" : nil
            return (.authorityAdded, event)
        case 1: return (.authorityRetired, AuthorityRetired(id: authority, tenantID: tenant, actor: "bob"))
        case 2..<6:
            var event = CertificateAdded(
                number(0..<3) == 0 ? .imported : .issued, authority: authority, serial: serial, tenantID: tenant,
                deviceID: device, commonName: "\(tenant)/\(device)", certificate: "MAA=", sha256: "\(number(0..<99))",
                spkiSHA256: "\(number(0..<5))", keyAlgorithm: "P-256", notBefore: from, notAfter: until, actor: "ann")
            event.renews = number(0..<3) == 0 ? other : nil
            return (event.schema, event)
        case 6..<13:
            var event = CertificateChanged(
                [.superseded, .held, .held, .released, .released, .revoked][number(0..<6)], authority: authority,
                serial: serial, tenantID: tenant, deviceID: device, actor: "bob")
            event.reason = event.change == .revoked && number(0..<2) == 0 ? "keyCompromise" : nil
            event.replacedBy = event.change == .superseded && number(0..<3) > 0 ? other : nil
            event.note = number(0..<3) == 0 ? "stolen" : nil
            return (event.schema, event)
        case 13, 14:
            // Beyond what a column holds, now and then.
            let crl = number(0..<40) == 0 ? UInt64.max - UInt64(number(0..<2)) : UInt64(number(1..<40))
            return (
                .crlIssued,
                CRLIssued(
                    authority: authority, tenantID: tenant, number: crl, thisUpdate: from, nextUpdate: until,
                    entries: Int64(number(0..<5)),
                    canary: number(0..<2) == 0 ? .init(serial: serial, notAfter: until) : nil, tbsSHA256: "00",
                    signature: "AA==", sha256: "\(crl)", end: 0, actor: "engine")
            )
        case 15..<18:
            // Of few CRLs, so that steps of one meet, and now and then beyond what a column holds.
            let crl = number(0..<40) == 0 ? UInt64.max - UInt64(number(0..<2)) : UInt64(number(1..<4))
            var event = CRLEnforced(
                CRLEnforced.Step.allCases[number(0..<5)], broker: ["north", "south"][number(0..<2)],
                authority: authority, tenantID: number(0..<3) == 0 ? "*" : tenant, number: crl, actor: "engine")
            event.remaining = event.step == .proved && number(0..<4) > 0 ? Int64(number(0..<3)) : nil
            event.error = [.unproved, .uncut].contains(event.step) && number(0..<4) > 0 ? "it is away" : nil
            return (event.schema, event)
        case 18..<20:
            var event = ClientCut(
                broker: ["north", "south"][number(0..<2)], authority: authority, serial: serial, tenantID: tenant,
                deviceID: device, number: UInt64(number(1..<4)), outcome: ClientCut.Outcome.allCases[number(0..<3)],
                evidence: number(0..<2) == 0 ? "kicked" : nil, isBanned: number(0..<2) == 0 ? true : nil,
                actor: "engine")
            event.remaining = number(0..<4) > 0 ? Int64(number(0..<3)) : nil
            return (.clientCut, event)
        case 20:
            var event = ClientBanLifted(
                broker: "north", authority: authority, serial: serial, tenantID: tenant, deviceID: device,
                number: UInt64(from.wholeSeconds % 4), actor: "engine")
            event.remaining = from.wholeSeconds % 3
            // As in older logs.
            if event.number == 0 { (event.number, event.remaining) = (nil, nil) }
            return (.clientBanLifted, event)
        default:
            let number = UInt64(number(1..<40))
            return renewal(from, number, authority, serial, tenant, device, other)
                ?? (
                    .crlRefused,
                    CRLRefused(
                        authority: authority, tenantID: tenant, number: number, reason: "an entry is missing",
                        actor: "engine")
                )
        }
    }

    /// By what was drawn already: histories of other decisions stay as they are.
    private static func renewal(
        _ time: Timestamp, _ number: UInt64, _ authority: String, _ serial: String, _ tenant: String, _ device: String,
        _ other: String
    ) -> (CertificateSchema, any Encodable & Sendable)? {
        let pick = Int(time.wholeSeconds % 1_000)
        switch pick % 8 {
        case 0, 1: return nil
        case 2:
            var policy = RenewalPolicy()
            policy.isEnabled = number % 2 == 0
            return (.renewalPolicySet, RenewalPolicySet(policy, actor: "engine"))
        case 3:
            return (.authorityRenewalOrdered, AuthorityRenewal(authority: authority, tenantID: tenant, actor: "ann"))
        default:
            var event = CertificateRenewal(
                CertificateRenewal.Step.allCases[pick / 8 % 6], authority: authority, serial: serial,
                tenantID: tenant, deviceID: device, renewal: number % 3 == 0 ? nil : number,
                actor: pick % 2 == 0 ? "engine" : "bob")
            event.reason = [.refused, .failed].contains(event.step) ? "no answer" : nil
            event.issued = event.step == .installed ? other : nil
            return (event.schema, event)
        }
    }
}
