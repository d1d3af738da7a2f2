import COpenSSL
import Primitives

/// Why a piece of evidence is not to be believed. The text says what is wrong with it.
public typealias EvidenceError = CodedError<EvidenceErrorCode>

public enum EvidenceErrorCode: Sendable {
    /// The bytes are not in the form that the format asks for.
    case malformed
    /// Well-formed, and not true: a wrong signature, another log, a root that does not follow.
    case untrue
    /// OpenSSL refused.
    case crypto
}

/// A public Ed25519 key with the name that it signs under. As text, the vkey of C2SP signed-note:
/// `<name>+<key id, 8 hexadecimal digits>+<base64 of type ‖ key>`.
public struct VerifierKey: Sendable, Equatable, CustomStringConvertible {
    /// The signature types of C2SP signed-note that are known here.
    public enum Kind: UInt8, Sendable {
        /// A signature of the note's text.
        case note = 1
        /// A witness's cosignature with its time (C2SP tlog-cosignature, `cosignature/v1`).
        case cosignature = 4
    }

    public let name: String
    public let kind: Kind
    /// 32 bytes (RFC 8032).
    public let publicKey: [UInt8]
    /// The first four bytes of SHA-256(name ‖ "\n" ‖ type ‖ public key).
    public let id: [UInt8]

    /// Nil when the name is empty or holds a space or a plus, or the key has not 32 bytes.
    public init?(name: String, kind: Kind, publicKey: [UInt8]) {
        guard Self.isName(name), publicKey.count == 32 else { return nil }
        self.name = name
        self.kind = kind
        self.publicKey = publicKey
        id = Array(SHA256.digest(Array(name.utf8) + [0x0A, kind.rawValue] + publicKey).bytes.prefix(4))
    }

    /// Reads a vkey, whose id must be that of its name and key.
    public init(_ text: String) throws(EvidenceError) {
        let parts = text.split(separator: "+", maxSplits: 2, omittingEmptySubsequences: false)
        guard parts.count == 3, let bytes = Base64.decode(parts[2].utf8), let type = bytes.first else {
            throw EvidenceError(.malformed, "\"\(text.prefix(120))\" is no key of the form name+id+base64")
        }
        guard let kind = Kind(rawValue: type) else {
            throw EvidenceError(
                .malformed,
                "the key has the signature type \(type); known are 1 (Ed25519) and 4 "
                    + "(Ed25519 cosignature)")
        }
        guard let key = VerifierKey(name: String(parts[0]), kind: kind, publicKey: Array(bytes[1...])),
            Hex.encode(key.id) == parts[1].lowercased()
        else { throw EvidenceError(.malformed, "the key's id is not that of its name and bytes: it was mistyped") }
        self = key
    }

    public var description: String {
        "\(name)+\(Hex.encode(id))+\(Base64.encode([kind.rawValue] + publicKey))"
    }

    /// Not empty, without Unicode spaces, control characters and plus signs (C2SP signed-note).
    static func isName(_ name: String) -> Bool {
        !name.isEmpty
            && name.unicodeScalars.allSatisfy {
                $0 != "+" && !$0.properties.isWhitespace && $0.value >= 0x20 && $0.value != 0x7F
            }
    }

    /// Whether the owner of the key signed these bytes (RFC 8032, Ed25519).
    func verify(_ signature: some Collection<UInt8>, of message: [UInt8]) -> Bool {
        let signature = Array(signature)
        guard signature.count == 64 else { return false }
        guard let key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nil, publicKey, 32) else { return false }
        defer { EVP_PKEY_free(key) }
        guard let context = EVP_MD_CTX_new() else { return false }
        defer { EVP_MD_CTX_free(context) }
        guard EVP_DigestVerifyInit(context, nil, nil, nil, key) == 1 else { return false }
        return EVP_DigestVerify(context, signature, 64, message, message.count) == 1
    }
}

/// The private half, which signs checkpoints. Safe to use from any thread.
/// `@unchecked Sendable`: an EVP_PKEY is not changed once made, and OpenSSL 3 lets threads share it for signing.
public final class SigningKey: @unchecked Sendable {
    private let key: OpaquePointer  // EVP_PKEY *
    public let verifier: VerifierKey

    private init(takingOwnership key: OpaquePointer, name: String, kind: VerifierKey.Kind) throws(EvidenceError) {
        var bytes = [UInt8](repeating: 0, count: 32)
        var count = bytes.count
        guard EVP_PKEY_get_id(key) == EVP_PKEY_ED25519, EVP_PKEY_get_raw_public_key(key, &bytes, &count) == 1 else {
            EVP_PKEY_free(key)
            throw EvidenceError(.malformed, "this is no Ed25519 key")
        }
        guard let verifier = VerifierKey(name: name, kind: kind, publicKey: bytes) else {
            EVP_PKEY_free(key)
            throw EvidenceError(.malformed, "\"\(name)\" is no name of a key: it must not hold spaces or plus signs")
        }
        self.key = key
        self.verifier = verifier
    }

    deinit { EVP_PKEY_free(key) }

    /// A new key, by OpenSSL's random numbers.
    public static func generate(name: String, kind: VerifierKey.Kind = .note) throws(EvidenceError) -> SigningKey {
        guard let context = EVP_PKEY_CTX_new_id(EVP_PKEY_ED25519, nil) else {
            throw EvidenceError(.crypto, "OpenSSL has no Ed25519")
        }
        defer { EVP_PKEY_CTX_free(context) }
        var key: OpaquePointer?
        guard EVP_PKEY_keygen_init(context) == 1, EVP_PKEY_keygen(context, &key) == 1, let key else {
            throw EvidenceError(.crypto, "OpenSSL made no Ed25519 key")
        }
        return try SigningKey(takingOwnership: key, name: name, kind: kind)
    }

    /// Reads PKCS #8 PEM (RFC 5958, RFC 8410), as `openssl genpkey -algorithm ed25519` writes it. Never asks for a
    /// password.
    public convenience init(pem: [UInt8], name: String, kind: VerifierKey.Kind = .note) throws(EvidenceError) {
        guard let bio = BIO_new_mem_buf(pem, Int32(clamping: pem.count)) else {
            throw EvidenceError(.crypto, "no memory")
        }
        defer { BIO_free(bio) }
        let refuse: @convention(c) (UnsafeMutablePointer<CChar>?, Int32, Int32, UnsafeMutableRawPointer?) -> Int32 = {
            _, _, _, _ in -1
        }
        guard let key = PEM_read_bio_PrivateKey(bio, nil, refuse, nil) else {
            ERR_clear_error()
            throw EvidenceError(.malformed, "this is no private key in PEM form (PKCS #8, without a password)")
        }
        try self.init(takingOwnership: key, name: name, kind: kind)
    }

    /// PKCS #8 PEM, not encrypted.
    public func pem() throws(EvidenceError) -> [UInt8] {
        guard let bio = BIO_new(BIO_s_mem()) else { throw EvidenceError(.crypto, "no memory") }
        defer { BIO_free(bio) }
        guard PEM_write_bio_PKCS8PrivateKey(bio, key, nil, nil, 0, nil, nil) == 1 else {
            throw EvidenceError(.crypto, "OpenSSL wrote no key")
        }
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = BIO_read(bio, &bytes, Int32(bytes.count))
        guard count > 0 else { throw EvidenceError(.crypto, "OpenSSL wrote no key") }
        return Array(bytes[..<Int(count)])
    }

    /// 64 bytes (RFC 8032).
    func signature(of message: [UInt8]) throws(EvidenceError) -> [UInt8] {
        guard let context = EVP_MD_CTX_new() else { throw EvidenceError(.crypto, "no memory") }
        defer { EVP_MD_CTX_free(context) }
        var signature = [UInt8](repeating: 0, count: 64)
        var count = signature.count
        guard EVP_DigestSignInit(context, nil, nil, nil, key) == 1,
            EVP_DigestSign(context, &signature, &count, message, message.count) == 1, count == 64
        else { throw EvidenceError(.crypto, "OpenSSL did not sign") }
        return signature
    }
}
