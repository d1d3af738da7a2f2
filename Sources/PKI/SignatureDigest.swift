extension PublicKey {
    /// Whether keys of this name (`PublicKey.name`) are too short, or of a type that Refold does not support.
    public static func isWeak(name: String) -> Bool {
        switch name {
        case "P-256", "P-384", "P-521", "Ed25519": false
        case let name where name.hasPrefix("RSA-"): (Int(name.dropFirst(4)) ?? 0) < 2048
        default: true
        }
    }
}

extension Certificate {
    /// Whether a certificate was signed by an algorithm that does not resist collisions (SHA-1, MD5), or by an unknown
    /// one. Without OpenSSL, so that a million certificates take a second.
    /// - Parameter der: of a certificate that was parsed before; else the answer is true.
    public static func isWeaklySigned(der: [UInt8]) -> Bool {
        // Certificate ::= SEQUENCE { tbsCertificate SEQUENCE, signatureAlgorithm SEQUENCE { OBJECT IDENTIFIER, … }, … }
        guard let all = element(0x30, of: der, in: 0..<der.count), let tbs = element(0x30, of: der, in: all),
            let algorithm = element(0x30, of: der, in: tbs.upperBound..<all.upperBound),
            let identifier = element(0x06, of: der, in: algorithm)
        else { return true }
        return !collisionResistant.contains(Array(der[identifier]))
    }

    /// Contents of the DER element at the beginning of `range` (X.690, 8.1.3); nil unless it has this tag and fits.
    private static func element(_ tag: UInt8, of der: [UInt8], in range: Range<Int>) -> Range<Int>? {
        guard range.count >= 2, der[range.lowerBound] == tag else { return nil }
        let first = Int(der[range.lowerBound + 1]), long = first & 0x7F
        guard first >= 0x80 else { return contents(from: range.lowerBound + 2, first, in: range) }
        guard (1...4).contains(long), range.count >= 2 + long else { return nil }
        let length = der[(range.lowerBound + 2)..<(range.lowerBound + 2 + long)].reduce(0) { $0 << 8 | Int($1) }
        return contents(from: range.lowerBound + 2 + long, length, in: range)
    }

    private static func contents(from begin: Int, _ length: Int, in range: Range<Int>) -> Range<Int>? {
        length <= range.upperBound - begin ? begin..<(begin + length) : nil
    }

    /// Object identifiers, DER: RSA with SHA-256, -384, -512 and RSASSA-PSS (RFC 4055), ECDSA with SHA-256, -384, -512
    /// (RFC 5758), Ed25519 and Ed448 (RFC 8410).
    private static let collisionResistant: Set<[UInt8]> = {
        let rsa: [UInt8] = [0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01]
        let ecdsa: [UInt8] = [0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03]
        return Set([0x0A, 0x0B, 0x0C, 0x0D].map { rsa + [$0] } + [0x02, 0x03, 0x04].map { ecdsa + [$0] })
            .union([[0x2B, 0x65, 0x70], [0x2B, 0x65, 0x71]])
    }()
}
