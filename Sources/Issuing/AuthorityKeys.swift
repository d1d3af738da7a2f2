import Decisions
import Foundation
import PKI
import Primitives
import Synchronization

/// The private keys of the authorities: files in one folder, or a command that signs. Each is named by the SHA-256 of
/// its public key, so that no two authorities can take one for the other.
public final class AuthorityKeys: Sendable {
    private let folder: String
    private let passphrase: [UInt8]?
    private let signCommand: String?
    private let commandTimeoutSeconds: Int
    /// By SHA-256 of the public key. Only those that could be loaded.
    private let loaded = Mutex<[String: any Signer]>([:])

    /// - Parameters:
    ///   - folder: made with mode 0700 when the first key is created.
    ///   - passphrase: encrypts new key files and decrypts encrypted ones.
    ///   - signCommand: signs for authorities whose key is `command`.
    public init(folder: String, passphrase: [UInt8]?, signCommand: String?, commandTimeoutSeconds: Int) {
        (self.folder, self.passphrase) = (folder, passphrase)
        (self.signCommand, self.commandTimeoutSeconds) = (signCommand, commandTimeoutSeconds)
    }

    public func path(_ spkiSHA256: String) -> String { "\(folder)/\(spkiSHA256).key" }

    /// What signs for an authority. Reads the key file, or nothing but the cache after the first time.
    /// - Throws: `PKIError`: the key is not here, cannot be read or decrypted, or is another one.
    public func signer(for authority: AuthorityAdded) throws(PKIError) -> any Signer {
        if let signer = loaded.withLock({ $0[authority.spkiSHA256] }) { return signer }
        let signer: any Signer
        switch authority.key {
        case .file: signer = try PrivateKey.load(path(authority.spkiSHA256), passphrase: passphrase)
        case .command:
            let certificate = try Certificate(authority)
            signer = try commandSigner(certificate)
        case .none:
            throw PKIError(
                .file,
                "the key of the authority \(authority.id) is not here: it was imported without one, to know its "
                    + "certificates")
        }
        guard SHA256.digest(signer.publicKeyInfo).description == authority.spkiSHA256 else {
            throw PKIError(
                .untrusted, "the key in \(path(authority.spkiSHA256)) does not belong to the authority \(authority.id)")
        }
        loaded.withLock { $0[authority.spkiSHA256] = signer }
        return signer
    }

    func commandSigner(_ certificate: Certificate) throws(PKIError) -> any Signer {
        guard let signCommand else {
            throw PKIError(
                .command,
                "the key of the authority \(certificate.subjectText) is behind a command: set "
                    + "certificates.sign_command")
        }
        return try CommandSigner(
            signCommand, publicKey: certificate.publicKey, timeoutSeconds: commandTimeoutSeconds)
    }

    /// Writes a new authority's key into its file, durably, before the authority is put on the record.
    /// - Returns: false if there is such a file already: another authority has the same key, or an earlier attempt left
    ///   it behind.
    func store(_ key: PrivateKey) throws(PKIError) -> Bool {
        do {
            try FileManager.default.createDirectory(
                atPath: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        } catch {
            throw PKIError(.file, "cannot create the folder \(folder) for keys: \(error.localizedDescription)")
        }
        let digest = SHA256.digest(key.publicKeyInfo).description
        if FileManager.default.fileExists(atPath: path(digest)) {
            _ = try PrivateKey.load(path(digest), passphrase: passphrase)
            return false
        }
        try key.create(path(digest), passphrase: passphrase)
        return true
    }

    /// Removes the key file of an authority that was not put on the record.
    /// - Precondition: `store` wrote it.
    func discard(_ key: PrivateKey) {
        try? FileManager.default.removeItem(atPath: path(SHA256.digest(key.publicKeyInfo).description))
    }
}

extension Certificate {
    /// The certificate of an authority that is on the record.
    public init(_ authority: AuthorityAdded) throws(PKIError) {
        guard let der = Base64.decode(authority.certificate.utf8) else {
            throw PKIError(.malformed, "the certificate of the authority \(authority.id) is not base64")
        }
        try self.init(der: der, what: "certificate of the authority \(authority.id)")
    }
}
