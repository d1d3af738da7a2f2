import EventModel
import Glibc
import Primitives
import Synchronization

/// What becomes of a segment: it is written (live), then either sealed or packed into a growing one, which is sealed
/// when it is large enough.
public enum SegmentState: String, Sendable {
    /// Made of group commits; the last of them is the one being written.
    case live
    /// Small commits of live segments are packed into it.
    case growing
    /// Ended by a footer, and read-only.
    case sealed
}

/// A segment that is known: its header, its file, and where in it what is. Shared by all readers of a process.
final class Segment: Sendable {
    let path: String
    let name: String
    let header: SegmentHeader
    /// Nil unless it is sealed.
    let trailer: SegmentTrailer?
    let file: any LogFile
    private let index: Mutex<Index>

    var base: Position { header.base }
    var state: SegmentState { trailer != nil ? .sealed : header.kind == .packed ? .growing : .live }

    init(path: String, name: String, header: SegmentHeader, trailer: SegmentTrailer? = nil, file: any LogFile) {
        self.path = path
        self.name = name
        self.header = header
        self.trailer = trailer
        self.file = file
        index = Mutex(Index(scannedTo: SegmentHeader.byteCount))
    }

    /// Opens a segment file and checks its header against its name and, where given, the log's id.
    static func open(
        _ name: String, in directory: String, logID: LogID?, fileSystem: any LogFileSystem, writable: Bool = false
    ) throws(LogError) -> Segment {
        let segment = try openIfPresent(
            name, in: directory, logID: logID, fileSystem: fileSystem, writable: writable)
        if let segment { return segment }
        throw LogError(.system, "there is no file \(directory)/\(name)")
    }

    /// Nil when there is no such file.
    static func openIfPresent(
        _ name: String, in directory: String, logID: LogID?, fileSystem: any LogFileSystem, writable: Bool = false
    ) throws(LogError) -> Segment? {
        let path = directory + "/" + name
        let file: any LogFile
        do {
            file = try fileSystem.open(path, create: false, writable: writable)
        } catch  where error.code == ENOENT {
            return nil
        } catch {
            throw LogError(.system, error.description)
        }
        let page = UnsafeMutableRawBufferPointer.allocate(
            byteCount: SegmentHeader.byteCount, alignment: LogFormat.alignment)
        defer { page.deallocate() }
        let count = try system { () throws(FileError) in try file.read(into: page, at: 0) }
        guard count == SegmentHeader.byteCount else {
            throw LogError(
                .corrupt,
                "\(path) has \(count) bytes, less than a segment's header: it was cut off, "
                    + "restore it from a backup")
        }
        let header: SegmentHeader
        do throws(SegmentHeader.DecodeError) {
            header = try SegmentHeader.decode(UnsafeRawBufferPointer(rebasing: page[..<count]))
        } catch {
            throw error.logError(path)
        }
        guard LogFormat.segmentName(header.base) == name else {
            throw LogError(
                .foreign,
                "\(path) begins at position \(header.base), not at what its name says: rename it "
                    + "to \(LogFormat.segmentName(header.base)), or move it out of the folder")
        }
        if let logID, header.logID != logID {
            throw LogError(
                .foreign,
                "\(path) belongs to the log \(header.logID), the newest segment to "
                    + "\(logID): move what does not belong here out of the folder")
        }
        let trailer = try system { () throws(FileError) in try readTrailer(file, of: header, into: page) }
        return Segment(path: path, name: name, header: header, trailer: trailer, file: file)
    }

    /// Nil when the file is not sealed.
    private static func readTrailer(
        _ file: any LogFile, of header: SegmentHeader, into page: UnsafeMutableRawBufferPointer
    ) throws(FileError) -> SegmentTrailer? {
        let size = try file.byteCount()
        guard size >= 3 * LogFormat.alignment, size % LogFormat.alignment == 0,
            try file.read(into: page, at: size - SegmentTrailer.byteCount) == page.count,
            let trailer = SegmentTrailer(UnsafeRawBufferPointer(page), fileBytes: size),
            trailer.logID == header.logID, trailer.salt == header.salt, trailer.base == header.base
        else { return nil }
        return trailer
    }

    /// The bytes of a section of the footer; nil when they are damaged, or were not made.
    func read(_ section: FooterSection) throws(FileError) -> [UInt8]? {
        let bytes = try read(section, 0..<section.byteCount)
        guard let bytes, bytes.withUnsafeBytes({ LogFormat.crc($0) }) == section.crc else { return nil }
        return bytes
    }

    /// Some bytes of a section, unchecked; nil when it was not made, or the file is too short.
    func read(_ section: FooterSection, _ range: Range<Int>) throws(FileError) -> [UInt8]? {
        guard section.byteCount > 0, range.upperBound <= section.byteCount else { return nil }
        var bytes = [UInt8](repeating: 0, count: range.count)
        let result = bytes.withUnsafeMutableBytes { (room) -> Result<Int, FileError> in
            do throws(FileError) {
                return .success(try file.read(into: room, at: section.offset + range.lowerBound))
            } catch {
                return .failure(error)
            }
        }
        return try result.get() == range.count ? bytes : nil
    }

    /// What a sealed segment's footer says of its blocks; nil when it is not sealed, or that section is damaged.
    func blockIndex() throws(FileError) -> BlockIndex? {
        guard let trailer, let bytes = try read(trailer.index) else { return nil }
        return bytes.withUnsafeBytes { BlockIndex($0, of: trailer) }
    }

    /// Every so many bytes a block is remembered, so that a lookup reads few headers and the index stays small.
    private static let indexStride = 64 << 10

    private struct Entry {
        let position: Position
        let time: Timestamp
        let offset: Int
    }

    private struct Index {
        var entries: [Entry] = []
        var scannedTo: Int
        /// Position behind the last block that was seen, to notice damage in between.
        var end: Position?
        /// The footer's index was asked for: it is in `entries`, unless it is damaged.
        var isFromFooter = false
    }

    /// Where to begin reading to find `position`: the offset of a block at or before it.
    func offset(before position: Position, durableCount: UInt64) throws(FileError) -> Int {
        try lookUp(durableCount) { $0.position <= position }
    }

    /// Where to begin reading to find the first event at or after `time`.
    func offset(before time: Timestamp, durableCount: UInt64) throws(FileError) -> Int {
        try lookUp(durableCount) { $0.time < time }
    }

    /// The time of the first event, nil when there is none.
    func firstTime(durableCount: UInt64) throws(FileError) -> Timestamp? {
        if let trailer { return trailer.firstTime }
        if let known = index.withLock({ $0.entries.first?.time }) { return known }
        guard base.rawValue < durableCount else { return nil }
        return try BlockScanner(file: file, salt: header.salt).findHeader()?.firstTime
    }

    /// Bytes up to the last block, header page included, or with the footer.
    func usedBytes() throws(FileError) -> Int {
        if let trailer { return trailer.fileBytes }
        let scanner = BlockScanner(file: file, salt: header.salt, offset: index.withLock { $0.scannedTo })
        var used = scanner.offset
        while let found = try scanner.findHeader() {
            scanner.seek(to: scanner.offset + found.bytesOnDisk)
            used = scanner.offset
        }
        return used
    }

    private func lookUp(_ durableCount: UInt64, _ isBefore: (Entry) -> Bool) throws(FileError) -> Int {
        var (index, known) = index.withLock { ($0, $0.scannedTo) }
        try extend(&index, durableCount: durableCount)
        if index.scannedTo > known {
            self.index.withLock { if $0.scannedTo < index.scannedTo { $0 = index } }
        }
        let behind = index.entries.partitioningIndex { !isBefore($0) }
        return behind == 0 ? SegmentHeader.byteCount : index.entries[behind - 1].offset
    }

    /// Hops over the headers of what is durable and not yet indexed: blocks beyond may still be written anew.
    private func extend(_ index: inout Index, durableCount: UInt64) throws(FileError) {
        if let trailer, !index.isFromFooter {
            index.isFromFooter = true
            if let blocks = try blockIndex() {
                index.entries = blocks.entries.map { Entry(position: $0.base, time: $0.firstTime, offset: $0.offset) }
                index.scannedTo = trailer.footerOffset
                index.end = trailer.end
            }
        }
        if let trailer, index.end == trailer.end { return }
        let scanner = BlockScanner(file: file, salt: header.salt, offset: index.scannedTo)
        while (index.end ?? base).rawValue < durableCount {
            let before = scanner.offset
            guard let header = try scanner.findHeader(), header.end.rawValue <= durableCount else { return }
            let offset = scanner.offset
            // Behind damage always: whoever wants to read on there must find it.
            let gap = offset != before || header.base != index.end ?? base
            let last = index.entries.last?.offset
            if gap || last.map({ offset - $0 >= Self.indexStride }) ?? true {
                index.entries.append(Entry(position: header.base, time: header.firstTime, offset: offset))
            }
            scanner.seek(to: offset + header.bytesOnDisk)
            index.scannedTo = scanner.offset
            index.end = header.end
        }
    }
}

extension SegmentHeader.DecodeError {
    func logError(_ path: String) -> LogError {
        switch self {
        case .notASegment:
            LogError(.foreign, "\(path) is not a segment of a refold log: move it out of the folder")
        case .newerVersion(let version):
            LogError(
                .foreign,
                "\(path) has format version \(version), this program knows \(LogFormat.version): "
                    + "use a newer refold")
        case .damaged:
            LogError(.corrupt, "the header of \(path) is damaged: restore this file from a backup")
        }
    }
}

/// Runs a file operation whose failure means that the log cannot be used.
func system<R>(_ body: () throws(FileError) -> R) throws(LogError) -> R {
    do {
        return try body()
    } catch {
        throw LogError(.system, error.description)
    }
}
