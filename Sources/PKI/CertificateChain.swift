import COpenSSL

/// Verification, with OpenSSL's own error texts.
extension Certificate {
    /// Verifies that `issuer` is an authority, issued this certificate by name and key identifier, and signed it. Does
    /// not check times.
    public func verify(signedBy issuer: Certificate) throws(PKIError) {
        defer { OpenSSLErrors.clear() }
        let what = "certificate \(serial) of \(subjectText) is not issued by \(issuer.subjectText)"
        guard issuer.canSignCertificates else {
            throw PKIError(.untrusted, "\(what): that certificate may not sign certificates")
        }
        let own = try complete(), above = try issuer.complete()
        defer { withExtendedLifetime((own, above)) {} }
        let code = X509_check_issued(above.pointer, own.pointer)
        guard code == X509_V_OK else { throw PKIError(.untrusted, "\(what): \(Self.errorText(code))") }
        guard X509_verify(own.pointer, issuer.publicKey.handle.pointer) == 1 else {
            throw .openSSL(.untrusted, "\(what): the signature does not verify")
        }
    }

    public enum Purpose: Sendable {
        case any
        case tlsClient
    }

    /// Verifies a chain from this certificate to one of `trust` (RFC 5280 6), through `intermediates` in any order.
    /// - Parameters:
    ///   - time: at which all certificates must be valid; seconds since 1970.
    ///   - purpose: that this certificate must be good for.
    public func verifyChain(
        trust: [Certificate], intermediates: [Certificate] = [], at time: Int64, purpose: Purpose = .any
    ) throws(PKIError) {
        defer { OpenSSLErrors.clear() }
        let what = "certificate \(serial) of \(subjectText)"
        // The context counts no references to the certificates that it is given.
        var owned: [CertificateHandle] = []
        defer { withExtendedLifetime(owned) {} }
        guard let store = X509_STORE_new(), let context = X509_STORE_CTX_new(), let stack = OPENSSL_sk_new_null() else {
            throw .openSSL(.crypto, "cannot verify \(what)")
        }
        defer {
            X509_STORE_CTX_free(context)
            X509_STORE_free(store)
            OPENSSL_sk_free(stack)
        }
        for certificate in trust {
            let handle = try certificate.complete()
            owned.append(handle)
            guard X509_STORE_add_cert(store, handle.pointer) == 1 else {
                throw .openSSL(.crypto, "cannot verify \(what)")
            }
        }
        for certificate in intermediates {
            let handle = try certificate.complete()
            owned.append(handle)
            guard OPENSSL_sk_push(stack, UnsafeRawPointer(handle.pointer)) > 0 else {
                throw .openSSL(.crypto, "cannot verify \(what)")
            }
        }
        let own = try complete()
        owned.append(own)
        guard X509_STORE_CTX_init(context, store, own.pointer, stack) == 1,
            let parameters = X509_STORE_CTX_get0_param(context)
        else { throw .openSSL(.crypto, "cannot verify \(what)") }
        X509_VERIFY_PARAM_set_time(parameters, Int(time))
        if purpose == .tlsClient { X509_VERIFY_PARAM_set_purpose(parameters, X509_PURPOSE_SSL_CLIENT) }
        guard X509_verify_cert(context) != 1 else { return }
        let depth = X509_STORE_CTX_get_error_depth(context)
        let culprit = X509_STORE_CTX_get_current_cert(context).map { NameText.rfc4514(X509_get_subject_name($0)) }
        throw PKIError(
            .untrusted,
            "\(what) is not valid: \(Self.errorText(X509_STORE_CTX_get_error(context))) (depth \(depth)"
                + "\(culprit.map { ", \($0)" } ?? ""))")
    }

    static func errorText(_ code: Int32) -> String {
        X509_verify_cert_error_string(Int(code)).map { String(cString: $0) } ?? "error \(code)"
    }
}
