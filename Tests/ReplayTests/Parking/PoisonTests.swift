import EventLog
import EventModel
import Foundation
import Postgres
import PostgresStore
import Primitives
import Projecting
import Projections
import Synchronization
import TestSupport
import Testing

/// A database of its own, whose constraints are the poison.
private struct PostgresGround: PoisonGround {
    let target: DatabaseTarget

    init() throws {
        let server = try PostgresServer.shared.get()
        target = DatabaseTarget(server.url(database: try server.makeDatabase(copyOf: try Self.template.get())))
    }

    private static let template = Result {
        let server = try PostgresServer.shared.get(), name = try server.makeDatabase()
        _ = try RefoldSchema.migrate(DatabaseTarget(server.url(database: name)))
        return name
    }

    func enforce(_ rules: [PoisonRule]) throws {
        let connection = try Connection(target)
        let old = try connection.query(
            """
            SELECT string_agg(format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname), ';')
            FROM pg_constraint WHERE conname LIKE 'poison%'
            """)
        if let drop = old.text(0, 0) { try connection.exec(drop) }
        for (index, rule) in rules.enumerated() {
            // Rows that stand already are let be, until they change.
            try connection.exec(
                "ALTER TABLE refold.\(rule.table) ADD CONSTRAINT poison_\(index) CHECK (NOT (\(rule.sql))) NOT VALID")
        }
    }

    func rows() throws -> [String] { try RowLines.of(Connection(target)) }
    func makeStore() -> any ParkingStore { PostgresStore(target) }
}

/// Whatever a store refuses, of whatever history, in whatever moment: what it does not refuse goes on, and once it
/// refuses nothing any more and the parked keys were taken up again, the rows are those of a run in which nothing was.
@Suite(.serialized) struct PoisonTests {
    /// In all runs, so that nobody believes in runs in which nothing happened.
    static let parkedKeys = Mutex(0)

    @Test(arguments: 1...24)
    func inMemoryTheRowsAreThoseOfACleanRun(seed: UInt64) async throws {
        try await PoisonRun(seed: seed, ground: MemoryGround(), breaks: seed % 3 == 0 ? 0.03 : 0).run()
    }

    @Test(arguments: 101...108)
    func inPostgreSQLTheRowsAreThoseOfACleanRun(seed: UInt64) async throws {
        try await PoisonRun(seed: seed, ground: PostgresGround(), breaks: seed % 3 == 0 ? 0.02 : 0).run()
    }

    @Test func zzThereWasPoison() {
        let parked = Self.parkedKeys.withLock { $0 }
        #expect(parked > 40, "\(parked) keys were parked in all")
    }
}

/// One world: a story that is told in stretches, while rules come and go, projectors stop and start, connections break,
/// and parked keys are taken up again too early.
private struct PoisonRun {
    let seed: UInt64
    let ground: any PoisonGround
    /// Share of the store's calls during which the connection breaks.
    let breaks: Double

    func run() async throws {
        var random = SeededRandom(seed: seed)
        let story = PoisonStory(seed: seed, count: 120 + random.below(200))
        let log = StoryLog(story, seed: seed, commitEventsMax: random.pick([1, 4, 30]))
        let rules = (0..<(1 + random.below(4))).map { _ in PoisonRule.random(&random) }
        let options = self.options(&random)
        /// Two projectors on each checkpoint: they hinder each other, and nothing else.
        let doubled = random.chance(0.3)
        var everParked: Set<String> = []

        while log.durableCount < log.count {
            try ground.enforce(rules.filter { _ in random.chance(0.8) })
            let last = log.tell(10 + random.below(80)), takesUp = random.chance(0.5)
            let some = random.chance(0.5), dice = random.next()
            try await projecting(log, options, doubled) { projectors in
                for projector in projectors {
                    #expect(
                        await projector.waitUntilApplied(last, timeout: .seconds(60)),
                        "seed \(seed), \(projector.status), rules \(rules)")
                    for parked in projector.status.parked {
                        everParked.insert("\(projector.descriptor.name) \(parked.key)")
                    }
                    guard takesUp else { continue }
                    var dice = SeededRandom(seed: dice)
                    let keys = projector.status.parked.map(\.key).filter { _ in !some || dice.chance(0.5) }
                    _ = await projector.retryParked(some ? Set(keys) : nil)
                }
            }
        }
        try ground.enforce([])
        let last = Position(log.count - 1)
        try await projecting(log, options, false) { projectors in
            for projector in projectors {
                #expect(await projector.waitUntilApplied(last, timeout: .seconds(60)), "seed \(seed)")
                for _ in 0..<200 {
                    let result = await projector.retryParked()
                    if result?.error == nil, result?.parked.isEmpty == true { break }
                    try? await Task.sleep(for: .milliseconds(5))
                }
                #expect(projector.status.parked.isEmpty, "seed \(seed), \(projector.descriptor.name)")
            }
        }
        try compare(story, rules, everParked)
        PoisonTests.parkedKeys.withLock { $0 += everParked.count }
    }

    private func compare(_ story: PoisonStory, _ rules: [PoisonRule], _ everParked: Set<String>) throws {
        let clean = try Self.cleanRows(story), rows = try ground.rows()
        guard rows != clean else { return }
        let missing = clean.filter { !rows.contains($0) }, extra = rows.filter { !clean.contains($0) }
        Issue.record(
            """
            seed \(seed), rules \(rules), parked were \(everParked.sorted())
            clean:  \(missing.prefix(4).joined(separator: "\n        "))
            poison: \(extra.prefix(4).joined(separator: "\n        "))
            """)
    }

    static func cleanRows(_ story: PoisonStory) throws -> [String] {
        let log = StoryLog(story, seed: 1, commitEventsMax: 50), tables = MemoryTables(), block = EventBlock()
        _ = log.tell(.max - 1)
        for entry in Catalog.entries {
            let store = MemoryStore(tables), fold = entry.makeFold(.all), reader = try log.reader(from: Position(0))
            var committed: Position?
            while try reader.read(into: block, atLeast: 1) {
                let range = block.base..<block.end
                try store.load(fold.prepare(block, in: range), of: entry.descriptor) { fold.load(table: $0, row: $1) }
                fold.fold(block, in: range)
                var rows = entry.descriptor.tables.map { _ in RowBuffer() }
                fold.drain(into: &rows)
                let last = Position(block.end.rawValue - 1)
                try store.commit(rows, of: entry.descriptor, partition: 0, from: committed, to: last)
                committed = last
            }
        }
        return RowLines.of(tables)
    }

    private func options(_ random: inout SeededRandom) -> ProjectorOptions {
        var options = ProjectorOptions()
        options.backoffMax = .milliseconds(5)
        options.failedRetry = .milliseconds(20)
        options.commitDelayMax = .milliseconds(20)
        options.checkpointDelay = .milliseconds(5)
        options.readBytes = random.pick([1, 500, 4000, 1 << 20])
        options.dirtyRowsMax = random.pick([1, 20, 20_000])
        options.stateBytesMax = random.pick([0, 1 << 20])
        return options
    }

    /// All projectors, run while `body` does, and stopped in order.
    private func projecting(
        _ log: StoryLog, _ options: ProjectorOptions, _ doubled: Bool, _ body: ([Projector]) async throws -> Void
    ) async throws {
        let projectors = (Catalog.entries + (doubled ? Catalog.entries : [])).enumerated().map { index, entry in
            Projector(
                entry.descriptor, source: log, options: options, makeFold: { entry.makeFold($0) },
                makeStore: { [ground, breaks, seed] in
                    BreakingStore(ground.makeStore(), share: breaks, seed: seed &+ UInt64(index) &* 31)
                })
        }
        let runs = projectors.map { projector in Task { await projector.run() } }
        do { try await body(projectors) } catch {
            for projector in projectors { await projector.stop() }
            throw error
        }
        for projector in projectors { await projector.stop() }
        for run in runs { await run.value }
    }
}
