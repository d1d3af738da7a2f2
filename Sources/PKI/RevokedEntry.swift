/// Why a certificate was revoked (RFC 5280 5.3.1). `removeFromCRL` is for delta CRLs, which are not made.
public enum RevocationReason: String, Sendable, CaseIterable, Codable {
    /// Written by leaving the extension out, as RFC 5280 recommends.
    case unspecified
    case keyCompromise
    case cACompromise
    case affiliationChanged
    case superseded
    case cessationOfOperation
    /// May be released.
    case certificateHold
    case privilegeWithdrawn
    case aACompromise

    /// CRLReason
    public var code: UInt8 {
        switch self {
        case .unspecified: 0
        case .keyCompromise: 1
        case .cACompromise: 2
        case .affiliationChanged: 3
        case .superseded: 4
        case .cessationOfOperation: 5
        case .certificateHold: 6
        case .privilegeWithdrawn: 9
        case .aACompromise: 10
        }
    }

    public init?(code: UInt8) {
        guard let reason = Self.allCases.first(where: { $0.code == code }) else { return nil }
        self = reason
    }
}

/// One revoked certificate on a CRL.
public struct RevokedEntry: Sendable, Hashable {
    public let serial: SerialNumber
    /// Revocation date, seconds since 1970.
    public let time: Int64
    public let reason: RevocationReason

    /// - Parameter time: becomes the nearest one that can be written (1950 to 9999) when it is out of range.
    public init(serial: SerialNumber, time: Int64, reason: RevocationReason = .unspecified) {
        (self.serial, self.reason) = (serial, reason)
        self.time = min(max(time, DERTime.earliest), DERTime.latest)
    }

    // MARK: DER

    /// crlEntryExtensions with reasonCode (2.5.29.21) alone; the code follows.
    static let reasonExtension: [UInt8] = [
        0x30, 0x0C, 0x30, 0x0A, 0x06, 0x03, 0x55, 0x1D, 0x15, 0x04, 0x03, 0x0A, 0x01,
    ]
    /// An entry is shorter than 128 bytes, so that its length has one octet.
    static let headerByteCount = 2

    static let derByteCountMax = 64

    /// - Parameter bytes: room for `derByteCountMax`. Returns how many were written.
    func writeDER(to bytes: UnsafeMutablePointer<UInt8>) -> Int {
        var count = Self.headerByteCount
        count += serial.writeDER(to: bytes + count)
        count += DERTime.write(time, to: bytes + count)
        if reason != .unspecified {
            for byte in Self.reasonExtension {
                bytes[count] = byte
                count += 1
            }
            bytes[count] = reason.code
            count += 1
        }
        bytes[0] = DERHeader.sequence
        bytes[1] = UInt8(truncatingIfNeeded: count - Self.headerByteCount)
        return count
    }

    var der: [UInt8] {
        [UInt8](unsafeUninitializedCapacity: Self.derByteCountMax) { $1 = writeDER(to: $0.baseAddress!) }
    }

    /// The entry at the beginning of `bytes`. Nil unless it is in the form that `writeDER` writes.
    init?(der bytes: ArraySlice<UInt8>) {
        var rest = bytes
        func take(_ tag: UInt8, _ rest: inout ArraySlice<UInt8>) -> ArraySlice<UInt8>? {
            guard rest.count >= 2, rest[rest.startIndex] == tag, rest[rest.startIndex + 1] < 0x80 else { return nil }
            let begin = rest.startIndex + 2, end = begin + Int(rest[rest.startIndex + 1])
            guard end <= rest.endIndex else { return nil }
            defer { rest = rest[end...] }
            return rest[begin..<end]
        }
        guard var entry = take(DERHeader.sequence, &rest), let number = take(0x02, &entry), number.first ?? 0xFF < 0x80,
            let serial = SerialNumber(magnitude: number), let tag = entry.first, let date = take(tag, &entry),
            let time = DERTime.seconds(date, tag: tag)
        else { return nil }
        let reason = entry.isEmpty ? .unspecified : entry.last.flatMap { RevocationReason(code: $0) }
        guard let reason else { return nil }
        self.init(serial: serial, time: time, reason: reason)
        // What was passed over: shortest forms, the extension's bytes, nothing behind.
        guard der.elementsEqual(bytes[..<rest.startIndex]) else { return nil }
    }
}
