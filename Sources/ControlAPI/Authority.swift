import Glibc

/// `host[:port]` of RFC 3986, 3.2, read strictly: a name, an IPv4 address, or an IPv6 address in brackets. Whatever two
/// readers could take for two hosts is refused.
struct Authority: Sendable, Equatable {
    /// Lower case; an IPv6 address has its brackets.
    let host: String
    let port: Int?

    init?(_ text: some StringProtocol) {
        let bytes = Array(text.utf8)
        let end: Int
        if bytes.first == UInt8(ascii: "[") {
            guard let bracket = bytes.firstIndex(of: UInt8(ascii: "]")) else { return nil }
            let address = String(decoding: bytes[1..<bracket], as: UTF8.self)
            guard Self.isIPv6(address) else { return nil }
            end = bracket + 1
        } else {
            end = bytes.firstIndex(of: UInt8(ascii: ":")) ?? bytes.count
            guard (1...253).contains(end), bytes[..<end].allSatisfy(Self.isNameByte) else { return nil }
        }
        host = String(decoding: bytes[..<end], as: UTF8.self).lowercased()
        if end == bytes.count {
            port = nil
        } else {
            let digits = bytes[(end + 1)...]
            guard bytes[end] == UInt8(ascii: ":"), (1...5).contains(digits.count),
                digits.allSatisfy({ (0x30...0x39).contains($0) }),
                let number = Int(String(decoding: digits, as: UTF8.self)), number <= 65_535
            else { return nil }
            port = number
        }
    }

    /// localhost, 127.0.0.0/8 and ::1.
    var isLoopback: Bool { Self.isLoopback(host) }

    var isAddress: Bool { host.hasPrefix("[") || Self.isIPv4(host) }

    static func isLoopback(_ host: String) -> Bool {
        if ["localhost", "::1", "[::1]"].contains(host.lowercased()) { return true }
        return host.hasPrefix("127.") && isIPv4(host)
    }

    private static func isIPv4(_ text: String) -> Bool {
        var address = in_addr()
        return inet_pton(AF_INET, text, &address) == 1
    }

    private static func isIPv6(_ text: String) -> Bool {
        var address = in6_addr()
        return inet_pton(AF_INET6, text, &address) == 1
    }

    /// DNS names, and the underscore that some have.
    private static func isNameByte(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F: true
        default: false
        }
    }
}

/// An origin of RFC 6454, 6.2: scheme, host and port.
struct WebOrigin: Sendable, Equatable {
    let isSecure: Bool
    let host: String
    let port: Int

    /// Nil for `null`, and for schemes that serve no pages of ours.
    init?(_ text: String) {
        let parts = text.split(separator: "://", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, let authority = Authority(parts[1]) else { return nil }
        switch parts[0].lowercased() {
        case "http": isSecure = false
        case "https": isSecure = true
        default: return nil
        }
        host = authority.host
        port = authority.port ?? Self.defaultPort(isSecure)
    }

    static func defaultPort(_ isSecure: Bool) -> Int { isSecure ? 443 : 80 }
}

/// An address, or a block of them: `10.1.2.3`, `10.0.0.0/8`, `fd00::/8`.
public struct AddressRange: Sendable, Equatable {
    private let bytes: [UInt8]
    private let bits: Int

    public init?(_ text: String) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count <= 2, let bytes = Self.bytes(String(parts[0])) else { return nil }
        self.bytes = bytes
        guard parts.count == 2 else {
            bits = 8 * bytes.count
            return
        }
        guard parts[1].utf8.allSatisfy({ (0x30...0x39).contains($0) }), let bits = Int(parts[1]),
            bits <= 8 * bytes.count
        else { return nil }
        self.bits = bits
    }

    func contains(_ address: String) -> Bool {
        guard let other = Self.bytes(address), other.count == bytes.count else { return false }
        let whole = bits / 8, rest = bits % 8
        guard bytes[..<whole] == other[..<whole] else { return false }
        guard rest > 0 else { return true }
        let mask = ~(UInt8.max >> UInt8(rest))
        return bytes[whole] & mask == other[whole] & mask
    }

    /// IPv4 addresses that an IPv6 socket shows as `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2) are IPv4's.
    private static func bytes(_ text: String) -> [UInt8]? {
        var four = in_addr(), six = in6_addr()
        if inet_pton(AF_INET, text, &four) == 1 { return withUnsafeBytes(of: four) { Array($0) } }
        guard inet_pton(AF_INET6, text, &six) == 1 else { return nil }
        let all = withUnsafeBytes(of: six) { Array($0) }
        return all[..<10].allSatisfy { $0 == 0 } && all[10] == 0xFF && all[11] == 0xFF ? Array(all[12...]) : all
    }
}
