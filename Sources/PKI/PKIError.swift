import COpenSSL

/// A key, certificate, request or CRL that cannot be used, read or made. The text names the object, the reason and the
/// next step.
public struct PKIError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: Sendable {
        /// The bytes are not in the format that is expected, or exceed its size limit.
        case malformed
        /// Well-formed, but not supported: a key type, a critical extension, an indirect CRL.
        case unsupported
        /// A key or signature algorithm below the minimum strength.
        case weak
        /// A signature does not verify, or an object does not belong to the other.
        case untrusted
        /// The passphrase is missing or wrong.
        case passphrase
        /// A value that the caller supplies breaks RFC 5280.
        case invalid
        /// A key file cannot be read or created.
        case file
        /// The sign command failed.
        case command
        /// OpenSSL failed on valid input, for example without memory.
        case crypto
    }

    public let code: Code
    public let description: String

    public init(_ code: Code, _ description: String) {
        self.code = code
        self.description = description
    }

    /// With the errors that OpenSSL queued on this thread, which are then cleared.
    static func openSSL(_ code: Code, _ text: String) -> PKIError {
        let reasons = OpenSSLErrors.take()
        return PKIError(code, reasons.isEmpty ? text : "\(text): \(reasons)")
    }
}

/// OpenSSL's error queue, one per thread.
enum OpenSSLErrors {
    /// The queued reasons, deepest first, without repetitions. Clears the queue.
    static func take() -> String {
        var reasons: [String] = []
        while true {
            var data: UnsafePointer<CChar>?, flags: Int32 = 0
            let code = ERR_get_error_all(nil, nil, nil, &data, &flags)
            guard code != 0 else { break }
            var reason = ERR_reason_error_string(code).map { String(cString: $0) } ?? "error \(code)"
            if flags & ERR_TXT_STRING != 0, let data, data.pointee != 0 { reason += " (\(String(cString: data)))" }
            if !reasons.contains(reason), reasons.count < 4 { reasons.append(reason) }
        }
        return reasons.joined(separator: ", ")
    }

    /// Without it a later failure on this thread would report the errors of an earlier one.
    static func clear() { ERR_clear_error() }
}
