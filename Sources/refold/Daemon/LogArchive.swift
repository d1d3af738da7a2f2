import EventLog
import EventModel
import Foundation
import Logging
import PrivateServices
import Projections
import Settings
import Threading

/// Takes sealed segments to the archive and, when they are there and nobody needs them, off this disk. The archive
/// command runs on a thread of its own, as long as it likes; removal is a task that asks the database first.
final class LogArchive: Sendable {
    let archiver: Archiver?
    let retention: Retention
    private let log: FileLog
    private let database: DatabaseKeeper
    private let logger: Logger
    let thread = ServiceThread()

    /// - Throws: `LogError` when the file that says how far the log was archived cannot be read.
    init(_ settings: Settings, log: FileLog, database: DatabaseKeeper, logger: Logger) throws(LogError) {
        self.log = log
        self.database = database
        self.logger = logger
        let (seconds, thread) = (settings.commandTimeoutSeconds, thread)
        if let template = settings.archiveCommand {
            let command = ShellCommand(template, timeoutSeconds: seconds)
            archiver = try Archiver(log: log) { path, name in
                try command.run(path: path, file: name, isStopped: { thread.isStopping })
            }
        } else {
            archiver = nil
        }
        if let template = settings.restoreCommand {
            log.setRestorer(SegmentRestorer(command: ShellCommand.restoring(template, timeoutSeconds: seconds)))
        }
        var rules = RetentionRules()
        rules.bytesMax = settings.retentionBytes.map { UInt64($0) }
        rules.secondsMax = settings.retentionSeconds
        rules.allowHorizon = settings.retentionAllowsHorizon
        rules.canRestore = settings.restoreCommand != nil
        retention = Retention(log: log, rules: rules, archiver: archiver)
    }

    func start() {
        if archiver != nil { thread.start(name: "archive", nice: 10) { [self] in archive() } }
    }

    func stop() { thread.stop() }

    private func archive() {
        var failures: UInt64 = 0
        while !thread.isStopping {
            guard let archiver, !archiver.step() else { continue }
            let status = archiver.status
            if status.failures > failures, !thread.isStopping {
                logger.error("archive_command failed, and is tried again: \(status.lastError ?? "")")
            }
            failures = status.failures
            thread.rest(milliseconds: 1_000)
        }
    }

    /// Removes what the retention rule lets go, until the task is cancelled.
    /// - Parameter snapshots: what cannot be had back goes only when it is in one.
    func remove(_ snapshots: SnapshotKeeper) async {
        while !retention.isOff, !Task.isCancelled {
            try? await Task.sleep(for: .seconds(1))
            guard retention.isDue, !Task.isCancelled else { continue }
            let guards = await guards()
            let removed = try? await onOwnThread("retention") { [retention] in
                retention.step(guards: guards, coveredThrough: snapshots.coveredThrough)
            }
            if let removed, removed > 0 {
                logger.info("\(removed) segments were removed; on this disk the log begins at \(log.firstPosition)")
            }
        }
    }

    /// Every projection there is, with what it will still need should its database crash now.
    private func guards() async -> [RetentionGuard] {
        guard let flushed = await database.flushedPositions() else {
            return [
                RetentionGuard(
                    name: "the database, which does not answer with the projections' positions,",
                    needsFrom: Position(0))
            ]
        }
        return Catalog.entries.map { entry in
            RetentionGuard(
                name: "the projection \(entry.name)", needsFrom: flushed[entry.name]?.next ?? Position(0))
        }
    }
}
