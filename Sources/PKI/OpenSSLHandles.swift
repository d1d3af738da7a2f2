import COpenSSL
import Threading

// Owners of OpenSSL objects. `@unchecked Sendable`: the objects are not changed once they are made, and OpenSSL 3 locks
// what it caches inside of them.

/// Owns an `EVP_PKEY *`.
final class KeyHandle: @unchecked Sendable {
    let pointer: OpaquePointer
    init(takingOwnership pointer: OpaquePointer) { self.pointer = pointer }
    deinit { EVP_PKEY_free(pointer) }
}

/// Owns an `X509 *`.
final class CertificateHandle: @unchecked Sendable {
    let pointer: OpaquePointer
    init(takingOwnership pointer: OpaquePointer) { self.pointer = pointer }
    deinit { X509_free(pointer) }
}

/// An OpenSSL context without algorithms. OpenSSL 3.0 decodes the public key of each certificate and request that it
/// parses, which takes several times as long as a signature; in this context it finds no decoder, and leaves the key
/// alone.
enum StructureContext {
    private nonisolated(unsafe) static let context: OpaquePointer? = {
        guard let context = OSSL_LIB_CTX_new(), OSSL_PROVIDER_load(context, "null") != nil else { return nil }
        return context
    }()

    /// d2i_X509 without the key.
    static func certificate(_ next: UnsafeMutablePointer<UnsafePointer<UInt8>?>, _ count: Int) -> OpaquePointer? {
        var certificate = X509_new_ex(context, nil)
        // On failure it is freed and set to nil.
        return d2i_X509(&certificate, next, count)
    }

    /// d2i_X509_REQ without the key. It ignores a request's own context, so that this sets the thread's default.
    static func request(_ next: UnsafeMutablePointer<UnsafePointer<UInt8>?>, _ count: Int) -> OpaquePointer? {
        let before = OSSL_LIB_CTX_set0_default(context)
        defer { _ = OSSL_LIB_CTX_set0_default(before) }
        return d2i_X509_REQ(nil, next, count)
    }
}

/// Public keys on named curves, from the encoding that nearly all have: OpenSSL 3.0's decoder takes twice as long as
/// the verification of a signature.
struct CurveTemplate: Sendable {
    /// Of the SubjectPublicKeyInfo, up to the uncompressed point.
    private let prefix: [UInt8]
    private let pointBytes: Int
    private let key: KeyHandle

    private static let all = [KeyAlgorithm.p256, .p384].compactMap { try? CurveTemplate($0) }

    /// - Returns: nil where it is another curve or form, or not a point of the curve.
    static func key(_ info: [UInt8]) -> KeyHandle? {
        defer { OpenSSLErrors.clear() }
        return all.lazy.compactMap { $0.key(info) }.first
    }

    private init?(_ algorithm: KeyAlgorithm) throws {
        let info = try PrivateKey.generate(algorithm).publicKeyInfo
        pointBytes = algorithm == .p256 ? 65 : 97
        guard info.suffix(pointBytes).first == 4,
            let key = decode(info, { d2i_PUBKEY(nil, $0, $1) }, free: EVP_PKEY_free)
        else { return nil }
        (prefix, self.key) = (info.dropLast(pointBytes), KeyHandle(takingOwnership: key))
    }

    private func key(_ info: [UInt8]) -> KeyHandle? {
        guard info.count == prefix.count + pointBytes, info[prefix.count] == 4, info.starts(with: prefix),
            let copy = EVP_PKEY_dup(key.pointer)
        else { return nil }
        let handle = KeyHandle(takingOwnership: copy)
        let isSet = info.withUnsafeBufferPointer { bytes in
            EVP_PKEY_set1_encoded_public_key(copy, bytes.baseAddress! + prefix.count, pointBytes)
        }
        return isSet == 1 ? handle : nil
    }
}

/// Owns an `X509_CRL *`.
final class CRLHandle: @unchecked Sendable {
    let pointer: OpaquePointer
    init(takingOwnership pointer: OpaquePointer) { self.pointer = pointer }
    deinit { X509_CRL_free(pointer) }

    /// Longer CRLs are freed on a separate thread: freeing 100,000 entries takes 40 ms, and callers wait for the CRL.
    private static let freedAtOnceMax: Int32 = 1_000

    /// Frees the entries once they are read: OpenSSL keeps about 600 bytes of each. The signature is still verified
    /// over the parsed bytes. Call it before the handle is shared between threads.
    func removeEntries() {
        guard let stack = X509_CRL_get_REVOKED(pointer), let removed = OPENSSL_sk_dup(stack) else { return }
        OPENSSL_sk_zero(stack)
        nonisolated(unsafe) let entries = removed
        let free: @Sendable () -> Void = { OPENSSL_sk_pop_free(entries) { X509_REVOKED_free(OpaquePointer($0)) } }
        if OPENSSL_sk_num(removed) <= Self.freedAtOnceMax || !tryStartThread(name: "crl-free", free) { free() }
    }
}

/// Owns an `EVP_MD_CTX *` that is initialised with key and digest, and is only ever copied: initialising one for each
/// signature makes OpenSSL 3.0 look up its algorithms each time.
final class SignatureContext: @unchecked Sendable {
    private let pointer: OpaquePointer

    /// - Parameter digest: its name in OpenSSL; nil for Ed25519, which hashes by itself.
    init?(key: KeyHandle, digest: String?, signs: Bool) {
        guard let context = EVP_MD_CTX_new() else { return nil }
        let initialise = signs ? EVP_DigestSignInit_ex : EVP_DigestVerifyInit_ex
        guard initialise(context, nil, digest, nil, nil, key.pointer, nil) == 1 else {
            EVP_MD_CTX_free(context)
            return nil
        }
        pointer = context
    }

    deinit { EVP_MD_CTX_free(pointer) }

    private func withCopy<R>(_ body: (OpaquePointer) -> R?) -> R? {
        guard let copy = EVP_MD_CTX_new() else { return nil }
        defer { EVP_MD_CTX_free(copy) }
        return EVP_MD_CTX_copy_ex(copy, pointer) == 1 ? body(copy) : nil
    }

    func sign(_ bytes: [UInt8], signatureBytesMax: Int) -> [UInt8]? {
        withCopy { context in
            var count = signatureBytesMax
            var signature = [UInt8](repeating: 0, count: count)
            guard EVP_DigestSign(context, &signature, &count, bytes, bytes.count) == 1 else { return nil }
            signature.removeSubrange(count...)
            return signature
        }
    }

    func verify(_ signature: [UInt8], of bytes: [UInt8]) -> Bool {
        withCopy { EVP_DigestVerify($0, signature, signature.count, bytes, bytes.count) } == 1
    }
}

/// Owns a `BIO *` in memory.
struct MemoryBIO: ~Copyable {
    let pointer: OpaquePointer

    init() throws(PKIError) {
        guard let pointer = BIO_new(BIO_s_mem()) else { throw .openSSL(.crypto, "cannot allocate a buffer") }
        self.pointer = pointer
    }

    /// Copies the bytes: a BIO over them would outlive the pointer that Swift lends.
    static func holding(_ bytes: [UInt8]) throws(PKIError) -> MemoryBIO {
        let bio = try MemoryBIO()
        guard bytes.count <= Int32.max,
            bytes.isEmpty || BIO_write(bio.pointer, bytes, Int32(bytes.count)) == bytes.count
        else { throw .openSSL(.crypto, "cannot allocate a buffer of \(bytes.count) bytes") }
        return bio
    }

    deinit { BIO_free(pointer) }

    /// All that was written. Empties the buffer.
    func read() -> [UInt8] {
        let count = BIO_ctrl_pending(pointer)
        guard count > 0, count <= Int32.max else { return [] }
        return [UInt8](unsafeUninitializedCapacity: count) { buffer, initialised in
            initialised = max(0, Int(BIO_read(pointer, buffer.baseAddress, Int32(count))))
        }
    }
}

/// Calls a `d2i_…` function. Nil unless it consumed all the bytes.
/// - Parameter free: frees what was decoded from the first part of the bytes.
func decode<T>(
    _ der: [UInt8], _ d2i: (UnsafeMutablePointer<UnsafePointer<UInt8>?>, Int) -> T?, free: (T) -> Void
) -> T? {
    der.withUnsafeBufferPointer { buffer in
        var next = buffer.baseAddress
        guard !buffer.isEmpty, let decoded = d2i(&next, buffer.count) else { return nil }
        guard next == buffer.baseAddress! + buffer.count else {
            free(decoded)
            return nil
        }
        return decoded
    }
}

/// Calls an `i2d_…` function. Empty when it fails.
func encode(_ i2d: (UnsafeMutablePointer<UnsafeMutablePointer<UInt8>?>?) -> Int32) -> [UInt8] {
    let count = i2d(nil)
    guard count > 0 else { return [] }
    return [UInt8](unsafeUninitializedCapacity: Int(count)) { buffer, initialised in
        var next = buffer.baseAddress
        initialised = max(0, Int(i2d(&next)))
    }
}

/// The content octets of an ASN.1 string, integer or time.
func contents(_ string: UnsafePointer<ASN1_STRING>?) -> UnsafeBufferPointer<UInt8> {
    UnsafeBufferPointer(start: ASN1_STRING_get0_data(string), count: string.map { Int(ASN1_STRING_length($0)) } ?? 0)
}
