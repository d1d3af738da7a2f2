import EventModel
import Primitives

/// The first section of a footer: one entry a block, in order, so that a position or a time is found by bisection.
/// It is small (24 bytes for a block of many kilobytes) and is held in memory while the segment is open.
struct BlockIndex: Equatable {
    struct Entry: Equatable {
        static let byteCount = 24

        /// Position of the block's first event.
        var base: Position
        /// Received-at of the block's first event.
        var firstTime: Timestamp
        /// Where the block begins, in bytes; on disk, in pages of 4096.
        var offset: Int
        /// Events in the block.
        var count: Int

        var end: Position { base.advanced(by: count) }
    }

    var entries: [Entry] = []

    func encoded() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: entries.count * Entry.byteCount)
        bytes.withUnsafeMutableBytes { raw in
            for (number, entry) in entries.enumerated() {
                let at = number * Entry.byteCount
                raw.store(little: entry.base.rawValue, at)
                raw.store(little: entry.firstTime.microseconds, at + 8)
                raw.store(little: UInt32(entry.offset / LogFormat.alignment), at + 16)
                raw.store(little: UInt32(entry.count), at + 20)
            }
        }
        return bytes
    }

    /// Nil when the bytes are not the index of what the trailer says.
    init?(_ bytes: UnsafeRawBufferPointer, of trailer: SegmentTrailer) {
        guard bytes.count == trailer.blockCount * Entry.byteCount else { return nil }
        entries.reserveCapacity(trailer.blockCount)
        var end = trailer.base, offset = 0
        for at in stride(from: 0, to: bytes.count, by: Entry.byteCount) {
            let entry = Entry(
                base: Position(bytes.little(at, as: UInt64.self)),
                firstTime: Timestamp(storedMicroseconds: bytes.little(at + 8)),
                offset: Int(bytes.little(at + 16, as: UInt32.self)) * LogFormat.alignment,
                count: Int(bytes.little(at + 20, as: UInt32.self)))
            guard entry.base >= end, entry.count > 0, entry.offset > offset, entry.offset < trailer.footerOffset,
                entry.base <= trailer.end, entry.count <= trailer.end.rawValue - entry.base.rawValue
            else { return nil }
            entries.append(entry)
            (end, offset) = (entry.end, entry.offset)
        }
    }

    init() {}

    /// The number of the last entry that `isBefore` holds for; it must hold for a beginning of the entries and no more.
    func last(where isBefore: (Entry) -> Bool) -> Int? {
        let behind = entries.partitioningIndex { !isBefore($0) }
        return behind == 0 ? nil : behind - 1
    }
}
