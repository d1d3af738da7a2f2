import EventModel
import Glibc
import Primitives
import Synchronization

/// A log that another process writes, or nobody. While a writer is up, what it has published in the file `durable` is
/// visible; without one, every whole block. Takes no lock and changes nothing.
public final class ReadOnlyLog: LogSource {
    public let directory: String
    public let logID: LogID
    let catalog: SegmentCatalog
    private let state: Mutex<State>

    private struct State {
        var durableFile: DurableFile?
        /// The end that was found without a writer: of which segment, at which size of it.
        var scanned: (base: Position, status: FileStatus?, count: UInt64)?
        var lastKnown: UInt64 = 0
    }

    /// - Throws: `.system` when there is no log in `directory`; `.foreign` and `.corrupt` for what is no segment of
    ///   ours.
    public init(directory: String, fileSystem: any LogFileSystem = PosixFileSystem()) throws(LogError) {
        self.directory = directory
        catalog = SegmentCatalog(directory: directory, fileSystem: fileSystem)
        let folder = try system { () throws(FileError) in try fileSystem.status(directory) }
        if folder != nil { try catalog.refresh() }
        // The last, as the writer does: it must be whole.
        guard let last = catalog.last else {
            throw LogError(.system, "there is no log in \(directory): name the data folder with --data")
        }
        logID = try catalog.segment(base: last).header.logID
        state = Mutex(State())
        _ = try currentCount()
    }

    /// Whether a writer has the log open.
    public var isWriterUp: Bool { catalog.fileSystem.isLocked(directory + "/lock") }

    public var durableCount: UInt64 {
        (try? currentCount()) ?? state.withLock { $0.lastKnown }
    }

    func currentCount() throws(LogError) -> UInt64 {
        let published = try publishedCount()
        let count: UInt64
        if let published, isWriterUp { count = published } else { count = try scan(provenCount: published ?? 0) }
        return state.withLock {
            $0.lastKnown = max($0.lastKnown, count)
            return $0.lastKnown
        }
    }

    private func publishedCount() throws(LogError) -> UInt64? {
        if let known = state.withLock({ $0.durableFile }) { return known.count }
        let file = try system { () throws(FileError) in
            try DurableFile.openReadOnly(directory + "/durable", fileSystem: catalog.fileSystem)
        }
        guard let file, file.logID == logID else { return nil }
        state.withLock { $0.durableFile = file }
        return file.count
    }

    /// Walks the last segment, unless nothing about it changed since the last time.
    private func scan(provenCount: UInt64) throws(LogError) -> UInt64 {
        try catalog.refresh()
        guard let last = catalog.last else { return 0 }
        let segment = try catalog.segment(base: last)
        let status = try system { () throws(FileError) in try catalog.fileSystem.status(segment.path) }
        if let known = state.withLock({ $0.scanned }), known.base == last, known.status == status {
            return known.count
        }
        let count = try system { () throws(FileError) in
            try TailScan.scan(segment, provenCount: provenCount).end.rawValue
        }
        state.withLock { $0.scanned = (last, status, count) }
        return count
    }

    public func reader(from position: Position) throws -> any LogReader {
        let durable = durableCount
        guard position.rawValue <= durable else {
            throw LogError(.outOfRange, "position \(position) lies beyond the log's end (\(durable) events)")
        }
        return FileLogReader(catalog: catalog, position: position) { [self] () throws(LogError) in try currentCount() }
    }

    /// Asks every few milliseconds: nothing wakes another process.
    public func waitForDurable(
        beyond count: UInt64, timeoutMilliseconds: Int, unless stop: () -> Bool
    ) -> UInt64 {
        let deadline = SystemTime.monotonicMicroseconds() + Int64(timeoutMilliseconds) * 1_000
        while true {
            let now = durableCount
            let left = deadline - SystemTime.monotonicMicroseconds()
            if now > count || left <= 0 || stop() { return now }
            usleep(UInt32(min(5_000, left)))
        }
    }

    /// The position behind the last event that was received before `time`: `FileLog.position(atOrAfter:)`.
    public func position(atOrAfter time: Timestamp) throws -> Position {
        try catalog.position(atOrAfter: time, durableCount: currentCount())
    }

    /// The first position that is kept.
    public var firstPosition: Position { catalog.first ?? Position(0) }

    /// The segments and what they take on disk.
    public func segments() throws(LogError) -> [SegmentSummary] {
        try catalog.refresh()
        return try catalog.summaries(durableCount: try currentCount())
    }
}

/// One file of the log.
public struct SegmentSummary: Sendable {
    public let name: String
    public let base: Position
    /// Position behind its last event.
    public let end: Position
    public let state: SegmentState
    public let created: Timestamp
    public let firstTime: Timestamp?
    /// Received-at of its last event, where it is known without reading the segment: when it is sealed.
    public let lastTime: Timestamp?
    public let usedBytes: Int
    public let allocatedBytes: Int
}

extension SegmentCatalog {
    /// Files that go away meanwhile are left out: what they held is in another.
    func summaries(durableCount: UInt64) throws(LogError) -> [SegmentSummary] {
        var result: [SegmentSummary] = []
        for base in bases {
            guard let segment = try segmentIfPresent(base: base) else { continue }
            let next = bases(around: base).next
            let limit = next ?? Position(max(base.rawValue, durableCount))
            result.append(
                try system { () throws(FileError) in
                    let end = segment.state == .growing ? try segment.outline(until: limit).end : limit
                    return SegmentSummary(
                        name: segment.name, base: base, end: segment.trailer?.end ?? end,
                        state: segment.state, created: segment.header.created,
                        firstTime: try segment.firstTime(durableCount: durableCount),
                        lastTime: segment.trailer?.lastTime,
                        usedBytes: try segment.usedBytes(), allocatedBytes: try segment.file.allocatedBytes())
                })
        }
        return result
    }

    func position(atOrAfter time: Timestamp, durableCount: UInt64) throws -> Position {
        let bases = self.bases.filter { $0.rawValue < durableCount }
        // The last segment whose first event lies before `time` holds the answer, or ends just before it. Within a
        // segment times never decrease; from one to the next they do where an era begins, so each is looked at.
        let found = try bases.last { try knownFirstTime(ofSegment: $0, durableCount) ?? time < time }
        guard let found else { return bases.first ?? Position(durableCount) }
        guard let segment = try segment(holding: found) else { return Position(durableCount) }
        let offset = try system { () throws(FileError) in try segment.offset(before: time, durableCount: durableCount) }
        let start = try system { () throws(FileError) in
            try BlockScanner(file: segment.file, salt: segment.header.salt, offset: offset).findHeader()?.base
        }
        let reader = FileLogReader(catalog: self, position: start ?? segment.base) { durableCount }
        let block = EventBlock()
        while try reader.read(into: block, atLeast: 1) {
            guard block.lastTime >= time else { continue }
            var found: Position?
            block.forEach { record, position in
                if found == nil, record.receivedAt >= time { found = position }
            }
            if let found { return found }
        }
        return Position(durableCount)
    }

    private func knownFirstTime(ofSegment base: Position, _ durableCount: UInt64) throws -> Timestamp? {
        if let known = firstTimes.withLock({ $0[base] }) { return known }
        let time = try firstTime(ofSegment: base, durableCount)
        if let time { firstTimes.withLock { $0[base] = time } }
        return time
    }

    /// Nil when it holds nothing yet. One that was packed into another meanwhile began when that one's event there was
    /// received, which is told by a lookup in it.
    private func firstTime(ofSegment base: Position, _ durableCount: UInt64) throws -> Timestamp? {
        if let segment = try segmentIfPresent(base: base) {
            return try system { () throws(FileError) in try segment.firstTime(durableCount: durableCount) }
        }
        let block = EventBlock()
        let reader = FileLogReader(catalog: self, position: base) { durableCount }
        guard try reader.read(into: block, atLeast: 1) else { return nil }
        var time: Timestamp?
        block.forEach { record, position in if position == base { time = record.receivedAt } }
        return time
    }
}
