import ArgumentParser
import EventLog
import EventModel
import Postgres
import PostgresStore
import Projecting
import Projections

/// `refold-bench bulk`: how fast a log is folded for every projection at once; without a database for the fold alone.
struct BulkBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bulk", abstract: "Fold a log for all projections at once; rows are thrown away.")

    @Option(help: "The data folder; the log is in its folder `log`.") var data: String
    @Option(help: "Threads that fold.") var threads = 2
    @Option(help: "Only this projection (repeatable).") var projection: [String] = []

    func run() throws {
        let log = try ReadOnlyLog(directory: data + "/log")
        let entries = Catalog.entries.filter { projection.isEmpty || projection.contains($0.name) }
        var options = BulkOptions()
        options.threads = threads
        let stores = entries.map { _ in DiscardingStore() }
        let clock = ContinuousClock(), begin = clock.now
        let fold = try BulkFold(source: log, entries: entries, stores: stores, options: options)
        try fold.run(to: Position(log.durableCount))
        let seconds = begin.duration(to: clock.now) / .seconds(1)
        let rows = stores.reduce(0) { $0 + $1.rows }, bytes = stores.reduce(0) { $0 + $1.bytes }
        print(
            """
            {"events": \(log.durableCount), "rows": \(rows), "row_bytes": \(bytes), "seconds": \(seconds), \
            "events_per_second": \(Double(log.durableCount) / seconds)}
            """)
    }
}

/// Takes rows and forgets them.
private final class DiscardingStore: ProjectionStore {
    private(set) var rows = 0, bytes = 0

    var interrupter: @Sendable () -> Void { {} }
    func checkpoint(of projection: ProjectionDescriptor, partition: Int) throws(StoreError) -> Position? { nil }
    func load(
        _ requests: [LoadRequest], of projection: ProjectionDescriptor, found: (Int, RowReader) -> Void
    ) throws(StoreError) {}
    func commit(
        _ rows: [RowBuffer], of projection: ProjectionDescriptor, partition: Int, from old: Position?,
        to new: Position
    ) throws(StoreError) {
        self.rows += rows.reduce(0) { $0 + $1.rowCount }
        bytes += rows.reduce(0) { $0 + $1.bytes.count }
    }
}
