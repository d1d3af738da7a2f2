import PrivateServices

/// Signs certificates and CRLs: a key in memory, or a command that reaches a key elsewhere.
public protocol Signer: Sendable {
    /// SubjectPublicKeyInfo, DER.
    var publicKeyInfo: [UInt8] { get }
    /// AlgorithmIdentifier, DER.
    var signatureAlgorithm: [UInt8] { get }
    /// Whether a wrong signature could reveal the key: where the same bytes always have the same signature (RSA,
    /// Ed25519; Boneh, DeMillo, Lipton 1997). Such a signature must be verified before anyone receives it.
    var mustVerify: Bool { get }
    /// The signature of `tbs`, as it goes into the BIT STRING. May block, for a command until its time limit.
    func sign(_ tbs: [UInt8]) throws(PKIError) -> [UInt8]
}

/// An authority's key that is elsewhere (an HSM, a signing service): a shell command signs. It reads the bytes to be
/// signed from standard input, and prints the raw signature to standard output, as `openssl dgst -sha256 -sign` does:
/// DER for ECDSA, PKCS #1 v1.5 for RSA, 64 bytes for Ed25519.
public struct CommandSigner: Signer {
    public let command: String
    public let publicKeyInfo: [UInt8]
    public let signatureAlgorithm: [UInt8]
    /// `sign` verifies each.
    public var mustVerify: Bool { false }
    private let runner: ShellCommand
    private let verifier: SignatureContext
    private let digestText: String

    private static let signatureBytesMax = 1024

    /// - Parameters:
    ///   - publicKey: of the authority; each signature is verified with it before it is used.
    ///   - timeoutSeconds: after which the command is killed.
    public init(_ command: String, publicKey: PublicKey, timeoutSeconds: Int = 30) throws(PKIError) {
        guard let scheme = SignatureScheme(keyName: publicKey.name), let verifier = publicKey.verifier,
            KeyAlgorithm(rawValue: publicKey.name) != nil
        else {
            let supported = KeyAlgorithm.allCases.map(\.rawValue).joined(separator: ", ")
            throw PKIError(
                .unsupported, "sign command: the authority has a key of type \(publicKey); supported are \(supported)")
        }
        guard !command.isEmpty, !command.utf8.contains(0) else {
            throw PKIError(.command, "sign command: the command is empty or contains a NUL")
        }
        (self.command, publicKeyInfo, signatureAlgorithm) = (command, publicKey.info, scheme.identifier)
        (runner, self.verifier) = (ShellCommand(command, timeoutSeconds: timeoutSeconds), verifier)
        digestText = "\(publicKey)\(scheme.digest.map { " with \($0)" } ?? "")"
    }

    /// Blocks until the command has ended.
    public func sign(_ tbs: [UInt8]) throws(PKIError) -> [UInt8] {
        let what = "sign command \(command.debugDescription)"
        let signature: [UInt8]
        do throws(ShellCommand.Failure) {
            signature = try runner.run(input: tbs, outputBytesMax: Self.signatureBytesMax)
        } catch {
            throw PKIError(.command, "\(what) failed: \(error)")
        }
        defer { OpenSSLErrors.clear() }
        guard verifier.verify(signature, of: tbs) else {
            let isText = !signature.isEmpty && signature.allSatisfy { (0x20...0x7E).contains($0) || $0 == 0x0A }
            let text = isText ? ": \(String(decoding: signature.prefix(200), as: UTF8.self).debugDescription)" : ""
            throw PKIError(
                .command,
                "\(what) printed \(signature.count) bytes that are not a raw signature by the authority's key "
                    + "(\(digestText))\(text)")
        }
        return signature
    }
}
