import COpenSSL

/// 32 bytes of SHA-256.
package struct Digest: Hashable, Sendable {
    var a: UInt64 = 0, b: UInt64 = 0, c: UInt64 = 0, d: UInt64 = 0

    /// 64 digits, lower case.
    init?(hex: some StringProtocol) {
        let digits = Array(hex.utf8)
        guard digits.count == 64 else { return nil }
        var bytes = [UInt8](repeating: 0, count: 32)
        for (index, digit) in digits.enumerated() {
            let value: UInt8
            switch digit {
            case 0x30...0x39: value = digit - 0x30
            case 0x61...0x66: value = digit - 0x61 + 10
            default: return nil
            }
            bytes[index / 2] = bytes[index / 2] << 4 | value
        }
        withUnsafeMutableBytes(of: &self) { $0.copyBytes(from: bytes) }
    }

    init() {}

    func appendHex(to text: inout [UInt8]) {
        let digits = StaticString("0123456789abcdef").utf8Start
        withUnsafeBytes(of: self) { bytes in
            for byte in bytes {
                text.append(digits[Int(byte >> 4)])
                text.append(digits[Int(byte & 15)])
            }
        }
    }
}

/// SHA-256 with the algorithm fetched once and the context reused: half the price of `EVP_sha256()` each time.
/// One owner's own; not thread-safe.
final class SHA256 {
    private let algorithm: OpaquePointer  // EVP_MD *
    private let context: OpaquePointer  // EVP_MD_CTX *

    init() {
        guard let algorithm = EVP_MD_fetch(nil, "SHA256", nil), let context = EVP_MD_CTX_new() else {
            preconditionFailure("OpenSSL has no SHA-256")
        }
        self.algorithm = algorithm
        self.context = context
    }

    deinit {
        EVP_MD_CTX_free(context)
        EVP_MD_free(algorithm)
    }

    func digest(_ bytes: UnsafeRawBufferPointer) -> Digest {
        precondition(EVP_DigestInit_ex2(context, algorithm, nil) == 1, "SHA-256 cannot start")
        if bytes.count > 0 { EVP_DigestUpdate(context, bytes.baseAddress, bytes.count) }
        var digest = Digest()
        withUnsafeMutableBytes(of: &digest) { room in
            _ = EVP_DigestFinal_ex(context, room.assumingMemoryBound(to: UInt8.self).baseAddress, nil)
        }
        return digest
    }
}
