import ArgumentParser
import EventLog
import Foundation
import Ingest
import MQTT

/// Broker → durable, acknowledged events, and nothing behind them: to set the log with its tree and its signed
/// checkpoints beside the same without.
struct IngestBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ingest", abstract: "Ingest from a broker until so many events are durable.")
    @Option(help: "The broker's port on 127.0.0.1.") var port: Int
    @Option(help: "Events to wait for.") var count: UInt64
    @Option(help: "The data folder; a temporary one by default.") var data: String?
    @Option(help: "Refuse messages of devices without a certificate; so many devices have one.") var certificates: Int?
    @Flag(help: "Without the Merkle tree and its checkpoints.") var noTree = false

    /// Prints `ready` when it is subscribed, and one JSON object at the end.
    func run() throws {
        let folder = data ?? "/var/tmp/refold-bench-\(UUID().uuidString)"
        defer { if data == nil { try? FileManager.default.removeItem(atPath: folder) } }
        var options = FileLogOptions()
        options.keepsTree = !noTree
        if !noTree {
            options.signer = signingKey
        }
        let log = try FileLog.open(directory: folder + "/log", options: options)
        var broker = BrokerSettings(name: "main", host: "127.0.0.1", port: port, clientID: "refold-bench")
        broker.lingerMicros = 2000
        let check = certificates.map { _ in CertificateCheck(refuses: true) }
        check?.load(GateBench.certificates(certificates ?? 0))
        let ingest = try IngestService(
            brokers: [broker], certificates: check, log: log, history: nil, onFatal: { fatalError($0) })
        ingest.start()
        while ingest.statuses[0].subscribed == false { usleep(1000) }
        FileHandle.standardOutput.write(Data("ready\n".utf8))
        let before = log.durableCount
        var durable = log.waitForDurable(beyond: before, timeoutMilliseconds: 60_000)
        let clock = ContinuousClock()
        let begin = clock.now, first = durable
        while durable < before + count { durable = log.waitForDurable(beyond: durable, timeoutMilliseconds: 60_000) }
        let seconds = begin.duration(to: clock.now) / .seconds(1)
        let refused = ingest.statuses[0].withoutCertificate
        guard refused == 0 else { fatalError("\(refused) messages were refused") }
        let lag = log.treeStatus.map { durable - $0.size } ?? 0
        var usage = rusage()
        getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
        let cpu = [usage.ru_utime, usage.ru_stime].reduce(0) { $0 + Double($1.tv_sec) + Double($1.tv_usec) / 1e6 }
        print(
            """
            {"events": \(durable - first), "seconds": \(seconds), \
            "events_per_second": \(Double(durable - first) / seconds), \
            "tree_lag_events": \(lag), "cpu_micros_per_event": \(cpu / Double(count) * 1e6)}
            """)
        let stopped = DispatchSemaphore(value: 0)
        Task {
            _ = await ingest.stop()
            stopped.signal()
        }
        stopped.wait()
        log.close()
    }
}
