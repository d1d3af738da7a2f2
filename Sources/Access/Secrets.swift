import COpenSSL

/// Random secrets and their digests.
public enum Secrets {
    /// What the tokens of the log begin with: whoever finds one in a file knows what it is.
    static let prefix = "refold_"

    /// 256 random bits in hex, behind the prefix.
    public static func token() -> String { prefix + random() }

    /// 256 random bits in hex. `SystemRandomNumberGenerator` is getrandom(2) on Linux.
    public static func random() -> String {
        var generator = SystemRandomNumberGenerator()
        return (0..<4).map { _ in
            let digits = String(generator.next() as UInt64, radix: 16)
            return String(repeating: "0", count: 16 - digits.count) + digits
        }.joined()
    }

    /// In hex. Digests are compared, so timing reveals nothing about the secret.
    public static func sha256(_ text: String) -> String {
        let bytes = Array(text.utf8)
        var digest = [UInt8](repeating: 0, count: 32)
        precondition(EVP_Digest(bytes, bytes.count, &digest, nil, EVP_sha256(), nil) == 1, "SHA-256 is not available")
        let digits = Array("0123456789abcdef".utf8)
        return String(decoding: digest.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }
}
