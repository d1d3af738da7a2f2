import ArgumentParser
import EventLog
import EventModel
import Projections

/// `refold-bench fold`: how fast one core decodes, parses and folds a log; its limit is `bench/limits/fold.cpp`.
struct FoldBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fold", abstract: "Read a log from its start and fold it; rows are not written anywhere.")

    @Option(help: "The data folder; the log is in its folder `log`.") var data: String
    @Option(help: "The projection to fold.") var projection = "device_status"
    @Flag(help: "One JSON object.") var json = false

    func run() throws {
        guard let entry = Catalog.entry(named: projection) else {
            throw ValidationError("No projection is named \(projection).")
        }
        let log = try ReadOnlyLog(directory: data + "/log")
        let reader = try log.reader(from: log.firstPosition)
        let fold = entry.makeFold(.all), block = EventBlock(capacity: 4 << 20)
        let clock = ContinuousClock(), begin = clock.now
        var next = log.firstPosition, loads = 0
        while try reader.read(into: block, atLeast: 256 << 10) {
            loads += fold.prepare(block, in: next..<block.end).count
            fold.fold(block, in: next..<block.end)
            next = block.end
        }
        let folded = begin.duration(to: clock.now) / .seconds(1)
        var rows = [RowBuffer](repeating: RowBuffer(), count: entry.descriptor.tables.count)
        let drained = clock.measure { fold.drain(into: &rows) } / .seconds(1)
        precondition(loads == 0, "a fold from the log's start asked for rows")

        let events = next.rawValue - log.firstPosition.rawValue
        let rate = Double(events) / folded
        let rowCount = rows.reduce(0) { $0 + $1.rowCount }, byteCount = rows.reduce(0) { $0 + $1.bytes.count }
        if json {
            print(
                """
                {"events": \(events), "rows": \(rowCount), "row_bytes": \(byteCount), "seconds": \(folded), \
                "drain_seconds": \(drained), "events_per_second": \(rate)}
                """)
        } else {
            print(
                "\(events) events in \(folded) s: \(Int(rate)) a second; \(rowCount) rows, written out in \(drained) s"
            )
        }
    }
}
