// A whole installation in one thread: devices, brokers with persistent sessions, one or two daemons that want to write
// the same log, projectors, readers, a database, over a `SimulatedDisk` whose power goes. A seed decides what runs next
// and what fails; nothing else does, so that a seed and a number of steps say exactly what happened.
//
// The code under test is the real one: FileLog, ReadOnlyLog, recovery, the projection pass, the folds. Models stand for
// what is outside: the disk, the clock, the broker, PostgreSQL (with its transactions, unknown outcomes, and
// asynchronous commits that a crash loses).
//
// Invariants, checked after every step that could break one:
// - What was acknowledged, or shown to a reader while its writer was up, stays at its position for ever, byte for byte.
// - Positions have no gap; nothing stands in the log that nobody sent, nor more often than it was received.
// - A device's messages stand in its order. Received-at decreases only where an era begins, is never a time that only
//   an erring clock had, and is right again when the clock is.
// - At every commit to the database, and after each of its crashes, rows = naive fold up to the checkpoint.
// - Two writers never both have the log open. A log that cannot write says so and never acknowledges again.
// - Bits that flip are noticed or harmless, and nothing is cut because of them.
// - When the faults end, everything that was published is in the log and in the tables.

import EventLog
import EventModel
import Primitives
import Projecting
import Projections

/// See the page above. Runs once.
public final class World {
    static let directory = "/data/log"

    let options: WorldOptions
    let profile: Profile
    var random: SeededRandom
    let disk: SimulatedDisk
    let clock = SimulatedClock()
    let database: ModelDatabase
    var fleet: Fleet
    var sessions: [BrokerSession]
    var truth = Truth()
    var naive: [String: NaiveFold] = [:]
    var processes: [WriterProcess?] = [nil, nil]
    var auditor: Auditor?
    /// Mends the bit that is flipped now.
    var rot: (() -> Void)?
    /// When an error of the clock will be noticed.
    var clockErrsUntil: Int64?
    /// No faults any more: the world comes to rest.
    var isCalm = false
    var trace = TraceHash()
    var summary = WorldSummary()
    var lines: [String] = []

    public init(_ options: WorldOptions) {
        self.options = options
        random = SeededRandom(seed: options.seed &* 0x2545_F491_4F6C_DD1D &+ 1)
        var profile = Profile(&random)
        options.plant.map { profile.suit($0) }
        self.profile = profile
        disk = SimulatedDisk(seed: random.next())
        database = ModelDatabase(random: random.fork())
        database.splitsCommits = options.activePlant == .checkpointOutsideTransaction
        database.breaks = profile.databaseFaults
        fleet = Fleet(deviceCount: profile.deviceCount, paddingMax: profile.paddingMax)
        sessions = (0..<profile.sessionCount).map { _ in BrokerSession() }
    }

    public func run() -> WorldVerdict {
        var taken = 0
        var violation: String?
        do {
            func live() throws {
                try begin()
                while taken < options.steps {
                    taken += 1
                    try step()
                }
                try comeToRest()
            }
            if let plant = options.activePlant { try plant.planted(live) } else { try live() }
        } catch {
            violation = "\(error)"
            note { "VIOLATION \(error)" }
        }
        trace.mix(disk.traceHash.value)
        summary.published = fleet.messages.count
        summary.acknowledged = truth.acknowledged
        summary.events = truth.events.count
        summary.segments = disk.names(in: Self.directory).count { $0.hasSuffix(".seg") }
        summary.databaseCommits = database.commits
        summary.diskOperations = disk.operations
        return WorldVerdict(
            seed: options.seed, stepsTaken: taken, traceHash: trace.value, violation: violation, summary: summary,
            lines: lines)
    }

    func note(_ text: () -> String) {
        guard options.isRecording else { return }
        lines.append("\(clock.steadyMicroseconds()) µs: \(text())")
        if lines.count > 200 { lines.removeFirst(100) }
    }

    private func begin() throws {
        let root = disk.process(isExposed: false)
        try root.makeDirectory(Self.directory)
        try root.synchronizeDirectory("/data")
        try root.synchronizeDirectory("/")
        if profile.hasFormerLife { try liveBefore() }
        disk.kill(root)
        disk.setFaults(rates: profile.rates)
        disk.setExposesOldSpace(profile.hasFormerLife)
        database.onCommit = { [unowned self] projection, position in try check(projection, position) }
    }

    /// Another log was here and was deleted: its blocks lie in the space that this one will get.
    private func liveBefore() throws {
        var options = logOptions(disk.process(isExposed: false), SteppedThreads())
        let threads = SteppedThreads()
        (options.threads, options.isKeeping, options.keepsTree) = (threads, false, false)
        let log = try FileLog.open(directory: Self.directory, options: options)
        var others = Fleet(deviceCount: 1, paddingMax: 0)
        for _ in 0..<(20 + random.below(60)) {
            let number = others.publish(0, &random)
            try log.submit(others.batch([number], at: log.now())) { _ in }
            threads.stepUntilIdle()
        }
        log.close()
        let view = disk.process(isExposed: false)
        let names = try view.list(Self.directory).sorted()
        var space = names.filter { $0.hasSuffix(".seg") }.compactMap { disk.contents(Self.directory + "/" + $0) }
        for name in names { try view.remove(Self.directory + "/" + name) }
        try view.synchronizeDirectory(Self.directory)
        // The reserve takes space behind the first segment.
        space.insert([], at: 1)
        disk.setOldSpace(space)
    }

    // MARK: The scheduler

    private func step() throws {
        clock.advance(microseconds: 1 + random.below(4000))
        if let end = clockErrsUntil, clock.steadyMicroseconds() >= end { mendClock() }
        let action = random.below(100)
        trace.mix(action)
        switch action {
        case ..<15: publish()
        case ..<30: try deliver()
        case ..<52: try stepThread()
        case ..<62: try answer()
        case ..<75: try project()
        case ..<82: try read()
        case ..<86: try readFromOutside()
        case ..<90: try startOne()
        case ..<91: try closeOne()
        default: try happen()
        }
        try bury()
    }

    /// What happens to the world from outside.
    private func happen() throws {
        if random.chance(profile.deaths * 10) { try die() }
        if random.chance(profile.fullDisks * 10) {
            disk.capacityBytes = disk.capacityBytes == .max ? disk.usedBytes + random.below(64 << 10) : .max
            note { "the disk has \(disk.capacityBytes == .max ? "room" : "no room any more")" }
        }
        if random.chance(profile.clockSteps * 10) {
            try setClock()
        }
        if random.chance(profile.forgetsCache * 10) { disk.forgetCache() }
        if random.chance(profile.rot * 10) { rotate() }
        if random.chance(profile.databaseFaults * 10) { try upsetDatabase() }
        if random.below(8) == 0 { database.flush() }
    }

    /// For good, or for a moment.
    private func setClock() throws {
        let by =
            random.chance(0.5) ? (random.below(2_000) - 1_000) * 1_000_000 : random.pick([1, -1]) * 259_200_000_000
        if random.chance(0.5) {
            mendClock()
            clock.set(by: by)
            note { "the clock was set by \(by) µs" }
        } else if clockErrsUntil == nil {  // two errors in a row could be longer than the clock is held
            clock.err(by: by)
            clockErrsUntil = clock.steadyMicroseconds() + Int64(1 + random.below(100_000))
            note { "the clock is wrong by \(by) µs" }
        }
        // It was seen, before it may be gone.
        _ = writer?.log?.now()
    }

    func mendClock() {
        guard clockErrsUntil != nil else { return }
        clock.err(by: 0)
        clockErrsUntil = nil
        note { "the clock is right again" }
    }

    private func publish() {
        let session = random.below(sessions.count)
        guard sessions[session].queued.count < 200 else { return }
        // A device has one session: that is where its order comes from.
        let devices = (0..<fleet.deviceCount).filter { $0 % sessions.count == session }
        guard !devices.isEmpty else { return }
        for _ in 0...random.below(3) { sessions[session].publish(fleet.publish(random.pick(devices), &random)) }
    }

    /// A connection takes what its broker has and gives it to the log as one batch.
    func deliver() throws {
        guard let process = writer, let log = process.log, !process.hasFailed else { return }
        let index = random.below(sessions.count)
        guard process.connections[index].outcome == nil else { return }
        if !sessions[index].isConnected { sessions[index].connect() }
        let messages = sessions[index].deliver(atMost: 1 + random.below(profile.batchMax), inFlightMax: 40)
        guard !messages.isEmpty else { return }
        let outcome = Outcome()
        truth.submit(messages)
        do {
            try log.submit(fleet.batch(messages, at: log.now())) { outcome.result = $0 }
        } catch {
            outcome.result = .failure(error)
        }
        process.connections[index] = .init(batch: messages, outcome: outcome)
    }

    /// A connection acknowledges what became durable, or hangs up.
    func answer() throws {
        guard let process = writer else { return }
        let index = random.below(sessions.count)
        guard let result = process.connections[index].outcome?.result else { return }
        let batch = process.connections[index].batch
        process.connections[index] = .init()
        switch result {
        case .success(let positions):
            trace.mix(positions.lowerBound.rawValue)
            try truth.acknowledge(batch, at: positions)
            for message in batch where !sessions[index].acknowledge(message) {
                throw Violation("message \(message) was acknowledged twice")
            }
        case .failure(.full):
            summary.holds += 1
            sessions[index].disconnect()
        case .failure(.failed(let why)):
            note { "the log failed: \(why)" }
            process.hasFailed = true
        }
    }

    func stepThread() throws {
        guard let process = writer, let count = Optional(process.threads.names.count), count > 0 else { return }
        let before = process.log?.durableCount ?? 0
        process.threads.step(random.below(count))
        if process.log?.durableCount ?? 0 > before, disk.isAlive(process.view) {
            summary.commits += 1
            try audit()
        }
    }

    /// The process that has the log open.
    var writer: WriterProcess? { processes.lazy.compactMap { $0 }.first { $0.log != nil } }
}

extension Profile {
    /// A bug is found by the faults that it is about: these worlds have them.
    mutating func suit(_ plant: Plant) {
        deaths = max(deaths, 0.01)
        switch plant {
        case .acknowledgeBeforeSync, .folderNotSynced, .saltIgnored: powerCutsOfDeaths = 1
        case .syncRetried, .unprovenTailKept: (rates.sync, powerCutsOfDeaths) = (0.05, 0.5)
        case .checkpointOutsideTransaction: databaseFaults = 0.05
        case .checksumIgnored: rot = 0.02
        case .rollCutsOnePageTooMuch: break
        case .clockBelieved, .receivedAtPinned: (clockSteps, hasFormerLife) = (0.05, false)
        case .unlinkBeforeSync: (powerCutsOfDeaths, segmentBytes, paddingMax) = (1, 16 << 10, 200)
        }
        if plant == .saltIgnored {
            (hasFormerLife, sessionCount, paddingMax, batchMax, clockSteps) = (true, 1, 0, 1, 0)
        }
    }
}
