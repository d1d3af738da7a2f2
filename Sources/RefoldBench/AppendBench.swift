import ArgumentParser
import EventLog
import EventModel
import Foundation

/// Durable appends through the public API, one caller, one batch at a time. Only the calls to `append` are timed:
/// building a batch is the caller's, here as for the peer.
struct AppendBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "append", abstract: "Append batches of telemetry, durably.")
    @Option(help: "Events a batch.") var batch = 1000
    @Option(help: "Events in all.") var events = 1_000_000
    @Option(help: "Devices that they come from.") var devices = 10_000
    @Option(help: "The data folder; a temporary one by default.") var data: String?
    @Flag(help: "Keep the log.") var keep = false
    @Flag(inversion: .prefixedNo, help: "Grow the Merkle tree and sign it every second.") var tree = true
    @Flag(help: "One JSON object.") var json = false

    func validate() throws {
        guard batch > 0, events >= batch, devices > 0 else {
            throw ValidationError("--batch, --events, --devices: too small")
        }
        if keep, data == nil { throw ValidationError("--keep needs --data") }
    }

    func run() throws {
        // Not the system's temporary folder, which may be memory.
        let folder = data ?? "/var/tmp/refold-bench-\(UUID().uuidString)"
        defer { if !keep { try? FileManager.default.removeItem(atPath: folder) } }
        var options = FileLogOptions()
        options.keepsTree = tree
        if tree {
            options.signer = { (id) throws(LogError) in try LogKey.open(dataFolder: folder, logID: id) }
        }
        let log = try FileLog.open(directory: folder + "/log", options: options)
        var telemetry = Telemetry(devices: devices)
        var records = RecordBatch()
        let clock = ContinuousClock()
        var time = SystemClock().now()
        var appending = Duration.zero, batches = 0
        var slowest = Duration.zero
        while batches * batch < events {
            time = max(time.adding(microseconds: Int64(batch)), SystemClock().now())
            telemetry.fill(&records, count: batch, from: time)
            let begin = clock.now
            _ = try log.append(&records)
            let took = begin.duration(to: clock.now)
            appending += took
            slowest = max(slowest, took)
            batches += 1
        }
        let statistics = log.statistics
        log.close()
        let count = batches * batch
        let seconds = appending / .seconds(1)
        let rate = Double(count) / seconds
        let size = Double(statistics.storedBytes) / Double(count), raw = Double(statistics.rawBytes) / Double(count)
        let mean = seconds / Double(batches) * 1e6
        let sync = statistics.syncSeconds.sum / Double(statistics.commits) * 1e6
        if json {
            print(
                """
                {"events": \(count), "batch": \(batch), "seconds": \(seconds), "events_per_second": \(rate), \
                "bytes_per_event": \(size), "raw_bytes_per_event": \(raw), "append_micros": \(mean), \
                "fdatasync_micros": \(sync), "append_micros_max": \(slowest / .microseconds(1))}
                """)
        } else {
            print(
                "\(count) events in batches of \(batch): \(Int(rate)) a second; a batch \(Int(mean)) µs, "
                    + "\(Int(sync)) of them fdatasync; \(Int(size)) bytes an event on disk, "
                    + "\(Int(raw)) before compression"
            )
        }
    }
}
