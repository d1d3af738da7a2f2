// EventLog: the event log in local files, with one writer and many readers.
//
// Lifecycle. `FileLog.open` takes the lock, recovers, and starts the writer's thread. Any thread submits batches; the
// writer takes all that wait, encodes them into blocks, writes once, syncs once, publishes the new durable count and
// wakes everybody: a group commit. Readers follow the durable count and share nothing with the writer but that number
// and the list of segments. `close` finishes what was submitted and gives the lock back. Other processes read by
// `ReadOnlyLog`, which asks the mapped file `durable` how far.
//
// Invariants.
// - A position is given away once, in order, and never changes. Received-at never decreases with position,
//   except where an era begins: the clock was ahead, and was corrected.
// - `durableCount` grows only after the fdatasync of the block that holds the event. No reader looks beyond it.
// - Bytes below the durable end are never written again. What is ever zeroed or cut was never acknowledged.
// - After a failed write or fsync the writer is dead; only "disk full" is survived.
// - No lock is held during I/O.
//
// On disk: `schemas/log-format.md`. What the log takes from outside (disk, clock, threads, random numbers) is in
// `FileLogOptions`, so that a simulation can be the outside. The folders of this module:
//
//     Format        bytes of segments, blocks, indexes, footers
//     Disk          seam to the file system
//     Writing       group commit: batches to durable blocks
//     Recovery      after a start: where the log ends, and what to repair
//     Reading       durable blocks to records: in order, by device, by time
//     Maintenance   compaction, sealing, archive, retention, behind the writer
//     Tree          Merkle tree, signed checkpoints, proofs
//     Checking      scrubbing, verification, copies, accepted losses
//
// Maintenance and Tree are not separate modules: `FileLog` starts their threads, and they share `SegmentCatalog` with
// the readers. Checking is called by the daemon and by commands.

import EventModel
import Evidence
import Glibc
import Synchronization

public struct FileLogOptions: Sendable {
    /// Size of a segment, header included; space is taken in steps up to it.
    public var segmentBytes = 64 << 20
    /// Records are cut into blocks of about this many bytes before compression; a batch is never cut.
    public var blockBytes = 512 << 10
    /// A segment is sealed, to be archived, when it is older than this, full or not; nil: only when it is full.
    public var sealAfterSeconds: Int?
    /// Pack and seal segments beside the writer. Without it live segments stay as they are.
    public var isKeeping = true
    /// The operator vouches for the wall clock: a log that ends more than five minutes ahead of it goes on from the
    /// wall clock at once.
    public var acceptClock = false
    /// When a step of the wall clock is believed.
    public var clockRules = GuardedClock.Rules()
    public var fileSystem: any LogFileSystem = PosixFileSystem()
    /// Unguarded wall clock; an open log uses `FileLog.clock`.
    public var clock: any LogClock = SystemClock()
    /// Where the writer and all that goes on beside it run.
    public var threads: any LogThreads = SystemThreads()
    /// Where ids and salts come from.
    public var random: @Sendable () -> UInt64 = { UInt64.random(in: 0...UInt64.max) }
    /// Grow the Merkle tree behind the writer. Without it segments are sealed without one.
    public var keepsTree = true
    /// Gives the key that signs checkpoints, whose name is the log's origin; nil: nobody signs. Asked once, at opening;
    /// when it fails, the log works, nothing is signed, and `treeStatus` says why.
    public var signer: (@Sendable (LogID) throws(LogError) -> SigningKey)?
    /// Called with every checkpoint once it is stored, on the tree's thread: copy and return.
    public var onCheckpoint: (@Sendable (SignedNote) -> Void)?
    /// Called on the writer's thread, with seconds, when an fdatasync took more than one.
    public var onSlowSync: (@Sendable (Double) -> Void)?
    /// Called once, on the writer's thread, when the log can no longer be written, before any pending append fails: the
    /// process must end now, acknowledging nothing. The text is for the operator.
    public var onFailure: (@Sendable (String) -> Void)?

    public init() {}
}

/// A log that this process writes. Safe to use from any thread.
public final class FileLog: LogWriter, LogSource {
    /// A batch above this is a programmer's error.
    public static let batchBytesMax = 32 << 20

    public let directory: String
    /// What opening it found.
    public let report: OpenReport
    /// The log's time: what arrivals are stamped with, and what timers run on.
    public let clock: GuardedClock
    private let shared: CommitQueue
    private let writer: any LogThread
    let tree: MerkleTreeWriter?
    private let treeThread: (any LogThread)?
    private let maintenanceThread: (any LogThread)?
    let maintainer: SegmentMaintainer
    let catalog: SegmentCatalog
    let options: FileLogOptions

    /// Opens the log in `directory`, or begins one there, for writing.
    /// - Throws: `.locked`, `.foreign`, `.system`; `.corrupt` only when it cannot tell where to go
    ///   on: damage that it can isolate is in `report`, and readers stop at it.
    public static func open(directory: String, options: FileLogOptions = FileLogOptions()) throws(LogError) -> FileLog {
        try system { () throws(FileError) in try options.fileSystem.makeDirectory(directory) }
        let lock = try LockFile.acquire(directory + "/lock", fileSystem: options.fileSystem)
        let catalog = SegmentCatalog(directory: directory, fileSystem: options.fileSystem)
        let recovery = Recovery(
            directory: directory, fileSystem: options.fileSystem, catalog: catalog, random: options.random,
            signer: options.signer)
        let found = try recovery.run()
        let clockFile = ClockFile(directory: directory, fileSystem: options.fileSystem, clock: options.clock)
        let clock = GuardedClock(
            options.clock, lastTime: found.lastTime,
            earliest: catalog.first.flatMap { try? catalog.segment(base: $0).header.created },
            kept: clockFile?.offset(), accepts: options.acceptClock, rules: options.clockRules)
        var options = options
        options.clock = clock
        let loop = try system { () throws(FileError) in
            try CommitLoop(
                lock: lock, catalog: catalog, options: options, clock: clock, clockFile: clockFile, recovered: found)
        }
        Reserve.fill(directory, options.fileSystem)
        let tree =
            !options.keepsTree
            ? nil
            : MerkleTreeWriter(
                catalog: catalog, queue: loop.queue, options: options, signing: found.signing, lock: lock)
        let maintainer = SegmentMaintainer(
            catalog: catalog, options: options, queue: loop.queue, tree: tree, lock: lock)
        return FileLog(
            directory: directory, report: found.report, clock: clock, loop: loop, tree: tree, maintainer: maintainer,
            catalog: catalog, options: options)
    }

    private init(
        directory: String, report: OpenReport, clock: GuardedClock, loop: CommitLoop, tree: MerkleTreeWriter?,
        maintainer: SegmentMaintainer, catalog: SegmentCatalog, options: FileLogOptions
    ) {
        self.maintainer = maintainer
        self.options = options
        self.directory = directory
        self.report = report
        self.clock = clock
        self.catalog = catalog
        shared = loop.queue
        loop.onRoll = { maintainer.wake() }
        writer = options.threads.start(name: "log-writer", niceness: 0, loop)
        self.tree = tree
        treeThread = tree.map { options.threads.start(name: "log-tree", niceness: 10, $0) }
        maintenanceThread =
            options.isKeeping ? options.threads.start(name: "log-keeper", niceness: 10, maintainer) : nil
    }

    deinit {
        shared.close()
        tree?.close()
        maintainer.close()
    }

    public var durableCount: UInt64 { shared.durableCount }
    public func now() -> Timestamp { clock.now() }

    public func append(_ batch: inout RecordBatch) throws(AppendError) -> Range<Position> {
        try append(&batch, queued: {})
    }

    public func append(_ batch: inout RecordBatch, queued: () -> Void) throws(AppendError) -> Range<Position> {
        guard !batch.isEmpty else {
            queued()
            return Position(durableCount)..<Position(durableCount)
        }
        let submission = Submission(waiter: .thread(Latch()))
        swap(&batch, &submission.batch)
        defer { swap(&batch, &submission.batch) }
        do throws(AppendError) {
            try shared.submit(submission)
        } catch {
            queued()
            throw error
        }
        queued()
        return try submission.waitForOutcome()
    }

    public func append(_ batch: RecordBatch) async throws(AppendError) -> Range<Position> {
        guard !batch.isEmpty else { return Position(durableCount)..<Position(durableCount) }
        let outcome: Result<Range<Position>, AppendError> = await withCheckedContinuation { continuation in
            let submission = Submission(waiter: .task(continuation))
            submission.batch = batch
            do throws(AppendError) {
                try shared.submit(submission)
            } catch {
                continuation.resume(returning: .failure(error))
            }
        }
        return try outcome.get()
    }

    /// The same for whoever cannot wait: `completion` is called once, on the thread that steps the writer.
    package func submit(
        _ batch: RecordBatch, completion: @escaping @Sendable (Result<Range<Position>, AppendError>) -> Void
    ) throws(AppendError) {
        precondition(!batch.isEmpty, "an empty batch has no positions")
        let submission = Submission(waiter: .callBack(completion))
        submission.batch = batch
        try shared.submit(submission)
    }

    public func reader(from position: Position) throws -> any LogReader {
        try reader(from: position, wantsDecisionsOnly: false)
    }

    public func decisionReader(from position: Position) throws -> any LogReader {
        try reader(from: position, wantsDecisionsOnly: true)
    }

    private func reader(from position: Position, wantsDecisionsOnly: Bool) throws -> any LogReader {
        let durable = durableCount
        guard position.rawValue <= durable else {
            throw LogError(.outOfRange, "position \(position) lies beyond the log's end (\(durable) events)")
        }
        return FileLogReader(catalog: catalog, position: position, wantsDecisionsOnly: wantsDecisionsOnly) { [shared] in
            shared.durableCount
        }
    }

    public func waitForDurable(
        beyond count: UInt64, timeoutMilliseconds: Int, unless stop: () -> Bool
    ) -> UInt64 {
        shared.waitForDurable(beyond: count, timeoutMilliseconds: timeoutMilliseconds, unless: stop)
    }

    public func wakeWaiters() { shared.wakeReaders() }

    /// The position behind the last event that was received before `time`: in a log without eras, that of the first
    /// event received at or after it. What a clock stamped that was ahead counts as received before its correction.
    public func position(atOrAfter time: Timestamp) throws -> Position {
        try catalog.position(atOrAfter: time, durableCount: durableCount)
    }

    /// The first position that is kept.
    public var firstPosition: Position { catalog.first ?? Position(0) }
    public var statistics: LogStatistics { shared.statistics }
    /// Seconds since the writer's heartbeat was due; nil when on time.
    public var overdueSeconds: Double? { shared.heart.overdueSeconds }

    /// How the Merkle tree stands; nil when none is kept.
    public var treeStatus: TreeStatus? { tree?.status }
    /// The last signed checkpoint that is stored; nil when there is none, or it is not to be believed.
    public var checkpoint: SignedNote? { tree?.checkpoint }

    /// Finishes what was submitted, takes it into the tree, signs that, and gives the lock back. Blocks until that is
    /// done. Appends after it fail.
    public func close() {
        maintainer.close()
        shared.close()
        if let maintenanceThread { maintenanceThread.waitUntilFinished() } else { maintainer.giveBack() }
        writer.waitUntilFinished()
        tree?.close()
        treeThread?.waitUntilFinished()
    }
}

/// One batch on its way through the writer's thread.
/// `@unchecked Sendable`: the submitter sets it up, then only the writer touches it until it opens the latch.
final class Submission: @unchecked Sendable {
    enum Waiter {
        case thread(Latch)
        case task(CheckedContinuation<Result<Range<Position>, AppendError>, Never>)
        case callBack(@Sendable (Result<Range<Position>, AppendError>) -> Void)
    }

    var batch = RecordBatch()
    var positions: Range<Position>?
    private let waiter: Waiter
    private var outcome: Result<Range<Position>, AppendError>?

    init(waiter: Waiter) { self.waiter = waiter }

    func complete(_ outcome: Result<Range<Position>, AppendError>) {
        switch waiter {
        case .thread(let latch):
            self.outcome = outcome
            latch.open()
        case .task(let continuation):
            continuation.resume(returning: outcome)
        case .callBack(let completion):
            completion(outcome)
        }
    }

    func waitForOutcome() throws(AppendError) -> Range<Position> {
        guard case .thread(let latch) = waiter else { preconditionFailure("a task awaits its continuation") }
        latch.wait()
        guard let outcome else { preconditionFailure("the latch opened without an outcome") }
        return try outcome.get()
    }
}

/// Lets one thread wait for another, once.
/// `@unchecked Sendable`: a POSIX semaphore is made for it (sem_overview(7)); the memory lives as long as the object.
final class Latch: @unchecked Sendable {
    private let semaphore = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)

    init() { precondition(sem_init(semaphore, 0, 0) == 0, "no semaphore") }

    deinit {
        sem_destroy(semaphore)
        semaphore.deallocate()
    }

    func open() { sem_post(semaphore) }
    func wait() { while sem_wait(semaphore) != 0 { precondition(errno == EINTR) } }
}
