import COpenSSL

/// A private key in memory. Safe to use from any thread.
public final class PrivateKey: Signer {
    public let algorithm: KeyAlgorithm
    public let publicKey: PublicKey
    private let handle: KeyHandle
    private let scheme: SignatureScheme
    private let signing: SignatureContext
    private let signatureBytesMax: Int

    static let pemBytesMax = 64 << 10
    /// OWASP's number for PBKDF2 with HMAC-SHA-256 (2023): about a quarter of a second for each load.
    private static let iterations: Int32 = 600_000
    private static let passphraseBytesMax = 1024

    public var publicKeyInfo: [UInt8] { publicKey.info }
    public var signatureAlgorithm: [UInt8] { scheme.identifier }
    /// ECDSA takes a random number for each signature.
    public var mustVerify: Bool {
        switch algorithm {
        case .p256, .p384: false
        case .rsa2048, .rsa3072, .rsa4096, .ed25519: true
        }
    }

    /// - Parameter what: names the key in errors.
    private init(_ handle: KeyHandle, what: String) throws(PKIError) {
        let info = encode { i2d_PUBKEY(handle.pointer, $0) }
        publicKey = PublicKey(handle, info: info)
        guard let algorithm = KeyAlgorithm(rawValue: publicKey.name),
            let scheme = SignatureScheme(keyName: publicKey.name)
        else {
            let supported = KeyAlgorithm.allCases.map(\.rawValue).joined(separator: ", ")
            throw PKIError(.unsupported, "\(what): a key of type \(publicKey.name); supported are \(supported)")
        }
        if let weakness = publicKey.weakness { throw PKIError(.weak, "\(what): \(weakness)") }
        guard let signing = SignatureContext(key: handle, digest: scheme.digest, signs: true) else {
            throw .openSSL(.crypto, "\(what): the key cannot sign")
        }
        (self.handle, self.algorithm, self.scheme, self.signing) = (handle, algorithm, scheme, signing)
        signatureBytesMax = Int(EVP_PKEY_get_size(handle.pointer))
    }

    public static func generate(_ algorithm: KeyAlgorithm = .standard) throws(PKIError) -> PrivateKey {
        let what = "cannot generate a key of type \(algorithm.rawValue)"
        let type: String, group: String?, bits: Int32
        switch algorithm {
        case .p256: (type, group, bits) = ("EC", "P-256", 0)
        case .p384: (type, group, bits) = ("EC", "P-384", 0)
        case .rsa2048: (type, group, bits) = ("RSA", nil, 2048)
        case .rsa3072: (type, group, bits) = ("RSA", nil, 3072)
        case .rsa4096: (type, group, bits) = ("RSA", nil, 4096)
        case .ed25519: (type, group, bits) = ("ED25519", nil, 0)
        }
        guard let context = EVP_PKEY_CTX_new_from_name(nil, type, nil) else { throw .openSSL(.crypto, what) }
        defer { EVP_PKEY_CTX_free(context) }
        var key: OpaquePointer?
        guard EVP_PKEY_keygen_init(context) == 1,
            group.map({ EVP_PKEY_CTX_set_group_name(context, $0) == 1 }) ?? true,
            bits == 0 || EVP_PKEY_CTX_set_rsa_keygen_bits(context, bits) == 1,
            EVP_PKEY_generate(context, &key) == 1, let key
        else { throw .openSSL(.crypto, what) }
        return try PrivateKey(KeyHandle(takingOwnership: key), what: what)
    }

    public func sign(_ tbs: [UInt8]) throws(PKIError) -> [UInt8] {
        guard let signature = signing.sign(tbs, signatureBytesMax: signatureBytesMax) else {
            throw .openSSL(.crypto, "cannot sign \(tbs.count) bytes with the \(algorithm.rawValue) key")
        }
        return signature
    }

    // MARK: PEM

    /// What OpenSSL asks for while it reads a key.
    private struct Passphrase {
        let bytes: [UInt8]?
        var wasAsked = false
    }

    /// Reads PKCS #8, also encrypted, SEC 1 (`EC PRIVATE KEY`) and PKCS #1 (`RSA PRIVATE KEY`). Never prompts.
    /// - Parameter what: names the key in errors, for example its file.
    public convenience init(pem: [UInt8], passphrase: [UInt8]? = nil, what: String = "private key") throws(PKIError) {
        guard pem.count <= Self.pemBytesMax else {
            throw PKIError(.malformed, "\(what): \(pem.count) bytes exceed the limit of \(Self.pemBytesMax)")
        }
        let bio = try MemoryBIO.holding(pem)
        var request = Passphrase(bytes: passphrase)
        let key = withUnsafeMutablePointer(to: &request) {
            PEM_read_bio_PrivateKey(
                bio.pointer, nil,
                { buffer, size, _, request in
                    guard let request = request?.assumingMemoryBound(to: Passphrase.self), let buffer else { return -1 }
                    request.pointee.wasAsked = true
                    guard let bytes = request.pointee.bytes, bytes.count <= size else { return -1 }
                    for (index, byte) in bytes.enumerated() { buffer[index] = CChar(bitPattern: byte) }
                    return Int32(bytes.count)
                }, $0)
        }
        guard let key else {
            guard request.wasAsked else {
                throw .openSSL(.malformed, "\(what): no private key in PEM form (PKCS #8, SEC 1 or PKCS #1)")
            }
            OpenSSLErrors.clear()
            throw PKIError(
                .passphrase,
                passphrase == nil
                    ? "\(what): the key is encrypted; configure its passphrase"
                    : "\(what): cannot decrypt the key: the passphrase is wrong")
        }
        OpenSSLErrors.clear()
        try self.init(KeyHandle(takingOwnership: key), what: what)
    }

    /// PKCS #8; with a passphrase encrypted by AES-256-CBC and PBKDF2 with HMAC-SHA-256.
    public func pem(passphrase: [UInt8]? = nil) throws(PKIError) -> [UInt8] {
        let what = "cannot encode the private key"
        let bio = try MemoryBIO()
        guard let info = EVP_PKEY2PKCS8(handle.pointer) else { throw .openSSL(.crypto, what) }
        defer { PKCS8_PRIV_KEY_INFO_free(info) }
        guard let passphrase else {
            guard PEM_write_bio_PKCS8_PRIV_KEY_INFO(bio.pointer, info) == 1 else { throw .openSSL(.crypto, what) }
            return bio.read()
        }
        guard (1...Self.passphraseBytesMax).contains(passphrase.count) else {
            throw PKIError(.passphrase, "\(what): the passphrase must have 1 to \(Self.passphraseBytesMax) bytes")
        }
        let text = passphrase.map { CChar(bitPattern: $0) }
        guard
            let encrypted = PKCS8_encrypt(
                -1, EVP_aes_256_cbc(), text, Int32(text.count), nil, 0, Self.iterations, info)
        else { throw .openSSL(.crypto, what) }
        defer { X509_SIG_free(encrypted) }
        guard PEM_write_bio_PKCS8(bio.pointer, encrypted) == 1 else { throw .openSSL(.crypto, what) }
        return bio.read()
    }

    // MARK: Files

    /// Reads a key file that its owner alone can read, and that belongs to us or root.
    public static func load(_ path: String, passphrase: [UInt8]? = nil) throws(PKIError) -> PrivateKey {
        var bytes = try KeyFile.read(path, bytesMax: pemBytesMax)
        defer { bytes.withUnsafeMutableBytes { OPENSSL_cleanse($0.baseAddress, $0.count) } }
        return try PrivateKey(pem: bytes, passphrase: passphrase, what: "key file \(path)")
    }

    /// Writes a new key file with mode 0600; durable when this returns. Never replaces a file.
    public func create(_ path: String, passphrase: [UInt8]? = nil) throws(PKIError) {
        var bytes = try pem(passphrase: passphrase)
        defer { bytes.withUnsafeMutableBytes { OPENSSL_cleanse($0.baseAddress, $0.count) } }
        try KeyFile.create(path, bytes)
    }
}
