import EventModel

extension Segment {
    /// What is wrong with a sealed segment's footer, the trailer aside, and where; nil when every byte of it is right.
    /// No event is lost by it: what a footer says can be made again from the blocks.
    func footerProblem() throws(FileError) -> (bytes: Range<Int>, reason: String)? {
        guard let trailer else { return nil }
        let begin = trailer.footerOffset, end = trailer.fileBytes - SegmentTrailer.byteCount
        let room = UnsafeMutableRawBufferPointer.allocate(byteCount: end - begin, alignment: LogFormat.alignment)
        defer { room.deallocate() }
        guard try file.read(into: room, at: begin) == room.count else {
            return (begin..<end, "the footer cannot be read whole")
        }
        let bytes = UnsafeRawBufferPointer(room)
        guard let frame = FooterFrame(bytes, salt: header.salt), frame.base == trailer.base, frame.end == trailer.end,
            frame.blockCount == trailer.blockCount, frame.footerBytes == trailer.fileBytes - begin
        else { return (begin..<(begin + FooterFrame.byteCount), "the footer's frame is damaged") }
        let named = [
            ("block index", trailer.index), ("posting lists", trailer.postings), ("tree section", trailer.tree),
        ]
        var covered = FooterFrame.byteCount
        for (name, section) in named where section.byteCount > 0 {
            let place = (section.offset - begin)..<(section.offset - begin + section.byteCount)
            guard place.lowerBound >= covered, place.upperBound <= bytes.count,
                LogFormat.crc(UnsafeRawBufferPointer(rebasing: bytes[place])) == section.crc
            else { return (section.offset..<(section.offset + section.byteCount), "the footer's \(name) is damaged") }
            guard LogFormat.isZero(UnsafeRawBufferPointer(rebasing: bytes[covered..<place.lowerBound])) else {
                return ((begin + covered)..<section.offset, "the footer's padding is not zero")
            }
            covered = place.upperBound
        }
        guard LogFormat.isZero(UnsafeRawBufferPointer(rebasing: bytes[covered...])) else {
            return ((begin + covered)..<end, "the footer's padding is not zero")
        }
        return nil
    }

    /// Whether a footer begins at this offset, whatever its last page says.
    func hasFooterFrame(at offset: Int) throws(FileError) -> Bool {
        let room = UnsafeMutableRawBufferPointer.allocate(byteCount: FooterFrame.byteCount, alignment: 8)
        defer { room.deallocate() }
        let count = try file.read(into: room, at: offset)
        return count == room.count && FooterFrame(UnsafeRawBufferPointer(room), salt: header.salt) != nil
    }

    /// The devices of the blocks that hold `positions`, as a sealed segment's posting lists have them, sorted; nil when
    /// it has none, or they are damaged. At most `limit`.
    func devices(of positions: Range<Position>, limit: Int) -> [String]? {
        guard let trailer, let index = try? blockIndex(), let section = try? read(trailer.postings) else { return nil }
        let wanted = Set(
            index.entries.indices.filter {
                index.entries[$0].base < positions.upperBound && index.entries[$0].end > positions.lowerBound
            }.map { UInt32($0) })
        guard !wanted.isEmpty else { return nil }
        var names: [String] = []
        let isWhole = section.withUnsafeBytes { bytes in
            PostingLists.Directory(bytes, sectionBytes: bytes.count)?.forEach(bytes) { key, blocks in
                guard names.count < limit, key.starts(with: "tenant/".utf8), blocks.contains(where: wanted.contains)
                else { return }
                names.append(String(decoding: key, as: UTF8.self))
            } ?? false
        }
        return isWhole ? names.sorted() : nil
    }
}
