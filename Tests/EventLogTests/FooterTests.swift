import EventModel
import Foundation
import Testing
@testable import EventLog

/// Footers, posting lists and block indexes as bytes, without a disk.
@Suite struct FooterTests {
    private func section(_ lists: [(key: String, blocks: [UInt32])]) -> [UInt8] {
        var encoder = PostingLists.Encoder()
        for (key, blocks) in lists { Array(key.utf8).withUnsafeBytes { encoder.add($0, blocks: blocks) } }
        return encoder.encoded()
    }

    private func lookUp(_ key: String, in section: [UInt8]) -> [UInt32]? {
        guard let directory = section.withUnsafeBytes({ PostingLists.Directory($0, sectionBytes: $0.count) }) else {
            return nil
        }
        return Array(key.utf8).withUnsafeBytes { key in
            directory.blocks(of: key) { range in Array(section[range]) }
        }
    }

    @Test(arguments: [0, 1, 2, 15, 16, 17, 33, 1000])
    func everyKeyIsFoundAndNoOther(count: Int) {
        var random = SystemRandomNumberGenerator()
        let lists = (0..<count).map { number in
            (
                key: "tenant/acme/device/\(number % 7)\(number)",
                blocks: (0..<UInt32(number % 50 + 1))
                    .map { $0 * 300 + UInt32.random(in: 0..<300, using: &random) }
            )
        }.sorted { Array($0.key.utf8).lexicographicallyPrecedes(Array($1.key.utf8)) }
        let section = section(lists)
        for (key, blocks) in lists { #expect(lookUp(key, in: section) == blocks) }
        for key in ["", "a", "tenant/acme/device/", "tenant/acme/device/00", "tenant/acme/device/9999", "zzz"]
        where !lists.contains(where: { $0.key == key }) {
            #expect(lookUp(key, in: section) == [])
        }
        var seen: [String] = []
        section.withUnsafeBytes { bytes in
            let directory = PostingLists.Directory(bytes, sectionBytes: bytes.count)
            #expect(directory?.keyCount == count)
            #expect(directory?.forEach(bytes) { key, _ in seen.append(String(decoding: key, as: UTF8.self)) } == true)
        }
        #expect(seen == lists.map(\.key))
    }

    @Test func everyFlippedBitOfPostingListsIsNoticed() {
        let lists = (0..<40).map { (key: "key \(100 + $0)", blocks: [UInt32($0), 500]) }
        let good = section(lists)
        for index in good.indices {
            var bad = good
            bad[index] ^= 0x04
            let found = bad.withUnsafeBytes { bytes in
                PostingLists.Directory(bytes, sectionBytes: bytes.count)?.forEach(bytes) { _, _ in } ?? false
            }
            #expect(!found, "byte \(index)")
            // A lookup either says that it cannot tell, or looked at none of the damage.
            for (key, blocks) in lists { if let answer = lookUp(key, in: bad) { #expect(answer == blocks) } }
        }
    }

    @Test func numbersOfAllSizes() {
        for value: UInt32 in [0, 1, 127, 128, 16_383, 16_384, 1 << 21 - 1, 1 << 28, .max] {
            var bytes: [UInt8] = []
            Varint.append(value, to: &bytes)
            bytes.withUnsafeBytes { raw in
                var offset = 0
                #expect(Varint.read(raw, &offset) == value)
                #expect(offset == raw.count)
                offset = 0
                #expect(Varint.read(UnsafeRawBufferPointer(rebasing: raw.dropLast()), &offset) == nil)
            }
        }
        for bytes: [UInt8] in [[0xFF, 0xFF, 0xFF, 0xFF, 0x1F], [0x80, 0x80, 0x80, 0x80, 0x80, 0]] {
            var offset = 0
            #expect(bytes.withUnsafeBytes { Varint.read($0, &offset) } == nil)
        }
    }

    private let header = SegmentHeader(
        logID: LogID(high: 1, low: 2), salt: 3, base: Position(100), created: Timestamp(microseconds: 0),
        segmentBytes: 1 << 20)

    /// Three blocks of two events each.
    private func builder() -> FooterBuilder {
        let builder = FooterBuilder(), block = EventBlock()
        for number in 0..<3 {
            let base = Position(100 + 2 * UInt64(number))
            let records = batch(["a", "b"], at: Timestamp(microseconds: Int64(number)))
            block.removeAll(at: base)
            let isWhole = block.append(base: base, count: 2, byteCount: records.byteCount) { room in
                records.withUnsafeBytes { room.copyMemory(from: $0) }
                return true
            }
            #expect(isWhole)
            let time = Timestamp(microseconds: Int64(number))
            builder.add(
                BlockHeader(
                    codec: .raw, count: 2, rawBytes: records.byteCount, storedBytes: records.byteCount, base: base,
                    firstTime: time, lastTime: time, salt: 3, durableCount: 100, storedCRC: 0),
                at: 4096 * (number + 1), records: block)
        }
        return builder
    }

    @Test func aFooterSaysWhatTheBlocksSay() throws {
        let tree: [UInt8] = [1, 2, 3]
        let (bytes, written) = try #require(builder().footer(of: header, footerOffset: 16_384, tree: tree))
        #expect(bytes.count % 4096 == 0)
        let file = [UInt8](repeating: 0xAA, count: 16_384) + bytes
        try file.withUnsafeBytes { raw in
            let trailer = try #require(
                SegmentTrailer(
                    UnsafeRawBufferPointer(rebasing: raw.suffix(4096)), fileBytes: raw.count))
            #expect(trailer == written)
            #expect(trailer.base == Position(100) && trailer.end == Position(106) && trailer.eventCount == 6)
            #expect(trailer.blockCount == 3 && trailer.footerOffset == 16_384)
            #expect(trailer.kindCounts == [0, 6, 0, 0, 0, 0, 0, 0] && trailer.verdictCounts[0] == 6)
            func section(_ place: FooterSection) -> UnsafeRawBufferPointer {
                let bytes = UnsafeRawBufferPointer(rebasing: raw[place.offset..<(place.offset + place.byteCount)])
                #expect(LogFormat.crc(bytes) == place.crc && place.offset % 8 == 0)
                return bytes
            }
            let index = try #require(BlockIndex(section(trailer.index), of: trailer))
            #expect(index.entries.map(\.offset) == [4096, 8192, 12_288])
            #expect(index.entries.map(\.base.rawValue) == [100, 102, 104])
            #expect(index.last { $0.base <= Position(103) } == 1)
            #expect(index.last { $0.firstTime < Timestamp(microseconds: 0) } == nil)
            #expect(lookUp("tenant/acme/device/d1", in: Array(section(trailer.postings))) == [0, 1, 2])
            #expect(Array(section(trailer.tree)) == tree)
            let frame = try #require(FooterFrame(UnsafeRawBufferPointer(rebasing: raw[16_384...]), salt: 3))
            #expect(frame.footerBytes == bytes.count && frame.end == Position(106) && frame.blockCount == 3)
            #expect(FooterFrame(UnsafeRawBufferPointer(rebasing: raw[16_384...]), salt: 4) == nil)
            #expect(SegmentTrailer(UnsafeRawBufferPointer(rebasing: raw.suffix(4096)), fileBytes: raw.count + 1) == nil)
        }
        // The same blocks, the same bytes.
        #expect(builder().footer(of: header, footerOffset: 16_384, tree: tree)?.bytes == bytes)
        #expect(FooterBuilder().footer(of: header, footerOffset: 4096, tree: []) == nil)
    }

    /// The specification's example, made by another program.
    @Test func theFooterIsAsWritten() throws {
        let segment = try LogFormatTests.page("segment-header").withUnsafeBytes { try SegmentHeader.decode($0) }
        let page = try LogFormatTests.page("block")
        let builder = FooterBuilder(), block = EventBlock()
        let blockHeader = try #require(page.withUnsafeBytes { BlockHeader($0, salt: segment.salt) })
        block.removeAll(at: blockHeader.base)
        page.withUnsafeBytes { page in
            let stored = page[BlockHeader.byteCount..<(BlockHeader.byteCount + blockHeader.storedBytes)]
            #expect(FileLogReader.decode(blockHeader, UnsafeRawBufferPointer(rebasing: stored), into: block))
        }
        builder.add(blockHeader, at: 4096, records: block)
        let (bytes, _) = try #require(builder.footer(of: segment, footerOffset: 8192, tree: []))
        #expect(try Array(bytes[..<4096]) == LogFormatTests.page("footer"))
        #expect(try Array(bytes[4096...]) == LogFormatTests.page("trailer"))
    }

    @Test func everyByteOfFrameAndTrailerIsGuarded() throws {
        let (bytes, _) = try #require(builder().footer(of: header, footerOffset: 16_384, tree: []))
        let total = 16_384 + bytes.count
        for index in 0..<FooterFrame.byteCount {
            var changed = bytes
            changed[index] ^= 0x01
            #expect(changed.withUnsafeBytes { FooterFrame($0, salt: 3) } == nil, "byte \(index)")
        }
        for index in (bytes.count - 4096)..<bytes.count {
            var changed = bytes
            changed[index] ^= 0x80
            let trailer = changed.withUnsafeBytes {
                SegmentTrailer(UnsafeRawBufferPointer(rebasing: $0.suffix(4096)), fileBytes: total)
            }
            #expect(trailer == nil, "byte \(index)")
        }
    }

    @Test func anIndexThatCannotBeIsRefused() throws {
        let (bytes, trailer) = try #require(builder().footer(of: header, footerOffset: 16_384, tree: []))
        let begin = trailer.index.offset - 16_384
        let good = Array(bytes[begin..<(begin + trailer.index.byteCount)])
        func isAccepted(_ change: (inout [UInt8]) -> Void) -> Bool {
            var changed = good
            change(&changed)
            return changed.withUnsafeBytes { BlockIndex($0, of: trailer) } != nil
        }
        #expect(isAccepted { _ in })
        #expect(!isAccepted { $0.removeLast() }, "too short")
        #expect(!isAccepted { $0[24] = 101 }, "overlapping")
        #expect(!isAccepted { $0[24 + 16] = 1 }, "not behind the one before")
        #expect(!isAccepted { $0[48 + 16] = 4 }, "in the footer")
        #expect(!isAccepted { $0[48 + 20] = 3 }, "beyond the end")
        #expect(!isAccepted { $0[20] = 0 }, "empty")
    }

    @Test func keysAreNumberedAsTheyCome() {
        var table = KeyTable()
        let names = (0..<5000).map { "tenant/t/device/\($0 * 7919 % 5000)" }
        for round in 0..<2 {
            for (number, name) in names.enumerated() {
                let given = Array(name.utf8).withUnsafeBytes { table.number(of: $0) }
                #expect(given == number, "round \(round)")
            }
        }
        #expect([UInt8]().withUnsafeBytes { table.number(of: $0) } == 5000, "the empty key is one too")
        #expect(table.count == 5001)
        let sorted = table.sorted().map { table.withKey($0) { String(decoding: $0, as: UTF8.self) } }
        #expect(sorted == ([""] + names).sorted())
    }
}
