import Primitives

/// Random secrets and their digests.
public enum Secrets {
    /// What the tokens of the log begin with: whoever finds one in a file knows what it is.
    static let prefix = "refold_"

    /// 256 random bits in hex, behind the prefix.
    public static func token() -> String { prefix + random() }

    /// 256 random bits in hex. `SystemRandomNumberGenerator` is getrandom(2) on Linux.
    public static func random() -> String {
        var generator = SystemRandomNumberGenerator()
        return (0..<4).map { _ in Hex.encode(generator.next() as UInt64) }.joined()
    }

    /// In hex. Digests are compared, so timing reveals nothing about the secret.
    public static func sha256(_ text: String) -> String { SHA256.digest(text.utf8).description }
}
