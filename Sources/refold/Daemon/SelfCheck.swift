import ControlAPI
import EventLog
import EventModel
import Foundation
import Logging
import Postgres
import Rebuilding
import Settings
import Snapshots
import Synchronization
import Threading

/// The standing self-check: from time to time the log is folded from nothing and compared with the live tables, as
/// `refold replay verify` does it. One at a time, at low priority; a difference is an alarm until a check finds none.
final class SelfCheck: Sendable {
    private struct State {
        var last: SystemStatus.SelfCheck?
    }

    private let log: FileLog
    private let dataFolder: String
    private let databaseURL: String
    private let every: Duration?
    private let logger: Logger
    private let state = Mutex(State())
    let thread = ServiceThread()
    private let interrupt = Interrupt()
    /// After one that could not be done.
    private static let pause = Duration.seconds(60)

    init(_ settings: Settings, log: FileLog, databaseURL: String, logger: Logger) {
        self.log = log
        self.databaseURL = databaseURL
        self.logger = logger
        dataFolder = settings.data
        every = settings.verifySeconds.map { .seconds($0) }
    }

    /// Nil when none is asked for, or before the first.
    var last: SystemStatus.SelfCheck? { state.withLock { $0.last } }

    func start() {
        guard let every else { return }
        thread.start(name: "self-check", nice: 10) { [self] in
            var wait = every
            while true {
                thread.rest(milliseconds: Int(wait / .milliseconds(1)))
                if thread.isStopping { return }
                wait = check() ? every : min(every, Self.pause)
            }
        }
    }

    /// One that is under way is given up.
    func stop() {
        thread.stop()
        interrupt.signal()
    }

    /// False when it could not be done.
    private func check() -> Bool {
        do {
            var options = VerifyOptions()
            options.threads = 1
            options.isCancelled = { [thread] in thread.isStopping }
            let report = try ReplayVerifier(
                log: try ReadOnlyLog(directory: log.directory),
                database: DatabaseTarget(databaseURL, responseTimeoutSeconds: 3600), interrupt: interrupt,
                snapshots: .of(dataFolder: dataFolder, logID: log.logID), scratchFolder: dataFolder + "/scratch"
            ).run(options)
            note(
                .init(
                    at: wallClock().description, agrees: report.agrees, differences: report.differenceCount,
                    seconds: report.seconds, lastError: report.skipped.first.map { "\($0.projection): \($0.reason)" }))
            if report.agrees {
                logger.info("the tables agree with the log (\(report.tables.count) tables, \(report.seconds) s)")
            } else {
                logger.error(
                    """
                    the tables differ from the log in \(report.differenceCount) rows \
                    (\(report.skipped.count) projections could not be compared): refold replay verify shows them
                    """)
            }
            return true
        } catch  where thread.isStopping {
            return false
        } catch {
            var last = last ?? .init(at: nil, agrees: nil, differences: 0, seconds: 0, lastError: nil)
            last.lastError = "\(error)"
            note(last)
            logger.warning("the tables could not be compared with the log: \(error)")
            return false
        }
    }

    private func note(_ check: SystemStatus.SelfCheck) { state.withLock { $0.last = check } }
}
