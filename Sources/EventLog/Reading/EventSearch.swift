import CLZ4
import EventModel
import Synchronization

/// Says of a record whether it is selected: by its key, and quickly of the many that are not.
struct EventMatcher: Sendable {
    private let key: [UInt8]?
    private let suffix: [UInt8]

    init(_ selection: EventSelection) {
        key = selection.key
        suffix = selection.suffix
    }

    func matches(key candidate: UnsafeRawBufferPointer) -> Bool {
        if let key { return candidate.elementsEqual(key) }
        guard candidate.count > suffix.count, candidate.starts(with: "tenant/".utf8) else { return false }
        return UnsafeRawBufferPointer(rebasing: candidate.suffix(suffix.count)).elementsEqual(suffix)
    }

    /// Calls `body` with the selected records within `range`; `bytes` must be whole records. Returns how many there
    /// were.
    func forEach(
        _ bytes: UnsafeRawBufferPointer, from base: Position, within range: Range<Position>,
        _ body: (RecordView, Position) -> Void
    ) -> Int {
        var count = 0
        _ = walk(bytes, isChecked: true, from: base, within: range) { record, position in
            body(record, position)
            count += 1
        }
        return count
    }

    /// The same for bytes that nobody has checked. Returns how many records they are; nil when they are none.
    func forEachChecked(
        _ bytes: UnsafeRawBufferPointer, from base: Position, within range: Range<Position>,
        _ body: (RecordView, Position) -> Void
    ) -> Int? {
        walk(bytes, isChecked: false, from: base, within: range, body)
    }

    @inline(__always)
    private func walk(
        _ bytes: UnsafeRawBufferPointer, isChecked: Bool, from base: Position, within range: Range<Position>,
        _ body: (RecordView, Position) -> Void
    ) -> Int? {
        guard let start = bytes.baseAddress else { return 0 }
        return (key ?? Array("tenant/".utf8)).withUnsafeBytes { prefix in
            var offset = 0, position = base, count = 0
            while offset < bytes.count {
                if !isChecked, RecordView.check(bytes, at: offset) == nil { return nil }
                let record = RecordView(unchecked: start + offset), topic = record.topic
                if topic.count >= prefix.count, Self.begins(topic, with: prefix), range.contains(position),
                    matches(key: EventKey.bytes(of: record))
                {
                    body(record, position)
                }
                count += 1
                position = position.next
                offset += record.length
            }
            return count
        }
    }

    /// The last bytes first: that is where devices differ.
    @inline(__always)
    private static func begins(_ topic: UnsafeRawBufferPointer, with prefix: UnsafeRawBufferPointer) -> Bool {
        let count = prefix.count
        guard count >= 8 else { return topic.starts(with: prefix) }
        guard
            topic.loadUnaligned(fromByteOffset: count - 8, as: UInt64.self)
                == prefix.loadUnaligned(fromByteOffset: count - 8, as: UInt64.self)
        else { return false }
        return UnsafeRawBufferPointer(rebasing: topic[..<count]).elementsEqual(prefix)
    }
}

/// Copies of the selected records of one block.
struct FoundEvents {
    /// Position behind the block's last record.
    let end: Position
    private var positions: [Position] = []
    /// Behind the last record lie as many readable bytes as in an `EventBlock`.
    private var bytes: [UInt8] = []

    init(end: Position) { self.end = end }

    var count: Int { positions.count }

    mutating func append(_ record: RecordView, _ position: Position) {
        positions.append(position)
        bytes.append(contentsOf: record.bytes)
    }

    mutating func finish() { bytes.append(contentsOf: repeatElement(0, count: EventBlock.slackBytes)) }

    func forEach(_ body: (RecordView, Position) -> Void) {
        bytes.withUnsafeBytes { bytes in
            guard var cursor = bytes.baseAddress else { return }
            for position in positions {
                let record = RecordView(unchecked: cursor)
                body(record, position)
                cursor += record.length
            }
        }
    }
}

/// Blocks to be searched, by several threads.
/// `@unchecked Sendable`: each takes numbers from `next`, and writes the result of that number alone; they are read
/// when all have ended.
final class SearchTask: @unchecked Sendable {
    let segment: Segment
    let blocks: [BlockIndex.Entry]
    let matcher: EventMatcher
    let range: Range<Position>
    private let next = Atomic(0)
    private let room: UnsafeMutableBufferPointer<FoundEvents?>

    init(segment: Segment, blocks: [BlockIndex.Entry], matcher: EventMatcher, range: Range<Position>) {
        self.segment = segment
        self.blocks = blocks
        self.matcher = matcher
        self.range = range
        room = .allocate(capacity: blocks.count)
        room.initialize(repeating: nil)
    }

    deinit {
        room.deinitialize()
        room.deallocate()
    }

    /// Nil for a block that is not what was expected.
    var results: [FoundEvents?] { Array(room) }

    func takeNumber() -> Int? {
        let number = next.add(1, ordering: .relaxed).oldValue
        return number < blocks.count ? number : nil
    }

    func finish(_ number: Int, _ found: FoundEvents?) { room[number] = found }
}

/// One thread's buffers.
/// `@unchecked Sendable`: handed from thread to thread, used by one at a time.
final class BlockSearch: @unchecked Sendable {
    private let stored = GrowingBuffer()
    private let raw = GrowingBuffer()

    func work(on task: SearchTask) {
        while let number = task.takeNumber() {
            task.finish(number, try? search(task.blocks[number], of: task.segment, task.matcher, task.range))
        }
    }

    /// Reads, checks and decodes one block and searches it; nil when it is not what was expected.
    private func search(
        _ entry: BlockIndex.Entry, of segment: Segment, _ matcher: EventMatcher, _ range: Range<Position>
    ) throws(FileError) -> FoundEvents? {
        stored.removeAll()
        // Most blocks are no longer; the length of one is known only when its header was read.
        let room = stored.grow(by: 64 << 10)
        let count = try segment.file.read(into: room, at: entry.offset)
        stored.shrink(to: count)
        guard count >= BlockHeader.byteCount,
            let header = BlockHeader(
                UnsafeRawBufferPointer(rebasing: room[..<BlockHeader.byteCount]), salt: segment.header.salt),
            header.base == entry.base, header.count == entry.count
        else { return nil }
        let length = BlockHeader.byteCount + header.storedBytes
        if count < length {
            let more = stored.grow(by: length - count)
            guard try segment.file.read(into: more, at: entry.offset + count) == more.count else { return nil }
        }
        let bytes = UnsafeRawBufferPointer(rebasing: stored.bytes[BlockHeader.byteCount..<length])
        guard LogFormat.crc(bytes) == header.storedCRC else { return nil }
        raw.removeAll()
        let records = raw.grow(by: header.rawBytes)
        switch header.codec {
        case .raw: records.copyMemory(from: bytes)
        case .lz4:
            let size = LZ4_decompress_safe(
                bytes.assumingMemoryBound(to: CChar.self).baseAddress,
                records.assumingMemoryBound(to: CChar.self).baseAddress, Int32(bytes.count), Int32(records.count))
            guard Int(size) == records.count else { return nil }
        }
        var found = FoundEvents(end: header.end)
        let seen = matcher.forEachChecked(UnsafeRawBufferPointer(records), from: header.base, within: range) {
            found.append($0, $1)
        }
        guard seen == header.count else { return nil }
        found.finish()
        return found
    }
}

extension Segment {
    /// The numbers of a sealed segment's blocks that can hold what is selected, rising; nil when the footer is damaged
    /// or does not say.
    func blocks(of selection: EventSelection, _ matcher: EventMatcher) throws(FileError) -> [UInt32]? {
        guard let section = trailer?.postings, section.byteCount > 0,
            let head = try read(section, 0..<min(section.byteCount, PostingLists.headBytes)),
            let headBytes = head.withUnsafeBytes({
                PostingLists.Directory.byteCount($0, sectionBytes: section.byteCount)
            }),
            let bytes = try read(section, 0..<headBytes),
            let directory = bytes.withUnsafeBytes({
                PostingLists.Directory($0, sectionBytes: section.byteCount)
            })
        else { return nil }
        if let key = selection.key {
            return try directory.blocks(of: key) { (range) throws(FileError) in try read(section, range) ?? [] }
        }
        guard let whole = try read(section) else { return nil }
        var found: Set<UInt32> = []
        let isWhole = whole.withUnsafeBytes { bytes in
            directory.forEach(bytes) { key, blocks in if matcher.matches(key: key) { found.formUnion(blocks) } }
        }
        return isWhole ? found.sorted() : nil
    }
}

extension PostingLists.Directory {
    func blocks(of key: [UInt8], read: (Range<Int>) throws(FileError) -> [UInt8]) throws(FileError) -> [UInt32]? {
        var failure: FileError?
        let found = key.withUnsafeBytes { key in
            blocks(of: key) { range in
                do throws(FileError) {
                    return try read(range)
                } catch {
                    failure = error
                    return []
                }
            }
        }
        if let failure { throw failure }
        return found
    }
}
