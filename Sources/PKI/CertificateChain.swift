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
        let code = X509_check_issued(issuer.handle.pointer, handle.pointer)
        guard code == X509_V_OK else { throw PKIError(.untrusted, "\(what): \(Self.errorText(code))") }
        guard X509_verify(handle.pointer, issuer.publicKey.handle.pointer) == 1 else {
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
        guard let store = X509_STORE_new(), let context = X509_STORE_CTX_new(), let stack = OPENSSL_sk_new_null() else {
            throw .openSSL(.crypto, "cannot verify \(what)")
        }
        defer {
            X509_STORE_CTX_free(context)
            X509_STORE_free(store)
            OPENSSL_sk_free(stack)
        }
        for certificate in trust where X509_STORE_add_cert(store, certificate.handle.pointer) != 1 {
            throw .openSSL(.crypto, "cannot verify \(what)")
        }
        for certificate in intermediates where OPENSSL_sk_push(stack, UnsafeRawPointer(certificate.handle.pointer)) <= 0
        {
            throw .openSSL(.crypto, "cannot verify \(what)")
        }
        guard X509_STORE_CTX_init(context, store, handle.pointer, stack) == 1,
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
