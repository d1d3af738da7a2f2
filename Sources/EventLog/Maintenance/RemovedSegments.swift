import EventModel
import FoundationEssentials
import Primitives
import Synchronization
import Threading

/// A segment that the retention rules took off this disk.
public struct RemovedSegment: Codable, Sendable, Equatable {
    public let name: String
    /// Its first position, and the one behind its last.
    public let base: UInt64
    public let end: UInt64
    public let bytes: Int
    public let firstTime: String
    public let lastTime: String
    /// Of the Merkle tree up to its end, in hex; nil when it was sealed without one.
    public let root: String?
    public let archived: Bool
    /// Decisions in it: what a decider that begins anew must read.
    public let decisions: UInt64

    enum CodingKeys: String, CodingKey {
        case name, base, end, bytes, firstTime = "first_time", lastTime = "last_time", root, archived, decisions
    }

    var positions: Range<Position> { Position(base)..<Position(end) }

    /// The name goes into paths and into the operator's shell command, and the file may come from a stranger's backup:
    /// it must be the one that the log gives a segment with this base.
    var isSound: Bool {
        name == LogFormat.segmentName(Position(base)) && base < end && bytes >= 0
    }
}

/// What is not in the folder any more: the file `removed`, one line a segment, durable before its file is deleted; and
/// how it can be had back.
final class RemovedSegments: Sendable {
    static let fileName = "removed"

    private struct State {
        var segments: [RemovedSegment] = []
        var byteCount = -1
        var restorer: SegmentRestorer?
    }
    private let state = Mutex(State())

    func setRestorer(_ restorer: SegmentRestorer?) { state.withLock { $0.restorer = restorer } }
    var canRestore: Bool { state.withLock { $0.restorer != nil } }

    /// In the order of the log.
    func all(_ catalog: SegmentCatalog) throws(LogError) -> [RemovedSegment] {
        let file = KeptFile(Self.fileName, catalog)
        let size = try system { () throws(FileError) in try catalog.fileSystem.status(file.path)?.byteCount ?? 0 }
        if let known = state.withLock({ $0.byteCount == size ? $0.segments : nil }) { return known }
        let lines = size == 0 ? [] : try system { () throws(FileError) in try file.lines() }
        var segments: [RemovedSegment] = [], names: Set<String> = []
        for line in lines {
            guard let segment = try? JSONDecoder().decode(RemovedSegment.self, from: Data(line)) else {
                throw LogError(
                    .corrupt,
                    "\(file.path) cannot be read: restore it from a backup, or delete it: what "
                        + "was removed is then not fetched from the archive any more")
            }
            guard segment.isSound else {
                throw LogError(
                    .corrupt,
                    "\(file.path) names \(segment.name.debugDescription) for the segment of "
                        + "positions \(segment.base) to \(segment.end), which is not its name in any log: nothing in "
                        + "the file is used; restore it from a backup that you trust, or delete it")
            }
            // Noted twice when the power failed before the file was deleted.
            if names.insert(segment.name).inserted { segments.append(segment) }
        }
        segments.sort { $0.base < $1.base }
        state.withLock { state in (state.segments, state.byteCount) = (segments, size) }
        return segments
    }

    func note(_ segments: [RemovedSegment], _ catalog: SegmentCatalog) throws {
        try KeptFile(Self.fileName, catalog).append(segments.map { eventJSON($0) })
        state.withLock { $0.byteCount = -1 }
    }

    func holding(_ position: Position, _ catalog: SegmentCatalog) throws(LogError) -> RemovedSegment? {
        let all = try all(catalog)
        let behind = all.partitioningIndex { $0.base > position.rawValue }
        return behind > 0 && all[behind - 1].end > position.rawValue ? all[behind - 1] : nil
    }

    /// The segment that held `position`, fetched from the archive.
    /// - Throws: `.beforeHorizon` when it cannot be had.
    func segment(holding position: Position, _ catalog: SegmentCatalog) throws(LogError) -> Segment {
        let first = catalog.first ?? Position(0)
        func before(_ why: String) -> LogError {
            LogError(
                .beforeHorizon,
                "position \(position) lies before the horizon: on this disk the log begins at "
                    + "position \(first)\(why)")
        }
        guard let removed = try holding(position, catalog) else {
            throw before(
                ", and nothing says that what held it was removed on purpose: restore the segments before "
                    + "\(LogFormat.segmentName(first)) from a backup")
        }
        guard removed.archived else { throw before(", and \(removed.name) was removed without an archive") }
        guard let restorer = state.withLock({ $0.restorer }) else {
            throw before("; \(removed.name) is in the archive: set restore_command (--restore-command)")
        }
        do {
            return try restorer.segment(removed, catalog)
        } catch {
            throw before("; restore_command could not fetch \(removed.name): \(error)")
        }
    }

    /// The oldest position whose events can be had, from here or from the archive.
    func horizon(_ catalog: SegmentCatalog) -> Position {
        var horizon = catalog.first ?? Position(0)
        guard canRestore, let all = try? all(catalog) else { return horizon }
        for segment in all.reversed() where segment.base < horizon.rawValue {
            guard segment.archived, segment.end == horizon.rawValue else { break }
            horizon = Position(segment.base)
        }
        return horizon
    }
}

/// The archive, as the tree asks for it.
final class RestoredSegments: SegmentArchive {
    private let catalog: SegmentCatalog
    private let durableCount: UInt64

    init(catalog: SegmentCatalog, durableCount: UInt64) {
        self.catalog = catalog
        self.durableCount = durableCount
    }

    func base(of position: Position) throws -> Position? {
        try catalog.removed.holding(position, catalog).map { Position($0.base) }
    }

    func segment(base: Position) throws -> Segment? { try catalog.removed.segment(holding: base, catalog) }

    func reader(of base: Position, from position: Position) throws -> LeafReader {
        let durable = durableCount
        return LeafReader(FileLogReader(catalog: catalog, position: position) { durable }, from: position)
    }
}

/// Fetches removed segments by the operator's `restore_command` into the folder `restored`, which holds a few of them:
/// the least recently used goes first. What comes is checked to be the very segment before anybody reads it.
public final class SegmentRestorer: Sendable {
    static let folderName = "restored"
    private let command: SegmentCommand
    private let filesMax: Int
    /// Names in the order in which they were last asked for; one fetch at a time.
    private let recent = Mutex<[String]>([])
    private let fetching = Monitor(false)

    /// - Parameter filesMax: segments that are kept in the folder.
    public init(filesMax: Int = 8, command: @escaping SegmentCommand) {
        precondition(filesMax > 0, "a restored segment needs a place")
        self.filesMax = filesMax
        self.command = command
    }

    func segment(_ removed: RemovedSegment, _ catalog: SegmentCatalog) throws -> Segment {
        fetching.wait { isBusy -> Void? in
            guard !isBusy else { return nil }
            isBusy = true
            return ()
        }
        defer {
            fetching.withLock { $0 = false }
            fetching.wakeAll()
        }
        let folder = catalog.directory + "/" + Self.folderName, fileSystem = catalog.fileSystem
        try fileSystem.makeDirectory(folder)
        if let segment = try open(removed, folder, catalog) {
            use(removed.name)
            return segment
        }
        try makeRoom(folder, fileSystem)
        // Another process may fetch the same: each has a name of its own until the file is whole.
        let temporary = "\(folder)/\(removed.name).\(catalog.uniqueSuffix).tmp"
        try fileSystem.remove(temporary)
        do {
            try command(temporary, removed.name)
            try fileSystem.rename(temporary, to: "\(folder)/\(removed.name)")
        } catch {
            try? fileSystem.remove(temporary)
            throw error
        }
        guard let segment = try open(removed, folder, catalog) else {
            try? fileSystem.remove("\(folder)/\(removed.name)")
            throw LogError(.corrupt, "what restore_command fetched is not the segment \(removed.name) of this log")
        }
        use(removed.name)
        return segment
    }

    /// Nil when it is not there, or is not what was removed.
    private func open(_ removed: RemovedSegment, _ folder: String, _ catalog: SegmentCatalog) throws -> Segment? {
        let segment: Segment?
        do {
            segment = try Segment.openIfPresent(
                removed.name, in: folder, logID: catalog.logID, fileSystem: catalog.fileSystem)
        } catch {
            return nil
        }
        guard let segment, let trailer = segment.trailer, trailer.base.rawValue == removed.base,
            trailer.end.rawValue == removed.end, trailer.fileBytes == removed.bytes
        else { return nil }
        return segment
    }

    private func use(_ name: String) {
        recent.withLock { recent in
            recent.removeAll { $0 == name }
            recent.append(name)
        }
    }

    /// Leaves room for one more. Readers that hold a file read on in it.
    private func makeRoom(_ folder: String, _ fileSystem: any LogFileSystem) throws(FileError) {
        let order = recent.withLock { $0 }
        let names = try fileSystem.list(folder).filter { LogFormat.segmentBase(name: $0) != nil }
            .sorted { (order.firstIndex(of: $0) ?? -1, $0) < (order.firstIndex(of: $1) ?? -1, $1) }
        for name in names.dropLast(filesMax - 1) { try fileSystem.remove(folder + "/" + name) }
    }
}
