import EventModel
import Synchronization
import Threading

/// What submitters, readers and the writer's thread share: the queue, the durable count, the counters.
final class CommitQueue: Sendable {
    private struct State {
        var pending: [Submission] = []
        var closed = false
        /// Why nothing can be appended any more.
        var failure: String?
        var statistics = LogStatistics()
    }

    private let state = Monitor(State())
    private let readers = Monitor(0)
    private let durable: Atomic<UInt64>
    /// Whether the writer's thread still moves when there is something to write.
    let heart = Heartbeat()
    /// One group: a write and an fdatasync.
    private static let groupSeconds = 60

    init(durableCount: UInt64) { durable = Atomic(durableCount) }

    var durableCount: UInt64 { durable.load(ordering: .acquiring) }
    var statistics: LogStatistics { state.withLock { $0.statistics } }

    func submit(_ submission: Submission) throws(AppendError) {
        precondition(
            submission.batch.byteCount <= FileLog.batchBytesMax, "a batch larger than \(FileLog.batchBytesMax) bytes")
        try state.withLock { (state) throws(AppendError) in
            if let failure = state.failure { throw .failed(failure) }
            if state.closed { throw .failed("the log is closed") }
            state.pending.append(submission)
        }
        state.wakeOne()
    }

    /// Moves what waits into `taken`, at most about `bytesMax` bytes.
    /// `.finished` once closed and empty.
    func take(into taken: inout [Submission], bytesMax: Int) -> LogWorkStep {
        state.withLock { state in
            guard !state.pending.isEmpty else {
                heart.rest()
                return state.closed ? .finished : .idle
            }
            heart.beat(within: Self.groupSeconds)
            var bytes = 0, count = 0
            for submission in state.pending {
                if count > 0, bytes + submission.batch.byteCount > bytesMax { break }
                bytes += submission.batch.byteCount
                count += 1
            }
            taken.append(contentsOf: state.pending[..<count])
            state.pending.removeFirst(count)
            return .worked
        }
    }

    /// Blocks until there is something to take, or no more will come.
    func waitForWork() { state.wait { $0.pending.isEmpty && !$0.closed ? nil : () } }

    func publish(durableCount: UInt64, _ update: (inout LogStatistics) -> Void) {
        durable.store(durableCount, ordering: .releasing)
        state.withLock { update(&$0.statistics) }
        if readers.withLock({ $0 > 0 }) { readers.wakeAll() }
    }

    func update(_ update: (inout LogStatistics) -> Void) { state.withLock { update(&$0.statistics) } }

    /// `stop` is asked again after `wakeReaders`.
    func waitForDurable(
        beyond count: UInt64, timeoutMilliseconds: Int, unless stop: () -> Bool = { false }
    ) -> UInt64 {
        let now = durableCount
        if now > count || timeoutMilliseconds <= 0 { return now }
        readers.withLock { $0 += 1 }
        defer { readers.withLock { $0 -= 1 } }
        return readers.wait(atMostMilliseconds: timeoutMilliseconds) { _ in
            let now = durable.load(ordering: .acquiring)
            return now > count || stop() ? now : nil
        } ?? durableCount
    }

    func wakeReaders() {
        // Under the lock: a reader between its `stop` check and its wait would miss the wake-up.
        readers.withLock { _ in }
        readers.wakeAll()
    }

    func fail(_ message: String) { state.withLock { $0.failure = message } }
    var failure: String? { state.withLock { $0.failure } }

    func close() {
        state.withLock { $0.closed = true }
        state.wakeAll()
    }
}

/// The writer's thread, or what a simulation steps in its place.
/// `@unchecked Sendable`: once it was started, only whoever steps it touches anything here but `queue`.
final class CommitLoop: LogWork, @unchecked Sendable {
    let queue: CommitQueue
    private var lock: LockFile?
    private let options: FileLogOptions
    private let segments: SegmentWriter
    /// See `SegmentWriter.onRoll`; set before the first step.
    var onRoll: (() -> Void)? {
        get { segments.onRoll }
        set { segments.onRoll = newValue }
    }
    private let durableFile: DurableFile
    private let encoder: GroupEncoder
    private let clock: GuardedClock
    private let clockFile: ClockFile?
    /// Offset last written to `clock`; nil before the first write.
    private var keptOffset: Int64?
    private var clockPlan = GuardedClock.Plan()
    /// Batches that were on their way when the clock was set back were stamped by it as it was before.
    private var lateUntilSteady = Int64.min
    private var lastTime: Timestamp
    private var end: Position
    private var taken: [Submission] = []

    /// Raw bytes that one group may hold; what waits beyond goes into the next.
    private static let groupBytesMax = 4 << 20
    private static let slowSyncSeconds = 1.0

    init(
        lock: LockFile, catalog: SegmentCatalog, options: FileLogOptions, clock: GuardedClock,
        clockFile: ClockFile?, recovered: Recovery.Result
    ) throws(FileError) {
        self.lock = lock
        self.options = options
        durableFile = recovered.durableFile
        end = Position(recovered.report.durableCount)
        queue = CommitQueue(durableCount: end.rawValue)
        lastTime = recovered.lastTime ?? Timestamp(microseconds: .min)
        encoder = GroupEncoder(blockBytesTarget: options.blockBytes)
        self.clock = clock
        self.clockFile = clockFile
        segments = try SegmentWriter(
            catalog: catalog, logID: recovered.report.logID, options: options, active: recovered.active)
        // A new log has its first segment from the start: it is what says whose log this is.
        if recovered.report.isNew { try segments.begin(at: end) }
        durableFile.count = end.rawValue
        queue.update { segments.describe(&$0) }
    }

    /// Commits one group of what waits.
    func step() -> LogWorkStep {
        let found = queue.take(into: &taken, bytesMax: Self.groupBytesMax)
        switch found {
        case .worked:
            commit()
            taken.removeAll(keepingCapacity: true)
        case .finished:
            segments.close()
            lock = nil
        case .idle: break
        }
        return found
    }

    func wait() { queue.waitForWork() }

    private func commit() {
        if let failure = queue.failure { return complete(.failed(failure)) }
        encode()
        do {
            try lock?.check()
            let seconds = try segments.commit(encoder, beginsEraAt: clockPlan.era)
            publish(syncSeconds: seconds)
            if seconds > Self.slowSyncSeconds { options.onSlowSync?(seconds) }
        } catch {
            if error.isDiskFull || error.isOutOfDescriptors, cleanUp() {
                let what = error.isDiskFull ? "the disk is full" : "no file descriptors are left"
                complete(.full("\(what), the log holds: \(error)"))
            } else {
                let message =
                    "the log cannot be written and stops: \(error); what is on disk beyond position "
                    + "\(end) is unknown, restart to recover"
                queue.fail(message)
                options.onFailure?(message)
                complete(.failed(message))
            }
        }
    }

    private func encode() {
        encoder.begin(at: end)
        var floor = lastTime
        clockPlan = clock.plan(behind: floor)
        if let era = clockPlan.era { floor = era }
        let isLate = clock.steadyMicroseconds() < lateUntilSteady
        let ceiling = clockPlan.ceiling ?? (isLate ? clock.now() : nil)
        if !clockPlan.records.isEmpty {
            var batch = RecordBatch()
            for (time, event) in clockPlan.records {
                batch.append(
                    kind: .system, schema: LogSchema.clockStepped.rawValue, receivedAt: time, json: event.json)
            }
            let times = batch.raiseTimes(to: floor)
            floor = times.last
            _ = encoder.add(batch, first: times.first, last: times.last)
        }
        for submission in taken {
            let times = submission.batch.raiseTimes(to: floor, ceiling: ceiling)
            floor = times.last
            submission.positions = encoder.add(submission.batch, first: times.first, last: times.last)
        }
        encoder.finish()
    }

    private func publish(syncSeconds: Double) {
        end = encoder.end
        lastTime = encoder.lastTime ?? lastTime
        if clockPlan.stepsBack { lateUntilSteady = clock.steadyMicroseconds() + GuardedClock.lateMicros }
        durableFile.count = end.rawValue
        // A step back takes effect before its event is visible, a step forward after it. A reader that takes
        // min(clock before, clock after) a fold never sees a time later than its state.
        if clockPlan.stepsBack { clock.settle(clockPlan) }
        queue.publish(durableCount: end.rawValue) { statistics in
            statistics.commits += 1
            statistics.events += UInt64(encoder.eventCount)
            statistics.rawBytes += UInt64(encoder.rawBytes)
            statistics.storedBytes += UInt64(encoder.bytes.count)
            statistics.syncSeconds.record(syncSeconds)
            statistics.commitEvents.record(Double(encoder.eventCount))
            segments.describe(&statistics)
        }
        if !clockPlan.stepsBack { clock.settle(clockPlan) }
        keepOffset()
        clockPlan = GuardedClock.Plan()
        for submission in taken {
            guard let positions = submission.positions else { preconditionFailure("a batch without positions") }
            submission.complete(.success(positions))
        }
    }

    private func keepOffset() {
        guard let clockFile else { return }
        let offset = clock.offset
        guard keptOffset.map({ abs($0 - offset) > 100_000 }) ?? true else { return }
        clockFile.write(offset)
        keptOffset = offset
    }

    /// Takes back what a failed write left. False when that failed in a way that is not survived.
    private func cleanUp() -> Bool {
        do {
            try segments.clearDirty()
            return true
        } catch {
            return error.isDiskFull || error.isOutOfDescriptors
        }
    }

    private func complete(_ error: AppendError) {
        for submission in taken { submission.complete(.failure(error)) }
    }
}
