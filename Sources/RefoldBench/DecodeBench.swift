import ArgumentParser
import EventLog
import EventModel

/// How fast one core reads a log: checksums, LZ4, and every record walked. Its limit is `bench/limits/decode.cpp`.
struct DecodeBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "decode", abstract: "Read a log from its start to its end.")
    @Option(help: "The data folder; the log is in its folder `log`.") var data: String
    @Flag(help: "One JSON object.") var json = false

    func run() throws {
        let log = try ReadOnlyLog(directory: data + "/log")
        let block = EventBlock(capacity: 4 << 20)
        let clock = ContinuousClock()
        // The first pass brings the bytes into memory: this is about decoding, not about the disk.
        var figures = (events: 0, payloadBytes: 0, seconds: 0.0)
        for _ in 0..<2 {
            let reader = try log.reader(from: log.firstPosition)
            figures = (0, 0, 0)
            let begin = clock.now
            while try reader.read(into: block, atLeast: 256 << 10) {
                block.forEach { record, _ in
                    figures.events += 1
                    figures.payloadBytes += record.payload.count
                }
            }
            figures.seconds = begin.duration(to: clock.now) / .seconds(1)
        }
        let rate = Double(figures.events) / figures.seconds
        if json {
            print(
                """
                {"events": \(figures.events), "payload_bytes": \(figures.payloadBytes), "seconds": \(figures.seconds), \
                "events_per_second": \(rate)}
                """)
        } else {
            print(
                "\(figures.events) events, \(figures.payloadBytes) payload bytes in \(figures.seconds) s: "
                    + "\(Int(rate)) a second")
        }
    }
}
