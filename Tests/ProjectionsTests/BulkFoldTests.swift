import EventLog
import EventModel
import Foundation
import Primitives
import Projecting
import Synchronization
import Testing

@testable import Projections

/// A history as a log, cut into blocks.
private final class HistoryLog: LogSource {
    let history: History
    private let ends: [Int]
    private let durable: Mutex<UInt64>
    /// Reading this position fails.
    let damagedAt: Int

    init(_ history: History, ends: [Int], damagedAt: Int = .max) {
        self.history = history
        self.ends = ends.filter { $0 > 0 && $0 < history.batches.count } + [history.batches.count]
        self.damagedAt = damagedAt
        durable = Mutex(UInt64(history.batches.count))
    }

    var durableCount: UInt64 { durable.withLock { $0 } }
    func waitForDurable(
        beyond count: UInt64, timeoutMilliseconds: Int, unless stop: () -> Bool
    ) -> UInt64 {
        durableCount
    }
    func reader(from position: Position) throws -> any LogReader { Reader(self, position) }

    private final class Reader: LogReader {
        let log: HistoryLog
        private(set) var position: Position
        init(_ log: HistoryLog, _ position: Position) { (self.log, self.position) = (log, position) }

        func read(into block: EventBlock, atLeast byteCount: Int) throws -> Bool {
            let at = Int(position.rawValue)
            guard let end = log.ends.first(where: { $0 > at }) else { return false }
            if log.damagedAt < end { throw LogError(.corrupt, "planted damage") }
            // Whole blocks: the first may begin before what was asked for.
            let begin = log.ends.last { $0 <= at } ?? 0
            let whole = log.history.block(begin..<end)
            block.removeAll(at: whole.base)
            _ = block.append(base: whole.base, count: whole.count, byteCount: whole.byteCount) { room in
                room.copyMemory(from: whole.bytes)
                return true
            }
            position = Position(UInt64(end))
            return true
        }
    }
}

/// Many threads, epochs of any length, cancelled and begun again: the rows are those of one plain fold.
@Suite struct BulkFoldTests {
    private typealias Tables = Projecting.MemoryTables

    private static func options(threads: Int, pending: Int = .max, state: Int = 1 << 30) -> BulkOptions {
        var options = BulkOptions()
        options.threads = threads
        options.pendingBytesMax = pending
        options.stateBytesMax = state
        return options
    }

    private static func make(_ log: HistoryLog, _ tables: Tables, _ options: BulkOptions) throws -> BulkFold {
        try BulkFold(
            source: log, entries: Catalog.entries, stores: Catalog.entries.map { _ in MemoryStore(tables) },
            options: options)
    }

    private static func contents(_ tables: Tables) -> [String: [Tables.Row]] {
        Dictionary(
            uniqueKeysWithValues: Catalog.entries.flatMap(\.descriptor.storedTables).map {
                ($0.name, tables.rows(of: $0.name))
            })
    }

    private static func plain(_ log: HistoryLog, to end: Int) throws -> [String: [Tables.Row]] {
        let tables = Tables()
        let fold = try make(log, tables, options(threads: 1))
        #expect(try fold.run(to: Position(UInt64(end))))
        return contents(tables)
    }

    @Test(arguments: 1...10)
    func threadsAndEpochsDoNotShow(seed: Int) throws {
        var random = SeededRandom(seed: UInt64(seed))
        let history = try History.random(seed: UInt64(seed) &+ 70, count: 600)
        func log() -> HistoryLog {
            HistoryLog(history, ends: (1..<600).filter { _ in Int.random(in: 0..<9, using: &random) == 0 })
        }
        let expected = try Self.plain(log(), to: 600)
        #expect(expected["device_status_v1"]?.isEmpty == false && expected["ota_campaigns_v2"]?.isEmpty == false)
        for threads in 1...3 {
            for (pending, state) in [(Int.max, 1 << 30), (0, 1 << 30), (0, 0), (2000, 20_000)] {
                let tables = Tables(), log = log()
                var fold = try Self.make(log, tables, Self.options(threads: threads, pending: pending, state: state))
                // In several runs, some by a fold that knows nothing but the stores.
                for end in [1, 200, 201, 450, 600] {
                    #expect(try fold.run(to: Position(UInt64(end))))
                    #expect(fold.position == Position(UInt64(end)) && fold.progress.committed == fold.position)
                    if Bool.random(using: &random) {
                        fold = try Self.make(
                            log, tables, Self.options(threads: threads, pending: pending, state: state))
                    }
                }
                #expect(
                    Self.contents(tables) == expected, "seed \(seed), \(threads) threads, \(pending), \(state)")
            }
        }
    }

    @Test func whatComesBeforeDamageIsWritten() throws {
        let history = try History.random(seed: 5, count: 300)
        let log = HistoryLog(history, ends: Array(stride(from: 10, to: 300, by: 10)), damagedAt: 155)
        let tables = Tables(), fold = try Self.make(log, tables, Self.options(threads: 2))
        #expect(throws: LogError.self) { try fold.run(to: Position(300)) }
        #expect(fold.progress.committed == Position(150))
        #expect(try Self.contents(tables) == Self.plain(HistoryLog(history, ends: []), to: 150))
    }

    @Test func cancelledItStandsSomewhereAndGoesOn() throws {
        let history = try History.random(seed: 6, count: 300)
        let log = HistoryLog(history, ends: Array(1..<300))
        let tables = Tables(), fold = try Self.make(log, tables, Self.options(threads: 2))
        fold.cancel()
        #expect(try !fold.run(to: Position(300)))
        let again = try Self.make(log, tables, Self.options(threads: 2))
        #expect(try again.run(to: Position(300)))
        #expect(try Self.contents(tables) == Self.plain(log, to: 300))
    }

    /// A store that fails ends the run; nothing of the epoch is half there, and nobody is left waiting.
    @Test(arguments: [0, 1, 5])
    func aStoreThatFailsEndsTheRun(after commits: Int) throws {
        let history = try History.random(seed: 8, count: 300)
        let log = HistoryLog(history, ends: Array(1..<300)), tables = Tables()
        let failing = FailingStore(MemoryStore(tables), commits: commits)
        let entry = try #require(Catalog.entry(named: "device_status"))
        let fold = try BulkFold(
            source: log, entries: [entry], stores: [failing], options: Self.options(threads: 3, pending: 0))
        #expect(throws: StoreError.self) { try fold.run(to: Position(300)) }
        let again = try BulkFold(
            source: log, entries: [entry], stores: [MemoryStore(tables)], options: Self.options(threads: 2))
        #expect(try again.run(to: Position(300)))
        #expect(try tables.rows(of: "device_status_v1") == Self.plain(log, to: 300)["device_status_v1"])
    }

    private final class FailingStore: ProjectionStore {
        private let store: MemoryStore
        private var commits: Int

        init(_ store: MemoryStore, commits: Int) { (self.store, self.commits) = (store, commits) }

        var interrupter: @Sendable () -> Void { store.interrupter }
        func checkpoint(of projection: ProjectionDescriptor, partition: Int) throws(StoreError) -> Position? {
            try store.checkpoint(of: projection, partition: partition)
        }
        func load(
            _ requests: [LoadRequest], of projection: ProjectionDescriptor, found: (Int, RowReader) -> Void
        ) throws(StoreError) { try store.load(requests, of: projection, found: found) }
        func commit(
            _ rows: [RowBuffer], of projection: ProjectionDescriptor, partition: Int, from old: Position?,
            to new: Position
        ) throws(StoreError) {
            guard commits > 0 else { throw .refused("planted") }
            commits -= 1
            try store.commit(rows, of: projection, partition: partition, from: old, to: new)
        }
    }
}
