import EventModel
import Testing

@testable import Projections

/// Folds over parts of the keys make together what one fold over all of them makes.
@Suite struct ScopeTests {
    private static func fold(_ history: History, _ entry: Catalog.Entry, _ scope: FoldScope) -> [RowBuffer] {
        let fold = entry.makeFold(scope), block = history.block(0..<history.batches.count)
        _ = fold.prepare(block, in: block.base..<block.end)
        fold.fold(block, in: block.base..<block.end)
        var rows = entry.descriptor.tables.map { _ in RowBuffer() }
        fold.drain(into: &rows)
        return rows
    }

    @Test(arguments: [1, 2, 3, 7], [1, 2, 3, 4, 5])
    func partitionsTogetherAreAll(count: Int, seed: UInt64) throws {
        let history = try History.random(seed: seed &+ 500, count: 400)
        for entry in Catalog.entries {
            let parts = (0..<count).map { Self.fold(history, entry, .partition($0, of: count)) }
            let tables = MemoryTables(entry.descriptor)
            // Table by table, as they are written: sums meet rows that another partition made.
            for table in entry.descriptor.tables.indices {
                let rows = parts.map { $0[table] }
                var drained = entry.descriptor.tables.map { _ in RowBuffer() }
                if entry.descriptor.tables[table].isSum {
                    drained[table] = RowBuffer.sum(rows.filter { !$0.isEmpty }, entry.descriptor.tables[table])
                } else {
                    for part in rows { drained[table].append(part) }
                }
                tables.write(drained)
            }
            #expect(tables.lines == history.fold(entry).lines, "\(entry.name), seed \(seed), \(count) partitions")
        }
    }

    /// Everybody is spread over the partitions, so that each has something to do.
    @Test func devicesAreSpread() {
        var counts = [0, 0, 0]
        for device in 0..<3000 {
            let key = FoldKey.device(tenant: "acme", device: "dev-\(device)")
            let mine = (0..<3).filter { FoldScope.partition($0, of: 3).includes(key) }
            #expect(mine.count == 1)
            counts[mine[0]] += 1
        }
        #expect(counts.allSatisfy { $0 > 800 }, "\(counts)")
        #expect(FoldScope.partition(0, of: 2).includes(FoldKey("campaign/7")))
        #expect(!FoldScope.partition(1, of: 2).includes(FoldKey.none))
    }

    @Test(arguments: ["device_status", "device_connection_events", "dead_letters"], [1, 2, 3])
    func whatOneScopeLeavesOutTheOtherMakes(name: String, seed: UInt64) throws {
        let history = try History.random(seed: seed &+ 900, count: 1000)
        let entry = try #require(Catalog.entry(named: name))
        let keys: Set = [FoldKey.device(tenant: "acme", device: "d1"), FoldKey.device(tenant: "b.corp", device: "d4")]
        let tables = MemoryTables(entry.descriptor)
        tables.write(Self.fold(history, entry, .except(keys)))
        #expect(tables.lines != history.fold(entry).lines)
        tables.write(Self.fold(history, entry, .only(keys)))
        #expect(tables.lines == history.fold(entry).lines)
    }

    @Test func aRangeEndsInsideABlock() throws {
        let history = try History.random(seed: 77, count: 300)
        for entry in Catalog.entries {
            let block = history.block(0..<300), fold = entry.makeFold(.all)
            let tables = MemoryTables(entry.descriptor)
            for range in [0..<100, 100..<101, 101..<250] {
                let positions = Position(UInt64(range.lowerBound))..<Position(UInt64(range.upperBound))
                tables.load(fold.prepare(block, in: positions), into: fold)
                fold.fold(block, in: positions)
                var rows = entry.descriptor.tables.map { _ in RowBuffer() }
                fold.drain(into: &rows)
                tables.write(rows)
            }
            var shorter = history
            shorter.batches.removeLast(history.batches.count - 250)
            #expect(tables.lines == shorter.fold(entry).lines, "\(entry.name)")
        }
    }
}
