import EventModel
import Evidence

/// What a sealed segment keeps of the Merkle tree, in its footer: the tree up to its first and up to its last event, in
/// a few hashes each, and every inner node of level 8, 16, … that its events complete: 0.13 bytes an event. Lower
/// nodes are hashed again from the records when a proof needs them. `schemas/log-format.md`, "Tree section".
public struct TreeSection: Equatable, Sendable {
    static let magic: UInt32 = 0x4552_5452  // "RTRE"
    static let headerBytes = 32
    /// Nodes of the levels that are multiples of this are kept.
    static let rowStride = 8

    /// The tree of the events before the segment, and with it.
    let before: CompactRange
    let through: CompactRange
    /// For level 8, 16, …: the nodes whose last event lies in the segment, in order. A node of zeroes is not known:
    /// some of its events were lost before anybody hashed them.
    let rows: [[TreeHash]]
    /// The signed checkpoint of the tree of all events up to the segment's end; empty when nobody signed.
    let checkpoint: [UInt8]

    var base: Position { Position(before.upper) }
    var end: Position { Position(through.upper) }
    /// Of the tree up to the segment's last event.
    public var root: TreeHash { through.root }

    /// - Precondition: both ranges begin at 0, and `rows` are as many as `rowCount` says.
    init(before: CompactRange, through: CompactRange, rows: [[TreeHash]], checkpoint: [UInt8]) {
        precondition(before.lower == 0 && through.lower == 0 && before.upper <= through.upper, "no segment's trees")
        self.before = before
        self.through = through
        self.rows = (0..<Self.levelCount(through.upper)).map { $0 < rows.count ? rows[$0] : [] }
        for (row, nodes) in self.rows.enumerated() {
            precondition(nodes.count == Self.rowCount(row, before.upper, through.upper), "a row with gaps")
        }
        self.checkpoint = checkpoint
    }

    /// The node of a level that is a multiple of 8, whose last event lies in this segment; nil when it is not known.
    func node(level: Int, index: UInt64) -> TreeHash? {
        let row = level / Self.rowStride - 1
        let first = before.upper >> UInt64(level)
        guard level > 0, level % Self.rowStride == 0, row < rows.count, index >= first,
            index - first < UInt64(rows[row].count)
        else { return nil }
        let hash = rows[row][Int(index - first)]
        return hash == .unknown ? nil : hash
    }

    private static func levelCount(_ end: UInt64) -> Int { (63 - min(63, end.leadingZeroBitCount)) / rowStride }

    private static func rowCount(_ row: Int, _ base: UInt64, _ end: UInt64) -> Int {
        let level = UInt64(rowStride * (row + 1))
        return Int((end >> level) - (base >> level))
    }

    func encoded() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.headerBytes)
        bytes.withUnsafeMutableBytes { header in
            header.store(little: Self.magic, 0)
            header.store(little: before.upper, 8)
            header.store(little: through.upper, 16)
            header.store(little: UInt32(checkpoint.count), 24)
        }
        for hash in before.hashes + through.hashes + rows.joined() {
            hash.withUnsafeBytes { bytes.append(contentsOf: $0) }
        }
        return bytes + checkpoint
    }

    /// Nil when these bytes are not exactly a tree section.
    init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= Self.headerBytes, bytes.little(0, as: UInt32.self) == Self.magic,
            bytes.little(4, as: UInt32.self) == 0, bytes.little(28, as: UInt32.self) == 0
        else { return nil }
        let base: UInt64 = bytes.little(8), end: UInt64 = bytes.little(16)
        let noteBytes = Int(bytes.little(24, as: UInt32.self))
        // Every hash stands for at least one event of the segment or one bit of a position: no overflow, no memory
        // taken beyond what is there.
        guard base <= end, (end >> 8) - (base >> 8) <= UInt64(bytes.count / TreeHash.byteCount) else { return nil }
        let counts = (0..<Self.levelCount(end)).map { Self.rowCount($0, base, end) }
        let hashes = base.nonzeroBitCount + end.nonzeroBitCount + counts.reduce(0, +)
        guard bytes.count - Self.headerBytes - noteBytes == hashes * TreeHash.byteCount else { return nil }
        var offset = Self.headerBytes
        func take(_ count: Int) -> [TreeHash] {
            defer { offset += count * TreeHash.byteCount }
            return (0..<count).map { TreeHash(at: bytes.baseAddress! + offset + $0 * TreeHash.byteCount) }
        }
        guard let before = CompactRange(lower: 0, upper: base, hashes: take(base.nonzeroBitCount)),
            let through = CompactRange(lower: 0, upper: end, hashes: take(end.nonzeroBitCount))
        else { return nil }
        self.before = before
        self.through = through
        rows = counts.map { take($0) }
        checkpoint = Array(bytes[offset...])
    }
}

extension TreeHash {
    /// No hash is all zeroes, as far as anybody knows: it stands for one that is not known.
    static let unknown = TreeHash([UInt8](repeating: 0, count: byteCount))!
}
