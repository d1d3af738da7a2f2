import COpenSSL
import Primitives

/// An X.509 certificate (RFC 5280 4), parsed by OpenSSL. Equal when the DER is.
public struct Certificate: Sendable, Hashable {
    public let der: [UInt8]
    public let serial: SerialNumber
    /// Seconds since 1970.
    public let notBefore: Int64
    /// Seconds since 1970; valid through this second.
    public let notAfter: Int64
    public let publicKey: PublicKey
    /// Without the public key: for names and extensions.
    let handle: CertificateHandle

    public static let derBytesMax = 64 << 10
    /// Limit of a PEM file of several certificates.
    public static let chainBytesMax = 4 << 20
    public static let chainCountMax = 1000

    static let pemLabel = "CERTIFICATE"

    /// - Parameter what: names the certificate in errors, for example its file.
    public init(der: [UInt8], what: String = "certificate") throws(PKIError) {
        try self.init(der: der, publicKey: nil, what: what)
    }

    /// - Parameter publicKey: of a certificate that we have just made; nil for others.
    init(der: [UInt8], publicKey: PublicKey?, what: @autoclosure () -> String) throws(PKIError) {
        guard der.count <= Self.derBytesMax else {
            throw PKIError(.malformed, "\(what()): \(der.count) bytes exceed the limit of \(Self.derBytesMax)")
        }
        guard let pointer = decode(der, StructureContext.certificate, free: { X509_free($0) }) else {
            throw .openSSL(.malformed, "\(what()): \(der.count) bytes are not a DER certificate")
        }
        defer { OpenSSLErrors.clear() }
        handle = CertificateHandle(takingOwnership: pointer)
        // One certificate has one encoding: digests of the DER identify it. Ours is DER.
        guard publicKey != nil || encode({ i2d_X509(pointer, $0) }) == der else {
            throw PKIError(.malformed, "\(what()): the encoding is BER, not DER; encode it again")
        }
        guard X509_get_extension_flags(pointer) & UInt32(EXFLAG_INVALID) == 0 else {
            throw PKIError(.malformed, "\(what()): an extension is invalid or occurs twice")
        }
        let number = X509_get0_serialNumber(pointer)
        guard let serial = SerialNumber(number) else {
            throw PKIError(
                .malformed, "\(what()): the serial number is not positive, or longer than 20 octets (RFC 5280 4.1.2.2)")
        }
        guard let notBefore = DERTime.seconds(X509_get0_notBefore(pointer)),
            let notAfter = DERTime.seconds(X509_get0_notAfter(pointer))
        else { throw PKIError(.malformed, "\(what()): the validity is not in the form of RFC 5280 4.1.2.5") }
        let info = encode { i2d_X509_PUBKEY(X509_get_X509_PUBKEY(pointer), $0) }
        if let publicKey, publicKey.info == info {
            self.publicKey = publicKey
        } else {
            guard publicKey == nil else {
                throw PKIError(.crypto, "\(what()): it has another public key than was given")
            }
            do throws(PKIError) {
                self.publicKey = try PublicKey(info: info)
            } catch {
                throw PKIError(error.code, "\(what()): \(error)")
            }
        }
        (self.der, self.serial, self.notBefore, self.notAfter) = (der, serial, notBefore, notAfter)
    }

    /// Of exactly one certificate.
    public init(pem: [UInt8], what: String = "certificate") throws(PKIError) {
        let chain = try Self.chain(pem: pem, what: what)
        guard chain.count == 1 else {
            throw PKIError(.malformed, "\(what): \(chain.count) certificates where one is expected")
        }
        self = chain[0]
    }

    /// All certificates of a PEM file, in order.
    public static func chain(pem: [UInt8], what: String = "certificate file") throws(PKIError) -> [Certificate] {
        let blocks = try PEM.decode(
            pem, labels: [pemLabel, "X509 CERTIFICATE"], what: what, bytesMax: chainBytesMax, countMax: chainCountMax)
        var chain: [Certificate] = []
        for block in blocks {
            chain.append(try Certificate(der: block, what: "\(what), certificate \(chain.count + 1)"))
        }
        return chain
    }

    public func pem() throws(PKIError) -> [UInt8] { try PEM.encode(Self.pemLabel, der) }

    /// With the public key, as verification by OpenSSL needs it.
    func complete() throws(PKIError) -> CertificateHandle {
        guard let pointer = decode(der, { d2i_X509(nil, $0, $1) }, free: { X509_free($0) }) else {
            throw .openSSL(.crypto, "certificate \(serial) cannot be parsed again")
        }
        return CertificateHandle(takingOwnership: pointer)
    }

    public static func == (a: Certificate, b: Certificate) -> Bool { a.der == b.der }
    public func hash(into hasher: inout Hasher) { hasher.combine(der) }

    // MARK: Names

    var issuerName: OpaquePointer? { X509_get_issuer_name(handle.pointer) }
    var subjectName: OpaquePointer? { X509_get_subject_name(handle.pointer) }

    /// Name, DER.
    public var issuer: [UInt8] { NameText.der(issuerName) }
    public var subject: [UInt8] { NameText.der(subjectName) }
    /// RFC 4514.
    public var issuerText: String { NameText.rfc4514(issuerName) }
    public var subjectText: String { NameText.rfc4514(subjectName) }
    /// The first common name of the subject.
    public var commonName: String? { NameText.commonName(subjectName) }

    // MARK: Identity

    /// SHA-256 of the DER: the fingerprint.
    public var sha256: Digest { SHA256.digest(der) }
    public var publicKeyInfo: [UInt8] { publicKey.info }
    public var spkiSHA256: Digest { publicKey.spkiSHA256 }
    /// OpenSSL's name, for example `ecdsa-with-SHA256`.
    public var signatureAlgorithm: String {
        OBJ_nid2ln(X509_get_signature_nid(handle.pointer)).map { String(cString: $0) } ?? "unknown"
    }

    // MARK: Extensions

    public var isCA: Bool { X509_get_extension_flags(handle.pointer) & UInt32(EXFLAG_CA) != 0 }

    /// Nil when the authority is not limited.
    public var pathLength: Int? {
        let length = X509_get_pathlen(handle.pointer)
        return length < 0 ? nil : length
    }

    /// An authority that may sign certificates (RFC 5280 4.2.1.3).
    public var canSignCertificates: Bool { isCA && hasUsage(X509v3_KU_KEY_CERT_SIGN) }
    public var canSignCRLs: Bool { isCA && hasUsage(X509v3_KU_CRL_SIGN) }
    public var canSignTLSHandshakes: Bool { hasUsage(X509v3_KU_DIGITAL_SIGNATURE) }

    /// Without the extension OpenSSL reports all bits: the use is not restricted.
    private func hasUsage(_ bit: Int32) -> Bool { X509_get_key_usage(handle.pointer) & UInt32(bit) != 0 }

    public var subjectKeyIdentifier: [UInt8]? {
        X509_get0_subject_key_id(handle.pointer).map { Array(contents($0)) }
    }
    public var authorityKeyIdentifier: [UInt8]? {
        X509_get0_authority_key_id(handle.pointer).map { Array(contents($0)) }
    }

    public var alternativeNames: [AlternativeName] {
        defer { OpenSSLErrors.clear() }
        guard let names = X509_get_ext_d2i(handle.pointer, NID_subject_alt_name, nil, nil) else { return [] }
        defer { GENERAL_NAMES_free(OpaquePointer(names)) }
        return AlternativeName.all(OpaquePointer(names))
    }

    /// The URIs of all distribution points.
    public var crlDistributionPoints: [String] {
        defer { OpenSSLErrors.clear() }
        guard let points = X509_get_ext_d2i(handle.pointer, NID_crl_distribution_points, nil, nil) else { return [] }
        let stack = OpaquePointer(points)
        defer { CRL_DIST_POINTS_free(stack) }
        return (0..<OPENSSL_sk_num(stack)).flatMap { index -> [String] in
            let point = OPENSSL_sk_value(stack, index)?.assumingMemoryBound(to: DIST_POINT.self).pointee
            guard let name = point?.distpoint?.pointee, name.type == 0 else { return [] }  // fullName
            return AlternativeName.all(name.name.fullname).compactMap {
                if case .uri(let uri) = $0 { uri } else { nil }
            }
        }
    }
}

/// A subject alternative name (RFC 5280 4.2.1.6).
public enum AlternativeName: Sendable, Hashable {
    case dns(String)
    case uri(String)
    case email(String)
    /// 4 or 16 octets.
    case address([UInt8])
    /// A form that is not read: the number of its GeneralName tag.
    case other(Int)

    /// - Parameter stack: GENERAL_NAMES *
    static func all(_ stack: OpaquePointer?) -> [AlternativeName] {
        (0..<max(0, OPENSSL_sk_num(stack))).compactMap { index in
            guard let name = OPENSSL_sk_value(stack, index)?.assumingMemoryBound(to: GENERAL_NAME.self) else {
                return nil
            }
            var type: Int32 = 0
            let value = GENERAL_NAME_get0_value(name, &type)
            func octets() -> UnsafeBufferPointer<UInt8> {
                contents(value.map { UnsafePointer($0.assumingMemoryBound(to: ASN1_STRING.self)) })
            }
            switch type {
            case GEN_DNS: return .dns(String(decoding: octets(), as: UTF8.self))
            case GEN_URI: return .uri(String(decoding: octets(), as: UTF8.self))
            case GEN_EMAIL: return .email(String(decoding: octets(), as: UTF8.self))
            case GEN_IPADD: return .address(Array(octets()))
            default: return .other(Int(type))
            }
        }
    }
}

extension SerialNumber {
    init?(_ number: UnsafePointer<ASN1_INTEGER>?) {
        guard let number, ASN1_STRING_type(number) == V_ASN1_INTEGER else { return nil }
        self.init(magnitude: contents(number))
    }
}

extension DERTime {
    static func seconds(_ time: UnsafePointer<ASN1_TIME>?) -> Int64? {
        guard let time else { return nil }
        return seconds(contents(time), tag: UInt8(truncatingIfNeeded: ASN1_STRING_type(time)))
    }
}
