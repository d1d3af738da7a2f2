import ControlAPI
import EventLog
import EventModel
import Foundation
import Logging
import Postgres
import PostgresStore
import Projecting
import Projections
import Rebuilding
import Snapshots
import Synchronization
import Threading

/// Rebuilds while the daemon runs: those that operators ask for, and those that it finds necessary when it starts
/// (rows of another version, tables that are new to a long log). A projection whose rows cannot be gone on with is
/// paused meanwhile; all others project as ever.
final class RebuildKeeper: Sendable, TableRebuilding {
    private struct Entry {
        let rebuild: Rebuild
        let trigger: String
        let begun: String
    }

    private struct State {
        /// The newest last; bounded.
        var entries: [Entry] = []
        var failures: UInt64 = 0
        var lastBlockedSeconds: Double?
        /// Why a projection is paused by us.
        var paused: [String: String] = [:]
    }

    private let log: FileLog
    private let target: DatabaseTarget
    private let projectors: [Projector]
    private let snapshots: SnapshotKeeper
    private let logger: Logger
    private let state = Mutex(State())
    private let (jobs, queue) = AsyncStream.makeStream(of: (@Sendable () async -> Void).self)

    /// A projection without rows is rebuilt, rather than projected from the beginning, when the log has so many events.
    private static let longLogEvents: UInt64 = 500_000
    private static let kept = 20
    private static let retry: Duration = .seconds(30)

    init(
        log: FileLog, databaseURL: String, projectors: [Projector], snapshots: SnapshotKeeper, logger: Logger
    ) {
        self.log = log
        target = DatabaseTarget(databaseURL, applicationName: "refold rebuild")
        self.projectors = projectors
        self.snapshots = snapshots
        self.logger = logger
    }

    /// Does what `begin` and the API ask for, until the task is cancelled: that cancels what is under way.
    func run() async {
        await withDiscardingTaskGroup { group in
            for await job in jobs { group.addTask { await job() } }
        }
    }

    // MARK: At the start

    /// Pauses what cannot be gone on with, and begins what is necessary. To be called before projectors run.
    func begin() async {
        await settle { [self] needed in
            if !needed.isEmpty { queue.yield { [self] in await rebuildUntilDone(needed) } }
        }
    }

    /// Judges, and acts on what must be rebuilt; where the database cannot be asked, again in the background until it
    /// can.
    private func settle(_ act: @escaping @Sendable ([Catalog.Entry]) -> Void = { _ in }) async {
        do {
            act(try await judge())
        } catch {
            logger.warning("cannot check whether tables need a rebuild; retrying in 30 s: \(error)")
            queue.yield { [self] in
                try? await Task.sleep(for: Self.retry)
                if !Task.isCancelled { await settle(act) }
            }
        }
    }

    /// What must be rebuilt; pauses it, and what is held.
    private func judge() async throws -> [Catalog.Entry] {
        let (target, isLong) = (target, log.durableCount >= Self.longLogEvents)
        let found = try await onOwnThread("rebuilds") {
            let exchange = try TableExchange(target)
            return try Catalog.entries.map { ($0, try exchange.condition(of: $0.descriptor)) }
        }
        var needed: [Catalog.Entry] = []
        for (entry, condition) in found {
            switch condition {
            case .current: release(entry)
            case .empty:
                if isLong { needed.append(entry) }
                if isLong { hold(entry, "its tables are new: they are being filled") } else { release(entry) }
            case .otherVersion:
                needed.append(entry)
                hold(entry, "its rows are of another version: they are being rebuilt")
            case .held(let reason): hold(entry, reason)
            }
        }
        return needed
    }

    private func rebuildUntilDone(_ entries: [Catalog.Entry]) async {
        let names = entries.map(\.name).joined(separator: ", ")
        logger.info("\(names): rebuilt in the background, because the rows are new or of another version")
        while !Task.isCancelled {
            do {
                try await run(try begin(entries, startOver: false, trigger: "start"))
                return
            } catch RebuildError.cancelled {
                return
            } catch RebuildError.failed(let text) {
                // Where there were no rows, folding event by event is slower and gets as far as it can.
                logger.error("the rebuild of \(names) failed: \(text)")
                do {
                    if try await judge().isEmpty { return }
                } catch {
                    logger.warning("cannot check whether tables need a rebuild; retrying in 30 s: \(error)")
                }
            } catch {
                logger.warning("cannot rebuild \(names); retrying in 30 s: \(error)")
            }
            try? await Task.sleep(for: Self.retry)
        }
    }

    private func hold(_ entry: Catalog.Entry, _ reason: String) {
        state.withLock { $0.paused[entry.name] = reason }
        projector(entry.name)?.pause()
    }

    private func release(_ entry: Catalog.Entry) {
        guard state.withLock({ $0.paused.removeValue(forKey: entry.name) }) != nil else { return }
        projector(entry.name)?.resume()
    }

    private func projector(_ name: String) -> Projector? { projectors.first { $0.descriptor.name == name } }

    // MARK: Running one

    private func begin(
        _ entries: [Catalog.Entry], startOver: Bool, fromSnapshot: Bool = false, trigger: String
    ) throws(RebuildError) -> Rebuild {
        var options = RebuildOptions()
        options.startsOver = startOver
        // What is behind the horizon can be had from a snapshot only.
        if fromSnapshot || log.horizon > Position(0) { options.beginning = snapshots.folder.beginning(of: log) }
        let rebuild = Rebuild(entries, source: log, target: target, options: options)
        let isFree = state.withLock { state in
            guard state.entries.last.map({ $0.rebuild.progress.stage.isOver }) ?? true else { return false }
            state.entries.append(Entry(rebuild: rebuild, trigger: trigger, begun: wallClock().description))
            if state.entries.count > Self.kept { state.entries.removeFirst() }
            return true
        }
        guard isFree else { throw .busy }
        return rebuild
    }

    private func run(_ rebuild: Rebuild) async throws {
        let names = rebuild.entries.map(\.name).joined(separator: ", ")
        do {
            try await withTaskCancellationHandler {
                try await onOwnThread("rebuild") { try rebuild.run() }
            } onCancel: {
                rebuild.cancel()
            }
        } catch {
            if !isCancelled(error) { state.withLock { $0.failures += 1 } }
            throw error
        }
        let progress = rebuild.progress, blocked = progress.blockedMilliseconds ?? 0
        state.withLock { $0.lastBlockedSeconds = blocked / 1000 }
        let waited = Int(saturating: blocked.rounded(.up))
        logger.info("\(names): rebuilt from \(progress.folded) events; writes waited \(waited) ms")
        for remark in progress.remarks { logger.warning("rebuild: \(remark)") }
        await settle()
        for entry in rebuild.entries { projector(entry.name)?.retryNow() }
    }

    private func isCancelled(_ error: any Error) -> Bool {
        if case RebuildError.cancelled = error { true } else { false }
    }

    // MARK: What the API asks

    private func entries(_ names: [String]) throws -> [Catalog.Entry] {
        try names.isEmpty
            ? Catalog.entries
            : names.map { name in
                guard let entry = Catalog.entry(named: name) else {
                    let all = Catalog.entries.map(\.name).joined(separator: ", ")
                    throw RebuildRefusal(.unknownProjection, "there is no projection \(name); there are: \(all)")
                }
                return entry
            }
    }

    func rebuilds() async -> [RebuildRow] { state.withLock { $0.entries }.reversed().map(row) }

    func beginRebuild(
        _ projections: [String], startOver: Bool, fromSnapshot: Bool
    ) async throws -> RebuildRow {
        let rebuild: Rebuild
        do {
            rebuild = try begin(
                try entries(projections), startOver: startOver, fromSnapshot: fromSnapshot, trigger: "operator")
        } catch {
            throw RebuildRefusal.make(error)
        }
        queue.yield { [self] in
            do {
                try await run(rebuild)
            } catch {
                logger.error("the rebuild ended: \(error)")
            }
        }
        // One that is refused at once (another program's is going on in this database) is refused to the caller.
        for _ in 0..<300 where rebuild.progress.stage == .preparing { try? await Task.sleep(for: .milliseconds(10)) }
        let progress = rebuild.progress
        if progress.stage == .failed { throw RebuildRefusal(.failed, progress.error ?? "failed") }
        return state.withLock { $0.entries.last { $0.rebuild === rebuild } }.map(row)
            ?? RebuildRow(projections: rebuild.entries.map(\.name), trigger: "operator", begun: "", stage: "failed")
    }

    func cancelRebuild() async -> RebuildRow? {
        guard let entry = state.withLock({ $0.entries.last }), !entry.rebuild.progress.stage.isOver else { return nil }
        entry.rebuild.cancel()
        for _ in 0..<300 where !entry.rebuild.progress.stage.isOver { try? await Task.sleep(for: .milliseconds(10)) }
        return row(entry)
    }

    func rollback(_ projections: [String]) async throws -> RollbackRow {
        let chosen = try entries(projections), (log, target) = (log, target)
        let report: Rollback.Report
        do {
            report = try await onOwnThread("rollback") { try Rollback.run(chosen, source: log, target: target) }
        } catch {
            throw RebuildRefusal.make(error)
        }
        for result in report.results {
            logger.warning(
                "\(result.projection) was rolled back to position \(result.position)",
                metadata: [
                    "version": "\(result.version)", "paused": "\(result.isHeld)",
                ])
        }
        await settle()
        for entry in chosen { projector(entry.name)?.retryNow() }
        return RollbackRow(report)
    }

    func dropTables(_ projections: [String], unfinished: Bool) async throws -> [String] {
        let chosen = try entries(projections), target = target
        do {
            try await onOwnThread("drop") {
                try Rollback.drop(chosen, in: unfinished ? .next : .previous, target: target)
            }
        } catch {
            throw RebuildRefusal.make(error)
        }
        return chosen.map(\.name)
    }

    private func row(_ entry: Entry) -> RebuildRow {
        RebuildRow(entry.rebuild, trigger: entry.trigger, begun: entry.begun)
    }

    // MARK: What status and metrics show

    /// Of one projection: its rebuild, and why it is paused by us.
    func note(on projection: String) -> (rebuild: SystemStatus.Projection.Rebuild?, paused: String?) {
        let (last, paused) = state.withLock { ($0.entries.last, $0.paused[projection]) }
        guard let last, last.rebuild.entries.contains(where: { $0.name == projection }) else { return (nil, paused) }
        let progress = last.rebuild.progress
        guard !progress.stage.isOver else { return (nil, paused) }
        return (.init(stage: progress.stage.rawValue, folded: progress.folded, end: progress.end), paused)
    }

    func add(to metrics: inout MetricsSnapshot) {
        let (last, failures, blocked) = state.withLock { ($0.entries.last, $0.failures, $0.lastBlockedSeconds) }
        for projector in projectors {
            let name = projector.descriptor.name
            metrics.add(.rebuildRunning, note(on: name).rebuild != nil, ["projection": name])
        }
        if let last { metrics.add(.rebuildFolded, last.rebuild.progress.folded) }
        if let blocked { metrics.add(.rebuildBlocked, blocked) }
        metrics.add(.rebuildFailures, failures)
    }
}

extension SnapshotFolder {
    /// For each projection the newest snapshot that has it.
    func beginning(of log: any LogSource) -> @Sendable (ProjectionDescriptor) throws -> SnapshotFile? {
        { [self] projection in
            try newest(atOrBefore: Position(log.durableCount)) { $0.end > Position(0) && $0.holds(projection) }
        }
    }
}

extension RebuildRefusal {
    static func make(_ error: any Error) -> any Error {
        guard let error = error as? RebuildError else { return error }
        return switch error {
        case .busy: RebuildRefusal(.busy, error.description)
        case .nothingKept: RebuildRefusal(.nothingKept, error.description)
        case .unavailable: RebuildRefusal(.unavailable, error.description)
        case .cancelled, .failed: RebuildRefusal(.failed, error.description)
        }
    }
}

extension RebuildRow {
    init(_ rebuild: Rebuild, trigger: String, begun: String) {
        let progress = rebuild.progress
        self.init(
            projections: rebuild.entries.map(\.name), trigger: trigger, begun: begun, stage: progress.stage.rawValue)
        (from, folded, end, rows) = (progress.from, progress.folded, progress.end, progress.rows)
        (eventsPerSecond, secondsLeft) = (progress.eventsPerSecond.rounded(), progress.secondsLeft)
        (elapsedSeconds, attempts, waitingFor) = (progress.elapsedSeconds, progress.attempts, progress.waitingFor)
        (blockedMilliseconds, remarks, error) = (progress.blockedMilliseconds, progress.remarks, progress.error)
    }
}

extension RollbackRow {
    init(_ report: Rollback.Report) {
        self.init(
            items: report.results.map {
                Item(projection: $0.projection, version: $0.version, position: $0.position, paused: $0.isHeld)
            }, blockedMilliseconds: report.blockedMilliseconds, remarks: report.remarks)
    }
}
