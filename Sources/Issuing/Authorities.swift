import Certificates
import Decisions
import EventModel
import PKI
import Primitives
import Threading

/// A new authority, as an operator describes it.
public struct NewAuthority: Sendable {
    /// 1 to 64 of A-Z a-z 0-9 . _ -
    public var id: String
    /// Whose devices it certifies; `Envelope.everyTenant`: every tenant's.
    public var tenantID: String
    public var algorithm = KeyAlgorithm.standard
    /// Nil: the id.
    public var commonName: String?
    public var organization: String?
    public var validitySeconds: Int64 = 10 * 365 * 24 * 3600
    /// The authority above it; nil: it is a root.
    public var issuedBy: String?
    /// The authority that it takes over from.
    public var replaces: String?

    public init(id: String, tenantID: String) { (self.id, self.tenantID) = (id, tenantID) }
}

/// An authority that was made elsewhere.
public struct ForeignAuthority: Sendable {
    public var id: String
    public var tenantID: String
    /// PEM: its certificate, then those above it.
    public var certificates: [UInt8]
    /// PEM; nil: the key is behind the sign command, or not here.
    public var key: [UInt8]?
    /// Of `key`.
    public var passphrase: [UInt8]?
    public var usesSignCommand = false
    public var replaces: String?

    public init(id: String, tenantID: String, certificates: [UInt8]) {
        (self.id, self.tenantID, self.certificates) = (id, tenantID, certificates)
    }
}

extension CertificateService {
    /// Creates an authority: its key is generated into a file, its certificate signed by itself or by another one.
    /// - Throws: `PKIError` when the key cannot be stored or the certificate not be made; else as
    ///   `DeciderRuntime.execute`.
    public func create(_ new: NewAuthority, by: Operator) async throws -> RegistryAnswer {
        if let answer = try await repeatedAnswer(to: "authority.add", ofTenant: new.tenantID, by) { return answer }
        try Self.checkName(new.id)
        let parent: CertificateAuthority?
        if let above = new.issuedBy {
            parent = try await registry.query { $0.authority(above, for: new.tenantID) }
            guard let parent else {
                throw PKIError(.invalid, "there is no authority \(above) to issue \(new.id)")
            }
            guard parent.issues else {
                throw PKIError(
                    .invalid,
                    "the authority \(above) issues no certificates: it was retired or replaced, or has no key here")
            }
        } else {
            parent = nil
        }
        let now = clock().wholeSeconds
        // A large RSA key takes seconds, and a sign command blocks.
        let (event, key) = try await onOwnThread("issuing") { [parent] in try make(new, below: parent, now) }
        return try await put(event, key, by)
    }

    private func make(
        _ new: NewAuthority, below parent: CertificateAuthority?, _ now: Int64
    ) throws(PKIError) -> (AuthorityAdded, PrivateKey) {
        let key = try PrivateKey.generate(new.algorithm)
        var subject: [(DistinguishedName.Attribute, String)] = [(.commonName, new.commonName ?? new.id)]
        if let organization = new.organization ?? options.organization {
            subject.insert((.organization, organization), at: 0)
        }
        var notAfter = now.saturatingAdding(new.validitySeconds)
        if let parent { notAfter = min(notAfter, parent.added.notAfter.wholeSeconds) }
        let profile = CertificateProfile(
            .authority(pathLength: parent == nil ? nil : 0), subject: try DistinguishedName(subject),
            notBefore: max(validFrom, parent?.added.notBefore.wholeSeconds ?? .min), notAfter: notAfter,
            crlDistributionPoint: parent.flatMap { options.crlDistributionPoint($0.added.id) })
        let certificate: Certificate, chain: [String]
        if let parent {
            let issuer = try CertificateIssuer(
                certificate: Certificate(parent.added), signer: keys.signer(for: parent.added))
            certificate = try issuer.issue(profile, publicKey: key.publicKey, serial: .random())
            chain = [parent.added.certificate] + (parent.added.chain ?? [])
        } else {
            certificate = try CertificateIssuer.selfSigned(profile, signer: key, serial: .random())
            chain = []
        }
        var event = AuthorityAdded(new.id, new.tenantID, certificate, key: .file)
        event.chain = chain.isEmpty ? nil : chain
        event.replaces = new.replaces
        return (event, key)
    }

    /// Takes over an authority: with its key, with the key behind the sign command, or, to know its certificates,
    /// without.
    /// - Throws: as `create`.
    public func take(_ foreign: ForeignAuthority, by: Operator) async throws -> RegistryAnswer {
        if let answer = try await repeatedAnswer(to: "authority.add", ofTenant: foreign.tenantID, by) { return answer }
        try Self.checkName(foreign.id)
        // The command signs for every authority that uses it: one tenant could sign with another tenant's key.
        guard !foreign.usesSignCommand || by.tenantID == Envelope.everyTenant else {
            throw PKIError(
                .invalid,
                "certificates.sign_command signs for authorities of all tenants only; an admin of all tenants "
                    + "imports them")
        }
        let now = clock().wholeSeconds
        let (event, key) = try await onOwnThread("issuing") { try check(foreign, now) }
        return try await put(event, key, by)
    }

    private func check(_ foreign: ForeignAuthority, _ now: Int64) throws(PKIError) -> (AuthorityAdded, PrivateKey?) {
        let chain = try Certificate.chain(
            pem: foreign.certificates, what: "certificates of the authority \(foreign.id)")
        guard let certificate = chain.first else {
            throw PKIError(.malformed, "certificates of the authority \(foreign.id): there is none")
        }
        guard certificate.isCA else {
            throw PKIError(.invalid, "the certificate of \(foreign.id) is not an authority's (basicConstraints cA)")
        }
        for (below, above) in zip(chain, chain.dropFirst()) { try below.verify(signedBy: above) }
        guard foreign.key == nil && !foreign.usesSignCommand || now <= certificate.notAfter else {
            throw PKIError(
                .invalid,
                "the certificate of \(foreign.id) expired at \(Timestamp(seconds: certificate.notAfter)); import it "
                    + "without its key, to know its certificates")
        }
        var key: PrivateKey?
        if let pem = foreign.key {
            let read = try PrivateKey(
                pem: pem, passphrase: foreign.passphrase, what: "key of the authority \(foreign.id)")
            _ = try CertificateIssuer(certificate: certificate, signer: read)
            key = read
        } else if foreign.usesSignCommand {
            // A signature to try: better now than at the first revocation.
            let signer = try keys.commandSigner(certificate)
            _ = try CertificateIssuer(certificate: certificate, signer: signer)
            _ = try signer.sign(Array("refold".utf8))
        }
        if key != nil || foreign.usesSignCommand, !certificate.canSignCRLs {
            throw PKIError(
                .invalid,
                "the certificate of \(foreign.id) may not sign CRLs (keyUsage cRLSign), so that nothing it issues "
                    + "could be revoked")
        }
        var event = AuthorityAdded(
            foreign.id, foreign.tenantID, certificate,
            key: key != nil ? .file : foreign.usesSignCommand ? .command : .none)
        event.chain = chain.count > 1 ? chain.dropFirst().map { Base64.encode($0.der) } : nil
        event.replaces = foreign.replaces
        return (event, key)
    }

    /// It issues no certificates any more.
    public func retire(_ id: String, by: Operator) async throws -> RegistryAnswer {
        try await execute(.retireAuthority(id), by)
    }

    /// The key first: an authority on the record without its key could revoke nothing.
    private func put(_ event: AuthorityAdded, _ key: PrivateKey?, _ by: Operator) async throws -> RegistryAnswer {
        guard let key else { return try await execute(.addAuthority(event), by) }
        try await onOwnThread("issuing") { try keys.store(key) }
        // Where the answer fails, the authority may be on the record all the same.
        var isOnRecord = true
        defer { keys.settle(key, isOnRecord: isOnRecord) }
        let answer = try await execute(.addAuthority(event), by)
        isOnRecord = answer.isNew
        return answer
    }

    private static func checkName(_ id: String) throws(PKIError) {
        let isName =
            (1...64).contains(id.utf8.count)
            && id.utf8.allSatisfy { byte in
                switch byte {
                case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F: true
                default: false
                }
            } && !id.utf8.allSatisfy { $0 == 0x2E }
        guard isName else {
            throw PKIError(.invalid, "an authority's id must be 1 to 64 of A-Z a-z 0-9 . _ -")
        }
    }
}

extension AuthorityAdded {
    init(_ id: String, _ tenantID: String, _ certificate: Certificate, key: Key) {
        self.init(
            id: id, tenantID: tenantID, subject: certificate.subjectText,
            certificate: Base64.encode(certificate.der), spkiSHA256: certificate.spkiSHA256.description, key: key,
            notBefore: Timestamp(seconds: certificate.notBefore), notAfter: Timestamp(seconds: certificate.notAfter),
            actor: "")
    }
}

extension RegistryAnswer {
    /// The command was accepted now: neither rejected nor a repeated answer.
    var isNew: Bool {
        if case .accepted(_, _, _, isRepeated: false) = self { true } else { false }
    }
}
