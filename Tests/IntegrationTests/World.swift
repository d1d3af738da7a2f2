import Foundation
import TestSupport

/// A broker, a database and a data folder, and the real programs that run against them: `refold run`, killed as the
/// test likes, and `refold simulate` as the outside witness of what was acknowledged.
///
/// The contract used here is the published one: flags, exit codes, `/api/v1/status`, `log cat`, the ledger.
final class World {
    let broker: MosquittoServer
    let postgres: PostgresServer
    let database: String
    let folder: String
    private let httpPort = freeLoopbackPort()
    private(set) var daemon: ChildProcess?
    /// What the daemon is started by: a shim, for one.
    var commandPrefix: [String] = []
    private var ledgers: [String] = []
    private var fleets = 0
    private let makeURL: (String) -> String

    /// - Parameters:
    ///   - postgres: a server of several worlds; each has a database of its own.
    ///   - brokerLines: more of `mosquitto.conf`.
    ///   - user: the daemon's role.
    ///   - url: another way to a database, by its name.
    init(
        postgres: PostgresServer, brokerLines: [String] = [], user: String = "postgres",
        url: ((String) -> String)? = nil
    ) throws {
        self.postgres = postgres
        makeURL = url ?? { postgres.url(database: $0, user: user) }
        broker = try MosquittoServer(persistent: true, lines: brokerLines)
        database = try postgres.makeDatabase()
        folder = try makeTemporaryFolder("world")
    }

    deinit { try? FileManager.default.removeItem(atPath: folder) }

    var data: String { folder + "/data" }
    var databaseURL: String { makeURL(database) }
    /// What the daemon has said, all runs.
    var daemonLog: String { (try? String(contentsOfFile: folder + "/daemon.log", encoding: .utf8)) ?? "" }

    // The daemon

    var runArguments: [String] {
        [
            "run", "--data", data, "--broker-url", broker.url, "--database-url", databaseURL, "--http",
            "127.0.0.1:\(httpPort)", "--node", "world",
        ]
    }

    /// - Parameter shell: a shell command that executes `"$0" "$@"`, with other limits or output than a test's.
    func startDaemon(_ more: [String] = [], shell: String? = nil) throws {
        let wrapper = shell.map { ["/bin/sh", "-c", $0] } ?? []
        daemon = try ChildProcess(
            wrapper + commandPrefix + [Self.program] + runArguments + more, log: folder + "/daemon.log")
    }

    /// A sample of `/metrics` without labels; nil while there is none.
    func metric(_ name: String) -> Double? {
        guard let body = HTTP.body("http://\(http)/metrics") else { return nil }
        let lines = String(decoding: body, as: UTF8.self).split(separator: "\n")
        return lines.first { $0.hasPrefix(name + " ") }.flatMap { Double($0.dropFirst(name.count + 1)) }
    }

    /// kill -9, and nothing else.
    func killDaemon() {
        daemon?.kill(SIGKILL)
        daemon?.wait()
        daemon = nil
    }

    /// SIGTERM; the exit code and how long it took.
    func stopDaemon() -> (exitCode: Int32?, seconds: Double) {
        guard let child = daemon else { return (nil, 0) }
        let start = ContinuousClock.now
        child.kill(SIGTERM)
        child.wait()
        daemon = nil
        return (child.exitCode, Double((ContinuousClock.now - start) / .milliseconds(1)) / 1000)
    }

    struct Status: Decodable {
        struct Log: Decodable { var durable: Int }
        struct Projection: Decodable {
            var name: String
            var position: Int?
            var state: String
            var last_error: String?
        }
        struct Broker: Decodable {
            var connected: Bool
            var subscribed: Bool
            var session_present: Bool
            var last_error: String?
        }
        struct Database: Decodable { var connected: Bool }
        var state: String
        var reasons: [String]
        var log: Log
        var projections: [Projection]
        var brokers: [Broker]
        var database: Database

        /// Every projection has applied all that is durable.
        var isCaughtUp: Bool {
            database.connected && !projections.isEmpty && projections.allSatisfy { $0.position == log.durable - 1 }
        }
    }

    var http: String { "127.0.0.1:\(httpPort)" }

    struct Outcome {
        let code: Int32
        let out: String
        let error: String

        func object() throws -> [String: Any] {
            try JSONSerialization.jsonObject(with: Data(out.utf8)) as? [String: Any] ?? [:]
        }
    }

    /// Runs a verb to its end.
    func run(_ arguments: [String]) throws -> Outcome {
        let out = folder + "/verb.out", errors = folder + "/verb.err"
        try? FileManager.default.removeItem(atPath: out)
        let verb = try ChildProcess(
            ["/bin/sh", "-c", "e=$1; shift; exec \"$0\" \"$@\" 2> \"$e\"", Self.program, errors] + arguments, log: out)
        verb.wait()
        func text(_ path: String) -> String { (try? String(contentsOfFile: path, encoding: .utf8)) ?? "" }
        return Outcome(code: verb.exitCode ?? -1, out: text(out), error: text(errors))
    }

    /// Freezes the daemon as SIGSTOP, a suspended machine or a debugger do.
    func freezeDaemon() { daemon?.kill(SIGSTOP) }

    /// Nil while the daemon does not answer.
    func status() -> Status? {
        HTTP.body("http://127.0.0.1:\(httpPort)/api/v1/status").flatMap {
            try? JSONDecoder().decode(Status.self, from: $0)
        }
    }

    /// proc(5): the second field of statm, in pages. Nil when the daemon is not there.
    func residentBytes() -> Int? {
        guard let pid = daemon?.pid, let text = try? String(contentsOfFile: "/proc/\(pid)/statm", encoding: .utf8)
        else { return nil }
        let fields = text.split(separator: " ")
        return fields.count > 1 ? Int(fields[1]).map { $0 * sysconf(Int32(_SC_PAGESIZE)) } : nil
    }

    /// Waits until the daemon answers and its subscription is active: from here on the broker keeps what we miss.
    func untilSubscribed() async throws {
        let ready = await eventually(within: 60) { status()?.brokers.first?.subscribed == true }
        guard ready else { throw SystemError("the daemon is not subscribed: \(daemonLog.suffix(2000))") }
    }

    // The fleet

    /// Starts `refold simulate` with a ledger of its own.
    func startFleet(_ arguments: [String]) throws -> ChildProcess {
        fleets += 1
        let ledger = folder + "/ledger-\(fleets)"
        ledgers.append(ledger)
        return try refold(
            ["simulate", "--broker-url", broker.url, "--ledger", ledger, "--seed", "\(fleets)"] + arguments,
            log: folder + "/fleet.log")
    }

    func untilEnded(_ fleet: ChildProcess) async throws {
        guard await eventually(within: 120, { !fleet.isRunning }), fleet.exitCode == 0 else {
            let said = (try? String(contentsOfFile: folder + "/fleet.log", encoding: .utf8)) ?? ""
            throw SystemError(
                "the fleet did not end well (\(String(describing: fleet.exitCode))): \(said.prefix(4000))")
        }
    }

    /// How often each (topic, SHA-256) was published, and how often acknowledged, over all fleets.
    func ledger() throws -> (published: [String: Int], acknowledged: [String: Int]) {
        struct Line: Decodable {
            var topic: String
            var sha256: String
            var acknowledged: Bool
        }
        var published: [String: Int] = [:], acknowledged: [String: Int] = [:]
        let decoder = JSONDecoder()
        for path in ledgers {
            for text in try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n") {
                let line = try decoder.decode(Line.self, from: Data(text.utf8))
                let entry = line.topic + " " + line.sha256
                published[entry, default: 0] += 1
                if line.acknowledged { acknowledged[entry, default: 0] += 1 }
            }
        }
        return (published, acknowledged)
    }

    // The witnesses

    /// Waits until nothing moves any more and every projection has applied all that is durable.
    func untilQuiet() async throws {
        var last = -1, since = ContinuousClock.now
        let quiet = await eventually(within: 90) {
            guard let status = status(), status.brokers.first?.subscribed == true, status.isCaughtUp else {
                return false
            }
            if status.log.durable != last {
                last = status.log.durable
                since = .now
            }
            return ContinuousClock.now - since > .milliseconds(250)
        }
        guard quiet else {
            let status = status()
            throw SystemError("it does not come to rest: \(String(describing: status))\n\(daemonLog.suffix(3000))")
        }
    }

    /// How often each (topic, SHA-256) is in the log, read from the files by `log cat`.
    func log() throws -> [String: Int] {
        struct Event: Decodable {
            var kind: String
            var topic: String
            var payload_base64: String?
        }
        let path = try writeEvents()
        var counts: [String: Int] = [:]
        let decoder = JSONDecoder()
        for text in try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n") {
            let event = try decoder.decode(Event.self, from: Data(text.utf8))
            guard event.kind == "message" else { continue }
            let payload = event.payload_base64.flatMap { Data(base64Encoded: $0) } ?? Data()
            counts[event.topic + " " + sha256([UInt8](payload)), default: 0] += 1
        }
        return counts
    }

    /// Whether a connection ended between its CONNECT and the end of redelivery.
    func hasUnfinishedResume() throws -> Bool {
        var isOpen = false
        let events = try run(["log", "cat", "--data", data, "--kind", "connection", "--json"]).out
        for line in events.split(separator: "\n") {
            if line.contains("broker.connecting/1") {
                if isOpen { return true }
                isOpen = true
            } else if line.contains("broker.subscribed/1") || line.contains("broker.session_resumed/1") {
                isOpen = false
            }
        }
        return false
    }

    /// The log's events as NDJSON in a file; from `from` on, also those that only the archive has.
    @discardableResult
    func writeEvents(from: Int? = nil) throws -> String {
        let path = folder + "/events.ndjson", errors = folder + "/cat.err"
        try? FileManager.default.removeItem(atPath: path)
        let start = from.map { "--from \($0) " } ?? ""
        let command = "exec \"$0\" log cat \(start)--data \"$1\" --json --base64 2> \"$2\""
        let cat = try ChildProcess(["/bin/sh", "-c", command, Self.program, data, errors], log: path)
        cat.wait()
        guard cat.exitCode == 0 else {
            throw SystemError("log cat: \((try? String(contentsOfFile: errors, encoding: .utf8)) ?? "")")
        }
        return path
    }

    /// The differences that the independent fold finds between the log and the tables; nil when there are none.
    func naiveFoldDifferences(from: Int? = nil) throws -> String? {
        let script = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .appending(path: "naive_fold/naive_fold.py")
        let output = folder + "/naive.out"
        try? FileManager.default.removeItem(atPath: output)
        let fold = try ChildProcess(
            [
                "/usr/bin/env", "python3", script.path, "--events", try writeEvents(from: from), "--database",
                databaseURL,
            ], log: output)
        fold.wait()
        return fold.exitCode == 0 ? nil : (try? String(contentsOfFile: output, encoding: .utf8)) ?? "no output"
    }

    /// The executable lies beside the bundle of the tests.
    static let program = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent()
        .appendingPathComponent("refold").path

    func refold(_ arguments: [String], log: String) throws -> ChildProcess {
        try ChildProcess([Self.program] + arguments, log: log)
    }
}

/// What is in the log and was never published, or is missing there, in words; empty when there is nothing of the kind.
struct Comparison {
    var missing: [String] = []
    var surplus: [String] = []

    /// - Parameter exactly: nothing was sent twice, so nothing may be there twice.
    init(log: [String: Int], published: [String: Int], acknowledged: [String: Int], exactly: Bool) {
        for (entry, count) in acknowledged where log[entry, default: 0] < count {
            missing.append("\(entry): \(count) acknowledged, \(log[entry, default: 0]) in the log")
        }
        for (entry, count) in log where exactly && count > published[entry, default: 0] {
            surplus.append("\(entry): \(published[entry, default: 0]) published, \(count) in the log")
        }
        missing.sort()
        surplus.sort()
    }
}
