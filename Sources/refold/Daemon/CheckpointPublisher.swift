import EventLog
import Foundation
import Logging
import MQTT
import PrivateServices
import Synchronization
import Threading

/// Takes each signed checkpoint of the log to where this machine's owner cannot call it back: a command of the
/// operator's, and a retained topic on every broker. A key that lies beside the log lets its owner sign another
/// history; a checkpoint held elsewhere is what shows it.
///
/// Bounded: one checkpoint waits for each destination, the newest. A failure is counted and tried again with the next
/// checkpoint, or after a pause.
final class CheckpointPublisher: Sendable {
    struct Destination: Sendable {
        /// `command`, or `mqtt:` and the broker's name.
        let name: String
        var published: UInt64 = 0
        var failures: UInt64 = 0
        var lastError: String?
    }

    private struct State {
        var command = Destination(name: "command")
    }

    private let log: FileLog
    private let command: ShellCommand?
    private let brokers: [RetainedPublisher]
    private let logger: Logger
    private let state = Mutex(State())
    private let thread = ServiceThread()
    private static let lookMilliseconds = 2_000
    private static let retrySecondsMax = 60.0

    /// - Parameter brokers: as for ingest; the connections made here have client ids of their own.
    init(log: FileLog, brokers: [BrokerSettings], command: ShellCommand?, logger: Logger) {
        self.log = log
        self.command = command
        self.logger = logger
        let logID = log.report.logID.description
        self.brokers = brokers.map { settings in
            RetainedPublisher(settings.beside("checkpoint", logID: logID), topic: Self.topic(logID: logID))
        }
    }

    static func topic(logID: String) -> String { "refold/\(logID)/checkpoint" }

    var destinations: [Destination] {
        let mqtt = brokers.map { broker in
            let status = broker.status
            return Destination(
                name: "mqtt:\(broker.broker)", published: status.published, failures: status.failures,
                lastError: status.lastError)
        }
        return (command == nil ? [] : [state.withLock { $0.command }]) + mqtt
    }

    /// Those that must end before the log is closed.
    var threads: [ServiceThread] { [thread] + brokers.map(\.thread) }

    func start() {
        for broker in brokers { broker.start() }
        thread.start(name: "checkpoints") { [self] in run() }
    }

    func stop() {
        thread.stop()
        for broker in brokers { broker.stop() }
    }

    private func run() {
        var sent: [UInt8]?, done: [UInt8]?, retryAt = ContinuousClock.now, pause = 1.0
        while !thread.isStopping {
            let newest = log.checkpoint?.bytes
            if let newest, newest != sent {
                for broker in brokers { broker.publish(newest) }
                sent = newest
            }
            if let command, let newest, newest != done, ContinuousClock.now >= retryAt {
                if run(command, newest) {
                    (done, pause) = (newest, 1)
                } else {
                    retryAt = .now + .seconds(pause)
                    pause = min(pause * 2, Self.retrySecondsMax)
                }
            }
            thread.rest(milliseconds: Self.lookMilliseconds)
        }
    }

    /// `%p` is the log's file `checkpoint`, which is replaced as a whole: what the command reads is never older than
    /// what it is called for. `%f` names this one: `<log id>-<size of its tree>`.
    private func run(_ command: ShellCommand, _ note: [UInt8]) -> Bool {
        let size = String(decoding: note, as: UTF8.self).split(separator: "\n").dropFirst().first ?? "0"
        do {
            try command.run(
                path: log.directory + "/checkpoint", file: "\(log.report.logID)-\(size)",
                isStopped: { thread.isStopping })
            state.withLock {
                $0.command.published += 1
                $0.command.lastError = nil
            }
            return true
        } catch {
            guard !thread.isStopping else { return false }
            let isNew = state.withLock { state in
                state.command.failures += 1
                defer { state.command.lastError = error.description }
                return state.command.lastError != error.description
            }
            if isNew { logger.error("checkpoint_command failed, and is tried again: \(error)") }
            return false
        }
    }
}
