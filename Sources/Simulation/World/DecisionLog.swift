import EventLog
import EventModel

/// The log of a simulated world with one decider. Appends can fail, and other writers can append first.
/// `@unchecked Sendable`: a world runs on one thread.
final class DecisionLog: LogWriter, LogSource, @unchecked Sendable {
    let scratch = ScratchLog()
    private let block = EventBlock(capacity: 4 << 10)

    /// Whether the next append of the decider fails; asked once for each.
    var refuses: () -> Bool = { false }
    /// Whether the process dies in the next append of the decider, before or after the record is durable; nil: it does
    /// not.
    var dies: () -> Bool? = { nil }
    /// The decider is about to append.
    var beforeAppend: () -> Void = {}
    /// Every record, as it becomes durable.
    var watch: (RecordView, Position) -> Void = { _, _ in }

    /// The log's time.
    let clock: GuardedClock
    /// Position of the last event behind which the log's time was another.
    private(set) var steppedAt: UInt64?
    /// Until then on the steady clock a batch may come that was stamped before the last step back, as in the real log.
    private var lateUntilSteady = Int64.min
    /// A bug that is planted: no era ever begins.
    var isPinned = false
    /// A bug that is planted: these records read as events of the log's own.
    var hides: ((RecordView) -> Bool)?

    init(clock: GuardedClock) { self.clock = clock }

    func now() -> Timestamp { clock.now() }
    var durableCount: UInt64 { scratch.durableCount }

    func append(_ batch: inout RecordBatch) throws(AppendError) -> Range<Position> {
        if refuses() { throw .full("the simulated disk is full") }
        beforeAppend()
        if let isRecorded = dies() {
            if isRecorded { try record(&batch) }
            throw .failed("the process was killed")
        }
        return try record(&batch)
    }

    func append(_ batch: RecordBatch) async throws(AppendError) -> Range<Position> {
        var batch = batch
        return try append(&batch)
    }

    /// As ingest appends.
    @discardableResult
    func record(_ batch: inout RecordBatch) throws(AppendError) -> Range<Position> {
        let plan = clock.plan(behind: scratch.lastTime), era = isPinned ? nil : plan.era
        if let era { scratch.beginEra(at: era) }
        if plan.stepsBack { clock.settle(plan) }
        if plan.records.contains(where: { $0.event.adopted == true }) { steppedAt = durableCount }
        for (time, event) in plan.records {
            var step = RecordBatch()
            step.append(
                kind: .system, schema: LogSchema.clockStepped.rawValue, receivedAt: time, json: event.json)
            try add(&step)
        }
        // Stamped by the clock before it.
        let isLate = clock.steadyMicroseconds() < lateUntilSteady
        if plan.stepsBack { lateUntilSteady = clock.steadyMicroseconds() + GuardedClock.lateMicros }
        if let ceiling = plan.ceiling ?? (isLate ? clock.now() : nil) {
            _ = batch.raiseTimes(to: Timestamp(microseconds: 0), ceiling: ceiling)
        }
        let positions = try add(&batch)
        if !plan.stepsBack { clock.settle(plan) }
        return positions
    }

    @discardableResult
    private func add(_ batch: inout RecordBatch) throws(AppendError) -> Range<Position> {
        let positions: Range<Position>
        if let hides {
            _ = batch.raiseTimes(to: scratch.lastTime)
            var readable = Self.hiding(hides, in: batch)
            positions = try scratch.append(&readable)
        } else {
            positions = try scratch.append(&batch)
        }
        block.removeAll(at: positions.lowerBound)
        let isWhole = batch.withUnsafeBytes { bytes in
            block.append(base: positions.lowerBound, count: batch.count, byteCount: bytes.count) {
                $0.copyMemory(from: bytes)
                return true
            }
        }
        precondition(isWhole, "a batch holds whole records")
        block.forEach(watch)
        return positions
    }

    private static func hiding(_ hides: (RecordView) -> Bool, in batch: RecordBatch) -> RecordBatch {
        var readable = RecordBatch()
        batch.forEach { record in
            readable.append(
                kind: hides(record) ? .system : record.kind, verdict: record.verdict, flags: record.flags,
                receivedAt: record.receivedAt, packetID: record.packetID, broker: record.broker, topic: record.topic,
                properties: record.properties, payload: record.payload,
                originalPayloadLength: record.originalPayloadLength)
        }
        return readable
    }

    func reader(from position: Position) throws -> any LogReader { try scratch.reader(from: position) }
    func waitForDurable(
        beyond count: UInt64, timeoutMilliseconds: Int, unless stop: () -> Bool
    ) -> UInt64 {
        durableCount
    }
}

/// The wall clock: true time, and what it was set by. `@unchecked Sendable`: a world lives on one thread.
final class SettableClock: LogClock, @unchecked Sendable {
    var time: Timestamp
    /// Microseconds.
    var ahead: Int64 = 0
    private let beginning: Int64

    init(_ time: Timestamp) {
        self.time = time
        beginning = time.microseconds
    }

    func now() -> Timestamp { time.adding(microseconds: ahead) }
    func steadyMicroseconds() -> Int64 { time.microseconds - beginning }
}
