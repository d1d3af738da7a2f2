import COpenSSL
import Primitives

/// A complete CRL (RFC 5280 5), parsed by OpenSSL. Delta CRLs, shards (issuing distribution point) and indirect CRLs
/// are refused: taken for complete ones they would lose entries.
public struct RevocationList: Sendable, Equatable {
    public let der: [UInt8]
    /// Nil when the CRL has none.
    public let number: UInt64?
    /// Seconds since 1970.
    public let thisUpdate: Int64
    /// Seconds since 1970.
    public let nextUpdate: Int64
    /// Name, DER.
    public let issuer: [UInt8]
    /// RFC 4514.
    public let issuerText: String
    public let entries: RevokedEntries
    private let handle: CRLHandle

    /// About 1.7 million entries.
    public static let derBytesMax = 64 << 20
    static let pemLabel = "X509 CRL"
    private static let pemCountMax = 1000

    /// - Parameter what: names the CRL in errors, for example its file.
    public init(der: [UInt8], what: String = "CRL") throws(PKIError) {
        guard der.count <= Self.derBytesMax else {
            throw PKIError(.malformed, "\(what): \(der.count) bytes exceed the limit of \(Self.derBytesMax)")
        }
        guard let pointer = decode(der, { d2i_X509_CRL(nil, $0, $1) }, free: { X509_CRL_free($0) }) else {
            throw .openSSL(.malformed, "\(what): \(der.count) bytes are not a DER CRL")
        }
        defer { OpenSSLErrors.clear() }
        handle = CRLHandle(takingOwnership: pointer)
        guard encode({ i2d_X509_CRL(pointer, $0) }) == der else {
            throw PKIError(.malformed, "\(what): the encoding is BER, not DER")
        }
        guard let thisUpdate = DERTime.seconds(X509_CRL_get0_lastUpdate(pointer)) else {
            throw PKIError(.malformed, "\(what): thisUpdate is not in the form of RFC 5280 5.1.2.4")
        }
        guard let nextUpdate = DERTime.seconds(X509_CRL_get0_nextUpdate(pointer)) else {
            throw PKIError(.malformed, "\(what): nextUpdate is missing, or not in the form of RFC 5280 5.1.2.5")
        }
        if let name = Self.criticalExtension(X509_CRL_get0_extensions(pointer)) {
            throw PKIError(
                .unsupported, "\(what): critical extension \(name); only complete CRLs of one issuer are supported")
        }
        number = try Self.number(pointer, what)
        entries = try Self.entries(pointer, what)
        handle.removeEntries()
        (self.der, self.thisUpdate, self.nextUpdate) = (der, thisUpdate, nextUpdate)
        let name = X509_CRL_get_issuer(pointer)
        (issuer, issuerText) = (NameText.der(name), NameText.rfc4514(name))
    }

    /// All CRLs of a PEM file, in order; a broker's file has one for each issuer.
    public static func all(pem: [UInt8], what: String = "CRL file") throws(PKIError) -> [RevocationList] {
        let blocks = try PEM.decode(
            pem, labels: [pemLabel], what: what, bytesMax: 2 * derBytesMax, countMax: pemCountMax)
        var lists: [RevocationList] = []
        for block in blocks { lists.append(try RevocationList(der: block, what: "\(what), CRL \(lists.count + 1)")) }
        return lists
    }

    public func pem() throws(PKIError) -> [UInt8] { try PEM.encode(Self.pemLabel, der) }

    public static func == (a: RevocationList, b: RevocationList) -> Bool { a.der == b.der }

    /// What was signed: TBSCertList, DER.
    public var tbs: [UInt8] {
        // OpenSSL has read both headers.
        func header(_ at: Int) -> Int { der[at + 1] < 0x80 ? 2 : 2 + Int(der[at + 1] & 0x7F) }
        let begin = header(0), size = header(begin)
        let length = size == 2 ? Int(der[begin + 1]) : der[(begin + 2)..<(begin + size)].reduce(0) { $0 << 8 | Int($1) }
        return Array(der[begin..<(begin + size + length)])
    }

    /// The contents of the signature's BIT STRING.
    public var signature: [UInt8] {
        var signature: UnsafePointer<ASN1_BIT_STRING>?
        X509_CRL_get0_signature(handle.pointer, &signature, nil)
        return Array(contents(signature))
    }

    // MARK: Checks

    /// Verifies that `issuer` may sign CRLs, has this CRL's name, and signed it. Does not check times.
    public func verify(signedBy issuer: Certificate) throws(PKIError) {
        defer { OpenSSLErrors.clear() }
        let what = "CRL \(number.map { "\($0) " } ?? "")of \(issuerText)"
        guard issuer.canSignCRLs else {
            throw PKIError(.untrusted, "\(what): certificate \(issuer.subjectText) may not sign CRLs (CA, cRLSign)")
        }
        guard X509_NAME_cmp(X509_CRL_get_issuer(handle.pointer), issuer.subjectName) == 0 else {
            throw PKIError(.untrusted, "\(what): it is not a CRL of \(issuer.subjectText)")
        }
        guard X509_CRL_verify(handle.pointer, issuer.publicKey.handle.pointer) == 1 else {
            throw .openSSL(.untrusted, "\(what): the signature does not verify with the key of \(issuer.subjectText)")
        }
    }

    /// Entries that were added and removed since `earlier`.
    public func differences(from earlier: RevocationList) -> RevokedEntries.Differences {
        entries.differences(from: earlier.entries)
    }

    // MARK: Parts

    private static func criticalExtension(_ extensions: OpaquePointer?) -> String? {
        let index = X509v3_get_ext_by_critical(extensions, 1, -1)
        guard index >= 0 else { return nil }
        let object = X509_EXTENSION_get_object(X509v3_get_ext(extensions, index))
        return OBJ_nid2ln(OBJ_obj2nid(object)).map { String(cString: $0) } ?? "of an unknown type"
    }

    private static func number(_ crl: OpaquePointer, _ what: String) throws(PKIError) -> UInt64? {
        var critical: Int32 = 0
        guard let value = X509_CRL_get_ext_d2i(crl, NID_crl_number, &critical, nil) else {
            guard critical == -1 else { throw PKIError(.malformed, "\(what): the CRL number is invalid") }
            return nil
        }
        let integer = value.assumingMemoryBound(to: ASN1_INTEGER.self)
        defer { ASN1_INTEGER_free(integer) }
        var number: UInt64 = 0
        guard ASN1_INTEGER_get_uint64(&number, integer) == 1 else {
            throw PKIError(.unsupported, "\(what): the CRL number is negative or exceeds 64 bits")
        }
        return number
    }

    private static func entries(_ crl: OpaquePointer, _ what: String) throws(PKIError) -> RevokedEntries {
        let stack = X509_CRL_get_REVOKED(crl)
        var entries: [RevokedEntry] = []
        entries.reserveCapacity(Int(max(0, OPENSSL_sk_num(stack))))
        for index in 0..<max(0, OPENSSL_sk_num(stack)) {
            let entry = OpaquePointer(OPENSSL_sk_value(stack, index))
            guard let serial = SerialNumber(X509_REVOKED_get0_serialNumber(entry)),
                let time = DERTime.seconds(X509_REVOKED_get0_revocationDate(entry))
            else {
                throw PKIError(.malformed, "\(what): entry \(index + 1) has an invalid serial number or date")
            }
            let extensions = X509_REVOKED_get0_extensions(entry)
            entries.append(
                RevokedEntry(serial: serial, time: time, reason: try reason(extensions, serial: serial, what)))
        }
        let sorted = RevokedEntries(entries)
        guard sorted.count == entries.count else {
            throw PKIError(.malformed, "\(what): a serial number occurs in several entries")
        }
        return sorted
    }

    private static func reason(
        _ extensions: OpaquePointer?, serial: SerialNumber, _ what: String
    ) throws(PKIError) -> RevocationReason {
        guard extensions != nil else { return .unspecified }
        if let name = criticalExtension(extensions) {
            throw PKIError(.unsupported, "\(what): entry \(serial) has the critical extension \(name)")
        }
        let index = X509v3_get_ext_by_NID(extensions, NID_crl_reason, -1)
        guard index >= 0 else { return .unspecified }
        let value = contents(X509_EXTENSION_get_data(X509v3_get_ext(extensions, index)))
        // ENUMERATED of one octet
        guard value.count == 3, value[0] == 0x0A, value[1] == 1, let reason = RevocationReason(code: value[2]) else {
            throw PKIError(.unsupported, "\(what): entry \(serial) has an unknown reason code")
        }
        return reason
    }
}
