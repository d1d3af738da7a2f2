import Foundation
import TestSupport
import Testing

/// Signals of kill(1), terminals and timers: the daemon stops in order, or goes on.
@Suite(.serialized) struct SignalTests {
    private let folder: String
    private let port = freeLoopbackPort()
    private let daemon: ChildProcess

    /// Without broker and database.
    init() throws {
        folder = try makeTemporaryFolder("signals")
        daemon = try ChildProcess(
            [
                World.program, "run", "--data", folder + "/data", "--http", "127.0.0.1:\(port)", "--broker-url",
                "mqtt://127.0.0.1:1", "--database-url", "postgresql://127.0.0.1:1/none",
            ], log: folder + "/daemon.log")
    }

    private var answers: Bool {
        HTTP.body("http://127.0.0.1:\(port)/api/v1/status") != nil
    }

    private var log: String { (try? String(contentsOfFile: folder + "/daemon.log", encoding: .utf8)) ?? "" }

    @Test func signalsWithoutAMeaningAreIgnored() async throws {
        defer { daemon.kill(SIGKILL) }
        #expect(await eventually(within: 30) { answers }, "\(log)")
        for number in [SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGPOLL, SIGPWR] { daemon.kill(number) }
        try await Task.sleep(for: .milliseconds(300))
        #expect(daemon.isRunning && answers, "\(log)")
        daemon.kill(SIGTERM)
        #expect(await eventually(within: 30) { !daemon.isRunning })
        #expect(daemon.exitCode == 0, "\(log)")
    }

    /// The kernel and the shell of a closed terminal may each send one.
    @Test func hangUpsStopTheDaemonInOrder() async throws {
        defer { daemon.kill(SIGKILL) }
        #expect(await eventually(within: 30) { answers }, "\(log)")
        daemon.kill(SIGHUP)
        daemon.kill(SIGHUP)
        #expect(await eventually(within: 30) { !daemon.isRunning })
        #expect(daemon.exitCode == 0, "\(log)")
    }
}
