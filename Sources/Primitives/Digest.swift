// Primitives: digests, hex, base64, JSON strings, histograms, seeded random numbers and clocks. Nothing here depends on
// events, logs or devices.

/// 32 bytes of SHA-256.
@frozen
public struct Digest: Hashable, Sendable, CustomStringConvertible {
    public static let byteCount = 32
    /// The bytes in order, as they lie in memory.
    @usableFromInline var words: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)

    /// 32 zero bytes.
    @inlinable public init() {}

    /// Nil unless there are exactly 32 bytes.
    public init?(_ bytes: some Collection<UInt8>) {
        guard bytes.count == Self.byteCount else { return nil }
        Swift.withUnsafeMutableBytes(of: &words) { $0.copyBytes(from: bytes) }
    }

    /// Nil unless there are exactly 64 digits, in lower case.
    public init?(hex: some StringProtocol) {
        guard hex.utf8.allSatisfy({ !(0x41...0x46).contains($0) }), let bytes = Hex.decode(hex) else { return nil }
        self.init(bytes)
    }

    /// The 32 bytes at an address.
    @inlinable public init(at address: UnsafeRawPointer) {
        Swift.withUnsafeMutableBytes(of: &words) {
            $0.copyMemory(from: UnsafeRawBufferPointer(start: address, count: Self.byteCount))
        }
    }

    public var bytes: [UInt8] { withUnsafeBytes { Array($0) } }

    @inlinable public func withUnsafeBytes<R>(_ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
        try Swift.withUnsafeBytes(of: words, body)
    }

    @inlinable public static func == (a: Self, b: Self) -> Bool { a.words == b.words }

    @inlinable public func hash(into hasher: inout Hasher) {
        hasher.combine(words.0)  // as good as random already
    }

    public var base64: String { Base64.encode(bytes) }
    /// 64 hexadecimal digits, in lower case.
    public var description: String { Hex.encode(bytes) }
}
