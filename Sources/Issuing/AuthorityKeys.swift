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
    /// By SHA-256 of the public key. The lock is also that of the files: authorities are rare.
    private let attempts = Mutex<[String: Attempt]>([:])

    /// Attempts to put authorities with one key on the record, which are under way.
    private struct Attempt {
        var count = 0
        /// The first of them wrote the key file.
        let isNew: Bool
        /// One of them succeeded, or may have.
        var isKept = false
    }

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
    /// - Throws: `PKIError` `file` or `command` when the key is not as it was: missing, another one, not to be
    ///   decrypted; `invalid` when the authority has none here.
    public func signer(for authority: AuthorityAdded) throws(PKIError) -> any Signer {
        // Before the cache: anyone who has an authority's certificate can import one with the same public key.
        guard authority.key != .none else {
            throw PKIError(
                .invalid,
                "the key of the authority \(authority.id) is not here: it was imported without one, to know its "
                    + "certificates")
        }
        if let signer = loaded.withLock({ $0[authority.spkiSHA256] }) { return signer }
        let signer: any Signer
        switch authority.key {
        case .file:
            do throws(PKIError) {
                signer = try PrivateKey.load(path(authority.spkiSHA256), passphrase: passphrase)
            } catch {
                // A server error, not an invalid request, whatever the code of `load`.
                throw PKIError(.file, error.description)
            }
        case .command, .none:
            let certificate = try Certificate(authority)
            signer = try commandSigner(certificate)
        }
        guard SHA256.digest(signer.publicKeyInfo).description == authority.spkiSHA256 else {
            throw PKIError(
                .file, "the key in \(path(authority.spkiSHA256)) does not belong to the authority \(authority.id)")
        }
        loaded.withLock { $0[authority.spkiSHA256] = signer }
        return signer
    }

    /// Why an authority's key cannot be used; nil: it can. A sign command is not run.
    func problem(with authority: AuthorityAdded) -> String? {
        do throws(PKIError) {
            _ = try signer(for: authority)
        } catch {
            return error.description
        }
        // One that was loaded is used until the next start, whatever became of its file.
        guard authority.key == .file, access(path(authority.spkiSHA256), R_OK) != 0 else { return nil }
        return "\(path(authority.spkiSHA256)) cannot be read: \(String(cString: strerror(errno)))"
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

    /// Writes an authority's key into its file, durably, before the authority is put on the record. A file that is
    /// there stays: another authority has the same key, or an earlier attempt left it behind. `settle` must follow.
    func store(_ key: PrivateKey) throws(PKIError) {
        do {
            try FileManager.default.createDirectory(
                atPath: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        } catch {
            throw PKIError(.file, "cannot create the folder \(folder) for keys: \(error.localizedDescription)")
        }
        let digest = SHA256.digest(key.publicKeyInfo).description, path = path(digest)
        try attempts.withLock { attempts throws(PKIError) in
            var attempt: Attempt
            if let known = attempts[digest] {
                attempt = known
            } else {
                attempt = Attempt(isNew: !FileManager.default.fileExists(atPath: path))
                if attempt.isNew {
                    try key.create(path, passphrase: passphrase)
                } else {
                    _ = try PrivateKey.load(path, passphrase: passphrase)
                }
            }
            attempt.count += 1
            attempts[digest] = attempt
        }
    }

    /// Ends what `store` began. Removes a key file that `store` wrote if no authority is on the record with it.
    /// - Parameter isOnRecord: the authority is, or may be.
    func settle(_ key: PrivateKey, isOnRecord: Bool) {
        let digest = SHA256.digest(key.publicKeyInfo).description
        attempts.withLock { attempts in
            guard var attempt = attempts[digest] else { return }
            attempt.count -= 1
            attempt.isKept = attempt.isKept || isOnRecord
            attempts[digest] = attempt.count > 0 ? attempt : nil
            if attempt.count == 0, attempt.isNew, !attempt.isKept {
                try? FileManager.default.removeItem(atPath: path(digest))
            }
        }
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
