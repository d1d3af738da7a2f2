import EventModel
import Postgres
import PostgresStore
import ProjectionTestSupport
import Projections
import Rebuilding
import Synchronization
import TestSupport
import Testing
import Threading

@Suite struct RebuildTests {
    /// The tables are wrong: their rows are marked, so that old and new can be told apart.
    private func benchWithMarks(_ count: Int = 2000) async throws -> RebuildBench {
        let bench = try RebuildBench()
        bench.append(count)
        try await bench.project()
        try Connection(bench.target).exec(
            """
            UPDATE refold.test_counts_v1 SET messages = messages + 1000000;
            UPDATE refold.test_events_v1 SET topic = 'x'
            """)
        return bench
    }

    @Test func wrongRowsAreReplacedByRightOnesAndKept() async throws {
        let bench = try await benchWithMarks()
        let rebuild = bench.rebuild()
        try rebuild.run()
        #expect(try bench.difference() == nil)
        #expect(try bench.ask("SELECT min(messages)::text FROM refold_previous.test_counts_v1") != ["20"])
        let kept = "SELECT count(*)::text FROM refold_previous.test_counts WHERE messages > 1000000"
        #expect(try bench.ask(kept) == ["97"])
        #expect(rebuild.progress.stage == .done && rebuild.progress.folded == 2000)
        bench.append(500)
        try await bench.project()
        #expect(try bench.difference() == nil)
        // And again: what was kept makes room.
        try bench.rebuild().run()
        #expect(try bench.difference() == nil && bench.difference(in: "refold_previous") == nil)
    }

    @Test func anEmptyDatabaseGetsEverythingBack() async throws {
        let bench = try RebuildBench()
        bench.append(30_000)
        try bench.rebuild { $0.bulk.epochDurationMax = .milliseconds(20) }.run()
        #expect(try bench.difference() == nil)
        bench.append(10)
        try await bench.project()
        #expect(try bench.difference() == nil)
        #expect(throws: RebuildError.self) { try bench.rollback() }
    }

    /// Readers of every kind, while events arrive, the live projector works and the tables are exchanged ten times.
    @Test func readersNeverSeeAMixture() async throws {
        let bench = try await benchWithMarks(5000)
        let projector = bench.projector(), run = Task { await projector.run() }
        let watch = Readers(bench)
        defer { watch.stop() }
        let appender = Task { try await watch.append() }
        let readers = (0..<3).map { kind in Task { try await onOwnThread("reader") { try watch.read(kind) } } }
        #expect(await eventually { watch.reads >= 10 })
        var blocked: [Double] = []
        for round in 0..<10 {
            let rebuild = bench.rebuild()
            let task = bench.start(rebuild)
            try await task.value
            blocked.append(rebuild.progress.blockedMilliseconds ?? -1)
            if round % 3 == 2 { blocked.append(try bench.rollback().blockedMilliseconds) }
        }
        watch.stop()
        try await appender.value
        for reader in readers { try await reader.value }
        #expect(await projector.waitUntilApplied(Position(bench.log.durableCount - 1), timeout: .seconds(20)))
        await projector.stop()
        await run.value
        #expect(watch.mixtures.isEmpty, "\(watch.mixtures.prefix(5))")
        #expect(watch.reads > 100)
        #expect(try bench.difference() == nil)
        blocked.sort()
        print("blocked writes in ms, 10 rebuilds and 3 rollbacks under load: \(blocked)")
        #expect(blocked[blocked.count / 2] < 50, "\(blocked)")
    }

    @Test func aLongQueryIsWaitedForAndTheRestGoesOn() async throws {
        let bench = try await benchWithMarks()
        let projector = bench.projector(), run = Task { await projector.run() }
        let user = try Connection(bench.target)
        try user.exec("BEGIN; SELECT count(*) FROM refold.test_counts")
        let rebuild = bench.rebuild(), task = bench.start(rebuild)
        #expect(await eventually { rebuild.progress.attempts > 3 })
        #expect(rebuild.progress.stage == .swapping)
        #expect(rebuild.progress.waitingFor?.contains("SELECT count(*) FROM refold.test_counts") == true)
        bench.append(100)
        #expect(await projector.waitUntilApplied(Position(2099), timeout: .seconds(10)))
        #expect(try bench.ask("SELECT count(*)::text FROM refold.test_counts WHERE messages > 1000000") == ["97"])
        try user.exec("COMMIT")
        try await task.value
        #expect(await eventually { (try? bench.isRight()) == true })
        await projector.stop()
        await run.value
        #expect((rebuild.progress.blockedMilliseconds ?? 1000) < 1000)
    }

    @Test func theSecondRefusesAndAnEndedOneHoldsNothing() async throws {
        let bench = try await benchWithMarks()
        let user = try Connection(bench.target)
        try user.exec("BEGIN; SELECT count(*) FROM refold.test_counts")
        let first = bench.rebuild(), task = bench.start(first)
        #expect(await eventually { first.progress.attempts > 0 })
        for attempt in 0..<2 {
            var isBusy = false
            do throws(RebuildError) {
                if attempt == 0 {
                    try bench.rebuild().run()
                } else {
                    _ = try Rollback.run(
                        [RebuildBench.entry()], source: bench.log, target: bench.target)
                }
            } catch {
                if case .busy = error { isBusy = true }
            }
            #expect(isBusy)
        }
        first.cancel()
        await #expect(throws: RebuildError.self) { try await task.value }
        #expect(first.progress.stage == .cancelled)
        // The live tables are as they were; what was folded is gone on with.
        #expect(try bench.ask("SELECT count(*)::text FROM refold.test_counts WHERE messages > 1000000") == ["97"])
        try user.exec("COMMIT")
        bench.append(3)
        let second = bench.rebuild()
        try second.run()
        #expect(second.progress.from == 2000)
        #expect(try bench.difference() == nil)
    }

    @Test func anotherProgramStartsOver() async throws {
        let bench = try await benchWithMarks()
        let user = try Connection(bench.target)
        try user.exec("BEGIN; SELECT count(*) FROM refold.test_counts")
        let first = bench.rebuild(), task = bench.start(first)
        #expect(await eventually { first.progress.attempts > 0 })
        first.cancel()
        _ = await task.result
        try user.exec("COMMIT")
        let second = bench.rebuild { $0.program = "mended" }
        try second.run()
        #expect(second.progress.from == 0 && second.progress.stage == .done)
        #expect(try bench.difference() == nil)
    }

    @Test func whatTheDatabaseRefusesLeavesTheLiveTablesAlone() async throws {
        let bench = try await benchWithMarks(500)
        bench.log.append(["poison"])
        let rebuild = bench.rebuild()
        #expect(throws: RebuildError.self) { try rebuild.run() }
        #expect(rebuild.progress.stage == .failed && rebuild.progress.error?.contains("no_poison") == true)
        #expect(try bench.ask("SELECT count(*)::text FROM refold.test_counts WHERE messages > 1000000") == ["97"])
    }

    /// The server dies at whatever stage; the next rebuild ends as if nothing had been.
    @Test func aKilledServerCostsOneAttempt() async throws {
        let server = try PostgresServer()
        let bench = try RebuildBench(on: server)
        bench.append(20_000)
        try await bench.project()
        for round in 0..<6 {
            let rebuild = bench.rebuild { $0.bulk.epochDurationMax = .milliseconds(10) }
            let task = bench.start(rebuild)
            try await Task.sleep(for: .milliseconds(round * 60))
            server.kill()
            _ = await task.result
            try server.start()
            #expect(rebuild.progress.stage == .done || rebuild.progress.stage == .failed)
            // Rows and checkpoint fall back together; nobody rolled the live tables forward meanwhile.
            try await bench.project()
            #expect(try bench.difference() == nil)
        }
        try bench.rebuild().run()
        #expect(try bench.difference() == nil)
    }
}

/// Readers of every kind. Old rows are marked in both tables, new ones in none, and there are always 97 topics.
private final class Readers: Sendable {
    private struct State {
        var isGoing = true
        var reads = 0
        var mixtures: [String] = []
    }
    private let bench: RebuildBench
    private let state = Mutex(State())

    init(_ bench: RebuildBench) { self.bench = bench }

    var reads: Int { state.withLock { $0.reads } }
    var mixtures: [String] { state.withLock { $0.mixtures } }
    func stop() { state.withLock { $0.isGoing = false } }
    private var isGoing: Bool { state.withLock { $0.isGoing } }

    func append() async throws {
        while isGoing {
            bench.append(50)
            try await Task.sleep(for: .milliseconds(5))
        }
    }

    func read(_ kind: Int) throws {
        let begin = ["", " ISOLATION LEVEL REPEATABLE READ", " ISOLATION LEVEL REPEATABLE READ; SELECT 1"][kind]
        let connection = try Connection(bench.target)
        while isGoing {
            try connection.exec("BEGIN" + begin)
            if kind == 2 { try connection.exec("SELECT pg_sleep(0.015)") }
            let counts = try connection.query(
                "SELECT count(*) FILTER (WHERE messages >= 1000000), count(*) FROM refold.test_counts")
            let events = try connection.query(
                "SELECT count(*) FILTER (WHERE topic = 'x'), count(*) FROM refold.test_events WHERE position < 5000")
            try connection.exec("COMMIT")
            let found = [counts, events].flatMap { [$0.int8(0, 0)!, $0.int8(0, 1)!] }
            let isWhole = found == [97, 97, 5000, 5000] || found == [0, 97, 0, 5000]
            state.withLock { state in
                state.reads += 1
                if !isWhole { state.mixtures.append("\(begin): \(found)") }
            }
        }
    }
}
