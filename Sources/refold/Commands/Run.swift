import ArgumentParser
import ControlAPI
import EventLog
import Foundation
import Health
import Logging
import Output
import PrivateServices
import Settings
import Threading

struct Run: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Run the pipeline: brokers into the log, the log into PostgreSQL.",
        discussion: """
            Without a broker, or without a database, in the settings it starts a private one inside the data folder. \
            Exit code 1: the disk fails or the log is damaged; 2: settings, schema or the hard limit of open files \
            forbid it; 3: something it cannot do without is unreachable; 4: another process holds the data folder's \
            lock or the API's port, so that a later start may succeed.
            """)

    @OptionGroup var options: SettingsOptions
    @Flag(help: "Simulate a fleet of 200 devices; on a terminal show a live screen.") var demo = false
    @Option(help: "Devices of the demo's fleet.") var demoDevices = 200
    @Option(help: "Messages a second of the demo's fleet.") var demoRate = 1000.0
    @Flag(help: "Go on from the wall clock at once although the log's last event is later.") var acceptClock = false
    @Flag(help: "Take over the broker's session under our client id although this log did not create it.")
    var adoptSession = false

    func run() async throws {
        if let shortage = Descriptors.shortage() { throw ExitCode(2, printing: shortage) }
        let settings = try await options.load()
        let screen = demo && isatty(1) == 1
        let notes = screen ? RecentNotes() : nil
        LineLogHandler.bootstrap(
            level: settings.loggingLevel, format: settings.loggingFormat,
            screen: notes.map { (settings.data, $0) })
        let logger = Logger(label: "refold")
        for setting in settings.resolved where setting.isExposed {
            logger.warning(
                "a password is on the command line, where ps shows it; use a password_file or a variable",
                metadata: ["setting": "\(setting.setting.key)"])
        }
        let limit = Descriptors.raiseLimit()
        if limit < Descriptors.reserved + ControlAPI.connectionsMax {
            logger.warning(
                "few file descriptors: fewer API connections are taken; raise the limit (ulimit -n, LimitNOFILE=)",
                metadata: [
                    "limit": "\(limit)",
                    "connections": "\(Descriptors.connectionsMax(wanted: ControlAPI.connectionsMax, limit: limit))",
                ])
        }
        let signals = Signals()
        let startedAt = ContinuousClock.now

        let daemon: Daemon
        do {
            daemon = try await Daemon.start(
                settings, acceptClock: acceptClock, adoptsSession: adoptSession, logger: logger
            ) { message in
                // Nothing may be acknowledged any more, and nothing can be saved: end at once (law 2, law 7).
                logger.critical("\(message)")
                LogOutput.shared.flush(atMostMilliseconds: 500)
                _exit(1)
            }
        } catch {
            LogOutput.shared.add(Array("refold: \(terminalSafeLines("\(error)"))\n".utf8))
            throw ExitCode(Self.exitCode(of: error))
        }
        let manager = ServiceManager()
        manager.ready()
        logger.info("running; the API is at http://\(daemon.apiAddress)", metadata: ["data": "\(settings.data)"])

        let heartbeat = Task { await Self.keepWatchdogFed(manager, daemon, logger) }
        if demo {
            await Demo(
                daemon: daemon, devices: demoDevices, rate: demoRate, startedAt: startedAt, notes: notes,
                logger: logger
            )
            .run(until: signals)
        } else {
            await signals.wait()
        }
        logger.info("stopping in order")
        manager.stopping()
        heartbeat.cancel()
        await daemon.stop()
    }

    /// Feeds the watchdog while every thread moves: a restart cures nothing else (docs/health.md).
    private static func keepWatchdogFed(_ manager: ServiceManager, _ daemon: Daemon, _ logger: Logger) async {
        guard let interval = manager.watchdogInterval else { return }
        while !Task.isCancelled {
            let health = daemon.reporter.health()
            if health.stuck.isEmpty {
                manager.alive(status: "\(health.state.rawValue), \(daemon.log.durableCount) events durable")
            } else {
                let texts = health.stuck.map(\.text).joined(separator: "; ")
                manager.stuck(status: texts)
                logger.critical("a thread does not move; the watchdog is not fed", metadata: ["why": "\(texts)"])
            }
            try? await Task.sleep(for: interval)
        }
    }

    private static func exitCode(of error: any Error) -> Int32 {
        switch error {
        case let error as StartError: error.exitCode
        case let error as LogError:
            switch error.code {
            case .corrupt, .system: 1
            case .locked: StartError.inUse
            default: 2
            }
        case is ServiceError: 3
        default: 2
        }
    }
}
