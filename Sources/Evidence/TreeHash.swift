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

import Primitives

/// A leaf, a node or a root of the tree.
public typealias TreeHash = Digest

extension TreeHash {
    /// Of a tree without leaves (RFC 6962, 2.1): SHA-256 of nothing.
    public static let emptyRoot = SHA256.digest([])

    /// An inner node (RFC 6962, 2.1): SHA-256(0x01 ‖ left ‖ right). 65 bytes are two blocks.
    public static func node(_ left: TreeHash, _ right: TreeHash) -> TreeHash {
        withUnsafeTemporaryAllocation(byteCount: 128, alignment: 16) { room in
            room.initializeMemory(as: UInt8.self, repeating: 0)
            room[0] = 1
            left.withUnsafeBytes { UnsafeMutableRawBufferPointer(rebasing: room[1..<33]).copyMemory(from: $0) }
            right.withUnsafeBytes { UnsafeMutableRawBufferPointer(rebasing: room[33..<65]).copyMemory(from: $0) }
            room[65] = 0x80
            room.storeBytes(of: UInt16(65 * 8).bigEndian, toByteOffset: 126, as: UInt16.self)
            return SHA256.digest(padded: UnsafeRawBufferPointer(room))
        }
    }
}
