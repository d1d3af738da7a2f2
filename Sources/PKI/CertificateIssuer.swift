import SwiftASN1
import Synchronization

/// An authority that issues: its certificate and what signs for it. Keeps the parts that all its certificates share in
/// encoded form, so that issuing costs little more than the signature.
///
/// The first signature is verified with the certificate's key, and every one if `signer.mustVerify`: a verification
/// takes three times as long as an ECDSA signature. Create one issuer per request.
public struct CertificateIssuer: Sendable {
    public let certificate: Certificate
    public let signer: any Signer
    private let parts: Parts

    /// Of all certificates of one issuer.
    private final class Parts: Sendable {
        /// Name, DER.
        let name: [UInt8]
        /// Extension, DER; empty for a self-signed certificate.
        let authorityKeyIdentifier: [UInt8]
        let verifier: SignatureContext
        /// A signature was verified.
        let hasVerified = Atomic(false)

        init(name: [UInt8], authorityKeyIdentifier: [UInt8], verifier: SignatureContext) {
            (self.name, self.authorityKeyIdentifier, self.verifier) = (name, authorityKeyIdentifier, verifier)
        }
    }

    public init(certificate: Certificate, signer: any Signer) throws(PKIError) {
        let what = "authority \(certificate.subjectText)"
        guard certificate.canSignCertificates else {
            throw PKIError(.invalid, "\(what): its certificate may not sign certificates (CA, keyCertSign)")
        }
        guard signer.publicKeyInfo == certificate.publicKeyInfo else {
            throw PKIError(
                .untrusted, "\(what): the key does not belong to the certificate; configure the key that does")
        }
        guard let verifier = certificate.publicKey.verifier else {
            throw PKIError(.unsupported, "\(what): a key of type \(certificate.publicKey) cannot sign")
        }
        (self.certificate, self.signer) = (certificate, signer)
        parts = Parts(
            name: certificate.subject,
            authorityKeyIdentifier: DER.Serializer.bytes {
                $0.authorityKeyIdentifier(certificate.keyIdentifierForIssued)
            }, verifier: verifier)
    }

    /// Issues a certificate. Blocks while the signer signs.
    public func issue(
        _ profile: CertificateProfile, publicKey: PublicKey, serial: SerialNumber
    ) throws(PKIError) -> Certificate {
        if case .authority = profile.kind, certificate.pathLength == 0 {
            throw PKIError(
                .invalid,
                "authority \(certificate.subjectText) may not issue certificates of authorities: its path length is 0")
        }
        return try Self.issue(profile, publicKey, serial, parts, signer)
    }

    /// Issues the self-signed certificate of a root authority.
    public static func selfSigned(
        _ profile: CertificateProfile, signer: any Signer, serial: SerialNumber
    ) throws(PKIError) -> Certificate {
        guard case .authority = profile.kind else {
            throw PKIError(.invalid, "only certificates of authorities are self-signed")
        }
        let publicKey = try PublicKey(info: signer.publicKeyInfo)
        guard let verifier = publicKey.verifier else {
            throw PKIError(.unsupported, "a key of type \(publicKey) cannot sign")
        }
        let parts = Parts(name: profile.subject.der, authorityKeyIdentifier: [], verifier: verifier)
        return try issue(profile, publicKey, serial, parts, signer)
    }

    private static func issue(
        _ profile: CertificateProfile, _ publicKey: PublicKey, _ serial: SerialNumber, _ parts: Parts,
        _ signer: any Signer
    ) throws(PKIError) -> Certificate {
        try profile.check()
        if let weakness = publicKey.weakness { throw PKIError(.weak, "certificate \(serial): \(weakness)") }
        let tbs = Self.tbs(profile, publicKey, serial, parts, signer.signatureAlgorithm)
        let signature = try signer.sign(tbs)
        defer { OpenSSLErrors.clear() }
        if signer.mustVerify || !parts.hasVerified.load(ordering: .relaxed) {
            guard parts.verifier.verify(signature, of: tbs) else {
                throw PKIError(
                    .untrusted, "certificate \(serial): the signer's signature does not verify with its public key")
            }
            parts.hasVerified.store(true, ordering: .relaxed)
        }
        let der = SignedObject.der(tbs, signer.signatureAlgorithm, signature)
        return try Certificate(der: der, publicKey: publicKey, what: "certificate \(serial)")
    }

    /// TBSCertificate (RFC 5280 4.1).
    private static func tbs(
        _ profile: CertificateProfile, _ publicKey: PublicKey, _ serial: SerialNumber, _ parts: Parts,
        _ algorithm: [UInt8]
    ) -> [UInt8] {
        let validity = DERTime.der(profile.notBefore) + DERTime.der(profile.notAfter)
        return DER.Serializer.bytes { writer in
            writer.sequence { writer in
                writer.tagged(0) { $0.integer(2) }  // version 3
                writer.raw(serial.der)
                writer.raw(algorithm)
                writer.raw(parts.name)
                writer.sequence { $0.raw(validity) }
                writer.raw(profile.subject.der)
                writer.raw(publicKey.info)
                writer.tagged(3) { writer in
                    writer.sequence { writer in
                        writer.raw(parts.authorityKeyIdentifier)
                        writer.appendExtension(OID.subjectKeyIdentifier) {
                            $0.primitive(.octetString, publicKey.keyIdentifier)
                        }
                        profile.appendUsage(to: &writer)
                        profile.appendNames(to: &writer)
                    }
                }
            }
        }
    }
}

extension Certificate {
    /// The key identifier that its certificates and CRLs carry: its own, or ours of its key where it has none.
    var keyIdentifierForIssued: [UInt8] { subjectKeyIdentifier ?? publicKey.keyIdentifier }
}
