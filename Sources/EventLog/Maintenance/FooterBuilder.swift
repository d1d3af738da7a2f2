import EventModel

/// Collects what a segment's footer says, block by block. What it makes depends on the blocks alone, so that a footer
/// can be checked by making it again.
final class FooterBuilder {
    private(set) var index = BlockIndex()
    private(set) var firstTime: Timestamp?
    private(set) var lastTime = Timestamp(microseconds: 0)
    private(set) var rawBytes: UInt64 = 0
    private var kindCounts = [UInt64](repeating: 0, count: SegmentTrailer.counterCount)
    private var verdictCounts = [UInt64](repeating: 0, count: SegmentTrailer.counterCount)
    private var keys = KeyTable()
    /// The number, plus one, of the last block that a key was seen in.
    private var lastBlocks: [UInt32] = []
    /// How many blocks hold a key.
    private var blockCounts: [UInt32] = []
    /// Every (key, block) once, in the order of the blocks: 8 bytes for at most one an event.
    private var pairs: [(key: UInt32, block: UInt32)] = []

    /// Adds the next block, which begins at `offset` in the file; `records` are those of it.
    func add(_ header: BlockHeader, at offset: Int, records: EventBlock) {
        let block = UInt32(index.entries.count)
        index.entries.append(
            BlockIndex.Entry(
                base: header.base, firstTime: header.firstTime, offset: offset, count: header.count))
        firstTime = firstTime ?? header.firstTime
        lastTime = header.lastTime
        rawBytes += UInt64(header.rawBytes)
        records.forEach { record, _ in
            kindCounts[Int(record.kind.rawValue)] += 1
            verdictCounts[Int(record.verdict.rawValue)] += 1
            let key = keys.number(of: EventKey.bytes(of: record))
            if key == lastBlocks.count {
                lastBlocks.append(0)
                blockCounts.append(0)
            }
            guard lastBlocks[key] != block + 1 else { return }
            lastBlocks[key] = block + 1
            blockCounts[key] += 1
            pairs.append((UInt32(key), block))
        }
    }

    /// The footer of the segment whose blocks, up to `footerOffset`, were added. Nil when there were none.
    func footer(
        of header: SegmentHeader, footerOffset: Int, tree: [UInt8]
    ) -> (bytes: [UInt8], trailer: SegmentTrailer)? {
        guard let firstTime, let last = index.entries.last else { return nil }
        var trailer = SegmentTrailer(
            header: header, end: last.end, firstTime: firstTime, lastTime: lastTime, footerOffset: footerOffset)
        trailer.blockCount = index.entries.count
        trailer.rawBytes = rawBytes
        trailer.kindCounts = kindCounts
        trailer.verdictCounts = verdictCounts
        let bytes = Footer.encode(&trailer, index: index.encoded(), postings: postings(), tree: tree)
        return (bytes, trailer)
    }

    private func postings() -> [UInt8] {
        // Counting sort: the blocks of a key lie together, in their order.
        var ends = [Int](repeating: 0, count: keys.count)
        var total = 0
        for key in 0..<keys.count {
            ends[key] = total
            total += Int(blockCounts[key])
        }
        var blocks = [UInt32](repeating: 0, count: total)
        for pair in pairs {
            blocks[ends[Int(pair.key)]] = pair.block
            ends[Int(pair.key)] += 1
        }
        var encoder = PostingLists.Encoder()
        for key in keys.sorted() {
            let list = blocks[(ends[key] - Int(blockCounts[key]))..<ends[key]]
            keys.withKey(key) { encoder.add($0, blocks: list) }
        }
        return encoder.encoded()
    }
}
