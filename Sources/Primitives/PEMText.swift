/// PEM (RFC 7468).
public enum PEMText {
    /// - Parameter base64: X.509 DER in base64.
    public static func certificate(base64: String) -> String {
        let text = Array(base64.utf8)
        let lines = stride(from: 0, to: text.count, by: 64).map {
            String(decoding: text[$0..<min($0 + 64, text.count)], as: UTF8.self)
        }
        return (["-----BEGIN CERTIFICATE-----"] + lines + ["-----END CERTIFICATE-----", ""]).joined(separator: "\n")
    }
}
