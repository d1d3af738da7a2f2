import ArgumentParser
import EventLog
import EventModel
import Foundation

/// How fast one core derives the Merkle tree of a log again, reading and decoding included: what `log verify --deep`
/// does. Its limit is `bench/limits/tree.c`, which does the same hashes over the records that `--dump` writes.
struct TreeBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tree", abstract: "Derive the Merkle tree of a log again.")
    @Option(help: "The data folder; the log is in its folder `log`.") var data: String
    @Option(help: "Write the records, one behind the other, into this file, and measure nothing.") var dump: String?
    @Flag(help: "One JSON object.") var json = false

    func run() throws {
        let log = try ReadOnlyLog(directory: data + "/log")
        let block = EventBlock(capacity: 4 << 20)
        if let dump {
            try Data().write(to: URL(fileURLWithPath: dump))
            let file = try FileHandle(forWritingTo: URL(fileURLWithPath: dump))
            let reader = try log.reader(from: Position(0))
            while try reader.read(into: block, atLeast: 1 << 20) { try file.write(contentsOf: Data(block.bytes)) }
            if json { print("{}") }
            return
        }
        let clock = ContinuousClock()
        var figures = (events: UInt64(0), root: "", seconds: Double.infinity)
        // The first pass brings the bytes into memory; then the better of two.
        for pass in 0..<3 {
            let reader = try log.reader(from: Position(0)), tree = TreeChecker()
            let begin = clock.now
            while try reader.read(into: block, atLeast: 256 << 10) { tree.add(block) }
            let seconds = begin.duration(to: clock.now) / .seconds(1)
            if pass > 0, seconds < figures.seconds {
                figures = (tree.events, tree.root?.description ?? "", seconds)
            }
        }
        let rate = Double(figures.events) / figures.seconds
        if json {
            print(
                """
                {"events": \(figures.events), "root": "\(figures.root)", "seconds": \(figures.seconds), \
                "events_per_second": \(rate)}
                """)
        } else {
            print("\(figures.events) events in \(figures.seconds) s: \(Int(rate)) a second; root \(figures.root)")
        }
    }
}
