import EventModel

/// Reads one segment block by block, in large reads into a buffer that it keeps. Checks checksums, salt and padding;
/// what lies in the records is for the caller.
final class BlockScanner {
    enum Step {
        /// A whole, intact block. The stored bytes are valid until the next call.
        case block(BlockHeader, stored: UnsafeRawBufferPointer)
        /// A header of zeroes, the end of the file, or a footer: no block was written here.
        case end
        /// Something else; the text says what.
        case damaged(String)
    }

    static let chunkBytes = 256 << 10

    let file: any LogFile
    let salt: UInt64
    /// Where the next block begins.
    private(set) var offset: Int
    private let buffer = GrowingBuffer()
    private var bufferStart = 0

    init(file: any LogFile, salt: UInt64, offset: Int = SegmentHeader.byteCount) {
        self.file = file
        self.salt = salt
        self.offset = offset
    }

    func seek(to newOffset: Int) {
        precondition(newOffset >= SegmentHeader.byteCount && newOffset % LogFormat.alignment == 0)
        offset = newOffset
    }

    /// Forgets what was read ahead: it may have been written since.
    func invalidate() { buffer.removeAll() }

    /// Looks at what is at `offset`, and moves behind it when it is a block.
    func next() throws(FileError) -> Step {
        let head = try window(BlockHeader.byteCount)
        if head.count < BlockHeader.byteCount {
            return LogFormat.isZero(head) ? .end : .damaged("the file ends within a header")
        }
        guard let header = BlockHeader(head, salt: salt) else {
            return LogFormat.isZero(head) || FooterFrame(head, salt: salt) != nil
                ? .end : .damaged("this is no block header of this segment")
        }
        let whole = try window(header.bytesOnDisk)
        let used = BlockHeader.byteCount + header.storedBytes
        guard whole.count >= used else { return .damaged("the file ends within a block") }
        let stored = UnsafeRawBufferPointer(rebasing: whole[BlockHeader.byteCount..<used])
        guard LogFormat.crc(stored) == header.storedCRC || LogFault.isPlanted(.checksumIgnored) else {
            return .damaged("the checksum of the records is wrong")
        }
        guard LogFormat.isZero(UnsafeRawBufferPointer(rebasing: whole[used...])) else {
            return .damaged("the padding is not zero")
        }
        offset += header.bytesOnDisk
        return .block(header, stored: stored)
    }

    /// Moves to the next valid block header at or behind `offset`, or to the end of the blocks: then nil. The records
    /// behind it are not looked at, nor read: whoever hops over blocks needs a page of each.
    func findHeader() throws(FileError) -> BlockHeader? {
        while true {
            let head = try window(BlockHeader.byteCount, readAhead: LogFormat.alignment)
            guard head.count == BlockHeader.byteCount else { return nil }
            if let header = BlockHeader(head, salt: salt) { return header }
            if FooterFrame(head, salt: salt) != nil { return nil }
            offset += LogFormat.alignment
        }
    }

    /// Reads on from `offset` to the end of the file; returns where the last page with anything in it ends, or
    /// `offset`.
    func nonZeroEnd() throws(FileError) -> Int {
        var end = offset
        while true {
            let page = try window(LogFormat.alignment)
            if page.isEmpty { return end }
            offset += page.count
            if !LogFormat.isZero(page) { end = offset }
        }
    }

    /// The bytes from `offset` on: `length` of them, or fewer at the end of the file.
    private func window(_ length: Int, readAhead: Int = BlockScanner.chunkBytes) throws(FileError)
        -> UnsafeRawBufferPointer
    {
        if offset < bufferStart || offset > bufferStart + buffer.count {
            buffer.removeAll()
        }
        if buffer.count == 0 { bufferStart = offset }
        var available = bufferStart + buffer.count - offset
        if available < length {
            buffer.removeFirst(offset - bufferStart)
            bufferStart = offset
            let wanted = max(length, readAhead) - available
            let room = buffer.grow(by: wanted)
            let count: Int
            do {
                count = try file.read(into: room, at: bufferStart + available)
            } catch {
                buffer.removeAll()
                throw error
            }
            available += count
            buffer.shrink(to: available)
        }
        return UnsafeRawBufferPointer(buffer.region(offset - bufferStart, min(length, available)))
    }
}
