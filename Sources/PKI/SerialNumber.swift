import Primitives

/// The serial number of a certificate: a positive integer of at most 20 octets (RFC 5280 4.1.2.2). Ordered by value.
public struct SerialNumber: Hashable, Comparable, Sendable, CustomStringConvertible, LosslessStringConvertible {
    public static let byteCountMax = 20

    private let high: UInt32
    private let middle: UInt64
    private let low: UInt64

    /// Nil unless the value is positive and has at most 20 octets.
    /// - Parameter magnitude: big-endian, also with leading zero octets.
    public init?(magnitude: some Collection<UInt8>) {
        var high: UInt64 = 0, middle: UInt64 = 0, low: UInt64 = 0
        for byte in magnitude {
            guard high >> 24 == 0 else { return nil }
            high = high << 8 | middle >> 56
            middle = middle << 8 | low >> 56
            low = low << 8 | UInt64(byte)
        }
        guard high | middle | low != 0 else { return nil }
        (self.high, self.middle, self.low) = (UInt32(high), middle, low)
    }

    /// Nil for zero.
    public init?(_ value: UInt64) {
        guard value > 0 else { return nil }
        (high, middle, low) = (0, 0, value)
    }

    /// Nil unless `text` is an even number of at most 40 hexadecimal digits, and not zero.
    public init?(_ text: String) {
        guard text.utf8.count <= 2 * Self.byteCountMax, let bytes = Hex.decode(text) else { return nil }
        self.init(magnitude: bytes)
    }

    /// 16 octets from `generator`. The highest bit is clear, so that the DER has 16 octets, and the next one is set, so
    /// that it is never zero and never shorter: 126 random bits, where CA/Browser Forum rules demand 64.
    public static func random(using generator: inout some RandomNumberGenerator) -> SerialNumber {
        SerialNumber(middle: generator.next() & ~(1 << 63) | 1 << 62, low: generator.next())
    }

    public static func random() -> SerialNumber {
        var generator = SystemRandomNumberGenerator()
        return random(using: &generator)
    }

    private init(middle: UInt64, low: UInt64) { (high, self.middle, self.low) = (0, middle, low) }

    public static func < (a: SerialNumber, b: SerialNumber) -> Bool {
        if a.high != b.high { return a.high < b.high }
        return a.middle != b.middle ? a.middle < b.middle : a.low < b.low
    }

    private var bitWidth: Int {
        if high != 0 { return 160 - high.leadingZeroBitCount }
        return middle != 0 ? 128 - middle.leadingZeroBitCount : 64 - low.leadingZeroBitCount
    }

    /// Big-endian, without leading zero octets.
    public var magnitude: [UInt8] { (0..<(bitWidth + 7) / 8).reversed().map(byte) }

    /// Number of content octets of the DER INTEGER: one more where the highest bit of the magnitude is set.
    var derByteCount: Int { bitWidth / 8 + 1 }

    /// The octet with the weight 256^index.
    @inline(__always)
    private func byte(_ index: Int) -> UInt8 {
        let word = index < 8 ? low : index < 16 ? middle : UInt64(high)
        return index < 20 ? UInt8(truncatingIfNeeded: word >> UInt64(index % 8 * 8)) : 0
    }

    static let derByteCountMax = 2 + byteCountMax + 1

    /// The DER INTEGER, with tag and length.
    /// - Parameter bytes: room for `derByteCountMax`. Returns how many were written.
    func writeDER(to bytes: UnsafeMutablePointer<UInt8>) -> Int {
        let count = derByteCount
        bytes[0] = 0x02
        bytes[1] = UInt8(truncatingIfNeeded: count)
        withUnsafeBytes(of: (UInt64(high).bigEndian, middle.bigEndian, low.bigEndian)) { words in
            for index in 0..<count { bytes[2 + index] = words[24 - count + index] }
        }
        return 2 + count
    }

    var der: [UInt8] {
        [UInt8](unsafeUninitializedCapacity: Self.derByteCountMax) { $1 = writeDER(to: $0.baseAddress!) }
    }

    /// The first 64 bits of 160: orders most serial numbers.
    var prefix: UInt64 { UInt64(high) << 32 | middle >> 32 }

    /// An even number of hexadecimal digits in lower case, at least two.
    public var description: String { Hex.encode(magnitude) }
}

/// As its description.
extension SerialNumber: Codable {
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer(), text = try container.decode(String.self)
        guard let serial = SerialNumber(text) else {
            throw DecodingError.dataCorruptedError(
                in: container,
                debugDescription: "\(text.prefix(50).debugDescription) is not a serial number: 2 to 40 hexadecimal "
                    + "digits, not zero")
        }
        self = serial
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}
