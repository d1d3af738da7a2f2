import SwiftASN1

/// What is written into a certificate, apart from the key and the serial number.
public struct CertificateProfile: Sendable {
    public enum Kind: Sendable, Equatable {
        /// Signs certificates and CRLs.
        /// - Parameter pathLength: number of authorities that may follow below it; nil: no limit.
        case authority(pathLength: Int?)
        /// Authenticates a TLS client.
        case tlsClient
    }

    public var kind: Kind
    public var subject: DistinguishedName
    /// Seconds since 1970.
    public var notBefore: Int64
    /// Seconds since 1970; `DERTime.latest` for a certificate without an end.
    public var notAfter: Int64
    /// DNS names and URIs.
    public var alternativeNames: [AlternativeName]
    /// `http://` URI of the issuer's CRL.
    public var crlDistributionPoint: String?

    public init(
        _ kind: Kind, subject: DistinguishedName, notBefore: Int64, notAfter: Int64,
        alternativeNames: [AlternativeName] = [], crlDistributionPoint: String? = nil
    ) {
        (self.kind, self.subject, self.notBefore, self.notAfter) = (kind, subject, notBefore, notAfter)
        (self.alternativeNames, self.crlDistributionPoint) = (alternativeNames, crlDistributionPoint)
    }

    private static let alternativeNamesMax = 32
    private static let uriBytesMax = 1000

    func check() throws(PKIError) {
        try DERTime.check(notBefore, "notBefore")
        try DERTime.check(notAfter, "notAfter")
        guard notBefore <= notAfter else {
            throw PKIError(.invalid, "the certificate would end (\(notAfter)) before it begins (\(notBefore))")
        }
        if case .authority(.some(let length)) = kind, !(0...100).contains(length) {
            throw PKIError(.invalid, "a path length of \(length) is not between 0 and 100")
        }
        guard alternativeNames.count <= Self.alternativeNamesMax else {
            throw PKIError(
                .invalid, "\(alternativeNames.count) alternative names exceed the limit of \(Self.alternativeNamesMax)")
        }
        for name in alternativeNames {
            switch name {
            case .dns(let text): try Self.check(dns: text)
            case .uri(let text): try Self.check(uri: text, "alternative name")
            default: throw PKIError(.unsupported, "alternative name \(name): only DNS names and URIs can be issued")
            }
        }
        if let uri = crlDistributionPoint {
            try Self.check(uri: uri, "CRL distribution point")
            // RFC 5280 8: a CRL that is fetched over TLS may need itself for its own verification.
            guard uri.hasPrefix("http://") else {
                throw PKIError(.invalid, "CRL distribution point \(uri): use an http:// URI; the CRL itself is signed")
            }
        }
    }

    private static func isLetterOrDigit(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: true
        default: false
        }
    }

    /// RFC 1034, 3.5, as RFC 5280 4.2.1.6 demands.
    private static func check(dns text: String) throws(PKIError) {
        let labels = text.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        let isName = labels.allSatisfy { label in
            (1...63).contains(label.count) && label.first != 0x2D && label.last != 0x2D
                && label.allSatisfy { isLetterOrDigit($0) || $0 == 0x2D }
        }
        guard text.utf8.count <= 253, isName else {
            throw PKIError(
                .invalid,
                "alternative name \(text.prefix(300).debugDescription) is not a DNS name of letters, digits and hyphens"
            )
        }
    }

    /// A scheme, and characters of RFC 3986.
    private static func check(uri text: String, _ what: String) throws(PKIError) {
        let scheme = text.utf8.prefix { $0 != UInt8(ascii: ":") }
        let isScheme =
            scheme.first.map { isLetterOrDigit($0) && $0 > 0x39 } == true
            && scheme.allSatisfy { isLetterOrDigit($0) || "+-.".utf8.contains($0) }
        let allowed = "-._~:/?#[]@!$&'()*+,;=%".utf8
        guard text.utf8.count <= uriBytesMax, isScheme, text.utf8.count > scheme.count + 1,
            text.utf8.allSatisfy({ isLetterOrDigit($0) || allowed.contains($0) })
        else { throw PKIError(.invalid, "\(what) \(text.prefix(300).debugDescription) is not a URI (RFC 3986)") }
    }

    // MARK: DER

    /// `kind` in extensions.
    func appendUsage(to writer: inout DER.Serializer) {
        switch kind {
        case .authority(let pathLength):
            writer.appendExtension(OID.basicConstraints, critical: true) { writer in
                writer.sequence { writer in
                    writer.primitive(.boolean, [0xFF])
                    if let pathLength { writer.integer(UInt64(pathLength)) }
                }
            }
            // keyCertSign (5), cRLSign (6); one unused bit
            writer.appendExtension(OID.keyUsage, critical: true) { $0.primitive(.bitString, [0x01, 0x06]) }
        case .tlsClient:
            // digitalSignature (0); seven unused bits
            writer.appendExtension(OID.keyUsage, critical: true) { $0.primitive(.bitString, [0x07, 0x80]) }
            writer.appendExtension(OID.extendedKeyUsage) { writer in
                writer.sequence { $0.primitive(.objectIdentifier, OID.clientAuth) }
            }
        }
    }

    func appendNames(to writer: inout DER.Serializer) {
        func identifier(_ number: UInt) -> ASN1Identifier {
            ASN1Identifier(tagWithNumber: number, tagClass: .contextSpecific)
        }
        if !alternativeNames.isEmpty {
            writer.appendExtension(OID.subjectAltName) { writer in
                writer.sequence { writer in
                    for name in alternativeNames {
                        switch name {
                        case .dns(let text): writer.primitive(identifier(2), text.utf8)
                        case .uri(let text): writer.primitive(identifier(6), text.utf8)
                        default: break  // refused by `check`
                        }
                    }
                }
            }
        }
        if let uri = crlDistributionPoint {
            writer.appendExtension(OID.crlDistributionPoints) { writer in
                writer.sequence { writer in
                    writer.sequence { writer in
                        // distributionPoint [0] { fullName [0] { URI } }
                        writer.tagged(0) { $0.tagged(0) { $0.primitive(identifier(6), uri.utf8) } }
                    }
                }
            }
        }
    }
}
