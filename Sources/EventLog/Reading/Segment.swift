import EventModel
import Synchronization

/// A segment that is known: its header, its file, and where in it what is. Shared by all readers of a process.
final class Segment: Sendable {
    let path: String
    let name: String
    let header: SegmentHeader
    let file: any LogFile
    private let index: Mutex<Index>

    var base: Position { header.base }

    init(path: String, name: String, header: SegmentHeader, file: any LogFile) {
        self.path = path
        self.name = name
        self.header = header
        self.file = file
        index = Mutex(Index(scannedTo: SegmentHeader.byteCount))
    }

    /// Opens a segment file and checks its header against its name and, where given, the log's id.
    static func open(
        _ name: String, in directory: String, logID: LogID?, fileSystem: any LogFileSystem, writable: Bool = false
    ) throws(LogError) -> Segment {
        let path = directory + "/" + name
        let file = try system { () throws(FileError) in try fileSystem.open(path, create: false, writable: writable) }
        let page = UnsafeMutableRawBufferPointer.allocate(
            byteCount: SegmentHeader.byteCount, alignment: LogFormat.alignment)
        defer { page.deallocate() }
        let count = try system { () throws(FileError) in try file.read(into: page, at: 0) }
        let header: SegmentHeader
        do throws(SegmentHeader.DecodeError) {
            header = try SegmentHeader.decode(UnsafeRawBufferPointer(rebasing: page[..<count]))
        } catch {
            throw error.logError(path)
        }
        guard LogFormat.segmentName(header.base) == name else {
            throw LogError(.foreign, "\(path) begins at position \(header.base), not at what its name says: rename it "
                + "to \(LogFormat.segmentName(header.base)), or move it out of the folder")
        }
        if let logID, header.logID != logID {
            throw LogError(.foreign, "\(path) belongs to the log \(header.logID), the newest segment to "
                + "\(logID): move what does not belong here out of the folder")
        }
        return Segment(path: path, name: name, header: header, file: file)
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
        if let known = index.withLock({ $0.entries.first?.time }) { return known }
        guard base.rawValue < durableCount else { return nil }
        return try BlockScanner(file: file, salt: header.salt).findHeader()?.firstTime
    }

    /// Bytes up to the last block, header page included.
    func usedBytes() throws(FileError) -> Int {
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
        var low = 0, high = index.entries.count
        while low < high {
            let middle = (low + high) / 2
            if isBefore(index.entries[middle]) { low = middle + 1 } else { high = middle }
        }
        return low == 0 ? SegmentHeader.byteCount : index.entries[low - 1].offset
    }

    /// Hops over the headers of what is durable and not yet indexed: blocks beyond may still be written anew.
    private func extend(_ index: inout Index, durableCount: UInt64) throws(FileError) {
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
            LogError(.foreign, "\(path) has format version \(version), this program knows \(LogFormat.version): "
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

/// The segments of a log, in order. Shared by the writer, which adds, and all readers.
/// The headers of all are read at once; file descriptors of old ones stay open only while a reader holds them.
final class SegmentCatalog: Sendable {
    let directory: String
    let fileSystem: any LogFileSystem
    let losses = LossBook()
    private let state: Mutex<State>

    private struct State {
        var logID: LogID?
        var names: [(base: Position, name: String)] = []
        /// Those that were opened lately, newest last.
        var opened: [Segment] = []
    }
    private static let openedMax = 64

    init(directory: String, fileSystem: any LogFileSystem) {
        self.directory = directory
        self.fileSystem = fileSystem
        state = Mutex(State())
    }

    var bases: [Position] { state.withLock { $0.names.map(\.base) } }
    var count: Int { state.withLock { $0.names.count } }
    var logID: LogID? { state.withLock { $0.logID } }

    /// Lists the folder again. Nothing is opened.
    func refresh() throws(LogError) {
        let listed = try system { () throws(FileError) in try fileSystem.list(directory) }
        let found = listed.compactMap { name in LogFormat.segmentBase(name: name).map { ($0, name) } }
            .sorted { $0.0 < $1.0 }
        state.withLock { $0.names = found.map { (base: $0.0, name: $0.1) } }
    }

    func add(_ segment: Segment) {
        state.withLock {
            $0.logID = $0.logID ?? segment.header.logID
            if $0.names.last.map({ $0.base < segment.base }) ?? true {
                $0.names.append((base: segment.base, name: segment.name))
            }
            Self.remember(segment, &$0)
        }
    }

    private static func remember(_ segment: Segment, _ state: inout State) {
        state.opened.removeAll { $0.name == segment.name }
        state.opened.append(segment)
        if state.opened.count > openedMax { state.opened.removeFirst() }
    }

    /// The segment at an index of `bases`.
    func segment(base: Position) throws(LogError) -> Segment {
        let name = LogFormat.segmentName(base)
        let (known, logID) = state.withLock { state in (state.opened.last { $0.name == name }, state.logID) }
        if let known { return known }
        let segment = try Segment.open(name, in: directory, logID: logID, fileSystem: fileSystem)
        state.withLock {
            $0.logID = $0.logID ?? segment.header.logID
            Self.remember(segment, &$0)
        }
        return segment
    }

    /// The base of the segment that holds `position`, and of the one behind it.
    func bases(around position: Position) -> (containing: Position?, next: Position?) {
        state.withLock { state in
            var low = 0, high = state.names.count
            while low < high {
                let middle = (low + high) / 2
                if state.names[middle].base <= position { low = middle + 1 } else { high = middle }
            }
            return (low > 0 ? state.names[low - 1].base : nil, low < state.names.count ? state.names[low].base : nil)
        }
    }
}
