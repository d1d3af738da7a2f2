import EventModel
import Glibc
import Threading

/// The segment that is being written, and the next one, prepared ahead. Belongs to the writer's thread.
final class SegmentWriter {
    private let catalog: SegmentCatalog
    private let logID: LogID
    private let segmentBytes: Int
    private let clock: any LogClock
    private let fileSystem: any LogFileSystem
    private var active: (segment: Segment, capacity: Int)?
    private(set) var offset = 0
    /// Bytes of a failed write may lie up to here, whole blocks among them; they are zeroed before anything else.
    private var dirtyEnd = 0
    /// Of the segments before the active one.
    private var closedBytes = 0
    private let prepared = Monitor<Prepared>(.none)

    private enum Prepared {
        case none, working, failed
        case ready(any LogFile)
    }

    init(
        catalog: SegmentCatalog, logID: LogID, segmentBytes: Int, clock: any LogClock, fileSystem: any LogFileSystem,
        active: (segment: Segment, offset: Int)?
    ) throws(FileError) {
        self.catalog = catalog
        self.logID = logID
        self.segmentBytes = segmentBytes
        self.clock = clock
        self.fileSystem = fileSystem
        if let active {
            self.active = (active.segment, try active.segment.file.byteCount())
            offset = active.offset
            dirtyEnd = offset
        }
        for base in catalog.bases where base != active?.segment.base {
            closedBytes += try fileSystem.byteCount(catalog.directory + "/" + LogFormat.segmentName(base))
        }
        try fileSystem.remove(nextPath)
    }

    private var nextPath: String { catalog.directory + "/next.tmp" }

    /// Makes the first segment of a new log.
    func begin(at base: Position) throws(FileError) { try roll(to: base, room: 0) }

    /// Writes a group that begins at `base` and makes it durable. Nothing of it counts when this throws.
    /// Returns the seconds that the fdatasync took.
    func commit(_ group: GroupEncoder) throws(FileError) -> Double {
        try clearDirty()
        if active.map({ offset + group.bytes.count > $0.capacity }) ?? true {
            try roll(to: group.base, room: group.bytes.count)
        }
        guard let active else { preconditionFailure("roll left no segment") }
        group.seal(salt: active.segment.header.salt)
        do {
            try active.segment.file.write(group.bytes, at: offset)
        } catch {
            dirtyEnd = offset + group.bytes.count
            throw error
        }
        let start = monotonicSeconds()
        try active.segment.file.synchronize()
        let seconds = monotonicSeconds() - start
        offset += group.bytes.count
        dirtyEnd = offset
        if offset > active.capacity / 2 { prepareNext() }
        return seconds
    }

    /// Zeroes what a failed write may have left: it could hold whole blocks, which a later recovery would believe.
    func clearDirty() throws(FileError) {
        guard dirtyEnd > offset, let active else { return }
        let end = min(dirtyEnd, try active.segment.file.byteCount())
        var cursor = offset
        while cursor < end {
            let piece = min(LogFormat.zeroes.count, end - cursor)
            try active.segment.file.write(UnsafeRawBufferPointer(rebasing: LogFormat.zeroes[..<piece]), at: cursor)
            cursor += piece
        }
        try active.segment.file.synchronize()
        dirtyEnd = offset
    }

    private func roll(to base: Position, room: Int) throws(FileError) {
        let capacity = max(segmentBytes, SegmentHeader.byteCount + room)
        let file = try takePrepared(capacity: capacity)
        let header = SegmentHeader(
            logID: logID, salt: UInt64.random(in: 1...UInt64.max), base: base, created: clock.now(),
            segmentBytes: UInt64(capacity))
        let page = UnsafeMutableRawBufferPointer.allocate(
            byteCount: SegmentHeader.byteCount, alignment: LogFormat.alignment)
        defer { page.deallocate() }
        header.encode(into: page)
        try file.write(UnsafeRawBufferPointer(page), at: 0)
        try file.synchronize()
        let name = LogFormat.segmentName(base)
        let path = catalog.directory + "/" + name
        try fileSystem.rename(nextPath, to: path)
        try fileSystem.synchronizeDirectory(catalog.directory)
        // What the old segment never used goes back to the disk. When that fails, it is only space.
        if let old = active { try? old.segment.file.truncate(offset) }
        closedBytes += offset
        let segment = Segment(path: path, name: name, header: header, file: file)
        catalog.add(segment)
        active = (segment, capacity)
        offset = SegmentHeader.byteCount
        dirtyEnd = offset
    }

    private func takePrepared(capacity: Int) throws(FileError) -> any LogFile {
        let ready: (any LogFile)? = prepared.wait { state in
            switch state {
            case .working: return .none
            case .ready(let file):
                state = .none
                return .some(file)
            case .none, .failed:
                state = .none
                return .some(nil)
            }
        }
        if let ready {
            try ready.allocate(capacity)
            return ready
        }
        return try Self.prepare(nextPath, capacity, fileSystem)
    }

    /// Takes the space for the next segment on another thread, so that a roll does not wait for it.
    private func prepareNext() {
        let mine = prepared.withLock { state in
            guard case .none = state else { return false }
            state = .working
            return true
        }
        guard mine else { return }
        startThread(name: "log-prepare") { [prepared, nextPath, segmentBytes, fileSystem] in
            let file = try? Self.prepare(nextPath, segmentBytes, fileSystem)
            prepared.withLock { $0 = file.map { .ready($0) } ?? .failed }
            prepared.wakeAll()
        }
    }

    private static func prepare(_ path: String, _ capacity: Int, _ fileSystem: any LogFileSystem) throws(FileError)
        -> any LogFile
    {
        do {
            let file = try fileSystem.open(path, create: true, writable: true)
            try file.allocate(capacity)
            try file.synchronize()
            return file
        } catch {
            // Half a segment would keep the last of a full disk for nothing.
            try? fileSystem.remove(path)
            throw error
        }
    }

    func describe(_ statistics: inout LogStatistics) {
        statistics.segments = catalog.count
        statistics.usedBytes = UInt64(closedBytes + offset)
        statistics.allocatedBytes = UInt64(closedBytes + (active?.capacity ?? 0))
    }

    /// Waits for the other thread and gives the prepared space back.
    func close() {
        prepared.wait { (state) -> Void? in
            if case .working = state { return nil }
            state = .none
            return ()
        }
        try? fileSystem.remove(nextPath)
    }
}

func monotonicSeconds() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}
