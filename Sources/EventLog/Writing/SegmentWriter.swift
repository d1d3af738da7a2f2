import EventModel
import Glibc

/// The segment that is being written, and the next one, prepared ahead. Belongs to the writer's thread.
final class SegmentWriter {
    private let catalog: SegmentCatalog
    private let logID: LogID
    private let options: FileLogOptions
    private var fileSystem: any LogFileSystem { options.fileSystem }
    private var active: (segment: Segment, capacity: Int)?
    private(set) var offset = 0
    /// Bytes of a failed write may lie up to here, whole blocks among them; they are zeroed before anything else.
    private var dirtyEnd = 0
    /// Told after each roll: the segment before is no longer written.
    var onRoll: (() -> Void)?
    private let next: NextSegment

    init(
        catalog: SegmentCatalog, logID: LogID, options: FileLogOptions, active: (segment: Segment, offset: Int)?
    ) throws(FileError) {
        self.catalog = catalog
        self.logID = logID
        self.options = options
        next = NextSegment(
            path: catalog.directory + "/next.tmp", capacity: options.segmentBytes, fileSystem: options.fileSystem)
        if let active {
            self.active = (active.segment, try active.segment.file.byteCount())
            offset = active.offset
            dirtyEnd = offset
        }
        for base in catalog.bases where base != active?.segment.base {
            catalog.setUsedBytes(try fileSystem.byteCount(catalog.path(base)), of: base)
        }
        for name in [Packer.temporaryName, Sealer.temporaryName] {
            try fileSystem.remove(catalog.directory + "/" + name)
        }
        try fileSystem.remove(next.path)
        catalog.own()
    }

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
        let start = options.clock.steadyMicroseconds()
        try active.segment.file.synchronize()
        let seconds = Double(options.clock.steadyMicroseconds() - start) / 1e6
        offset += group.bytes.count
        dirtyEnd = offset
        if offset > active.capacity / 2 { next.prepare(on: options.threads) }
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
        let capacity = max(options.segmentBytes, SegmentHeader.byteCount + room)
        let file = try next.take(capacity: capacity)
        let header = SegmentHeader(
            logID: logID, salt: max(1, options.random()), base: base, created: options.clock.now(),
            segmentBytes: UInt64(capacity))
        let page = UnsafeMutableRawBufferPointer.allocate(
            byteCount: SegmentHeader.byteCount, alignment: LogFormat.alignment)
        defer { page.deallocate() }
        header.encode(into: page)
        try file.write(UnsafeRawBufferPointer(page), at: 0)
        try file.synchronize()
        let name = LogFormat.segmentName(base)
        let path = catalog.directory + "/" + name
        try fileSystem.rename(next.path, to: path)
        try fileSystem.synchronizeDirectory(catalog.directory)
        // What the old segment never used goes back to the disk. When that fails, it is only space.
        if let old = active {
            try? old.segment.file.truncate(offset)
            catalog.setUsedBytes(offset, of: old.segment.base)
        }
        let segment = Segment(path: path, name: name, header: header, file: file)
        catalog.add(segment)
        active = (segment, capacity)
        offset = SegmentHeader.byteCount
        dirtyEnd = offset
        onRoll?()
    }

    func describe(_ statistics: inout LogStatistics) {
        statistics.segments = catalog.count
        let closed = catalog.usedBytes
        statistics.usedBytes = UInt64(closed + offset)
        statistics.allocatedBytes = UInt64(closed + (active?.capacity ?? 0))
    }

    /// Gives the space back that was taken ahead.
    func close() { next.discard() }
}

/// Takes the space for the next segment ahead, beside the writer, so that a roll does not wait for it.
final class NextSegment: LogWork {
    let path: String
    private let capacity: Int
    private let fileSystem: any LogFileSystem
    private let state = Monitor(State.none)

    private enum State {
        case none, requested, working, failed
        case ready(any LogFile)
    }

    init(path: String, capacity: Int, fileSystem: any LogFileSystem) {
        self.path = path
        self.capacity = capacity
        self.fileSystem = fileSystem
    }

    /// Begins, unless it has begun.
    func prepare(on threads: any LogThreads) {
        let begins = state.withLock { state in
            guard case .none = state else { return false }
            state = .requested
            return true
        }
        if begins { _ = threads.start(name: "log-prepare", niceness: 0, self) }
    }

    func step() -> LogWorkStep {
        let isWanted = state.withLock { state in
            guard case .requested = state else { return false }
            state = .working
            return true
        }
        guard isWanted else { return .finished }
        let file = try? make(capacity)
        state.withLock { $0 = file.map { .ready($0) } ?? .failed }
        state.wakeAll()
        return .finished
    }

    func wait() {}

    /// A file of that size under the name `path`; made here when it was not made ahead.
    func take(capacity: Int) throws(FileError) -> any LogFile {
        guard let ready = takeReady() else { return try make(capacity) }
        try ready.allocate(capacity)
        return ready
    }

    /// Gives the space back.
    func discard() {
        _ = takeReady()
        try? fileSystem.remove(path)
    }

    /// Waits only for work that has begun: what was merely asked for is not done any more.
    private func takeReady() -> (any LogFile)? {
        state.wait { state -> (any LogFile)?? in
            var file: (any LogFile)?
            if case .working = state { return .none }
            if case .ready(let made) = state { file = made }
            state = .none
            return .some(file)
        }
    }

    private func make(_ capacity: Int) throws(FileError) -> any LogFile {
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
}

func monotonicSeconds() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}
