import EventModel
import Primitives

/// A record → its leaf in the tree. The canonical bytes hold SHA-256(payload) instead of the payload, so that whoever
/// shows the tree's entries need not show what devices said; and they are independent of blocks and segments, so that
/// repacking keeps every root.
///
///     canonical = header (32 bytes, as stored) ‖ names ‖ SHA-256(payload)
///     names     = broker ‖ topic ‖ properties, or SHA-256 of these when they take more than 65,471 bytes
///     leaf      = SHA-256(0x00 ‖ canonical)                                     (RFC 6962, 2.1)
///
/// The header says how long each part is, so that no two records share canonical bytes; and these always fit into an
/// entry of C2SP tlog-tiles, whose length is a 16-bit number.
public struct LeafHasher {
    /// Names longer than this are replaced by their hash: 65,535 less header and payload hash.
    public static let namesBytesMax = 65_535 - RecordView.headerBytes - TreeHash.byteCount
    /// What is left of an event whose record is lost and whose leaf nobody kept.
    static let lostLabel = Array("refold lost event\n".utf8)

    public init() {}

    public func leaf(_ record: RecordView) -> TreeHash {
        let payload = SHA256.digest(record.payload)
        let names = UnsafeRawBufferPointer(
            rebasing: record.bytes[RecordView.headerBytes..<(record.length - record.payload.count)])
        if 1 + RecordView.headerBytes + names.count + TreeHash.byteCount <= 1024 {
            return withUnsafeTemporaryAllocation(byteCount: 1024, alignment: 16) { room in
                // 0x00 ‖ header ‖ names lie together in the record, but for the prefix.
                let head = RecordView.headerBytes + names.count
                room[0] = 0
                UnsafeMutableRawBufferPointer(rebasing: room[1..<(1 + head)])
                    .copyMemory(from: UnsafeRawBufferPointer(rebasing: record.bytes[..<head]))
                payload.withUnsafeBytes {
                    UnsafeMutableRawBufferPointer(rebasing: room[(1 + head)...]).copyMemory(from: $0)
                }
                return SHA256.digest(UnsafeRawBufferPointer(rebasing: room[..<(1 + head + TreeHash.byteCount)]))
            }
        }
        return Self.leaf(ofCanonical: Self.canonical(record))
    }

    /// The bytes that a leaf is the hash of; what entry bundles of tlog-tiles hold.
    public static func canonical(_ record: RecordView) -> [UInt8] {
        let head = record.length - record.payload.count
        let names = UnsafeRawBufferPointer(rebasing: record.bytes[RecordView.headerBytes..<head])
        var bytes = Array(record.bytes[..<RecordView.headerBytes])
        if names.count <= namesBytesMax {
            bytes.append(contentsOf: names)
        } else {
            bytes.append(contentsOf: SHA256.digest(names).bytes)
        }
        bytes.append(contentsOf: SHA256.digest(record.payload).bytes)
        return bytes
    }

    /// SHA-256(0x00 ‖ bytes).
    public static func leaf(ofCanonical bytes: some Collection<UInt8>) -> TreeHash { SHA256.digest([0] + bytes) }

    /// Of an event that was lost, whose leaf nobody kept: "refold lost event\n" ‖ position (64 bits, little-endian).
    /// No record has such canonical bytes: they are shorter than a header.
    public static func lostCanonical(_ position: Position) -> [UInt8] {
        lostLabel + withUnsafeBytes(of: position.rawValue.littleEndian) { Array($0) }
    }
    public static func lostLeaf(_ position: Position) -> TreeHash { leaf(ofCanonical: lostCanonical(position)) }
}
