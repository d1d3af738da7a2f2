// A disk in memory that fails as disks do, by a seed.
//
// Fault model. What a file says to whoever reads it is its cache; what is behind it is the platter.
// - A write goes to the cache, in sectors of 512 bytes, each dirty until a sync. While dirty, any sector may reach the
//   platter at any time (write-back), so that an earlier state of it may be what is found later.
// - `synchronize` of a file brings its dirty sectors and its size to the platter, not its name. `synchronizeDirectory`
//   brings the names in a folder: creates, renames and unlinks, each whole or not at all.
// - A power cut loses any subset of the dirty sectors, of the unsynced names, and any unsynced size. What a truncation
//   cut off may be back. Space that a file gained without writing reads as zero; with `exposesOldSpace` it may read as
//   what an earlier, deleted file had there, because nothing but the file system's own books said that it was zero.
// - A process that is killed loses nothing that is in the cache, and its locks. So too when it dies in the middle of a
//   write: then a part of that is in the cache.
// - A shared page survives a killed process; after a power cut it is what it was at some moment before.
// - Any operation can fail: with EIO, with ENOSPC, a write after a part of it. A sync that fails has lost any subset of
//   the dirty sectors and calls all of them clean: the cache shows them, the next sync succeeds, and they are gone when
//   the power is, or when the cache forgets them (`forgetCache`). Names whose sync failed stay unsynced: a journal that
//   cannot be written stops a file system, and no later sync succeeds behind its back.
// - Capacity: what files hold, named or still open, in units of 4096 bytes; beyond it ENOSPC.
// - Media: bits flip (`flip`), and sectors read as they were before the last write to them (`makeStale`).
// Not modelled: sectors that are swapped or misdirected, a sync that lies without saying so, half a sector.

import EventLog
import Foundation
import Primitives

/// One machine's disk. Every process has its own view of it: `process()`. Safe to use from any thread, and the same
/// again for the same seed when one thread uses it.
public final class SimulatedDisk: @unchecked Sendable {
    public static let sectorBytes = 512

    /// Shares of operations that fail, for processes that are `isExposed`.
    public struct Rates: Sendable, Equatable {
        public var read = 0.0
        public var write = 0.0
        /// Of the writes that fail: as "no space" rather than EIO.
        public var noSpaceOfWrites = 0.5
        public var allocate = 0.0
        public var sync = 0.0
        public var folder = 0.0
        public var open = 0.0

        public init() {}
    }

    public enum Operation: String, Sendable, CaseIterable {
        case open, read, write, allocate, truncate, synchronize, rename, remove, list, status, makeDirectory
        case synchronizeDirectory, lock, map, makeReadOnly
    }

    /// A failure to come: the operation on paths that end in `suffix`, after `skip` that succeed, `times` over.
    public struct Failure: Sendable {
        public var operation: Operation
        public var suffix = ""
        public var skip = 0
        public var times = 1
        public var code: Int32
        /// Bytes that a failing write leaves in the cache.
        public var partialBytes = 0
    }

    public enum Death: Sendable { case killed, powerCut }

    // Everything below is touched only under this lock.
    // Recursive: a result that is thrown away when the process dies is closed in here.
    private let mutex = NSRecursiveLock()
    var root = DiskNode(isDirectory: true)
    var random: SeededRandom
    var rates = Rates()
    var failures: [Failure] = []
    var trace = TraceHash()
    var capacity = Int.max
    var used = 0
    var exposesOldSpace = false
    /// What deleted files left on the platter: the next files that take space lie there, the last first.
    var oldSpace: [[UInt8]] = []
    var operationCount = 0
    var clock: Int64 = 0
    private var death: (countdown: Int, kind: Death, process: Int)?
    private var alive: Set<Int> = []
    private var nextProcess = 1
    var lockCount = 0
    /// The pages of dead processes as they were when those died: what such a process stores later never happened.
    var pages: [DiskPage] = []
    var frozenPages: [ObjectIdentifier: (page: DiskPage, bytes: [UInt8])] = [:]
    private(set) var deaths: [(process: Int, kind: Death, during: Operation, path: String)] = []

    public init(seed: UInt64, capacity: Int = .max) {
        random = SeededRandom(seed: seed)
        self.capacity = capacity
    }

    func locked<R, E: Error>(_ body: () throws(E) -> R) throws(E) -> R {
        mutex.lock()
        defer { mutex.unlock() }
        return try body()
    }

    // MARK: Processes

    /// A process's view of the disk. `isExposed`: `rates` and failures apply to it.
    public func process(isExposed: Bool = true) -> SimulatedFileSystem {
        locked {
            let process = nextProcess
            nextProcess += 1
            alive.insert(process)
            return SimulatedFileSystem(disk: self, process: process, isExposed: isExposed)
        }
    }

    public func isAlive(_ process: SimulatedFileSystem) -> Bool { locked { alive.contains(process.process) } }

    /// The process is gone: its locks are free, and whatever it still does never happens.
    public func kill(_ process: SimulatedFileSystem) { locked { die(process.process, .killed) } }

    /// Lets the process, or the machine, die in the middle of the `after`-th operation of the process from now.
    public func plan(_ death: Death, of process: SimulatedFileSystem, after operations: Int) {
        locked { self.death = (operations, death, process.process) }
    }

    public func cancelPlannedDeath() { locked { death = nil } }

    /// Whether the machine lost its power and waits for `powerUp`.
    public var isDown: Bool { locked { down } }
    private var down = false

    private func die(_ process: Int, _ kind: Death) {
        let dying = kind == .powerCut ? alive : [process]
        alive.subtract(dying)
        root.forEach { node in
            if let owner = node.lockOwner, dying.contains(owner.process) { node.lockOwner = nil }
            if let page = node.page, dying.contains(page.writer) {
                frozenPages[ObjectIdentifier(page)] = (page, page.snapshot())
            }
        }
        if kind == .powerCut { down = true }
        if let death, dying.contains(death.process) { self.death = nil }
        trace.mix(kind == .powerCut ? 0xDEAD : 0x0DEAD)
    }

    /// Cuts the power: every process dies at once. What is lost is decided by `powerUp`.
    public func cutPower() { locked { die(0, .powerCut) } }

    /// After a death: what dead processes stored into shared pages since is undone. To be called when none of their
    /// code runs any more.
    public func settle() {
        locked {
            for (page, bytes) in frozenPages.values { page.restore(bytes) }
            frozenPages = [:]
        }
    }

    // MARK: One operation

    /// What an operation is to do, as decided by faults: go on, or fail.
    enum Verdict {
        case proceed
        /// A write leaves so many bytes.
        case fail(Int32, partialBytes: Int)
    }

    /// Counts the operation, and decides whether it fails. Throws when the process is dead, or dies of it.
    func begin(_ operation: Operation, _ view: SimulatedFileSystem, _ path: String, bytes: Int = 0) throws(FileError)
        -> Verdict
    {
        guard alive.contains(view.process) else {
            throw FileError(operation: operation.name, path: path, code: ESRCH)
        }
        operationCount += 1
        clock += 1
        for page in pages { page.note() }
        trace.mix(UInt64(operation.index) | UInt64(view.process) << 8)
        trace.mix(path)
        if var planned = death, planned.process == view.process {
            planned.countdown -= 1
            death = planned
            if planned.countdown <= 0 { return try dieDuring(operation, planned.kind, view, path, bytes: bytes) }
        }
        guard view.isExposed else { return .proceed }
        if let verdict = scripted(operation, path) { return verdict }
        return atRandom(operation, bytes: bytes)
    }

    /// Before the operation, after it, or, for a write, in the middle.
    private func dieDuring(
        _ operation: Operation, _ kind: Death, _ view: SimulatedFileSystem, _ path: String, bytes: Int
    ) throws(FileError) -> Verdict {
        death = nil
        deaths.append((view.process, kind, operation, path))
        let share = random.below(3)
        if share > 0, operation == .write {
            view.dying = kind
            return .fail(ESRCH, partialBytes: share == 1 ? bytes : random.below(bytes + 1))
        }
        if share == 1 {
            view.dying = kind
            return .proceed
        }
        die(view.process, kind)
        throw FileError(operation: operation.name, path: path, code: ESRCH)
    }

    /// Ends an operation; the process dies now when that was planned for behind it.
    func end(_ operation: Operation, _ view: SimulatedFileSystem, _ path: String) throws(FileError) {
        guard let kind = view.dying else { return }
        view.dying = nil
        die(view.process, kind)
        throw FileError(operation: operation.name, path: path, code: ESRCH)
    }

    private func scripted(_ operation: Operation, _ path: String) -> Verdict? {
        for index in failures.indices where failures[index].operation == operation {
            guard path.hasSuffix(failures[index].suffix), failures[index].times > 0 else { continue }
            if failures[index].skip > 0 {
                failures[index].skip -= 1
                continue
            }
            failures[index].times -= 1
            return .fail(failures[index].code, partialBytes: failures[index].partialBytes)
        }
        return nil
    }

    private func atRandom(_ operation: Operation, bytes: Int) -> Verdict {
        let share =
            switch operation {
            case .read: rates.read
            case .write: rates.write
            case .allocate: rates.allocate
            case .synchronize: rates.sync
            case .synchronizeDirectory, .rename: rates.folder
            case .open: rates.open
            default: 0.0
            }
        guard random.chance(share) else { return .proceed }
        switch operation {
        case .write:
            let partial = random.below(bytes + 1)
            return .fail(random.chance(rates.noSpaceOfWrites) ? ENOSPC : EIO, partialBytes: partial)
        case .allocate: return .fail(ENOSPC, partialBytes: 0)
        default: return .fail(EIO, partialBytes: 0)
        }
    }

    // MARK: Space

    /// Takes or gives back space; ENOSPC when there is not enough.
    func resize(_ node: DiskNode, to byteCount: Int, _ operation: Operation, _ path: String) throws(FileError) {
        let old = DiskNode.allocated(node.bytes.count), new = DiskNode.allocated(byteCount)
        guard new <= old || used + new - old <= capacity else {
            throw FileError(operation: operation.name, path: path, code: ENOSPC)
        }
        used += new - old
        if operation == .allocate, node.oldSpace == nil { node.oldSpace = oldSpace.popLast() ?? [] }
        node.resize(to: byteCount)
    }

    /// Gives a file's space back once nobody can name it or has it open.
    func release(_ node: DiskNode) {
        guard !node.isDirectory, node.links == 0, node.handles == 0, !node.isFreed else { return }
        node.isFreed = true
        used -= DiskNode.allocated(node.bytes.count)
        if node.stable.contains(where: { $0 != 0 }) { oldSpace.insert(node.stable, at: 0) }
        if oldSpace.count > 64 { oldSpace.removeFirst() }
    }

    /// The machine comes up again, after `cutPower` or a planned power cut. `keeps` decides for each dirty sector (by
    /// path and number) whether it had reached the platter; by default the seed does. Dead processes' code must not run
    /// any more.
    public func powerUp(keeping keeps: ((String, Int) -> Bool)? = nil) {
        settle()
        locked {
            down = false
            pages = []
            // Shares of their own for each crash: all, nothing, or anything between.
            let shares = [0, 1, 0.5, 0.1, 0.9]
            let sectors = random.pick(shares), names = random.pick(shares)
            root.losePower(
                path: "", disk: self, keepsName: { self.random.chance(names) },
                keepsSector: { path, sector in keeps?(path, sector) ?? self.random.chance(sectors) })
            used = 0
            root.forEach { self.used += $0.isDirectory ? 0 : DiskNode.allocated($0.bytes.count) }
            // A lock file holds the process id of whoever runs the simulation.
            root.forEach { node in if !node.isLockFile { node.bytes.withUnsafeBytes { trace.mix($0) } } }
        }
    }
}

extension SimulatedDisk.Operation {
    var index: Int { Self.allCases.firstIndex(of: self) ?? 0 }
}
