import COpenSSL
import Primitives
import SwiftASN1

/// A certificate request (PKCS #10, RFC 2986) whose signature verifies and whose key is strong enough.
public struct CertificateRequest: Sendable, Equatable {
    public let der: [UInt8]
    public let publicKey: PublicKey
    /// The first common name of the subject.
    public let subjectCommonName: String?
    /// RFC 4514.
    public let subjectText: String

    public static let derBytesMax = 16 << 10

    public var publicKeyInfo: [UInt8] { publicKey.info }
    public var spkiSHA256: Digest { publicKey.spkiSHA256 }
    /// Identifies the request, for idempotency.
    public var sha256: Digest { SHA256.digest(der) }

    private static let signatureAlgorithms: Set<Int32> = [
        NID_ecdsa_with_SHA256, NID_ecdsa_with_SHA384, NID_ecdsa_with_SHA512, NID_sha256WithRSAEncryption,
        NID_sha384WithRSAEncryption, NID_sha512WithRSAEncryption, NID_ED25519,
    ]

    /// - Parameter what: names the request in errors.
    public init(der: [UInt8], what: @autoclosure () -> String = "certificate request") throws(PKIError) {
        guard der.count <= Self.derBytesMax else {
            throw PKIError(.malformed, "\(what()): \(der.count) bytes exceed the limit of \(Self.derBytesMax)")
        }
        guard let request = decode(der, StructureContext.request, free: { X509_REQ_free($0) }) else {
            throw .openSSL(.malformed, "\(what()): \(der.count) bytes are not a DER certificate request (PKCS #10)")
        }
        defer {
            X509_REQ_free(request)
            OpenSSLErrors.clear()
        }
        let info = encode { i2d_X509_PUBKEY(X509_REQ_get_X509_PUBKEY(request), $0) }
        let publicKey: PublicKey
        do throws(PKIError) {
            publicKey = try PublicKey(info: info)
        } catch {
            throw PKIError(.unsupported, "\(what()): \(error)")
        }
        // The key first: it bounds the time that the signature takes.
        if let weakness = publicKey.weakness { throw PKIError(.weak, "\(what()): \(weakness)") }
        let algorithm = X509_REQ_get_signature_nid(request)
        guard Self.signatureAlgorithms.contains(algorithm) else {
            let name = OBJ_nid2ln(algorithm).map { String(cString: $0) } ?? "unknown"
            throw PKIError(
                .weak, "\(what()): the signature algorithm \(name) is not accepted; sign with SHA-256 or more")
        }
        guard X509_REQ_verify(request, publicKey.handle.pointer) == 1 else {
            throw .openSSL(
                .untrusted,
                "\(what()): the signature does not verify with the key in it: the sender does not have the private "
                    + "key, or the request was changed")
        }
        let name = X509_REQ_get_subject_name(request)
        (self.der, self.publicKey) = (der, publicKey)
        (subjectCommonName, subjectText) = (NameText.commonName(name), NameText.rfc4514(name))
    }

    public init(pem: [UInt8], what: String = "certificate request") throws(PKIError) {
        let blocks = try PEM.decode(
            pem, labels: ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"], what: what, bytesMax: 2 * Self.derBytesMax,
            countMax: 1)
        try self.init(der: blocks[0], what: what)
    }

    public func pem() throws(PKIError) -> [UInt8] { try PEM.encode("CERTIFICATE REQUEST", der) }

    /// A request without attributes, signed by `key`.
    public static func create(key: any Signer, commonName: String) throws(PKIError) -> CertificateRequest {
        let subject = try DistinguishedName(commonName: commonName)
        let info = DER.Serializer.bytes { writer in
            writer.sequence { writer in
                writer.integer(0)
                writer.raw(subject.der)
                writer.raw(key.publicKeyInfo)
                writer.tagged(0) { _ in }
            }
        }
        return try CertificateRequest(der: SignedObject.der(info, key.signatureAlgorithm, try key.sign(info)))
    }
}

/// SEQUENCE { to be signed, algorithm, signature }: the frame of certificates, requests and CRLs.
enum SignedObject {
    /// Room that `der` needs beyond `tbs`: what has it is not copied.
    static let room = 2048

    static func der(_ tbs: consuming [UInt8], _ algorithm: [UInt8], _ signature: [UInt8]) -> [UInt8] {
        let signatureLength = signature.count + 1
        let length = tbs.count + algorithm.count + DERHeader.byteCount(length: signatureLength) + signatureLength
        var header: [UInt8] = []
        DERHeader.append(DERHeader.sequence, length: length, to: &header)
        tbs.insert(contentsOf: header, at: 0)
        tbs.append(contentsOf: algorithm)
        DERHeader.append(DERHeader.bitString, length: signatureLength, to: &tbs)
        tbs.append(0)  // unused bits
        tbs.append(contentsOf: signature)
        return tbs
    }
}
