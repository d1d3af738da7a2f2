import COpenSSL
import SwiftASN1

/// A name to be written into a certificate: attributes in order, one for each relative distinguished name.
public struct DistinguishedName: Sendable, Equatable {
    public enum Attribute: String, Sendable, CaseIterable {
        case country = "C"
        case organization = "O"
        case organizationalUnit = "OU"
        case commonName = "CN"

        var oid: [UInt8] {
            switch self {
            case .country: OID.countryName
            case .organization: OID.organizationName
            case .organizationalUnit: OID.organizationalUnitName
            case .commonName: OID.commonName
            }
        }

        /// Upper bound in characters (RFC 5280, A.1).
        var lengthMax: Int { self == .country ? 2 : 64 }
    }

    public let attributes: [(Attribute, String)]
    /// Name, DER.
    let der: [UInt8]

    public init(_ attributes: [(Attribute, String)]) throws(PKIError) {
        guard (1...16).contains(attributes.count) else {
            throw PKIError(.invalid, "a subject needs 1 to 16 attributes, not \(attributes.count)")
        }
        for (attribute, value) in attributes { try Self.check(attribute, value) }
        self.attributes = attributes
        der = DER.Serializer.bytes { writer in
            writer.sequence { writer in
                for (attribute, value) in attributes {
                    writer.appendConstructedNode(identifier: .set) { writer in
                        writer.sequence { writer in
                            writer.primitive(.objectIdentifier, attribute.oid)
                            writer.primitive(attribute == .country ? .printableString : .utf8String, value.utf8)
                        }
                    }
                }
            }
        }
    }

    public init(commonName: String) throws(PKIError) { try self.init([(.commonName, commonName)]) }

    public static func == (a: DistinguishedName, b: DistinguishedName) -> Bool { a.der == b.der }

    private static func check(_ attribute: Attribute, _ value: String) throws(PKIError) {
        let count = value.unicodeScalars.count, name = attribute.rawValue
        guard count > 0, count <= attribute.lengthMax else {
            throw PKIError(
                .invalid,
                "\(name) has \(count) characters; RFC 5280 allows 1 to \(attribute.lengthMax): shorten it, or put the "
                    + "name into a subject alternative name")
        }
        // A NUL in a name has fooled verifiers that compare C strings; other controls fool people.
        guard !value.unicodeScalars.contains(where: { $0.value < 0x20 || $0.value == 0x7F }) else {
            throw PKIError(.invalid, "\(name) \(value.debugDescription) contains a control character")
        }
        guard attribute != .country || value.utf8.count == 2 && value.utf8.allSatisfy({ (0x41...0x5A).contains($0) })
        else { throw PKIError(.invalid, "C \(value.debugDescription) is not a country code of two capital letters") }
    }
}

/// A name that was read.
enum NameText {
    /// RFC 4514 text. Characters beyond ASCII stay as they are.
    static func rfc4514(_ name: OpaquePointer?) -> String {
        guard let bio = try? MemoryBIO() else { return "" }
        guard let name, X509_NAME_print_ex(bio.pointer, name, 0, refold_rfc4514_flags) >= 0 else {
            OpenSSLErrors.clear()
            return ""
        }
        return String(decoding: bio.read(), as: UTF8.self)
    }

    /// The first common name: Mosquitto's user name with `use_identity_as_username`. Nil without one, and when it holds
    /// a NUL.
    static func commonName(_ name: OpaquePointer?) -> String? {
        defer { OpenSSLErrors.clear() }
        let index = X509_NAME_get_index_by_NID(name, NID_commonName, -1)
        guard index >= 0, let entry = X509_NAME_get_entry(name, index) else { return nil }
        var bytes: UnsafeMutablePointer<UInt8>?
        let count = ASN1_STRING_to_UTF8(&bytes, X509_NAME_ENTRY_get_data(entry))
        guard count >= 0, let bytes else { return nil }
        defer { CRYPTO_free(bytes, #file, #line) }
        let text = UnsafeBufferPointer(start: bytes, count: Int(count))
        return text.contains(0) ? nil : String(decoding: text, as: UTF8.self)
    }

    static func der(_ name: OpaquePointer?) -> [UInt8] { encode { i2d_X509_NAME(name, $0) } }
}
