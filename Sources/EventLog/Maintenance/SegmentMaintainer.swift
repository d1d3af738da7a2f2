// What becomes of segments that are no longer written.
//
//     live ──(large commits)──────────────────────────► sealed
//       └──(small commits)──► growing ──(large enough)──► sealed
//
// A live segment whose blocks are large is sealed where it is. One whose blocks are small takes 4 KiB a commit: its
// records are packed into the growing segment before it, or it becomes one. The maintainer takes them in order, one a
// step; everything that it knows it can find out again from the files, so that it may be killed at any moment.
//
// Nothing that goes wrong here stops ingest, and nothing is deleted that is not whole and synced elsewhere:
// - Damage in a segment: it is left as it is, said in the statistics, and the next ones are kept. When an operator has
//   given up what is lost, it is sealed where it is, damaged bytes included.
// - Disk full: later, when there is space. The reserve is given up for it, because packing makes space.
// - Any other error of the disk: the maintainer ends and says why. Live segments then stay.

import EventModel
import Glibc
import Threading

/// Packs and seals segments, one a step, beside the writer.
/// `@unchecked Sendable`: only whoever steps it touches anything here but `monitor`.
final class SegmentMaintainer: LogWork, @unchecked Sendable {
    private struct Signal {
        var isClosed = false
        var isWoken = false
    }

    /// Blocks below this, on average, are packed; larger ones stay as they are.
    static let sparseBlockBytes = 64 << 10
    private static let retryMicrosMax: Int64 = 30_000_000
    private static let ageCheckMilliseconds = 5_000

    private let catalog: SegmentCatalog
    private let options: FileLogOptions
    private let queue: CommitQueue
    private var lock: LockFile?
    private let monitor = Monitor(Signal())
    private let compactor: Compactor
    private let sealer: Sealer
    private var growing: Compactor.Growing?
    /// Segments that are left as they are, with the events that they have lost, where that is known.
    private var damaged: [Position: Range<Position>?] = [:]
    private var outlines: [Position: SegmentOutline] = [:]
    private var problem: String?
    private var hasFailed = false
    private var retryAt: Int64 = 0
    private var retryMicros: Int64 = 0
    private var sealedCount = 0
    private var packedCount = 0
    /// Without one, segments are sealed without a tree section.
    private let tree: MerkleTreeWriter?

    init(
        catalog: SegmentCatalog, options: FileLogOptions, queue: CommitQueue, tree: MerkleTreeWriter?, lock: LockFile
    ) {
        self.catalog = catalog
        self.tree = tree
        self.options = options
        self.queue = queue
        self.lock = lock
        compactor = Compactor(
            directory: catalog.directory, fileSystem: options.fileSystem, clock: options.clock, random: options.random)
        sealer = Sealer(directory: catalog.directory, fileSystem: options.fileSystem) { [catalog, queue] lost in
            let losses = catalog.losses.known(catalog, durableCount: queue.durableCount)
            return losses.contains {
                $0.positions.lowerBound <= lost.lowerBound && $0.positions.upperBound >= lost.upperBound
            }
        }
    }

    func step() -> LogWorkStep {
        if monitor.withLock({ $0.isClosed }) {
            giveBack()
            return .finished
        }
        guard !hasFailed, queue.failure == nil, options.clock.steadyMicroseconds() >= retryAt else { return .idle }
        do {
            let hasWorked = try maintainOne()
            if problem != nil || hasWorked { (problem, retryMicros) = (nil, 0) }
            describe()
            return hasWorked ? .worked : .idle
        } catch {
            note(error)
            describe()
            return .idle
        }
    }

    /// Lets go of the log's files and its lock. For whoever steps it, after the last step.
    func giveBack() {
        growing = nil
        lock = nil
    }

    /// Waits for a segment to be kept, or for the time to look again.
    func wait() {
        _ = monitor.wait(atMostMilliseconds: Self.ageCheckMilliseconds) { signal -> Void? in
            guard signal.isWoken || signal.isClosed else { return nil }
            signal.isWoken = false
            return ()
        }
    }

    /// Says that there may be something to do. From any thread.
    func wake() {
        monitor.withLock { $0.isWoken = true }
        monitor.wakeAll()
    }

    /// Ends the steps after the present one. From any thread.
    func close() {
        monitor.withLock { $0.isClosed = true }
        monitor.wakeAll()
    }

    /// Packs or seals the first segment that wants it. False when none does.
    /// - Throws: `FileError`, `LogError`.
    func maintainOne() throws -> Bool {
        for (base, next, isLast) in catalog.unsealed() {
            let isGivenUp = try damaged[base].map { lost in try lost.map(sealer.isGivenUp) ?? false }
            guard isGivenUp ?? true, let segment = try open(base), segment.state != .sealed else { continue }
            do {
                let hasWorked: Bool
                if isGivenUp != nil {
                    // What is left of it is kept where it is, with the damage.
                    hasWorked = try seal(segment, end: next)
                } else if segment.state == .growing {
                    hasWorked = try grow(segment, next: next, isNextActive: isLast)
                } else {
                    hasWorked = try keepLive(segment, end: next)
                }
                if hasWorked { return true }
            } catch {
                guard let damage = error as? SegmentDamage else { throw error }
                note(damage, of: base)
                return true
            }
        }
        return false
    }

    /// Packs a live segment of small blocks, as the first of a growing one; seals one of large blocks.
    private func keepLive(_ segment: Segment, end: Position) throws -> Bool {
        guard try isSparse(segment, end: end) else { return try seal(segment, end: end) }
        let packed = try withSpace { try compactor.replace(segment, end: end, segmentBytes: options.segmentBytes) }
        growing = packed
        catalog.add(packed.segment, usedBytes: packed.offset)
        outlines[segment.base] = nil
        packedCount += 1
        return true
    }

    /// Packs the next live segment into a growing one, or seals that when the next does not fit. False when it waits
    /// for what comes.
    private func grow(_ segment: Segment, next: Position, isNextActive: Bool) throws -> Bool {
        guard let now = try growing(segment) else { return try seal(segment, end: next) }
        guard now.end == next else {
            throw SegmentDamage(
                range: CorruptRange(
                    segment: segment.path, bytes: now.offset..<max(now.offset, try segment.file.byteCount()),
                    positions: now.end..<max(now.end, next), reason: "durable events are missing"))
        }
        // Times never decrease within a segment: what begins an era is not packed behind the one before.
        if let live = try open(next), let last = now.lastTime,
            let first = try live.firstTime(durableCount: queue.durableCount), first < last
        {
            return try seal(segment, end: next)
        }
        if isNextActive {
            guard now.offset >= options.segmentBytes || isOld(segment) else { return false }
            return try seal(segment, end: next)
        }
        guard damaged[next] == nil, let live = try open(next), live.state == .live,
            let end = catalog.bases(around: next).next, try isSparse(live, end: end),
            now.offset + (outlines[next]?.rawBytes ?? 0) <= options.segmentBytes
        else { return try seal(segment, end: next) }
        do {
            growing = try withSpace { try compactor.append(live, end: end, to: now) }
        } catch {
            guard let damage = error as? SegmentDamage else { throw error }
            note(damage, of: next)
            return true
        }
        catalog.setUsedBytes(growing?.offset ?? 0, of: segment.base)
        outlines[next] = nil
        packedCount += 1
        // Out of the catalog first, so that nobody asks for a name that is gone.
        catalog.remove(next)
        try options.fileSystem.remove(catalog.path(next))
        try options.fileSystem.synchronizeDirectory(catalog.directory)
        return true
    }

    /// False when the tree is not there yet.
    private func seal(_ segment: Segment, end: Position) throws -> Bool {
        var section: TreeSection?
        if let tree {
            switch try tree.section(base: segment.base, end: end) {
            case .notYet: return false
            case .ready(let known): section = known
            case .none: break
            }
        }
        let sealed = try withSpace { try sealer.seal(segment, end: end, tree: section?.encoded() ?? []) }
        if let section { tree?.sealed(section) }
        if growing?.segment.base == segment.base { growing = nil }
        damaged[segment.base] = nil
        catalog.add(sealed, usedBytes: sealed.trailer?.fileBytes ?? 0)
        outlines[segment.base] = nil
        sealedCount += 1
        return true
    }

    /// Nil when it cannot be written: it was sealed, and its footer is damaged.
    private func growing(_ segment: Segment) throws -> Compactor.Growing? {
        if let growing, growing.segment === segment { return growing }
        let outline = try segment.outline()
        do throws(FileError) {
            let file = try options.fileSystem.open(segment.path, create: false, writable: true)
            growing = Compactor.Growing(
                segment: segment, file: file, end: outline.end, offset: outline.offset, lastTime: outline.lastTime)
            return growing
        } catch {
            if error.isReadOnly { return nil }
            throw error
        }
    }

    private func isSparse(_ segment: Segment, end: Position) throws -> Bool {
        if let known = outlines[segment.base] { return known.blockBytes < Self.sparseBlockBytes }
        let outline = try segment.outline(until: end)
        outlines[segment.base] = outline
        return outline.blockBytes < Self.sparseBlockBytes
    }

    private func isOld(_ segment: Segment) -> Bool {
        guard let seconds = options.sealAfterSeconds else { return false }
        return options.clock.now().microseconds - segment.header.created.microseconds >= Int64(seconds) * 1_000_000
    }

    /// Nil when it is not there, or its header is damaged.
    private func open(_ base: Position) throws -> Segment? {
        do throws(LogError) {
            return try catalog.segmentIfPresent(base: base)
        } catch {
            guard error.code == .corrupt || error.code == .foreign else { throw error }
            damaged[base] = .some(nil)
            return nil
        }
    }

    // MARK: what goes wrong

    private func note(_ damage: SegmentDamage, of base: Position) {
        damaged[base] = damage.range.positions
        if growing?.segment.base == base { growing = nil }
    }

    private func note(_ error: any Error) {
        let text = (error as? FileError)?.description ?? (error as? LogError)?.description ?? "\(error)"
        if let file = error as? FileError, file.operation == "fdatasync" || file.operation == "fsync" {
            hasFailed = true
            growing = nil
            problem = "packing and sealing ended, restart to go on: \(text)"
            return
        }
        retryMicros = min(max(1_000_000, 2 * retryMicros), Self.retryMicrosMax)
        retryAt = options.clock.steadyMicroseconds() + retryMicros
        problem = text
    }

    /// Gives up the reserve when there is no space for `body`: what it makes is smaller than what it replaces.
    private func withSpace<R>(_ body: () throws -> R) throws -> R {
        do {
            return try body()
        } catch {
            guard let file = error as? FileError, file.isDiskFull else { throw error }
            try options.fileSystem.remove(catalog.directory + "/" + Reserve.name)
            let result = try body()
            Reserve.fill(catalog.directory, options.fileSystem)
            return result
        }
    }

    private func describe() {
        let names = damaged.keys.sorted().map { LogFormat.segmentName($0) }
        let waiting = max(0, catalog.unsealed().count - damaged.count)
        queue.update { statistics in
            statistics.keeping = LogStatistics.Keeping(
                packed: packedCount, sealed: sealedCount, waiting: waiting, damaged: names, problem: problem)
        }
    }
}
