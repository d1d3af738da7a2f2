import SwiftASN1

/// Object identifiers, as their content octets.
enum OID {
    static let commonName: [UInt8] = [0x55, 0x04, 0x03]  // 2.5.4.3
    static let countryName: [UInt8] = [0x55, 0x04, 0x06]  // 2.5.4.6
    static let organizationName: [UInt8] = [0x55, 0x04, 0x0A]  // 2.5.4.10
    static let organizationalUnitName: [UInt8] = [0x55, 0x04, 0x0B]  // 2.5.4.11
    static let subjectKeyIdentifier: [UInt8] = [0x55, 0x1D, 0x0E]  // 2.5.29.14
    static let keyUsage: [UInt8] = [0x55, 0x1D, 0x0F]  // 2.5.29.15
    static let subjectAltName: [UInt8] = [0x55, 0x1D, 0x11]  // 2.5.29.17
    static let basicConstraints: [UInt8] = [0x55, 0x1D, 0x13]  // 2.5.29.19
    static let crlNumber: [UInt8] = [0x55, 0x1D, 0x14]  // 2.5.29.20
    static let crlDistributionPoints: [UInt8] = [0x55, 0x1D, 0x1F]  // 2.5.29.31
    static let authorityKeyIdentifier: [UInt8] = [0x55, 0x1D, 0x23]  // 2.5.29.35
    static let extendedKeyUsage: [UInt8] = [0x55, 0x1D, 0x25]  // 2.5.29.37
    static let clientAuth: [UInt8] = [0x2B, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02]  // 1.3.6.1.5.5.7.3.2
}

extension DER.Serializer {
    /// The DER of what `body` writes.
    static func bytes(_ body: (inout DER.Serializer) -> Void) -> [UInt8] {
        var writer = DER.Serializer()
        body(&writer)
        return writer.serializedBytes
    }

    mutating func sequence(_ body: (inout DER.Serializer) -> Void) {
        appendConstructedNode(identifier: .sequence, body)
    }

    mutating func raw(_ der: [UInt8]) { serializeRawBytes(der) }

    mutating func primitive(_ identifier: ASN1Identifier, _ contents: some Sequence<UInt8>) {
        appendPrimitiveNode(identifier: identifier) { $0.append(contentsOf: contents) }
    }

    /// Context-specific, constructed.
    mutating func tagged(_ number: UInt, _ body: (inout DER.Serializer) -> Void) {
        serialize(explicitlyTaggedWithTagNumber: number, tagClass: .contextSpecific, body)
    }

    /// An extension (RFC 5280 4.1.2.9).
    mutating func appendExtension(_ oid: [UInt8], critical: Bool = false, _ value: (inout DER.Serializer) -> Void) {
        sequence { writer in
            writer.primitive(.objectIdentifier, oid)
            if critical { writer.primitive(.boolean, [0xFF]) }
            writer.primitive(.octetString, DER.Serializer.bytes(value))
        }
    }

    /// The authority key identifier with a key identifier alone (RFC 5280 4.2.1.1).
    mutating func authorityKeyIdentifier(_ identifier: [UInt8]) {
        appendExtension(OID.authorityKeyIdentifier) { writer in
            writer.sequence { $0.primitive(ASN1Identifier(tagWithNumber: 0, tagClass: .contextSpecific), identifier) }
        }
    }

    /// A non-negative INTEGER.
    mutating func integer(_ value: UInt64) {
        primitive(.integer, DERInteger.contents(value))
    }
}

enum DERInteger {
    /// The shortest content octets, with a leading zero octet where the high bit would make the value negative.
    static func contents(_ value: UInt64) -> [UInt8] {
        let bytes = withUnsafeBytes(of: value.bigEndian) { Array($0.drop { $0 == 0 }) }
        return bytes.first.map { $0 < 0x80 } == true ? bytes : [0] + bytes
    }
}

/// Tags and lengths, for what is too large to be moved when its length becomes known.
enum DERHeader {
    static let sequence: UInt8 = 0x30
    static let bitString: UInt8 = 0x03

    static func append(_ tag: UInt8, length: Int, to bytes: inout [UInt8]) {
        bytes.append(tag)
        guard length >= 0x80 else { return bytes.append(UInt8(length)) }
        let octets = withUnsafeBytes(of: UInt64(length).bigEndian) { Array($0.drop { $0 == 0 }) }
        bytes.append(0x80 | UInt8(octets.count))
        bytes.append(contentsOf: octets)
    }

    static func byteCount(length: Int) -> Int {
        length < 0x80 ? 2 : 2 + (UInt64.bitWidth - length.leadingZeroBitCount + 7) / 8
    }
}
