import EventModel
import Primitives
import Synchronization

/// The segments of a log, in order. Shared by the writer, which adds, the maintainer, which replaces and removes, and
/// all readers. In the writer's process it is what counts; in others it is what the folder said when last listed.
///
/// Names may overlap: a packed segment and the live ones that it already holds. The events are the same in both, and
/// the one that begins last is looked at. File descriptors of old segments stay open only while a reader holds them, or
/// was among the last to ask for them; whoever holds one reads on in it when it was replaced or removed.
final class SegmentCatalog: Sendable {
    let directory: String
    let fileSystem: any LogFileSystem
    private let state: Mutex<State>
    let losses = AcceptedLosses()
    /// Received-at of the event at a segment's base, once it was asked for.
    let firstTimes = Mutex<[Position: Timestamp]>([:])
    let removed = RemovedSegments()
    /// For the names of temporary files that no other process may have.
    let uniqueSuffix = String(UInt64.random(in: 0...UInt64.max), radix: 36)

    private struct Entry {
        let base: Position
        let name: String
        /// What it uses on disk, where that is known.
        var usedBytes = 0
        /// It was seen to be sealed; it stays so.
        var isSealed = false
    }

    private struct State {
        var logID: LogID?
        var entries: [Entry] = []
        /// Those that were opened lately, newest last.
        var opened: [Segment] = []
        var isOwned = false
        var usedBytes = 0

        /// Where an entry with this base is, or would be put in.
        func place(_ base: Position) -> Int { entries.partitioningIndex { $0.base >= base } }

        /// The index of the entry that holds a position, or of the first.
        func start(of position: Position) -> Int {
            let place = place(position)
            if place < entries.count, entries[place].base == position { return place }
            return max(0, place - 1)
        }

        func index(of base: Position) -> Int? {
            let place = place(base)
            return place < entries.count && entries[place].base == base ? place : nil
        }

        mutating func setUsed(_ bytes: Int, at index: Int) {
            usedBytes += bytes - entries[index].usedBytes
            entries[index].usedBytes = bytes
        }

        mutating func remember(_ segment: Segment) {
            if let index = index(of: segment.base) { entries[index].isSealed = segment.trailer != nil }
            opened.removeAll { $0.base == segment.base }
            opened.append(segment)
            if opened.count > SegmentCatalog.openedMax { opened.removeFirst() }
        }
    }
    private static let openedMax = 64

    init(directory: String, fileSystem: any LogFileSystem) {
        self.directory = directory
        self.fileSystem = fileSystem
        state = Mutex(State())
    }

    var bases: [Position] { state.withLock { $0.entries.map(\.base) } }
    var first: Position? { state.withLock { $0.entries.first?.base } }
    var last: Position? { state.withLock { $0.entries.last?.base } }
    var count: Int { state.withLock { $0.entries.count } }
    var logID: LogID? { state.withLock { $0.logID } }
    /// Of all segments but the one that is being written.
    var usedBytes: Int { state.withLock { $0.usedBytes } }

    func path(_ base: Position) -> String { directory + "/" + LogFormat.segmentName(base) }

    /// Lists the folder again. Nothing is opened, and files that may have changed are opened anew when they are asked
    /// for. Nothing is done by whoever owns the log: its catalog says more than the folder.
    func refresh() throws(LogError) {
        if state.withLock({ $0.isOwned }) { return }
        let listed = try system { () throws(FileError) in try fileSystem.list(directory) }
        let found = listed.compactMap { name in LogFormat.segmentBase(name: name).map { Entry(base: $0, name: name) } }
            .sorted { $0.base < $1.base }
        state.withLock { state in
            state.entries = found
            state.opened.removeAll { $0.trailer == nil && $0.base != found.last?.base }
        }
    }

    /// From here on the folder changes only through this catalog.
    func own() { state.withLock { $0.isOwned = true } }

    /// Adds a segment, or puts it in the place of the one with the same base.
    func add(_ segment: Segment, usedBytes: Int = 0) {
        state.withLock { state in
            state.logID = state.logID ?? segment.header.logID
            let place = state.place(segment.base)
            if place == state.entries.count || state.entries[place].base != segment.base {
                state.entries.insert(Entry(base: segment.base, name: segment.name), at: place)
            }
            state.setUsed(usedBytes, at: place)
            state.remember(segment)
        }
    }

    func setUsedBytes(_ bytes: Int, of base: Position) {
        state.withLock { state in
            if let index = state.index(of: base) { state.setUsed(bytes, at: index) }
        }
    }

    /// Takes a segment out, before its file is deleted: whoever asks from now on finds another, or nothing. Readers
    /// that hold it read on to its end.
    func remove(_ base: Position) {
        state.withLock { state in
            guard let index = state.index(of: base) else { return }
            state.setUsed(0, at: index)
            state.entries.remove(at: index)
            state.opened.removeAll { $0.base == base }
        }
        firstTimes.withLock { $0[base] = nil }
    }

    /// The segment that begins at `base`.
    /// - Throws: `.system` also when there is no such file (any more).
    func segment(base: Position) throws(LogError) -> Segment {
        if let segment = try segmentIfPresent(base: base) { return segment }
        throw LogError(.system, "there is no file \(path(base)) any more: it was packed into another or removed")
    }

    /// Nil when there is no such file (any more).
    func segmentIfPresent(base: Position) throws(LogError) -> Segment? {
        let (known, logID) = state.withLock { state in (state.opened.last { $0.base == base }, state.logID) }
        if let known { return known }
        guard
            let segment = try Segment.openIfPresent(
                LogFormat.segmentName(base), in: directory, logID: logID, fileSystem: fileSystem)
        else { return nil }
        return state.withLock { state in
            state.logID = state.logID ?? segment.header.logID
            // Replaced meanwhile: that one is newer.
            if let newer = state.opened.last(where: { $0.base == base }) { return newer }
            if state.index(of: base) != nil { state.remember(segment) }
            return segment
        }
    }

    /// Lets go of an open file that may have been replaced: the next who asks opens what has the name now.
    func forget(_ base: Position) { state.withLock { state in state.opened.removeAll { $0.base == base } } }

    /// The segment that holds `position`, or would; nil when the log begins behind it. Files that go away meanwhile are
    /// no obstacle: what they held is in another.
    func segment(holding position: Position) throws(LogError) -> Segment? {
        var attempts = 0
        while true {
            if let base = bases(around: position).containing, let segment = try segmentIfPresent(base: base) {
                return segment
            }
            attempts += 1
            if attempts > 3, bases(around: position).containing == nil { return nil }
            guard attempts < 100 else {
                throw LogError(.system, "the files in \(directory) change faster than they can be opened")
            }
            try refresh()
        }
    }

    /// The base of the segment before the one that begins at `base`.
    func bases(before base: Position) -> Position? {
        state.withLock { state in
            let place = state.place(base)
            return place > 0 ? state.entries[place - 1].base : nil
        }
    }

    /// The bases of the segment that holds `position` and of all behind it.
    func bases(from position: Position) -> [Position] {
        state.withLock { state in state.entries[state.start(of: position)...].map(\.base) }
    }

    /// How many segments from the one that holds `position` on are known to be sealed, up to the first that is not.
    func sealedCount(from position: Position) -> Int {
        state.withLock { state in state.entries[state.start(of: position)...].prefix { $0.isSealed }.count }
    }

    /// The segments that are not known to be sealed, but for the one being written: for each, the base of the one
    /// behind it, and whether that is the one being written.
    func unsealed() -> [(base: Position, next: Position, isLast: Bool)] {
        state.withLock { state in
            zip(state.entries, state.entries.dropFirst()).filter { !$0.0.isSealed }
                .map { ($0.0.base, $0.1.base, $0.1.base == state.entries.last?.base) }
        }
    }

    /// The base of the segment that holds `position`, and of the one behind it.
    func bases(around position: Position) -> (containing: Position?, next: Position?) {
        state.withLock { state in
            let behind = position.rawValue == .max ? state.entries.count : state.place(position.next)
            return (
                behind > 0 ? state.entries[behind - 1].base : nil,
                behind < state.entries.count ? state.entries[behind].base : nil
            )
        }
    }
}
