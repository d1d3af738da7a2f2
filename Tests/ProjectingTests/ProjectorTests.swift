import EventLog
import EventModel
import Projecting
import ProjectionTestSupport
import Projections
import Synchronization
import TestSupport
import Testing

/// A projector of `CountingFold` over a log and tables in memory, running until `end`.
final class ProjectorBench: Sendable {
    let log = MemoryLog()
    let tables = MemoryTables()
    let faults = Faults()
    let notes = Mutex<[String]>([])
    let task = Mutex<Task<Void, Never>?>(nil)

    func projector(version: Int = 1, _ change: (inout ProjectorOptions) -> Void = { _ in }) -> Projector {
        var options = ProjectorOptions()
        options.failedRetry = .milliseconds(50)
        change(&options)
        return Projector(
            CountingFold.descriptor(version: version), source: log, options: options,
            makeFold: { CountingFold(version: version, scope: $0) },
            makeStore: { [tables, faults] in FaultyStore(MemoryStore(tables), faults) },
            note: { note in self.notes.withLock { $0.append(note) } })
    }

    /// What a naive count of the log says, and what the tables say.
    func count(_ topic: String) -> Int64? {
        var count: Int64?
        tables.forEachRow(of: CountingFold.counts) { if $0.text(0) == topic { count = $0.int8(1) } }
        return count
    }
    var eventRows: Int { tables.rows(of: "test_events").count }
}

extension Projector {
    /// Runs while `body` does, and stops in order.
    nonisolated func during(_ body: () async throws -> Void) async rethrows {
        let task = Task { await run() }
        do { try await body() } catch {
            await stop()
            throw error
        }
        await stop()
        await task.value
    }
}

@Suite struct ProjectorTests {
    @Test func followsTheLogFromTheBeginningAndThenLive() async {
        let bench = ProjectorBench()
        for _ in 0..<100 { bench.log.append(["a", "b", "a"]) }
        let projector = bench.projector()
        await projector.during {
            #expect(await projector.waitUntilApplied(Position(299), timeout: .seconds(10)))
            #expect(bench.count("a") == 200 && bench.count("b") == 100)
            bench.log.append(["c"])
            #expect(await projector.waitUntilApplied(Position(300), timeout: .seconds(10)))
            #expect(bench.count("c") == 1 && bench.eventRows == 301)
            let status = projector.status
            #expect(status.state == .running && status.lagEvents == 0 && status.lagSeconds == 0)
            #expect(status.position == Position(300) && status.lastError == nil)
            #expect(
                status.transactions >= 2 && status.rowsWritten >= 301
                    && status.applySeconds.count == status.transactions)
        }
    }

    @Test func aSecondRunGoesOnWhereTheFirstStopped() async {
        let bench = ProjectorBench()
        bench.log.append(["a", "a", "quiet"])
        await bench.projector().during { #expect(await eventually { bench.count("a") == 2 }) }
        bench.log.append(["a"])
        let second = bench.projector()
        await second.during { #expect(await second.waitUntilApplied(Position(3), timeout: .seconds(10))) }
        #expect(bench.count("a") == 3 && bench.eventRows == 3)
    }

    @Test func stopCommitsWhatIsFolded() async throws {
        let bench = ProjectorBench()
        let projector = bench.projector { $0.minimumCommitInterval = .seconds(3600) }
        await projector.during {
            bench.log.append(["a"])
            // The first transaction may go at once; what follows has to wait for an hour, or for the stop.
            #expect(await eventually { bench.eventRows == 1 })
            bench.log.append(["b", "quiet"])
            // Its row is asked for, so it is folded in the same step: before a stop is looked for again.
            #expect(await eventually { bench.faults.loads.withLock { $0 } == 2 })
            #expect(bench.eventRows == 1)
        }
        #expect(bench.eventRows == 2)
        let checkpoint = try MemoryStore(bench.tables).checkpoint(of: CountingFold.descriptor(), partition: 0)
        #expect(checkpoint == Position(2))
    }

    @Test func eventsThatChangeNothingMoveTheCheckpointLazily() async throws {
        let bench = ProjectorBench()
        let projector = bench.projector()
        try await projector.during {
            for _ in 0..<200 {
                bench.log.append(["quiet"])
                try await Task.sleep(for: .milliseconds(1))
            }
            #expect(await projector.waitUntilApplied(Position(199), timeout: .seconds(10)))
            #expect(
                await eventually {
                    (try? MemoryStore(bench.tables).checkpoint(of: CountingFold.descriptor(), partition: 0))
                        == Position(199)
                })
            #expect(projector.status.transactions < 20)
        }
    }

    @Test func pauseHoldsAndShowsTheLag() async {
        let bench = ProjectorBench()
        let projector = bench.projector()
        await projector.during {
            bench.log.append(["a"])
            #expect(await projector.waitUntilApplied(Position(0), timeout: .seconds(10)))
            projector.pause()
            #expect(await eventually { projector.status.state == .paused })
            bench.log.append(["a", "a"])
            #expect(await !projector.waitUntilApplied(Position(2), timeout: .milliseconds(150)))
            let status = projector.status
            #expect(status.lagEvents == 2 && status.lagSeconds > 0 && status.position == Position(0))
            #expect(bench.count("a") == 1)
            projector.resume()
            #expect(await projector.waitUntilApplied(Position(2), timeout: .seconds(10)))
            #expect(bench.count("a") == 3 && projector.status.lagEvents == 0)
        }
    }

    @Test func batchesGrowWhenBehind() async {
        let bench = ProjectorBench()
        for block in 0..<2000 { bench.log.append((0..<10).map { "t\(($0 + block * 10) % 500)" }) }
        let projector = bench.projector { $0.dirtyRowsMax = 100_000 }
        await projector.during {
            #expect(await projector.waitUntilApplied(Position(19_999), timeout: .seconds(60)))
        }
        #expect(projector.status.transactions < 20)
        #expect(bench.count("t7") == 40)
    }

    @Test func aCommitOfUnknownOutcomeCountsOnce() async {
        let bench = ProjectorBench()
        let projector = bench.projector { $0.backoffMax = .milliseconds(20) }
        await projector.during {
            for round in 0..<30 {
                bench.faults.next.withLock { $0 = round % 2 == 0 ? .failAfterCommit : .failBeforeCommit }
                bench.log.append(["a", "b"])
                #expect(
                    await projector.waitUntilApplied(Position(UInt64(round * 2 + 1)), timeout: .seconds(10)))
            }
        }
        #expect(bench.count("a") == 30 && bench.count("b") == 30 && bench.eventRows == 60)
    }

    @Test func anUnavailableStoreIsWaitedFor() async {
        let bench = ProjectorBench()
        bench.faults.down.withLock { $0 = true }
        let projector = bench.projector { $0.backoffMax = .milliseconds(50) }
        bench.log.append(["a"])
        await projector.during {
            #expect(
                await eventually { projector.status.state == .waiting && projector.status.lastError != nil })
            #expect(projector.status.lagEvents == 1)
            bench.faults.down.withLock { $0 = false }
            #expect(await projector.waitUntilApplied(Position(0), timeout: .seconds(10)))
            #expect(projector.status.state == .running && projector.status.lastError == nil)
        }
        #expect(bench.notes.withLock { $0.count } == 1, "one line for one outage")
    }

    @Test func commitsThatTheStoreLostAreFoldedAgain() async {
        let bench = ProjectorBench(), projector = bench.projector { $0.confirmEvery = .seconds(3600) }
        bench.log.append(["a"])
        await projector.during {
            #expect(await projector.waitUntilApplied(Position(0), timeout: .seconds(10)))
            let earlier = bench.tables.snapshot()
            bench.log.append(["a"])
            #expect(await projector.waitUntilApplied(Position(1), timeout: .seconds(10)))
            bench.tables.restore(earlier)
            projector.confirm()
            #expect(await eventually { bench.count("a") == 2 })
        }
    }

    @Test func refusedRowsFailThisProjectorAndAreTriedAgain() async {
        let bench = ProjectorBench()
        bench.faults.refuse.withLock { $0 = true }
        let projector = bench.projector()
        bench.log.append(["a", "a"])
        await projector.during {
            #expect(await eventually { projector.status.state == .failed })
            #expect(projector.status.lastError?.contains("positions 0 to 1") == true)
            bench.faults.refuse.withLock { $0 = false }
            #expect(await projector.waitUntilApplied(Position(1), timeout: .seconds(10)))
            #expect(bench.count("a") == 2)
        }
    }

    @Test func twoProjectorsOnOneCheckpointNeverBothAdvance() async {
        let bench = ProjectorBench()
        let one = bench.projector { $0.backoffMax = .milliseconds(10) }
        let other = bench.projector { $0.backoffMax = .milliseconds(10) }
        await one.during {
            await other.during {
                for _ in 0..<200 {
                    bench.log.append(["a"])
                    try? await Task.sleep(for: .milliseconds(1))
                }
                #expect(await eventually { bench.eventRows == 200 })
            }
        }
        #expect(bench.count("a") == 200)
        #expect(one.status.checkpointConflicts + other.status.checkpointConflicts > 0)
    }

    @Test func aDamagedLogStopsBeforeTheDamage() async {
        let bench = ProjectorBench()
        bench.log.append(["a"])
        bench.log.append(["a"])
        bench.log.append(["b"])
        bench.log.damage(from: 2)
        let projector = bench.projector()
        await projector.during {
            #expect(await eventually { projector.status.state == .failed })
            #expect(bench.count("a") == 2 && bench.count("b") == nil)
            #expect(projector.status.lastError?.contains("damaged") == true)
            #expect(projector.status.position == Position(1))
        }
    }

    @Test func aCheckpointPastTheLogsEndIsRefused() async throws {
        let bench = ProjectorBench()
        bench.log.append(["a"])
        try MemoryStore(bench.tables).commit(
            [RowBuffer(), RowBuffer()], of: CountingFold.descriptor(), partition: 0, from: nil, to: Position(7))
        let projector = bench.projector()
        await projector.during {
            #expect(await eventually { projector.status.state == .failed })
            #expect(projector.status.lastError?.contains("a projector position past the log's end") == true)
        }
        #expect(bench.eventRows == 0)
    }

    @Test(arguments: [1, 3])
    func rowsOfAnotherVersionAreNotTouched(version: Int) async {
        let bench = ProjectorBench()
        bench.log.append(["a"])
        let before = bench.projector(version: 2)
        await before.during { #expect(await before.waitUntilApplied(Position(0), timeout: .seconds(10))) }
        bench.log.append(["a"])
        let projector = bench.projector(version: version)
        await projector.during {
            #expect(await eventually { projector.status.state == .failed })
            #expect(projector.status.lastError?.contains("must be rebuilt") == true)
        }
        #expect(bench.count("a") == 1)
    }

    @Test func stopBeforeRunReturnsAtOnce() async {
        let projector = ProjectorBench().projector()
        await projector.stop()
        await projector.run()
    }

    @Test func waitingEndsWithTheProjector() async {
        let projector = ProjectorBench().projector()
        let task = Task { await projector.run() }
        async let applied = projector.waitUntilApplied(Position(5), timeout: .seconds(60))
        await projector.stop()
        await task.value
        #expect(await !applied)
    }
}

/// Faults that a test orders from the store.
final class Faults: Sendable {
    enum Next: Sendable { case failBeforeCommit, failAfterCommit }
    let next = Mutex<Next?>(nil)
    let down = Mutex(false)
    let refuse = Mutex(false)
    let loads = Mutex(0)
}

final class FaultyStore: ProjectionStore {
    private let inner: any ProjectionStore
    private let faults: Faults

    init(_ inner: any ProjectionStore, _ faults: Faults) {
        self.inner = inner
        self.faults = faults
    }

    var interrupter: @Sendable () -> Void { inner.interrupter }

    func checkpoint(of projection: ProjectionDescriptor, partition: Int) throws(StoreError) -> Position? {
        if faults.down.withLock({ $0 }) { throw .unavailable("down") }
        return try inner.checkpoint(of: projection, partition: partition)
    }

    func load(
        _ requests: [LoadRequest], of projection: ProjectionDescriptor, found: (Int, RowReader) -> Void
    ) throws(StoreError) {
        faults.loads.withLock { $0 += 1 }
        try inner.load(requests, of: projection, found: found)
    }

    func commit(
        _ rows: [RowBuffer], of projection: ProjectionDescriptor, partition: Int, from old: Position?,
        to new: Position
    ) throws(StoreError) {
        if faults.refuse.withLock({ $0 }) { throw .refused("no such rows here") }
        let next = faults.next.withLock { next in
            defer { next = nil }
            return next
        }
        if next == .failBeforeCommit { throw .unavailable("lost before the commit") }
        try inner.commit(rows, of: projection, partition: partition, from: old, to: new)
        if next == .failAfterCommit { throw .unavailable("lost after the commit") }
    }
}
