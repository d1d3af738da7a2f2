import EventLog
import EventModel
import Foundation
import Projecting
import ProjectionTestSupport
import Projections
import Testing

@testable import Snapshots

/// A store that was filled from a snapshot and folded on holds what one that folded everything does.
@Suite struct SeedTests {
    @Test(arguments: [16 << 20, 100])
    func aSnapshotAndTheTailAreTheWhole(chunkBytes: Int) throws {
        let folder = Folder()
        var options = FileLogOptions()
        options.isKeeping = false
        let log = try FileLog.open(directory: folder.path + "/log", options: options)
        defer { log.close() }
        var history = FleetHistory(seed: 21)
        try history.append(700, to: log)
        let maker = SnapshotMaker(
            source: log, logID: log.logID, folder: SnapshotFolder(folder.path + "/snapshots", logID: nil),
            deciders: [], now: { Timestamp(microseconds: 0) })
        let snapshot = try maker.make(end: Position(450)).file
        func tables(seeded: Bool) throws -> MemoryTables {
            let memory = MemoryTables(), stores = Catalog.entries.map { _ in MemoryStore(memory) }
            if seeded {
                for (entry, store) in zip(Catalog.entries, stores) {
                    try snapshot.fill(store, of: entry.descriptor, chunkBytes: chunkBytes)
                    #expect(try store.checkpoint(of: entry.descriptor, partition: 0) == Position(449))
                }
            }
            try BulkFold(source: log, entries: Catalog.entries, stores: stores).run(to: Position(700))
            return memory
        }
        let whole = try tables(seeded: false), seeded = try tables(seeded: true)
        for table in Catalog.entries.flatMap(\.descriptor.storedTables) {
            // A count that was never added to is absent, or 0.
            func rows(_ tables: MemoryTables) -> [MemoryTables.Row] {
                tables.rows(of: table.name).map { row in row.filter { $0.value != [UInt8](repeating: 0, count: 8) } }
            }
            #expect(rows(seeded) == rows(whole), "\(table.name)")
        }
    }
}
