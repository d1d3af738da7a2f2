import SwiftASN1

/// Writes complete CRLs of version 2 (RFC 5280 5), without an issuing distribution point.
public enum CRLBuilder {
    /// TBSCertList: what the issuer signs.
    /// - Parameters:
    ///   - number: CRL number; must rise from one CRL of the issuer to the next.
    ///   - thisUpdate: seconds since 1970.
    ///   - nextUpdate: seconds since 1970; brokers refuse every client of the issuer after it.
    ///   - signatureAlgorithm: of the signer.
    public static func tbs(
        issuer: Certificate, number: UInt64, thisUpdate: Int64, nextUpdate: Int64, entries: RevokedEntries,
        signatureAlgorithm: [UInt8]
    ) throws(PKIError) -> [UInt8] {
        let what = "CRL \(number) of \(issuer.subjectText)"
        guard issuer.canSignCRLs else {
            throw PKIError(.invalid, "\(what): its certificate may not sign CRLs (CA, cRLSign)")
        }
        try DERTime.check(thisUpdate, "\(what): thisUpdate")
        try DERTime.check(nextUpdate, "\(what): nextUpdate")
        guard thisUpdate < nextUpdate else {
            throw PKIError(.invalid, "\(what): nextUpdate (\(nextUpdate)) is not after thisUpdate (\(thisUpdate))")
        }
        let head = DER.Serializer.bytes { writer in
            writer.integer(1)  // version 2
            writer.raw(signatureAlgorithm)
            writer.raw(issuer.subject)
            writer.raw(DERTime.der(thisUpdate))
            writer.raw(DERTime.der(nextUpdate))
        }
        let tail = DER.Serializer.bytes { writer in
            writer.tagged(0) { writer in
                writer.sequence { writer in
                    writer.authorityKeyIdentifier(issuer.keyIdentifierForIssued)
                    writer.appendExtension(OID.crlNumber) { $0.integer(number) }
                }
            }
        }
        // Megabytes: the lengths come first, so that nothing is moved. Without entries the field is left out
        // (RFC 5280 5.1.2.6).
        let listLength = entries.byteCount
        let list = entries.count == 0 ? 0 : DERHeader.byteCount(length: listLength) + listLength
        let length = head.count + list + tail.count
        guard length < RevocationList.derBytesMax - 4096 else {
            throw PKIError(
                .invalid,
                "\(what): \(entries.count) entries exceed the limit of \(RevocationList.derBytesMax) bytes; "
                    + "rotate the authority")
        }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(DERHeader.byteCount(length: length) + length + SignedObject.room)
        DERHeader.append(DERHeader.sequence, length: length, to: &bytes)
        bytes.append(contentsOf: head)
        if entries.count > 0 {
            DERHeader.append(DERHeader.sequence, length: listLength, to: &bytes)
            entries.appendDER(to: &bytes)
        }
        bytes.append(contentsOf: tail)
        return bytes
    }

    /// The CRL, DER. The same parts make the same bytes: with the signature any CRL of the past can be made again.
    public static func assemble(tbs: consuming [UInt8], signatureAlgorithm: [UInt8], signature: [UInt8]) -> [UInt8] {
        SignedObject.der(tbs, signatureAlgorithm, signature)
    }
}

extension CertificateIssuer {
    /// Signs a CRL. Blocks while the signer signs. Parse it as `RevocationList` and verify it before it is published.
    public func crl(
        number: UInt64, thisUpdate: Int64, nextUpdate: Int64, entries: RevokedEntries
    ) throws(PKIError) -> [UInt8] {
        let algorithm = signer.signatureAlgorithm
        let tbs = try CRLBuilder.tbs(
            issuer: certificate, number: number, thisUpdate: thisUpdate, nextUpdate: nextUpdate, entries: entries,
            signatureAlgorithm: algorithm)
        let signature = try signer.sign(tbs)
        return CRLBuilder.assemble(tbs: tbs, signatureAlgorithm: algorithm, signature: signature)
    }
}
