import EventLog
import EventModel
import Foundation
import Postgres
import PostgresStore
import Projecting
import ProjectionTestSupport
import Projections
import Snapshots
import Testing

/// A rebuild that begins with a snapshot's rows: where the log begins later, and for those in a hurry.
@Suite struct FromSnapshotTests {
    private func snapshot(_ bench: RebuildBench, _ folder: String, end: UInt64) throws -> SnapshotFile {
        var maker = SnapshotMaker(
            source: bench.log, logID: LogID(high: 1, low: 1), folder: SnapshotFolder(folder, logID: nil),
            deciders: [], now: { Timestamp(microseconds: 0) })
        maker.entries = [RebuildBench.entry(1)]
        return try maker.make(end: Position(end)).file
    }

    @Test func aSnapshotAndTheTailAreTheWhole() async throws {
        let folder = NSTemporaryDirectory() + "refold-from-snapshot-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let bench = try RebuildBench()
        bench.append(30_000)
        let file = try snapshot(bench, folder, end: 20_000)
        // What a rebuild that was killed while it filled its tables left behind is not gone on with.
        let descriptor = RebuildBench.entry(1).descriptor
        try TableExchange(bench.target).begin(descriptor, program: "filling")
        try file.fill(PostgresStore(bench.target, place: .next, filling: true), of: descriptor, chunkBytes: 50_000)

        let rebuild = bench.rebuild { $0.beginning = { _ in file } }
        try rebuild.run()
        #expect(try bench.difference() == nil)
        #expect(rebuild.progress.from == 20_000 && rebuild.progress.folded == 30_000)
        bench.append(100)
        try await bench.project()
        #expect(try bench.difference() == nil)
    }
}
