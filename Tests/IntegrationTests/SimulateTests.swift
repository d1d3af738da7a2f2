import Foundation
import TestSupport
import Testing

/// `refold simulate` as a program: its exit codes, and a ledger that can be trusted however the program ends.
@Suite(.serialized) struct SimulateTests {
    private let broker: MosquittoServer
    private let ledger: String
    private let output: String

    init() throws {
        broker = try MosquittoServer(persistent: true)
        ledger = broker.folder + "/ledger"
        output = broker.folder + "/simulate.out"
    }

    private func simulate(_ arguments: [String], url: String? = nil) throws -> ChildProcess {
        try ChildProcess(
            [World.program, "simulate", "--broker-url", url ?? broker.url, "--ledger", ledger] + arguments, log: output)
    }

    private var said: String { (try? String(contentsOfFile: output, encoding: .utf8)) ?? "" }

    private struct Line: Decodable {
        var topic: String
        var sha256: String
        var acknowledged: Bool
    }

    private func lines() throws -> [Line] {
        try String(contentsOfFile: ledger, encoding: .utf8).split(separator: "\n").map {
            try JSONDecoder().decode(Line.self, from: Data($0.utf8))
        }
    }

    @Test func itSaysWhatItDid() async throws {
        let run = try simulate(["--devices", "5", "--rate", "0", "--count", "300", "--json"])
        #expect(await eventually { !run.isRunning })
        #expect(run.exitCode == 0)
        let summary = try #require(try JSONSerialization.jsonObject(with: Data(said.utf8)) as? [String: Double])
        #expect(summary["published"] == 310 && summary["acknowledged"] == 310 && summary["generated"] == 300)
        #expect(try lines().count == 310)
    }

    @Test func theSameSeedPublishesTheSameBytes() async throws {
        let arguments = [
            "--devices", "7", "--rate", "0", "--count", "500", "--seed", "9", "--malformed", "0.1",
            "--duplicates", "0.1",
            "--start-time", "2026-01-31T12:00:00Z",
        ]
        var runs: [[String]] = []
        for _ in 1...2 {
            let run = try simulate(arguments)
            #expect(await eventually { run.exitCode == 0 })
            runs.append(try lines().map { $0.topic + " " + $0.sha256 }.sorted())
        }
        #expect(runs[0] == runs[1] && runs[0].count == 514)
    }

    /// What a killed run leaves says nothing that is not so: each line that is there was acknowledged and passed on.
    @Test func aKilledRunLeavesALedgerOfTrueLines() async throws {
        let witness = try await MosquittoWitness(broker)
        let run = try simulate(["--devices", "20", "--rate", "5000"])
        #expect(await eventually { ((try? lines().count) ?? 0) > 500 })
        run.kill(SIGKILL)
        run.wait()
        let entries = try lines()
        #expect(!entries.contains { !$0.acknowledged })
        let complete = await eventually {
            let arrived = Set(witness.arrivals.map { $0.topic + " " + sha256($0.payload) })
            return entries.allSatisfy { arrived.contains($0.topic + " " + $0.sha256) }
        }
        #expect(complete)
    }

    @Test(arguments: [SIGINT, SIGTERM]) func toldToStopItEndsWithACompleteLedger(signal: Int32) async throws {
        let run = try simulate(["--devices", "20", "--rate", "2000"])
        #expect(await eventually { ((try? lines().count) ?? 0) > 300 })
        run.kill(signal)
        #expect(await eventually { !run.isRunning })
        #expect(run.exitCode == 0, "\(said)")
        #expect(try lines().count { $0.topic.hasSuffix("/connection") } == 40)  // a birth and a farewell each
        #expect(said.contains(", 0 not"))
    }

    @Test func itSpeaksTLS() async throws {
        let broker = try MosquittoServer(tls: true)
        let certificates = try #require(broker.certificates)
        let arguments = ["--devices", "3", "--rate", "0", "--count", "50"]
        let trusted = try simulate(arguments + ["--ca-file", certificates.ca], url: broker.url)
        #expect(await eventually { !trusted.isRunning })
        #expect(trusted.exitCode == 0, "\(said)")
        let stranger = try simulate(arguments + ["--ca-file", certificates.strangerCA], url: broker.url)
        #expect(await eventually { !stranger.isRunning })
        #expect(stranger.exitCode == 3, "\(said)")
    }

    struct Refusal: Sendable, CustomTestStringConvertible {
        var arguments: [String]
        var exitCode: Int32
        var words: String
        var testDescription: String { arguments.joined(separator: " ") }
    }

    @Test(arguments: [
        Refusal(arguments: ["--devices", "6000"], exitCode: 2, words: "--connections"),
        Refusal(arguments: ["--mix", "news=1"], exitCode: 2, words: "--mix"),
        Refusal(arguments: ["--malformed", "7"], exitCode: 2, words: "--malformed"),
        Refusal(arguments: ["--count", "1", "--duration", "1"], exitCode: 2, words: "--duration"),
        Refusal(arguments: ["--start-time", "yesterday"], exitCode: 2, words: "--start-time"),
        Refusal(arguments: ["--ledger", "/nowhere/at/all"], exitCode: 2, words: "/nowhere/at/all"),
        Refusal(arguments: ["--broker-url", "somewhere"], exitCode: 2, words: "--broker-url"),
        Refusal(arguments: ["--broker-url", "mqtt://127.0.0.1:1"], exitCode: 3, words: "127.0.0.1:1"),
        Refusal(arguments: ["--no-such-flag"], exitCode: 2, words: "no-such-flag"),
    ])
    func itRefusesInOneLine(refusal: Refusal) async throws {
        let given = Set(refusal.arguments)
        let common = [("--broker-url", broker.url), ("--count", "10")].filter { !given.contains($0.0) }
        let run = try ChildProcess(
            [World.program, "simulate"] + common.flatMap { [$0.0, $0.1] } + refusal.arguments, log: output)
        #expect(await eventually { !run.isRunning })
        #expect(run.exitCode == refusal.exitCode, "\(said)")
        #expect(said.split(separator: "\n").first?.contains(refusal.words) == true, "\(said)")
    }
}
