import Certificates
import Decisions
import EventModel
import PKI
import Primitives

/// The certificate whose refusal proves that a CRL is in force: the CRL lists it. Its key is in memory only.
public struct Canary: Sendable, Equatable {
    public let certificate: Certificate
    public let key: PrivateKey

    /// The authority and those above it, in PEM: brokers may trust the topmost only.
    public let chain: String

    /// Blocks while the authority signs.
    /// - Parameters:
    ///   - distributionPoint: as in devices' certificates: EMQX fetches CRLs from there only.
    ///   - start: as of `draftCRL`.
    public init(
        by issuer: CertificateIssuer, chain: String = "", _ policy: CRLPolicy, distributionPoint: String? = nil,
        now: Timestamp, start: Timestamp? = nil, key: PrivateKey, serial: SerialNumber
    ) throws(PKIError) {
        self.chain = chain
        let seconds = now.wholeSeconds, begin = min(seconds, (start ?? now).wholeSeconds)
        let profile = CertificateProfile(
            .tlsClient, subject: try DistinguishedName(commonName: "refold-canary"),
            notBefore: begin.saturatingSubtracting(policy.backdateSeconds * 60),
            notAfter: min(seconds.saturatingAdding(policy.canarySeconds), issuer.certificate.notAfter),
            crlDistributionPoint: distributionPoint)
        certificate = try issuer.issue(profile, publicKey: key.publicKey, serial: serial)
        self.key = key
    }

    public var named: CRLIssued.Canary {
        CRLIssued.Canary(serial: certificate.serial.description, notAfter: Timestamp(seconds: certificate.notAfter))
    }

    public static func == (a: Canary, b: Canary) -> Bool { a.certificate.der == b.certificate.der }
}

/// A CRL that is on the record.
public struct PublishedCRL: Sendable, Equatable {
    public let event: CRLIssued
    public let list: RevocationList
    /// Of its event.
    public let issuedAt: Timestamp
    /// Nil after a restart: its key is gone. The next CRL has one again.
    public let canary: Canary?

    public init(event: CRLIssued, list: RevocationList, issuedAt: Timestamp, canary: Canary?) {
        (self.event, self.list, self.issuedAt, self.canary) = (event, list, issuedAt, canary)
    }
}

/// A CRL that is signed and not yet on the record. It is checked, then recorded, and only then published.
public struct SignedCRL: Sendable {
    public let draft: CRLDraft
    /// As OpenSSL reads it.
    public let list: RevocationList

    /// Blocks while the authority signs.
    public init(_ draft: CRLDraft, by issuer: CertificateIssuer) throws(PKIError) {
        self.draft = draft
        list = try RevocationList(
            der: issuer.crl(
                number: draft.number, thisUpdate: draft.thisUpdate.wholeSeconds,
                nextUpdate: draft.nextUpdate.wholeSeconds, entries: draft.entries),
            what: "CRL \(draft.number) of \(draft.authority.id)")
    }

    /// Why it must not be published, its signature aside; nil: nothing.
    /// - Parameter before: the last CRL of the authority.
    public func problem(after before: RevocationList?, _ registry: CertificateRegistry) -> String? {
        // Certificates were revoked or released while it was signed: the registry rejects it as outdated.
        guard registry.authority(draft.authority.id)?.entriesEnd == draft.end else { return nil }
        guard list.number == draft.number, list.thisUpdate == draft.thisUpdate.wholeSeconds,
            list.nextUpdate == draft.nextUpdate.wholeSeconds, list.entries == draft.entries
        else { return "OpenSSL reads a number, times or entries of CRL \(draft.number) that differ from the draft" }
        return before.flatMap { registry.unexplained(list.differences(from: $0), draft) }
    }

    public var event: CRLIssued {
        CRLIssued(
            authority: draft.authority.id, tenantID: draft.authority.tenantID, number: draft.number,
            thisUpdate: draft.thisUpdate, nextUpdate: draft.nextUpdate, entries: Int64(draft.entries.count),
            canary: draft.canary, tbsSHA256: SHA256.digest(list.tbs).description,
            signature: Base64.encode(list.signature), sha256: SHA256.digest(list.der).description,
            end: draft.end.rawValue, actor: EngineActor.name)
    }

    public func refusal(_ reason: String) -> CRLRefused {
        CRLRefused(
            authority: draft.authority.id, tenantID: draft.authority.tenantID, number: draft.number, reason: reason,
            actor: "")
    }
}
