import COpenSSL

/// SHA-256 of bytes that come piece by piece.
public struct RunningSHA256 {
    private var context = SHA256_CTX()

    public init() { SHA256_Init(&context) }

    public mutating func update(_ bytes: UnsafeRawBufferPointer) {
        if let base = bytes.baseAddress, bytes.count > 0 { SHA256_Update(&context, base, bytes.count) }
    }

    public mutating func update(_ bytes: [UInt8]) { bytes.withUnsafeBytes { update($0) } }

    /// Of all that came so far; more may follow.
    public func digest() -> TreeHash {
        var copy = context
        return withUnsafeTemporaryAllocation(byteCount: TreeHash.byteCount, alignment: 8) { room in
            SHA256_Final(room.baseAddress?.assumingMemoryBound(to: UInt8.self), &copy)
            guard let base = room.baseAddress else { preconditionFailure("no room on the stack") }
            return TreeHash(at: base)
        }
    }
}
