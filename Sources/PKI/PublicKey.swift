// PKI: keys, certificates, certificate requests and CRLs (RFC 5280), over OpenSSL for keys, signatures, parsing and
// verification. Certificates and CRLs are written by our own DER encoder. OpenSSL parses each before it is returned. It
// verifies the signature of each CRL, and those of certificates as `CertificateIssuer` says.
//
// Invariants. Bytes from outside cannot trap, and their size is bounded. An error text names the object, the reason and
// the next step. OpenSSL's error queue is empty after each call.
//
// Entry points: `PrivateKey`, `CertificateRequest`, `Certificate`, `CertificateIssuer`, `RevokedEntries`, `CRLBuilder`,
// `RevocationList`.

import COpenSSL
import Primitives
import SwiftASN1

/// Algorithms of the keys that are generated and that may belong to an authority.
public enum KeyAlgorithm: String, Sendable, CaseIterable, Codable {
    case p256 = "P-256"
    case p384 = "P-384"
    case rsa2048 = "RSA-2048"
    case rsa3072 = "RSA-3072"
    case rsa4096 = "RSA-4096"
    case ed25519 = "Ed25519"

    public static let standard = KeyAlgorithm.p256
}

/// How a key signs: fixed by its type, so that each key has one signature algorithm.
struct SignatureScheme {
    /// AlgorithmIdentifier, DER.
    let identifier: [UInt8]
    /// OpenSSL's name of the digest; nil for Ed25519.
    let digest: String?

    /// - Parameter keyName: as `PublicKey.name`. Nil for keys that do not sign.
    init?(keyName: String) {
        switch keyName {
        case "P-256": (identifier, digest) = (Self.ecdsa(2), "SHA256")
        case "P-384": (identifier, digest) = (Self.ecdsa(3), "SHA384")
        case "P-521": (identifier, digest) = (Self.ecdsa(4), "SHA512")
        case "Ed25519": (identifier, digest) = ([0x30, 0x05, 0x06, 0x03, 0x2B, 0x65, 0x70], nil)  // RFC 8410, 3
        case let name where name.hasPrefix("RSA-"):
            // sha256WithRSAEncryption, with NULL parameters (RFC 4055, 5)
            identifier = [
                0x30, 0x0D, 0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0B, 0x05, 0x00,
            ]
            digest = "SHA256"
        default: return nil
        }
    }

    /// 1.2.840.10045.4.3.`last`, without parameters (RFC 5758, 3.2)
    private static func ecdsa(_ last: UInt8) -> [UInt8] {
        [0x30, 0x0A, 0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, last]
    }
}

/// A public key, from a SubjectPublicKeyInfo.
public struct PublicKey: Sendable, Equatable, CustomStringConvertible {
    let handle: KeyHandle
    /// SubjectPublicKeyInfo, DER.
    public let info: [UInt8]
    /// Type and size: `P-256`, `P-384`, `P-521`, `Ed25519`, or `RSA-` and the bits of the modulus; OpenSSL's name for
    /// others.
    public let name: String

    static let infoBytesMax = 4096

    public init(info: [UInt8]) throws(PKIError) {
        guard info.count <= Self.infoBytesMax else {
            throw PKIError(.malformed, "public key: \(info.count) bytes exceed the limit of \(Self.infoBytesMax)")
        }
        if let handle = CurveTemplate.key(info) {
            self.init(handle, info: info)
            return
        }
        guard let key = decode(info, { d2i_PUBKEY(nil, $0, $1) }, free: { EVP_PKEY_free($0) }) else {
            throw .openSSL(.malformed, "public key: not a SubjectPublicKeyInfo of a known type")
        }
        self.init(KeyHandle(takingOwnership: key), info: info)
    }

    init(_ handle: KeyHandle, info: [UInt8]) {
        self.handle = handle
        self.info = info
        name = Self.name(handle.pointer)
    }

    public static func == (a: PublicKey, b: PublicKey) -> Bool { a.info == b.info }

    public var description: String { name }

    /// SHA-256 of the SubjectPublicKeyInfo: identifies the key across certificates.
    public var spkiSHA256: Digest { SHA256.digest(info) }

    /// The leftmost 160 bits of the SHA-256 of the key's bits (RFC 7093, 2, method 1).
    var keyIdentifier: [UInt8] {
        // SubjectPublicKeyInfo ::= SEQUENCE { algorithm, subjectPublicKey BIT STRING }; OpenSSL has accepted it.
        guard let node = try? DER.parse(info), case .constructed(let parts) = node.content,
            let bits = parts.suffix(1).first.flatMap({ try? ASN1BitString(derEncoded: $0) })
        else { return [] }
        return Array(SHA256.digest(bits.bytes).bytes.prefix(20))
    }

    /// Verifies by the one algorithm that `SignatureScheme` gives this type of key.
    public func verify(_ signature: [UInt8], of bytes: [UInt8]) -> Bool {
        defer { OpenSSLErrors.clear() }
        return verifier?.verify(signature, of: bytes) ?? false
    }

    /// AlgorithmIdentifier of the signatures that a key of this type makes, DER; nil for one that does not sign.
    public var signatureAlgorithm: [UInt8]? { SignatureScheme(keyName: name)?.identifier }

    var verifier: SignatureContext? {
        guard let scheme = SignatureScheme(keyName: name) else { return nil }
        return SignatureContext(key: handle, digest: scheme.digest, signs: false)
    }

    private static func name(_ key: OpaquePointer) -> String {
        switch EVP_PKEY_get_base_id(key) {
        case EVP_PKEY_RSA: return "RSA-\(EVP_PKEY_get_bits(key))"
        case EVP_PKEY_ED25519: return "Ed25519"
        case EVP_PKEY_RSA_PSS: return "RSASSA-PSS"
        case EVP_PKEY_EC:
            // RFC 5480, 2.1.1 demands a named curve: keys were forged with explicit parameters (CVE-2020-0601).
            var isExplicit: Int32 = 0
            let parameter = OSSL_PKEY_PARAM_EC_DECODED_FROM_EXPLICIT_PARAMS
            if EVP_PKEY_get_int_param(key, parameter, &isExplicit) == 1, isExplicit != 0 {
                return "EC without a named curve"
            }
            var name = [CChar](repeating: 0, count: 80), count = 0
            guard EVP_PKEY_get_group_name(key, &name, name.count, &count) == 1 else { return "EC" }
            let group = String(decoding: name.prefix(count).map(UInt8.init(bitPattern:)), as: UTF8.self)
            return ["prime256v1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"][group] ?? "EC \(group)"
        default: return EVP_PKEY_get0_type_name(key).map { String(cString: $0) } ?? "unknown"
        }
    }

    // MARK: Strength

    /// Why no certificate may be issued for this key; nil when it is strong enough.
    public var weakness: String? {
        switch name {
        case "P-256", "P-384", "P-521", "Ed25519": nil
        case let name where name.hasPrefix("RSA-"): rsaWeakness
        default: "keys of type \(name) are not supported; use P-256, P-384, P-521, Ed25519 or RSA"
        }
    }

    /// FIPS 186-5, A.1.1 and SP 800-56B, 6.4.2: size, public exponent, and a modulus without small factors. The upper
    /// limit bounds the time of a verification.
    private var rsaWeakness: String? {
        let bits = EVP_PKEY_get_bits(handle.pointer)
        guard bits >= 2048 else { return "an RSA modulus of \(bits) bits is too short; use 2048 bits or more" }
        guard bits <= 8192 else { return "an RSA modulus of \(bits) bits is too long; use at most 8192 bits" }
        var exponent: OpaquePointer?
        defer { BN_free(exponent) }
        guard EVP_PKEY_get_bn_param(handle.pointer, OSSL_PKEY_PARAM_RSA_E, &exponent) == 1, let exponent else {
            return "the RSA public exponent cannot be read"
        }
        guard BN_is_odd(exponent) == 1, (17...256).contains(BN_num_bits(exponent)) else {
            let value = BN_num_bits(exponent) <= 32 ? " \(BN_get_word(exponent))" : ""
            return "the RSA public exponent\(value) is not odd and between 65537 and 2^256; use 65537"
        }
        defer { OpenSSLErrors.clear() }
        guard let context = EVP_PKEY_CTX_new_from_pkey(nil, handle.pointer, nil) else { return nil }
        defer { EVP_PKEY_CTX_free(context) }
        return EVP_PKEY_public_check(context) == 1 ? nil : "the RSA modulus is prime or has small factors"
    }
}
