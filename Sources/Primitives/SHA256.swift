import COpenSSL

/// SHA-256 by OpenSSL's low-level calls: no fetch, no allocation, one context on the stack.
public enum SHA256 {
    public static func digest(_ bytes: UnsafeRawBufferPointer) -> Digest {
        var context = SHA256_CTX()
        SHA256_Init(&context)
        return finish(&context, bytes)
    }

    @inlinable
    public static func digest(_ bytes: some Sequence<UInt8>) -> Digest {
        Array(bytes).withUnsafeBytes { digest($0) }
    }

    /// Incremental SHA-256.
    public struct Stream {
        private var context = SHA256_CTX()

        public init() { SHA256_Init(&context) }

        public mutating func update(_ bytes: UnsafeRawBufferPointer) {
            if let start = bytes.baseAddress { SHA256_Update(&context, start, bytes.count) }
        }

        /// Call once. `update` must not follow.
        public mutating func finish() -> Digest {
            var result = Digest()
            withUnsafeMutableBytes(of: &result.words) {
                _ = SHA256_Final($0.baseAddress?.assumingMemoryBound(to: UInt8.self), &context)
            }
            return result
        }
    }

    /// Hashes whole blocks of 64 bytes that the caller has padded (FIPS 180-4, 5.1.1).
    public static func digest(padded blocks: UnsafeRawBufferPointer) -> Digest {
        precondition(blocks.count % 64 == 0, "SHA-256 takes blocks of 64 bytes")
        var context = SHA256_CTX()
        SHA256_Init(&context)
        SHA256_Update(&context, blocks.baseAddress, blocks.count)
        return state(context)
    }

    /// Hashes `bytes`, pads (FIPS 180-4, 5.1.1) and reads the state: what SHA256_Final does, without its copies.
    @inline(__always)
    private static func finish(_ context: inout SHA256_CTX, _ bytes: UnsafeRawBufferPointer) -> Digest {
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
    private static func state(_ context: SHA256_CTX) -> Digest {
        func pair(_ a: UInt32, _ b: UInt32) -> UInt64 { (UInt64(a) << 32 | UInt64(b)).bigEndian }
        let h = context.h
        var result = Digest()
        result.words = (pair(h.0, h.1), pair(h.2, h.3), pair(h.4, h.5), pair(h.6, h.7))
        return result
    }
}
