import EventLog
import Foundation
import Logging
import Settings
import TestSupport
import Testing
@testable import refold

/// A daemon that has stopped, or did not start, has no thread left and appends nothing.
@Suite(.serialized) struct StopTests {
    private let folder: String

    init() throws { folder = try makeTemporaryFolder("daemon") }

    private func settings(
        broker: String = "mqtt://127.0.0.1:1", http: String = "127.0.0.1:0",
        database: String = "postgresql://refold@127.0.0.1:1/refold"
    ) async throws -> Settings {
        try Settings(
            from: await SettingsSource(
                file: nil, flags: [:],
                environment: [
                    "REFOLD_DATA": folder, "REFOLD_BROKER_URL": broker, "REFOLD_HTTP": http,
                    "REFOLD_DATABASE_URL": database, "REFOLD_LOGGING_LEVEL": "error",
                ]))
    }

    private func start(_ settings: Settings) async throws -> Daemon {
        var logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        logger.logLevel = .critical
        return try await Daemon.start(settings, acceptClock: false, adoptsSession: false, logger: logger) { message in
            Issue.record("the log failed: \(message)")
        }
    }

    /// Names of this process's threads that have one of their own, each as often as it runs. Those of the concurrency
    /// runtime have the executable's name; those of SwiftNIO stay, and those of libdispatch come and go.
    private func threads() throws -> [String] {
        let tasks = try FileManager.default.contentsOfDirectory(atPath: "/proc/self/task")
        let own = try String(contentsOfFile: "/proc/self/comm", encoding: .utf8)
        let names = tasks.compactMap { try? String(contentsOfFile: "/proc/self/task/\($0)/comm", encoding: .utf8) }
        return names.filter { $0 != own && !$0.hasPrefix("NIO") && !$0.contains("-qos") }.map { String($0.dropLast()) }
    }

    /// Those that run beside `before`.
    private func threads(since before: [String]) throws -> [String] {
        var earlier = before
        return try threads().filter { name in
            guard let index = earlier.firstIndex(of: name) else { return true }
            earlier.remove(at: index)
            return false
        }
    }

    /// A thread's last instructions come after what `stop` waits for.
    private func expectNoThreads(since before: [String]) async throws {
        let deadline = ContinuousClock.now + .seconds(10)
        while try !threads(since: before).isEmpty, ContinuousClock.now < deadline {
            try await Task.sleep(for: .milliseconds(5))
        }
        let left = try threads(since: before)
        #expect(left == [])
    }

    /// Runs a daemon for as long as `body`.
    private func stopping(_ body: () async throws -> Void) async throws {
        let daemon = try await start(await settings())
        try await body()
        await daemon.stop()
    }

    @Test(arguments: [0, 1, 5, 20, 100, 700]) func stoppedAtAnyMomentItLeavesNoThread(milliseconds: Int) async throws {
        let before = try threads()
        try await stopping {
            try await Task.sleep(for: .milliseconds(milliseconds))
            #expect(try !threads(since: before).isEmpty)
        }
        try await expectNoThreads(since: before)
    }

    @Test func aDaemonThatCannotListenLeavesNoThreadAndNoLock() async throws {
        // Any port that is taken.
        let taken = try MosquittoServer(), before = try threads()
        await #expect(throws: StartError.self) { try await start(await settings(http: "127.0.0.1:\(taken.port)")) }
        try await expectNoThreads(since: before)
        try await stopping {}
    }

    /// Sessions that wait for an answer would otherwise wait for 20 s, and for 150 s.
    @Test(arguments: [0, 1_500]) func aDatabaseThatHangsDoesNotOutlastTheStop(milliseconds: Int) async throws {
        let server = try PostgresServer(), before = try threads()
        var daemon: Daemon? = try await start(await settings(database: server.url()))
        #expect(await eventually { daemon?.reporter.projectors.allSatisfy { $0.status.state == .running } == true })
        server.freeze()
        defer { server.thaw() }
        // The keeper asks for the checkpoints, then the projectors do.
        try await Task.sleep(for: .milliseconds(milliseconds))
        await daemon?.stop()
        daemon = nil
        #expect(await eventually(within: 1) { (try? threads(since: before)) == [] })
    }

    @Test func underLoadNothingIsAppendedAfterTheLogIsClosed() async throws {
        let mosquitto = try MosquittoServer(), publisher = try TestPublisher(port: mosquitto.port)
        let load = Task {
            var sent = 0
            while !Task.isCancelled {
                try publisher.publish("tenant/t/device/d\(sent % 50)/telemetry", "{\"metrics\":{\"n\":\(sent)}}")
                sent += 1
                if sent % 50 == 0 { try await Task.sleep(for: .milliseconds(5)) }
            }
        }
        let before = try threads(), end = try await stoppedUnderLoad(broker: "mqtt://127.0.0.1:\(mosquitto.port)")
        try await expectNoThreads(since: before)
        load.cancel()
        _ = await load.result
        #expect(try ReadOnlyLog(directory: folder + "/log").durableCount == end)
    }

    /// Number of durable events when it had stopped.
    private func stoppedUnderLoad(broker: String) async throws -> UInt64 {
        let daemon = try await start(await settings(broker: broker))
        let deadline = ContinuousClock.now + .seconds(30)
        while daemon.log.durableCount < 2_000, ContinuousClock.now < deadline {
            try await Task.sleep(for: .milliseconds(5))
        }
        #expect(daemon.log.durableCount >= 2_000)
        await daemon.stop()
        return daemon.log.durableCount
    }
}
