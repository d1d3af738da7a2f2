// Evidence: what lets an outsider check the log without believing us. An RFC 6962 Merkle tree over the events, signed
// checkpoints (C2SP tlog-checkpoint), proofs, and tiles for stock tools (C2SP tlog-tiles). `schemas/audit-proof.md` is
// the specification.
//
// Pure: bytes in, bytes out; no file, clock or thread. Only the making of a key draws on chance.
//
// - `LeafHasher`      a record → its leaf
// - `CompactRange`    any stretch of the tree in at most 2·64 hashes; stretches join without their leaves
// - `TreeProofs`      inclusion and consistency, from compact ranges alone
// - `SignedNote`, `VerifierKey`, `SigningKey`, `Checkpoint`   who says so
// - `ProofFile`       all of it in one file; `TileWriter`: the whole tree as static files

import COpenSSL

/// 32 bytes of SHA-256: a leaf, a node or a root of the tree.
@frozen
public struct TreeHash: Hashable, Sendable, CustomStringConvertible {
    public static let byteCount = 32
    // The bytes in order, as they lie in memory.
    var words: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)

    init() {}

    /// Nil unless there are exactly 32 bytes.
    public init?(_ bytes: some Collection<UInt8>) {
        guard bytes.count == Self.byteCount else { return nil }
        withUnsafeMutableBytes(of: &words) { $0.copyBytes(from: bytes) }
    }

    /// The 32 bytes at an address.
    public init(at address: UnsafeRawPointer) {
        withUnsafeMutableBytes(of: &words) {
            $0.copyMemory(from: UnsafeRawBufferPointer(start: address, count: Self.byteCount))
        }
    }

    public var bytes: [UInt8] { withUnsafeBytes { Array($0) } }

    public func withUnsafeBytes<R>(_ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
        try Swift.withUnsafeBytes(of: words, body)
    }

    public static func == (a: Self, b: Self) -> Bool { a.words == b.words }

    public func hash(into hasher: inout Hasher) {
        hasher.combine(words.0)  // as good as random already
    }

    public var base64: String { Base64.encode(bytes) }
    /// 64 hexadecimal digits.
    public var description: String { Hex.encode(bytes) }

    /// Of a tree without leaves (RFC 6962, 2.1): SHA-256 of nothing.
    public static let emptyRoot = SHA256.digest([])
}

/// SHA-256 by OpenSSL's low-level calls: no fetch, no allocation, one context on the stack.
public enum SHA256 {
    public static func digest(_ bytes: UnsafeRawBufferPointer) -> TreeHash {
        var context = SHA256_CTX()
        SHA256_Init(&context)
        return finish(&context, bytes)
    }

    public static func digest(_ bytes: some Sequence<UInt8>) -> TreeHash {
        Array(bytes).withUnsafeBytes { digest($0) }
    }

    /// What comes in pieces.
    public struct Stream {
        private var context = SHA256_CTX()

        public init() { SHA256_Init(&context) }

        public mutating func update(_ bytes: UnsafeRawBufferPointer) {
            if let start = bytes.baseAddress { SHA256_Update(&context, start, bytes.count) }
        }

        /// Nothing is added afterwards.
        public mutating func finish() -> TreeHash {
            var result = TreeHash()
            withUnsafeMutableBytes(of: &result.words) {
                _ = SHA256_Final($0.baseAddress?.assumingMemoryBound(to: UInt8.self), &context)
            }
            return result
        }
    }

    /// An inner node (RFC 6962, 2.1): SHA-256(0x01 ‖ left ‖ right). 65 bytes are two blocks.
    public static func node(_ left: TreeHash, _ right: TreeHash) -> TreeHash {
        var context = SHA256_CTX()
        SHA256_Init(&context)
        withUnsafeTemporaryAllocation(byteCount: 128, alignment: 16) { room in
            room.initializeMemory(as: UInt8.self, repeating: 0)
            room[0] = 1
            room.storeBytes(of: left.words, toByteOffset: 1, as: (UInt64, UInt64, UInt64, UInt64).self)
            room.storeBytes(of: right.words, toByteOffset: 33, as: (UInt64, UInt64, UInt64, UInt64).self)
            room[65] = 0x80
            room.storeBytes(of: UInt16(65 * 8).bigEndian, toByteOffset: 126, as: UInt16.self)
            SHA256_Update(&context, room.baseAddress, 128)
        }
        return state(context)
    }

    /// Hashes `bytes`, pads (FIPS 180-4, 5.1.1) and reads the state: what SHA256_Final does, without its copies.
    @inline(__always)
    private static func finish(_ context: inout SHA256_CTX, _ bytes: UnsafeRawBufferPointer) -> TreeHash {
        let whole = bytes.count & ~63, rest = bytes.count - whole
        if whole > 0 { SHA256_Update(&context, bytes.baseAddress, whole) }
        withUnsafeTemporaryAllocation(byteCount: 128, alignment: 16) { room in
            let length = rest < 56 ? 64 : 128
            let padded = UnsafeMutableRawBufferPointer(rebasing: room[..<length])
            padded.initializeMemory(as: UInt8.self, repeating: 0)
            if rest > 0 { padded.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[whole...])) }
            padded[rest] = 0x80
            let bits = UInt64(bytes.count) * 8
            padded.storeBytes(of: bits.bigEndian, toByteOffset: length - 8, as: UInt64.self)
            SHA256_Update(&context, padded.baseAddress, length)
        }
        return state(context)
    }

    @inline(__always)
    private static func state(_ context: SHA256_CTX) -> TreeHash {
        func pair(_ a: UInt32, _ b: UInt32) -> UInt64 { (UInt64(a) << 32 | UInt64(b)).bigEndian }
        let h = context.h
        var result = TreeHash()
        result.words = (pair(h.0, h.1), pair(h.2, h.3), pair(h.4, h.5), pair(h.6, h.7))
        return result
    }
}

/// Standard base64 with padding (RFC 4648, 4). Foundation's is lenient about what it skips; here a text has one form.
enum Base64 {
    private static let digits = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    private static let values: [UInt8] = {
        var values = [UInt8](repeating: 0xFF, count: 256)
        for (value, digit) in digits.enumerated() { values[Int(digit)] = UInt8(value) }
        return values
    }()

    static func encode(_ bytes: some Collection<UInt8>) -> String {
        let bytes = Array(bytes)
        var text: [UInt8] = []
        text.reserveCapacity((bytes.count + 2) / 3 * 4)
        var index = 0
        while index < bytes.count {
            let left = bytes.count - index
            let group = UInt32(bytes[index]) << 16 | (left > 1 ? UInt32(bytes[index + 1]) << 8 : 0)
                | (left > 2 ? UInt32(bytes[index + 2]) : 0)
            text.append(digits[Int(group >> 18)])
            text.append(digits[Int(group >> 12 & 63)])
            text.append(left > 1 ? digits[Int(group >> 6 & 63)] : UInt8(ascii: "="))
            text.append(left > 2 ? digits[Int(group & 63)] : UInt8(ascii: "="))
            index += 3
        }
        return String(decoding: text, as: UTF8.self)
    }

    /// Nil for anything that `encode` would not have written: other characters, missing padding, stray bits.
    static func decode(_ text: some Collection<UInt8>) -> [UInt8]? {
        let text = Array(text)
        guard text.count % 4 == 0 else { return nil }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.count / 4 * 3)
        let padding = text.suffix(2).reduce(0) { $0 + ($1 == UInt8(ascii: "=") ? 1 : 0) }
        for start in stride(from: 0, to: text.count, by: 4) {
            let kept = start + 4 == text.count ? 4 - padding : 4
            var group: UInt32 = 0
            for index in 0..<4 {
                let value = index < kept ? values[Int(text[start + index])] : 0
                guard value != 0xFF, index < kept || text[start + index] == UInt8(ascii: "=") else { return nil }
                group = group << 6 | UInt32(value)
            }
            bytes.append(UInt8(group >> 16))
            if kept > 2 { bytes.append(UInt8(group >> 8 & 0xFF)) } else if group & 0xFFFF != 0 { return nil }
            if kept > 3 { bytes.append(UInt8(group & 0xFF)) } else if group & 0xFF != 0 { return nil }
        }
        return bytes
    }
}

enum Hex {
    static func encode(_ bytes: some Sequence<UInt8>) -> String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }
}
