import Foundation
import TestSupport
import Testing

/// Some minutes of `make soak-ledger`: the fleet's ledger beside the log, over three brokers, under faults by seed.
@Suite(.serialized) struct SoakTests {
    private static let servers = ["/usr/sbin/mosquitto", "/usr/sbin/nats-server", "/usr/lib/rabbitmq/lib"]

    @Test(.enabled(if: servers.allSatisfy { access($0, R_OK) == 0 }, "needs rabbitmq-server and nats-server"))
    func nothingAcknowledgedIsLostOverThreeBrokers() async throws {
        let folder = try makeTemporaryFolder("soak")
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let soak = try ChildProcess(
            [
                "/usr/bin/env", "SOAK_REFOLD=\(World.program)", "SOAK_MINUTES=3", "SEED=11", "SOAK_DISCARD=1",
                "SOAK_RATE=150", "PYTHONDONTWRITEBYTECODE=1", "python3",
                root.appending(path: "bench/soak/soak.py").path,
            ], log: folder + "/output")
        #expect(await eventually(within: 600) { !soak.isRunning })
        let output = (try? String(contentsOfFile: folder + "/output", encoding: .utf8)) ?? ""
        #expect(soak.exitCode == 0, "\(output.suffix(12_000))")
        print(output.split(separator: "\n").filter { $0.contains("acknowledged") }.joined(separator: "\n"))
    }
}
