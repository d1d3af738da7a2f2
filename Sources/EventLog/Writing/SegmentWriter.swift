import EventModel
import Glibc
import Threading

/// The segment that is being written, and the next one, prepared ahead. Belongs to the writer's thread.
///
/// Space is taken in steps, ahead of the writer and beside it: 1 MiB, then as much again as there is, at most 16 MiB at
/// once. A segment ends when it is full; one of small commits, which cost a page each, ends at 4 MiB, so that packing
/// them does not wait.
final class SegmentWriter {
    private struct Active {
        let segment: Segment
        /// Bytes that are taken on disk, and how many there may be.
        var capacity: Int
        var limit: Int
        /// What was committed to it, since the log was opened.
        var rawBytes = 0
        var blockCount = 0

        var isSparse: Bool { blockCount > 0 && rawBytes / blockCount < SegmentWriter.sparseBlockBytes }
    }

    private static let firstStepBytes = 1 << 20
    private static let stepBytesMax = 16 << 20
    /// Segments whose blocks hold less than this, before compression, end early.
    private static let sparseBlockBytes = 32 << 10
    private static let sparseSegmentBytes = 4 << 20

    private let catalog: SegmentCatalog
    private let logID: LogID
    private let options: FileLogOptions
    private var fileSystem: any LogFileSystem { options.fileSystem }
    private var active: Active?
    private(set) var offset = 0
    /// Bytes of a failed write may lie up to here, whole blocks among them; they are zeroed before anything else.
    private var dirtyEnd = 0
    /// Told after each roll: the segment before is no longer written.
    var onRoll: (() -> Void)?
    private let next: NextSegment
    private let growth = SegmentGrowth()

    init(
        catalog: SegmentCatalog, logID: LogID, options: FileLogOptions, active: (segment: Segment, offset: Int)?
    ) throws(FileError) {
        self.catalog = catalog
        self.logID = logID
        self.options = options
        next = NextSegment(
            path: catalog.directory + "/next.tmp", capacity: min(Self.firstStepBytes, options.segmentBytes),
            fileSystem: options.fileSystem)
        if let active {
            let capacity = try active.segment.file.byteCount()
            self.active = Active(
                segment: active.segment, capacity: capacity, limit: max(capacity, options.segmentBytes))
            offset = active.offset
            dirtyEnd = offset
        }
        for base in catalog.bases where base != active?.segment.base {
            catalog.setUsedBytes(try fileSystem.byteCount(catalog.path(base)), of: base)
        }
        for name in [Compactor.temporaryName, Sealer.temporaryName] {
            try fileSystem.remove(catalog.directory + "/" + name)
        }
        try fileSystem.remove(next.path)
        catalog.own()
    }

    /// Makes the first segment of a new log.
    func begin(at base: Position) throws(FileError) { try roll(to: base, room: 0) }

    /// Writes a group that begins at `base` and makes it durable. Nothing of it counts when this throws.
    /// - Parameter era: received-at goes back to this time: such a group begins a segment, so that times never decrease
    ///   within one.
    /// - Returns: the seconds that the fdatasync took.
    func commit(_ group: GroupEncoder, beginsEraAt era: Timestamp? = nil) throws(FileError) -> Double {
        try clearDirty()
        if isOver(before: group.bytes.count) || era != nil && offset > SegmentHeader.byteCount {
            try roll(to: group.base, room: group.bytes.count, at: era)
        }
        let file = try takeSpace(for: group.bytes.count)
        do {
            if let salt = active?.segment.header.salt { group.seal(salt: salt) }
            try file.write(group.bytes, at: offset)
        } catch {
            dirtyEnd = offset + group.bytes.count
            throw error
        }
        let start = options.clock.steadyMicroseconds()
        try synchronize(file)
        let seconds = Double(options.clock.steadyMicroseconds() - start) / 1e6
        offset += group.bytes.count
        dirtyEnd = offset
        active?.rawBytes += group.rawBytes
        active?.blockCount += group.blockCount
        prepare()
        return seconds
    }

    private func synchronize(_ file: any LogFile) throws(FileError) {
        if LogFault.isPlanted(.acknowledgeBeforeSync) { return }
        do throws(FileError) {
            try file.synchronize()
        } catch {
            // The file was opened under the name of the next segment.
            guard LogFault.isPlanted(.syncRetried) else {
                throw FileError(
                    operation: error.operation, path: active?.segment.path ?? error.path, code: error.code)
            }
            try file.synchronize()
        }
    }

    /// Whether a group of so many bytes begins the next segment.
    private func isOver(before byteCount: Int) -> Bool {
        guard let active else { return true }
        // An empty one takes a group of any size: the next would begin at the same position.
        guard offset > SegmentHeader.byteCount else { return false }
        return offset + byteCount > active.limit || isOld(active.segment)
            || (active.isSparse && offset >= Self.sparseSegmentBytes)
    }

    private func isOld(_ segment: Segment) -> Bool {
        guard let seconds = options.sealAfterSeconds else { return false }
        return options.clock.now().microseconds - segment.header.created.microseconds >= Int64(seconds) * 1_000_000
    }

    /// Makes sure that the next bytes fit into what is taken on disk.
    private func takeSpace(for byteCount: Int) throws(FileError) -> any LogFile {
        guard var active else { preconditionFailure("roll left no segment") }
        let needed = offset + byteCount
        active.limit = max(active.limit, needed)
        if needed > active.capacity, let taken = growth.take() { active.capacity = max(active.capacity, taken) }
        if needed > active.capacity {
            let wanted = max(needed, nextCapacity(active))
            do throws(FileError) {
                try active.segment.file.allocate(wanted)
                active.capacity = wanted
            } catch {
                // The last of a disk is used, too.
                guard error.isDiskFull, wanted > needed else { throw error }
                try active.segment.file.allocate(LogFormat.aligned(needed))
                active.capacity = LogFormat.aligned(needed)
            }
        }
        self.active = active
        return active.segment.file
    }

    private func nextCapacity(_ active: Active) -> Int {
        let step = min(max(active.capacity, Self.firstStepBytes), Self.stepBytesMax)
        return min(active.capacity + step, active.limit)
    }

    /// Has space taken ahead, of this segment and of the next, when what there is comes to its end.
    private func prepare() {
        guard let active else { return }
        let end = active.isSparse ? min(active.limit, Self.sparseSegmentBytes) : active.limit
        if offset > end - end / 4 { next.prepare(on: options.threads) }
        if active.capacity < end, offset > active.capacity - active.capacity / 4 {
            growth.prepare(active.segment.file, capacity: min(nextCapacity(active), end), on: options.threads)
        }
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

    private func roll(to base: Position, room: Int, at time: Timestamp? = nil) throws(FileError) {
        let limit = max(options.segmentBytes, SegmentHeader.byteCount + room)
        let capacity = max(min(Self.firstStepBytes, options.segmentBytes), SegmentHeader.byteCount + room)
        let file = try next.take(capacity: capacity)
        let header = SegmentHeader(
            logID: logID, salt: max(1, options.random()), base: base, created: time ?? options.clock.now(),
            segmentBytes: UInt64(limit))
        let page = UnsafeMutableRawBufferPointer.allocate(
            byteCount: SegmentHeader.byteCount, alignment: LogFormat.alignment)
        defer { page.deallocate() }
        header.encode(into: page)
        try file.write(UnsafeRawBufferPointer(page), at: 0)
        try file.synchronize()
        let name = LogFormat.segmentName(base)
        let path = catalog.directory + "/" + name
        try fileSystem.rename(next.path, to: path)
        if !LogFault.isPlanted(.folderNotSynced) { try fileSystem.synchronizeDirectory(catalog.directory) }
        // What the old segment never used goes back to the disk. When that fails, it is only space.
        if let old = active {
            _ = growth.take()
            let extra = LogFault.isPlanted(.rollCutsOnePageTooMuch) ? LogFormat.alignment : 0
            try? old.segment.file.truncate(offset - extra)
            catalog.setUsedBytes(offset, of: old.segment.base)
        }
        let segment = Segment(path: path, name: name, header: header, file: file)
        catalog.add(segment)
        active = Active(segment: segment, capacity: capacity, limit: limit)
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
    func close() {
        _ = growth.take()
        next.discard()
    }
}

/// Takes more space for the segment that is being written, beside the writer: only bytes behind those that it knows of.
final class SegmentGrowth: LogWork {
    private enum State {
        case none, working, failed
        case requested(any LogFile, Int)
        case ready(Int)
    }

    private let state = Monitor(State.none)

    /// Begins, unless it has begun.
    func prepare(_ file: any LogFile, capacity: Int, on threads: any LogThreads) {
        let begins = state.withLock { state in
            guard case .none = state else { return false }
            state = .requested(file, capacity)
            return true
        }
        if begins { _ = threads.start(name: "log-prepare", niceness: 0, self) }
    }

    func step() -> LogWorkStep {
        let wanted: (file: any LogFile, capacity: Int)? = state.withLock { state in
            guard case .requested(let file, let capacity) = state else { return nil }
            state = .working
            return (file, capacity)
        }
        guard let wanted else { return .finished }
        // Not synced here: whoever is told of a failed fsync of this file must be the writer.
        let isTaken = (try? wanted.file.allocate(wanted.capacity)) != nil
        state.withLock { $0 = isTaken ? .ready(wanted.capacity) : .failed }
        state.wakeAll()
        return .finished
    }

    func wait() {}

    /// The file's capacity when more was taken. Waits only for work that has begun.
    func take() -> Int? {
        state.wait { state -> Int?? in
            var capacity: Int?
            if case .working = state { return .none }
            if case .ready(let taken) = state { capacity = taken }
            state = .none
            return .some(capacity)
        }
    }
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
