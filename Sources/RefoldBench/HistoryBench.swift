import ArgumentParser
import EventLog
import EventModel
import Evidence
import Foundation

/// A long log to measure on: messages of many devices, packed, sealed and signed, and left as a crash leaves it.
struct HistoryBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "history", abstract: "Write a long log, wait until it is sealed, and end without closing it.")
    @Option(help: "The data folder.") var data: String
    @Option(help: "Events in all.") var events = 10_000_000
    @Option(help: "Devices that they come from.") var devices = 10_000
    @Option(help: "Bytes of a segment.") var segmentBytes = 64 << 20
    @Flag(help: "Messages of every kind instead of telemetry alone, and three campaigns.") var mixed = false

    func run() throws {
        var options = FileLogOptions()
        options.segmentBytes = segmentBytes
        options.signer = signingKey
        let log = try FileLog.open(directory: data + "/log", options: options)
        var telemetry = Telemetry(devices: devices), fleet = MixedFleet(devices: devices)
        var records = RecordBatch()
        var time = SystemClock().now().adding(microseconds: -Int64(events))
        if mixed {
            records = try fleet.decisions(at: time)
            _ = try log.append(&records)
        }
        for _ in 0..<(events / 1000) {
            if mixed {
                fleet.fill(&records, count: 1000, from: time)
            } else {
                telemetry.fill(&records, count: 1000, from: time)
            }
            time = time.adding(microseconds: 1000)
            _ = try log.append(&records)
        }
        while log.statistics.keeping.waiting > 0 || (log.treeStatus?.size ?? 0) < log.durableCount { usleep(20_000) }
        let keeping = log.statistics.keeping
        print(#"{"events": \#(log.durableCount), "sealed": \#(keeping.sealed), "packed": \#(keeping.packed)}"#)
        // As kill -9 would: nothing is closed.
        fflush(nil)
        _exit(0)
    }
}

/// How long a start takes: from nothing to a log that takes appends.
struct OpenBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "open", abstract: "Open a log for writing, append one event, and say how long both took.")
    @Option(help: "The data folder.") var data: String

    func run() throws {
        let clock = ContinuousClock()
        let begin = clock.now
        let log = try FileLog.open(directory: data + "/log")
        let opened = begin.duration(to: clock.now) / .milliseconds(1)
        var telemetry = Telemetry(devices: 1)
        var records = RecordBatch()
        telemetry.fill(&records, count: 1, from: SystemClock().now())
        _ = try log.append(&records)
        let ready = begin.duration(to: clock.now) / .milliseconds(1)
        print(
            """
            {"segments": \(log.statistics.segments), "events": \(log.durableCount), "open_ms": \(opened), \
            "first_append_ms": \(ready)}
            """)
        fflush(nil)
        _exit(0)
    }
}

/// Checksums, structure and continuity of a whole log, on one core.
struct VerifyBench: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "verify", abstract: "Verify a log.")
    @Option(help: "The data folder.") var data: String
    @Flag(help: "Also decode every record and derive the tree again.") var deep = false
    @Flag(help: "One JSON object.") var json = false

    func run() throws {
        let log = try ReadOnlyLog(directory: data + "/log")
        var options = LogVerifier.Options()
        options.deep = deep
        let clock = ContinuousClock()
        let begin = clock.now
        let report = try log.verify(options: options)
        let seconds = begin.duration(to: clock.now) / .seconds(1)
        guard report.isSound else { throw ValidationError("the log is damaged: \(report.damages)") }
        let rate = Double(report.events) / seconds
        if json {
            print(
                """
                {"events": \(report.events), "bytes": \(report.bytes), "seconds": \(seconds), \
                "events_per_second": \(rate)}
                """)
        } else {
            print("\(report.events) events, \(report.bytes) bytes in \(seconds) s: \(Int(rate)) events a second")
        }
    }
}

/// One device's events out of a long log.
struct LookupBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lookup", abstract: "Read all events of some devices, one device after the other.")
    @Option(help: "The data folder, as `history` made it.") var data: String
    @Option(help: "Devices that it was made with.") var devices = 10_000
    @Option(help: "Devices to ask for.") var rounds = 20

    func run() throws {
        let log = try ReadOnlyLog(directory: data + "/log")
        let clock = ContinuousClock()
        var times: [Double] = [], found = 0
        // The first brings the bytes into memory.
        for round in 0...rounds {
            let number = round * 7919 % devices
            let selection = EventSelection.device(tenant: "tenant-\(number % 4)", device: "dev-\(100_000 + number)")
            var events = 0
            let begin = clock.now
            let reader = log.events(selection, in: Position(0)..<Position(log.durableCount))
            while try reader.read({ _, _ in events += 1 }) {}
            if round > 0 { times.append(begin.duration(to: clock.now) / .milliseconds(1)) }
            guard round == 0 || events == found else { throw ValidationError("\(selection) has \(events) events") }
            found = events
        }
        times.sort()
        print(
            """
            {"events_of_a_device": \(found), "median_ms": \(times[times.count / 2]), "slowest_ms": \(times.last ?? 0)}
            """)
    }
}

/// A key for one run, kept nowhere.
func signingKey(_ id: LogID) throws(LogError) -> SigningKey {
    do {
        return try SigningKey.generate(name: Checkpoint.origin(logID: id.description))
    } catch {
        throw LogError(.system, "\(error)")
    }
}
