import EventLog
import EventModel
import Projecting
import Projections

// Those who read, and the checks.

/// Sees everything that becomes durable, from another process, on a view of the disk that no fault reaches.
struct Auditor {
    let log: ReadOnlyLog
    let reader: any LogReader
    let block = EventBlock()
    /// Where it began: what lies before in the first block was asked for by nobody.
    let from: Position
}

extension World {
    /// Shows the auditor all that is durable. Only while a writer is up: without one, readers may see what a crash left
    /// and nobody was told of.
    func audit() throws {
        guard let log = writer?.log else { return }
        truth.latest = clock.latest
        do {
            if auditor == nil { auditor = try makeAuditor() }
            guard let auditor else { return }
            while try auditor.reader.read(into: auditor.block, atLeast: 1 << 20) {
                try truth.see(auditor.block, from: auditor.from, fleet: fleet, by: "the auditor")
            }
            guard UInt64(truth.events.count) >= log.durableCount else {
                throw Violation("\(log.durableCount) events are durable, another process sees \(truth.events.count)")
            }
            try truth.checkAllSeen()
        } catch let error as LogError {
            auditor = nil
            guard error.code == .corrupt, rot != nil else { throw Violation("the auditor: \(error)") }
        }
    }

    private func makeAuditor() throws -> Auditor {
        let log = try ReadOnlyLog(directory: Self.directory, fileSystem: disk.process(isExposed: false))
        // All of a long log only now and then.
        let recent = truth.events.count > 2000 && random.below(16) != 0 ? truth.events.count - 1000 : 0
        let from = Position(UInt64(rot == nil ? recent : truth.events.count))
        return Auditor(log: log, reader: try log.reader(from: from), from: from)
    }

    /// A reader of the writer's own process, from anywhere.
    func read() throws {
        guard let process = writer, let log = process.log else { return }
        let index = random.below(process.readers.count)
        do {
            if process.readers[index].reader == nil || random.below(20) == 0 {
                let from = random.below(Int(log.durableCount) + 1)
                process.readers[index].reader = try log.reader(from: Position(UInt64(from)))
            }
            guard let reader = process.readers[index].reader else { return }
            let block = process.readers[index].block
            let from = reader.position
            if try reader.read(into: block, atLeast: 1 + random.below(20_000)) {
                try audit()
                try truth.see(block, from: from, fleet: fleet, by: "a reader")
            }
        } catch let error as LogError {
            process.readers[index].reader = nil
            try judge(error, process.view, "a reader")
        }
    }

    /// `refold log cat`, with the daemon up or down.
    func readFromOutside() throws {
        guard !truth.events.isEmpty else { return }
        do {
            let log = try ReadOnlyLog(directory: Self.directory, fileSystem: disk.process(isExposed: false))
            let count = log.durableCount
            guard count >= truth.toldCount || rot != nil else {
                throw Violation("another process finds \(count) events, the outside was told of \(truth.toldCount)")
            }
            let from = Position(UInt64(random.below(truth.events.count)))
            let reader = try log.reader(from: from)
            let block = EventBlock()
            while try reader.read(into: block, atLeast: 1 << 16), block.base.rawValue < UInt64(truth.events.count) {
                try block.forEach { (record, position) throws in
                    let index = Int(position.rawValue)
                    guard position >= from, index < truth.events.count else { return }
                    guard truth.events[index].hash == Truth.hash(record) else {
                        throw Violation("another process finds another event at position \(index) than was shown")
                    }
                }
                if random.below(4) == 0 { return }
            }
        } catch let error as LogError {
            guard error.code == .corrupt, rot != nil else { throw Violation("from outside: \(error)") }
        }
    }

    /// What a reader of a process may throw: what the disk did to it, and damage where there is some.
    private func judge(_ error: LogError, _ view: SimulatedFileSystem, _ who: String) throws {
        guard disk.isAlive(view) else { return }
        trace.mix("\(error.code)")
        switch error.code {
        case .system where !isCalm: break
        case .corrupt where rot != nil: break
        default: throw Violation("\(who): \(error)")
        }
    }

    // MARK: Projectors

    func project() throws {
        guard let process = writer, let log = process.log else { return }
        try audit()
        let index = random.below(process.projectors.count)
        do {
            if process.projectors[index].pass == nil {
                process.projectors[index].pass = try makePass(process.projectors[index].name, log)
            }
            _ = try process.projectors[index].pass?.step()
        } catch {
            process.projectors[index].pass = nil
            try judge(error, process, process.projectors[index].name)
        }
    }

    private func makePass(_ name: String, _ log: FileLog) throws -> ProjectionPass? {
        guard let entry = Catalog.entry(named: name) else { return nil }
        var options = ProjectorOptions()
        options.now = { [clock] in clock.instant }
        options.readBytes = 1 + random.below(8000)
        options.dirtyRowsMax = 1 + random.below(20)
        options.stateBytesMax = random.pick([0, 1 << 20])
        return try ProjectionPass(
            source: log, fold: entry.makeFold(.all), store: ModelStore(database), options: options)
    }

    private func judge(_ error: any Error, _ process: WriterProcess, _ name: String) throws {
        if database.violation != nil { throw database.violation! }
        switch error {
        case StoreError.unavailable, StoreError.checkpointMoved: trace.mix(0x0DB)
        case let error as LogError: try judge(error, process.view, "the projector \(name)")
        default:
            guard disk.isAlive(process.view) else { return }
            throw Violation("the projector \(name): \(error)")
        }
    }

    /// A projection's rows and checkpoint changed: they must agree.
    func check(_ projection: ProjectionDescriptor, _ position: Position) throws {
        trace.mix(position.rawValue)
        guard position.rawValue < UInt64(truth.events.count) else {
            throw Violation("\(projection.name) stands at \(position), only \(truth.events.count) events were shown")
        }
        naive[projection.name, default: NaiveFold()].advance(to: Int(position.rawValue) + 1, truth, fleet)
        try naive[projection.name]?.compare(projection, database.tables)
    }

    func checkTables() throws {
        for name in NaiveFold.projections {
            guard let projection = Catalog.entry(named: name)?.descriptor,
                let position = database.checkpoint(of: projection)
            else { continue }
            try check(projection, position)
        }
    }

    // MARK: The end

    /// No more faults: everything published must arrive, in the log and in the tables.
    func comeToRest() throws {
        if rot != nil { rotate() }
        isCalm = true
        disk.setFaults()
        disk.cancelPlannedDeath()
        // The log would adopt a clock error that lasts until the end, and that is correct.
        mendClock()
        disk.capacityBytes = .max
        (database.isUp, database.breaks) = (true, 0)
        auditor = nil
        note { "calm" }
        try untilStill("the log") { self.sessions.allSatisfy(\.isEmpty) }
        while writer == nil { try startOne() }
        try audit()
        for message in fleet.messages.indices where !truth.holds(message) {
            throw Violation("message \(message) was published, acknowledged, and is not in the log")
        }
        try checkClockIsFollowed()
        try untilStill("the tables") {
            NaiveFold.projections.allSatisfy { name in
                Catalog.entry(named: name).flatMap { self.database.checkpoint(of: $0.descriptor) }
                    .map { Int($0.rawValue) + 1 == self.truth.events.count } ?? self.truth.events.isEmpty
            }
        }
        try checkTables()
        // The last end is the machine's: what was synced must be there again.
        disk.cutPower()
        try bury()
        while writer == nil { try startOne() }
        try audit()
    }

    /// However wrong the clock was, received-at follows it again after the error.
    private func checkClockIsFollowed() throws {
        for _ in 0..<3 {
            _ = writer?.log?.now()
            clock.advance(microseconds: 2 * Int(Self.clockHoldMicros))
            sessions[0].publish(fleet.publish(0, &random))
            try untilStill("the log") { self.sessions.allSatisfy(\.isEmpty) }
        }
        while writer == nil { try startOne() }
        try audit()
        guard let last = truth.events.last(where: { $0.message != nil })?.receivedAt else { return }
        // A log may be opened while the wall clock is five minutes behind it.
        let ahead = (last.microseconds - clock.now().microseconds) / 1_000_000
        guard ahead <= 301 else { throw Violation("received-at stays \(ahead) s ahead of the clock") }
    }

    private func untilStill(_ what: String, _ isDone: () -> Bool) throws {
        for _ in 0..<200_000 {
            if isDone() { return }
            clock.advance(microseconds: 1 + random.below(20_000))
            switch random.below(6) {
            case 0: try deliver()
            case 1: try stepThread()
            case 2: try answer()
            case 3, 4: try project()
            default: try startOne()
            }
            try bury()
        }
        throw Violation(
            "without faults, \(what) does not come to rest: \(sessions.map(\.queued.count)) queued, "
                + "\(sessions.map(\.unacknowledged.count)) unacknowledged, \(truth.events.count) events")
    }
}
