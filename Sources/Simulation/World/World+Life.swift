import EventLog
import EventModel
import Primitives
import Projecting
import Projections

// Processes that start, end and die, and what else befalls the world.
extension World {
    /// Longer than the clock errs at once.
    static let clockHoldMicros: Int64 = 200_000

    func logOptions(_ view: SimulatedFileSystem, _ threads: SteppedThreads) -> FileLogOptions {
        var options = FileLogOptions()
        options.segmentBytes = profile.segmentBytes
        options.blockBytes = profile.blockBytes
        options.acceptClock = true
        options.fileSystem = view
        options.clock = clock
        options.clockRules.holdMicros = Self.clockHoldMicros
        options.clockRules.holdSynchronisedMicros = Self.clockHoldMicros
        options.threads = threads
        let salts = SaltSource(random.fork())
        options.random = { salts.next() }
        return options
    }

    /// Starts a daemon where there is none; where there is one already, now and then, one that must be refused.
    func startOne() throws {
        let slot = random.below(processes.count)
        guard processes[slot] == nil else { return }
        if processes[1 - slot] != nil, !random.chance(profile.competitors * 10) { return }
        // What a process finds when it starts it must believe.
        mendClock()
        let view = disk.process()
        let process = WriterProcess(view: view, sessions: sessions.count)
        processes[slot] = process
        summary.starts += 1
        if !isCalm, random.chance(profile.deaths * 10) {
            let kind = random.chance(profile.powerCutsOfDeaths) ? SimulatedDisk.Death.powerCut : .killed
            disk.plan(kind, of: view, after: 1 + random.below(60))
        }
        do {
            process.log = try FileLog.open(directory: Self.directory, options: logOptions(view, process.threads))
        } catch {
            guard disk.isAlive(view) else { return }
            processes[slot] = nil
            try refused(error, other: processes[1 - slot])
            disk.kill(view)
            return
        }
        guard disk.isAlive(view), let log = process.log else { return }
        if let other = processes[1 - slot], other.log != nil { throw Violation("two writers have the log open") }
        try opened(log, process)
    }

    private func refused(_ error: any Error, other: WriterProcess?) throws {
        guard let error = error as? LogError else { throw Violation("opening throws \(error)") }
        note { "opening is refused: \(error)" }
        trace.mix("\(error.code)")
        switch error.code {
        case .locked:
            summary.refusedWriters += 1
            guard other?.log != nil else { throw Violation("nobody has the log open, and yet: \(error)") }
        case .system:
            summary.failures += 1
            if isCalm { throw Violation("nothing fails any more, and yet: \(error)") }
        case .corrupt where rot != nil: break
        default: throw Violation("opening: \(error)")
        }
    }

    private func opened(_ log: FileLog, _ process: WriterProcess) throws {
        trace.mix(log.durableCount)
        note {
            "opened with \(log.durableCount) events, torn: \(log.report.torn?.description ?? "nothing"), corrupt: "
                + "\(log.report.corrupt.map(\.description))"
        }
        if log.report.torn != nil { summary.tornTails += 1 }
        if rot == nil, let corrupt = log.report.corrupt.first { throw Violation("opening: \(corrupt)") }
        try truth.expect(durableCount: log.durableCount, "the log that was opened")
        for index in sessions.indices { sessions[index].disconnect() }
        auditor = nil
        try audit()
    }

    /// A clean end: everything submitted is finished, the lock given back.
    func closeOne() throws {
        guard let process = writer, let slot = processes.firstIndex(where: { $0 === process }), let log = process.log,
            random.below(4) == 0
        else { return }
        try close(log, process)
        processes[slot] = nil
        if disk.isAlive(process.view) { disk.kill(process.view) }
        try afterDeath()
    }

    private func close(_ log: FileLog, _ process: WriterProcess) throws {
        note { "closing" }
        log.close()
        guard disk.isAlive(process.view) else { return }
        for index in process.connections.indices {
            guard case .success(let positions) = process.connections[index].outcome?.result else { continue }
            // Acknowledged just before the end.
            try truth.acknowledge(process.connections[index].batch, at: positions)
            for message in process.connections[index].batch { _ = sessions[index].acknowledge(message) }
        }
        process.connections = process.connections.map { _ in .init() }
    }

    /// Lets a process, or the machine, die: now, or in the middle of one of its next operations.
    func die() throws {
        let alive = processes.compactMap { $0 }
        guard let process = alive.first(where: { $0.log != nil }) ?? alive.first else { return }
        let kind = random.chance(profile.powerCutsOfDeaths) ? SimulatedDisk.Death.powerCut : .killed
        if random.below(4) == 0 {
            if kind == .powerCut { disk.cutPower() } else { disk.kill(process.view) }
        } else {
            disk.plan(kind, of: process.view, after: 1 + random.below(12))
        }
    }

    /// Clears away what died, and ends what failed.
    func bury() throws {
        if database.violation != nil { throw database.violation! }
        if let process = writer, process.hasFailed, disk.isAlive(process.view) {
            try checkDead(process)
            summary.failures += 1
            disk.kill(process.view)
        }
        var someDied = false
        for slot in processes.indices {
            guard let process = processes[slot], !disk.isAlive(process.view) else { continue }
            note { "dead: \(disk.lastDeath ?? "at once")" }
            process.threads.abandon()
            processes[slot] = nil
            someDied = true
        }
        if someDied || disk.isDown { try afterDeath() }
    }

    /// After a failed write or fsync nothing may ever be acknowledged again.
    private func checkDead(_ process: WriterProcess) throws {
        guard let log = process.log else { return }
        let before = log.durableCount, operations = disk.operations
        let outcome = Outcome()
        do {
            try log.submit(fleet.batch([0], at: log.now())) { outcome.result = $0 }
        } catch {
            outcome.result = .failure(error)
        }
        if let index = process.threads.names.firstIndex(of: "log-writer") { process.threads.step(index) }
        guard case .failure(.failed) = outcome.result, log.durableCount == before else {
            throw Violation("the log failed, and then took another batch")
        }
        guard disk.operations == operations else { throw Violation("the log failed, and then touched the disk again") }
    }

    private func afterDeath() throws {
        if writer == nil {
            auditor = nil
            for index in sessions.indices { sessions[index].disconnect() }
        }
        if disk.isDown {
            summary.powerCuts += 1
            auditor = nil
            disk.powerUp()
            note { "power is back" }
        } else {
            summary.kills += 1
            disk.settle()
        }
    }

    // MARK: Rot

    /// Flips a bit somewhere in a segment that is not the last, or mends the one that is flipped.
    func rotate() {
        if let mend = rot {
            mend()
            rot = nil
            // What they read ahead is still flipped.
            auditor = nil
            if let process = writer {
                for index in process.readers.indices { process.readers[index].reader = nil }
                for index in process.projectors.indices { process.projectors[index].pass = nil }
            }
            note { "the bit is mended" }
            return
        }
        let segments = disk.names(in: Self.directory).filter { $0.hasSuffix(".seg") }
        guard segments.count > 1, !isCalm else { return }
        let path = Self.directory + "/" + segments[random.below(segments.count - 1)]
        guard let count = disk.contents(path)?.count, count > 0 else { return }
        let bit = random.below(count * 8)
        rot = disk.flip(path, bit: bit)
        summary.rotten += 1
        note { "bit \(bit) of \(path) is flipped" }
    }

    // MARK: The database

    func upsetDatabase() throws {
        switch random.below(3) {
        case 0:
            database.isUp.toggle()
            if !database.isUp { database.breakConnections() }
        case 1: database.breakConnections()
        default:
            database.crash()
            summary.databaseCrashes += 1
            note { "the database crashed" }
            try checkTables()
        }
    }
}

/// `@unchecked Sendable`: everything runs on the world's one thread.
private final class SaltSource: @unchecked Sendable {
    private var random: SeededRandom
    init(_ random: SeededRandom) { self.random = random }
    func next() -> UInt64 { random.next() }
}
