import EventModel

// Certificate authorities, on the record. Private keys are not: an authority's key is in a file, or behind a command.

/// What was decided about certificates, their authorities and their revocation (`EventKind.decision`).
public enum CertificateSchema: String, Sendable, CaseIterable {
    case authorityAdded = "authority.added/1"
    case authorityRetired = "authority.retired/1"
    case certificateIssued = "certificate.issued/1"
    case certificateImported = "certificate.imported/1"
    case certificateSuperseded = "certificate.superseded/1"
    case certificateRevoked = "certificate.revoked/1"
    case certificateHeld = "certificate.held/1"
    case certificateReleased = "certificate.released/1"
    case renewalPolicySet = "certificate.renewal_policy/1"
    case authorityRenewalOrdered = "authority.renewal_ordered/1"
    case renewalRequested = "certificate.renewal_requested/1"
    case renewalDelivered = "certificate.renewal_delivered/1"
    case renewalRefused = "certificate.renewal_refused/1"
    case renewalResent = "certificate.renewal_resent/1"
    case renewalInstalled = "certificate.renewal_installed/1"
    case renewalFailed = "certificate.renewal_failed/1"
    case crlIssued = "crl.issued/1"
    case crlRefused = "crl.refused/1"
    case crlWritten = "crl.written/1"
    case crlReloaded = "crl.reloaded/1"
    case crlProved = "crl.proved/1"
    case crlUnproved = "crl.unproved/1"
    case crlUncut = "crl.uncut/1"
    case clientCut = "client.cut/1"
    case clientBanLifted = "client.ban_lifted/1"
}

/// An authority was created here or imported. From here on it issues certificates, if its key is here.
public struct AuthorityAdded: Codable, Sendable, Equatable {
    /// Where the private key is.
    public enum Key: String, Codable, Sendable {
        /// In a file of the data folder.
        case file
        /// Behind the `sign_command`.
        case command
        /// Not here: the authority's certificates can be imported, and it issues neither certificates nor CRLs.
        case none
    }

    /// Its name: 1 to 64 of A-Z a-z 0-9 . _ -
    public var id: String
    /// The tenant whose devices it certifies; `*`: every tenant's.
    public var tenantID: String
    /// RFC 4514.
    public var subject: String
    /// X.509 DER in base64.
    public var certificate: String
    /// The authorities above it, its issuer first, each as `certificate`.
    public var chain: [String]?
    /// SHA-256 of its SubjectPublicKeyInfo, in hex.
    public var spkiSHA256: String
    public var key: Key
    public var notBefore: Timestamp
    public var notAfter: Timestamp
    /// The authority that it takes over from: that one issues no certificates any more, and goes on to issue CRLs.
    public var replaces: String?
    public var actor: String
    public var idempotencyKey: String?
    /// SHA-256 of the command, in hex: the same key with another command is refused.
    public var requestDigest: String?

    public init(
        id: String, tenantID: String, subject: String, certificate: String, spkiSHA256: String, key: Key,
        notBefore: Timestamp, notAfter: Timestamp, actor: String
    ) {
        (self.id, self.tenantID, self.subject, self.certificate) = (id, tenantID, subject, certificate)
        (self.spkiSHA256, self.key, self.notBefore, self.notAfter) = (spkiSHA256, key, notBefore, notAfter)
        self.actor = actor
    }

    enum CodingKeys: String, CodingKey {
        case id, tenantID = "tenant_id", subject, certificate, chain, spkiSHA256 = "spki_sha256", key
        case notBefore = "not_before", notAfter = "not_after", replaces, actor, idempotencyKey = "idempotency_key"
        case requestDigest = "request_sha256"
    }
}

/// The authority issues no more certificates. It issues CRLs until its own certificate has expired.
public struct AuthorityRetired: Codable, Sendable, Equatable {
    public var id: String
    public var tenantID: String
    public var actor: String
    public var idempotencyKey: String?
    public var requestDigest: String?

    public init(id: String, tenantID: String, actor: String) {
        (self.id, self.tenantID, self.actor) = (id, tenantID, actor)
    }

    enum CodingKeys: String, CodingKey {
        case id, tenantID = "tenant_id", actor, idempotencyKey = "idempotency_key", requestDigest = "request_sha256"
    }
}

extension AuthorityAdded: Decision {
    public static var schemas: [String] { [CertificateSchema.authorityAdded.rawValue] }
    public var envelope: Envelope {
        var envelope = Envelope(
            tenantID: tenantID, actor: actor, subject: "authority:\(id)", idempotencyKey: idempotencyKey,
            requestDigest: requestDigest)
        envelope.related = replaces.map { ["authority:\($0)"] } ?? []
        return envelope
    }
    public var summary: String {
        "added the authority \(id) (\(subject))" + (replaces.map { ", which replaces \($0)" } ?? "")
    }
}

extension AuthorityRetired: Decision {
    public static var schemas: [String] { [CertificateSchema.authorityRetired.rawValue] }
    public var envelope: Envelope {
        Envelope(
            tenantID: tenantID, actor: actor, subject: "authority:\(id)", idempotencyKey: idempotencyKey,
            requestDigest: requestDigest)
    }
    public var summary: String { "retired the authority \(id)" }
}

/// Everything that the certificate decider decides, refusals aside.
let certificateDecisions: [any Decision.Type] = [
    AuthorityAdded.self, AuthorityRetired.self, CertificateAdded.self, CertificateChanged.self, CRLIssued.self,
    CRLRefused.self, CRLEnforced.self, ClientCut.self, ClientBanLifted.self, RenewalPolicySet.self,
    AuthorityRenewal.self, CertificateRenewal.self,
]

extension DecisionCatalog {
    public static let certificates = DecisionCatalog(certificateDecisions)
}
