// The second section of a footer: for every key, the blocks that hold an event of it. `schemas/log-format.md`,
// "Posting lists", is the specification.
//
// Keys are sorted by their bytes and stand in buckets of 16. Within a bucket a key is said by how much of the one
// before it shares. The directory in front holds where each bucket begins and its checksum: a lookup reads the
// directory and a handful of buckets, whatever the number of keys.

import EventModel

/// Unsigned LEB128: seven bits a byte, the lowest first, the high bit set on all but the last.
enum Varint {
    static func append(_ value: UInt32, to bytes: inout [UInt8]) {
        var rest = value
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(rest))
    }

    /// Nil when the bytes end, or the number does not fit.
    static func read(_ bytes: UnsafeRawBufferPointer, _ offset: inout Int) -> UInt32? {
        var value: UInt32 = 0, shift: UInt32 = 0
        while offset < bytes.count, shift < 35 {
            let byte = bytes[offset]
            offset += 1
            if shift == 28, byte > 0x0F { return nil }
            value |= UInt32(byte & 0x7F) << shift
            if byte < 0x80 { return value }
            shift += 7
        }
        return nil
    }
}

enum PostingLists {
    static let bucketKeys = 16
    static let headBytes = 16
    static let directoryEntryBytes = 8

    /// Encodes the section. `keys` must be sorted by their bytes, each with the numbers of its blocks, rising.
    struct Encoder {
        private var body: [UInt8] = []
        private var buckets: [Int] = []
        private var keyCount = 0
        private var previous: [UInt8] = []
        private var list: [UInt8] = []

        /// `blocks` holds at least one block.
        mutating func add(_ key: UnsafeRawBufferPointer, blocks: some Sequence<UInt32>) {
            var shared = 0
            if keyCount % bucketKeys == 0 {
                buckets.append(body.count)
            } else {
                while shared < key.count, shared < previous.count, key[shared] == previous[shared] { shared += 1 }
            }
            list.removeAll(keepingCapacity: true)
            var last: UInt32 = 0
            for block in blocks {
                Varint.append(block - last, to: &list)
                last = block
            }
            Varint.append(UInt32(shared), to: &body)
            Varint.append(UInt32(key.count - shared), to: &body)
            body.append(contentsOf: UnsafeRawBufferPointer(rebasing: key[shared...]))
            Varint.append(UInt32(list.count), to: &body)
            body.append(contentsOf: list)
            previous.removeAll(keepingCapacity: true)
            previous.append(contentsOf: key)
            keyCount += 1
        }

        func encoded() -> [UInt8] {
            let directoryBytes = headBytes + directoryEntryBytes * buckets.count
            var bytes = [UInt8](repeating: 0, count: directoryBytes)
            bytes.reserveCapacity(directoryBytes + body.count)
            bytes.withUnsafeMutableBytes { raw in
                body.withUnsafeBytes { body in
                    for (number, begin) in buckets.enumerated() {
                        let end = number + 1 < buckets.count ? buckets[number + 1] : body.count
                        let at = headBytes + directoryEntryBytes * number
                        raw.store(little: UInt32(directoryBytes + begin), at)
                        raw.store(little: LogFormat.crc(UnsafeRawBufferPointer(rebasing: body[begin..<end])), at + 4)
                    }
                }
                raw.store(little: UInt32(keyCount), 0)
                raw.store(little: UInt32(buckets.count), 4)
                let directory = UnsafeRawBufferPointer(raw)
                raw.store(
                    little: LogFormat.crc(
                        UnsafeRawBufferPointer(rebasing: directory[12...]),
                        from: LogFormat.crc(UnsafeRawBufferPointer(rebasing: directory[..<8]))), 8)
            }
            return bytes + body
        }
    }

    /// The head of the section: where its buckets lie.
    struct Directory {
        let keyCount: Int
        private let offsets: [UInt32]
        private let checksums: [UInt32]
        private let sectionBytes: Int

        var bucketCount: Int { checksums.count }

        /// How many bytes of the section `init` needs, by its first 8; nil when that cannot be.
        static func byteCount(_ head: UnsafeRawBufferPointer, sectionBytes: Int) -> Int? {
            guard head.count >= 8 else { return nil }
            let keys = Int(head.little(0, as: UInt32.self)), buckets = Int(head.little(4, as: UInt32.self))
            let total = headBytes + directoryEntryBytes * buckets
            return buckets == (keys + bucketKeys - 1) / bucketKeys && total <= sectionBytes ? total : nil
        }

        /// Nil when the bytes are damaged.
        init?(_ bytes: UnsafeRawBufferPointer, sectionBytes: Int) {
            guard let total = Self.byteCount(bytes, sectionBytes: sectionBytes), bytes.count >= total else {
                return nil
            }
            let crc = LogFormat.crc(
                UnsafeRawBufferPointer(rebasing: bytes[12..<total]),
                from: LogFormat.crc(UnsafeRawBufferPointer(rebasing: bytes[..<8])))
            guard bytes.little(8, as: UInt32.self) == crc else { return nil }
            keyCount = Int(bytes.little(0, as: UInt32.self))
            let places = stride(from: headBytes, to: total, by: directoryEntryBytes)
            offsets = places.map { bytes.little($0, as: UInt32.self) }
            checksums = places.map { bytes.little($0 + 4, as: UInt32.self) }
            self.sectionBytes = sectionBytes
            guard zip(offsets, offsets.dropFirst()).allSatisfy({ $0 < $1 }), offsets.first.map({ $0 == total }) ?? true,
                offsets.last.map({ $0 <= sectionBytes }) ?? true
            else { return nil }
        }

        /// Where a bucket lies in the section.
        func bucket(_ number: Int) -> Range<Int> {
            let end = number + 1 < offsets.count ? Int(offsets[number + 1]) : sectionBytes
            return Int(offsets[number])..<end
        }

        /// The blocks that hold `key`, none when it is not there. `read` gives the bytes of a part of the section.
        /// Nil when a bucket that had to be looked at is damaged.
        func blocks<E: Error>(
            of key: UnsafeRawBufferPointer, read: (Range<Int>) throws(E) -> [UInt8]
        ) throws(E) -> [UInt32]? {
            var low = 0, high = bucketCount, holding: [UInt8]?
            while low < high {
                let middle = (low + high) / 2
                let bytes = try read(bucket(middle))
                guard let isBeyond = isBeyond(bytes, middle, key) else { return nil }
                if isBeyond {
                    high = middle
                } else {
                    low = middle + 1
                    holding = bytes
                }
            }
            guard let holding else { return [] }
            var found: [UInt32] = []
            let whole = holding.withUnsafeBytes { bytes in
                PostingLists.forEach(inBucket: bytes) { candidate, list in
                    guard candidate.elementsEqual(key) else { return true }
                    guard let blocks = PostingLists.decode(list) else { return false }
                    found = blocks
                    return true
                }
            }
            return whole ? found : nil
        }

        /// Calls `body` with every key and its blocks. False when the section is damaged.
        func forEach(_ section: UnsafeRawBufferPointer, _ body: (UnsafeRawBufferPointer, [UInt32]) -> Void) -> Bool {
            for number in 0..<bucketCount {
                let range = bucket(number)
                guard range.upperBound <= section.count else { return false }
                let bytes = UnsafeRawBufferPointer(rebasing: section[range])
                guard LogFormat.crc(bytes) == checksums[number] else { return false }
                let whole = PostingLists.forEach(inBucket: bytes) { key, list in
                    guard let blocks = PostingLists.decode(list) else { return false }
                    body(key, blocks)
                    return true
                }
                guard whole else { return false }
            }
            return true
        }

        /// Whether the first key of a bucket is greater than `key`; nil when the bucket is damaged.
        private func isBeyond(_ bytes: [UInt8], _ number: Int, _ key: UnsafeRawBufferPointer) -> Bool? {
            bytes.withUnsafeBytes { bytes in
                guard LogFormat.crc(bytes) == checksums[number] else { return nil }
                var offset = 0
                guard Varint.read(bytes, &offset) == 0, let count = Varint.read(bytes, &offset),
                    Int(count) <= bytes.count - offset
                else { return nil }
                return key.lexicographicallyPrecedes(bytes[offset..<(offset + Int(count))])
            }
        }
    }

    /// Calls `body` with every key of a bucket and its list, still encoded. False when the bytes are not a bucket, or
    /// when `body` says so.
    private static func forEach(
        inBucket bytes: UnsafeRawBufferPointer, _ body: (UnsafeRawBufferPointer, UnsafeRawBufferPointer) -> Bool
    ) -> Bool {
        var offset = 0, key: [UInt8] = []
        while offset < bytes.count {
            guard let shared = Varint.read(bytes, &offset), Int(shared) <= key.count,
                let more = Varint.read(bytes, &offset), Int(more) <= bytes.count - offset
            else { return false }
            key.removeSubrange(Int(shared)...)
            key.append(contentsOf: bytes[offset..<(offset + Int(more))])
            offset += Int(more)
            guard let count = Varint.read(bytes, &offset), Int(count) <= bytes.count - offset else { return false }
            let list = UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + Int(count))])
            offset += Int(count)
            guard key.withUnsafeBytes({ body($0, list) }) else { return false }
        }
        return true
    }

    /// Nil when the numbers do not rise.
    private static func decode(_ list: UnsafeRawBufferPointer) -> [UInt32]? {
        var offset = 0, blocks: [UInt32] = []
        while offset < list.count {
            guard let difference = Varint.read(list, &offset) else { return nil }
            guard let last = blocks.last else {
                blocks.append(difference)
                continue
            }
            let (block, overflow) = last.addingReportingOverflow(difference)
            guard difference > 0, !overflow else { return nil }
            blocks.append(block)
        }
        return blocks
    }
}
