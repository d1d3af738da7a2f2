import COpenSSL
import MQTT

import Glibc

/// A client certificate with its chain and its private key, in memory.
public struct ClientIdentity: Sendable {
    /// The client's certificate first.
    let certificatesPEM: [UInt8]
    let keyPEM: [UInt8]

    /// - Throws: `TLSContextError` when one cannot be read, the key has a passphrase, or they do not fit each other.
    public init(certificatesPEM: [UInt8], keyPEM: [UInt8]) throws(TLSContextError) {
        self.certificatesPEM = certificatesPEM
        self.keyPEM = keyPEM
        SSL_CTX_free(try TLSContext.make(BrokerSettings.TLS(verify: false), identity: self))
    }
}

/// A CA file, certificate or key that cannot be used. Nothing was sent.
public struct TLSContextError: Error, Sendable, CustomStringConvertible {
    public let description: String
}

enum TLSContext {
    /// A new context for one connection, so that no session is ever resumed.
    static func make(_ tls: BrokerSettings.TLS, identity: ClientIdentity?) throws(TLSContextError) -> OpaquePointer {
        guard let context = SSL_CTX_new(TLS_client_method()) else {
            throw TLSContextError(description: "out of memory for a TLS context")
        }
        do throws(TLSContextError) {
            // Without a callback OpenSSL asks the terminal for the passphrase of a key.
            SSL_CTX_set_default_passwd_cb(context, { _, _, _, _ in 0 })
            if tls.verify { try setAuthorities(context, tls.caFile) }
            if let identity {
                try setCertificates(context, identity.certificatesPEM)
                try setKey(context, identity.keyPEM)
            } else if let certFile = tls.certFile, let keyFile = tls.keyFile {
                guard SSL_CTX_use_certificate_chain_file(context, certFile) == 1,
                    SSL_CTX_use_PrivateKey_file(context, keyFile, SSL_FILETYPE_PEM) == 1
                else { throw failure("cannot use \(certFile) with \(keyFile)") }
            }
            return context
        } catch {
            SSL_CTX_free(context)
            throw error
        }
    }

    private static func setAuthorities(_ context: OpaquePointer, _ file: String?) throws(TLSContextError) {
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nil)
        guard let file else {
            SSL_CTX_set_default_verify_paths(context)
            return
        }
        guard SSL_CTX_load_verify_locations(context, file, nil) == 1 else {
            throw failure("cannot read the CA file \(file)")
        }
    }

    private static func setCertificates(_ context: OpaquePointer, _ pem: [UInt8]) throws(TLSContextError) {
        let bio = BIO_new_mem_buf(pem, Int32(clamping: pem.count))
        defer { BIO_free(bio) }
        guard let own = PEM_read_bio_X509(bio, nil, nil, nil) else { throw failure("cannot read the certificate") }
        defer { X509_free(own) }
        guard SSL_CTX_use_certificate(context, own) == 1 else { throw failure("cannot use the certificate") }
        while let next = PEM_read_bio_X509(bio, nil, nil, nil) {
            // The context takes ownership.
            guard SSL_CTX_ctrl(context, SSL_CTRL_EXTRA_CHAIN_CERT, 0, UnsafeMutableRawPointer(next)) == 1 else {
                X509_free(next)
                throw failure("cannot use the certificate chain")
            }
        }
        // The end of the chain is an error to OpenSSL.
        ERR_clear_error()
    }

    private static func setKey(_ context: OpaquePointer, _ pem: [UInt8]) throws(TLSContextError) {
        let bio = BIO_new_mem_buf(pem, Int32(clamping: pem.count))
        defer { BIO_free(bio) }
        guard let key = PEM_read_bio_PrivateKey(bio, nil, { _, _, _, _ in 0 }, nil) else {
            throw failure("cannot read the private key")
        }
        defer { EVP_PKEY_free(key) }
        guard SSL_CTX_use_PrivateKey(context, key) == 1 else {
            throw failure("the private key does not fit the certificate")
        }
    }

    private static func failure(_ text: String) -> TLSContextError {
        let code = ERR_peek_error()
        ERR_clear_error()
        guard let reason = ERR_reason_error_string(code) else { return TLSContextError(description: text) }
        return TLSContextError(description: "\(text): \(String(cString: reason))")
    }
}
