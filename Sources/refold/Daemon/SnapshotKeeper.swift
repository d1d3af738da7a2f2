import Access
import Campaigns
import Certificates
import ControlAPI
import EventLog
import EventModel
import Foundation
import History
import Jobs
import Logging
import Settings
import Snapshots
import Synchronization
import Threading

extension SnapshotFolder {
    /// The snapshots of a data folder.
    static func of(dataFolder: String, logID: LogID?) -> SnapshotFolder {
        SnapshotFolder(dataFolder + "/snapshots", logID: logID)
    }
}

extension SnapshotMaker {
    init(
        log: any LogSource, logID: LogID, folder: SnapshotFolder,
        now: @escaping @Sendable () -> Timestamp = { wallClock() }
    ) {
        self.init(
            source: log, logID: logID, folder: folder,
            deciders: [
                .of(CampaignState.self), .of(AccessState.self), .of(CertificateRegistry.self), .of(JobQueues.self),
            ], now: now)
    }
}

/// Makes snapshots while the daemon runs: when the log has grown enough, when retention waits for one, and when it is
/// told to; and removes those that are of no use any more. One at a time, at low priority.
final class SnapshotKeeper: Sendable {
    let folder: SnapshotFolder
    private let log: FileLog
    private let logBytes: Int?
    private let logger: Logger
    private let isBusy = Mutex(false)
    let thread = ServiceThread()
    private let cancel = Mutex<(@Sendable () -> Void)?>(nil)

    /// The log must have grown by so many times the last snapshot's size.
    static let growthFactor = 10
    private static let lookMilliseconds = 5_000
    /// After a failure.
    private static let pauseMilliseconds = 60_000

    init(_ settings: Settings, log: FileLog, logger: Logger) {
        self.log = log
        self.logger = logger
        logBytes = settings.snapshotLogBytes
        folder = .of(dataFolder: settings.data, logID: log.logID)
    }

    /// Where the newest one ends that can be used; 0 when there is none.
    var coveredThrough: Position { (try? folder.newest(atOrBefore: Position(.max)))??.end ?? Position(0) }

    /// - Parameter retention: what waits for snapshots, too.
    func start(for retention: Retention) {
        thread.start(name: "snapshots", nice: 10) { [self] in run(retention) }
    }

    /// One that is being made is given up.
    func stop() {
        thread.stop()
        cancel.withLock { $0 }?()
    }

    private func run(_ retention: Retention) {
        var wait = Self.lookMilliseconds
        while true {
            thread.rest(milliseconds: wait)
            if thread.isStopping { return }
            wait = Self.lookMilliseconds
            do {
                if try isDue(retention) { _ = try makeNow() }
            } catch is CancellationError {
                return
            } catch {
                logger.error("cannot make a snapshot; retrying in 60 s: \(error)")
                wait = Self.pauseMilliseconds
            }
        }
    }

    private func isDue(_ retention: Retention) throws -> Bool {
        let newest = try folder.newest(atOrBefore: Position(.max))
        if let needed = retention.needsCoverThrough, newest?.end ?? Position(0) < needed { return true }
        guard let logBytes else { return false }
        let grown = try log.usedBytes(from: newest?.end ?? Position(0))
        return grown >= UInt64(max(logBytes, Self.growthFactor * (newest?.byteCount ?? 0)))
    }

    /// Nil when one is being made. Blocks.
    func makeNow() throws -> MadeSnapshot? {
        guard
            isBusy.withLock({ busy in
                defer { busy = true }; return !busy
            })
        else { return nil }
        defer { isBusy.withLock { $0 = false } }
        let began = ContinuousClock.now
        var maker = SnapshotMaker(log: log, logID: log.logID, folder: folder, now: { [log] in log.now() })
        maker.options.threads = 1
        maker.note = { [logger] in logger.error("a damaged snapshot is passed over: \($0)") }
        let made = try maker.make { fold in
            cancel.withLock { $0 = fold.cancel }
            // It may have been told before there was anything to cancel.
            if thread.isStopping { fold.cancel() }
        }
        cancel.withLock { $0 = nil }
        if let event = made.event {
            var batch = event.batch(at: log.now())
            _ = try log.append(&batch)
            let seconds = (ContinuousClock.now - began) / .seconds(1)
            logger.info(
                """
                a snapshot up to position \(made.file.end): \(made.file.byteCount) bytes, from \(made.from), in \
                \((seconds * 10).rounded() / 10) s
                """)
        }
        for name in try folder.prune(horizon: log.horizon) {
            logger.info("\(name) was removed: the log begins at position \(log.horizon)")
        }
        return made
    }
}

extension SnapshotKeeper: SnapshotKeeping {
    func snapshots() async throws -> [SnapshotRow] {
        try await onOwnThread("snapshots") { [folder] in
            var rows: [SnapshotRow] = []
            try folder.forEach { rows.append(SnapshotRow($0)) }
            return rows
        }
    }

    func createSnapshot() async throws -> SnapshotRow? {
        try await onOwnThread("snapshot") { [self] in try makeNow().map { SnapshotRow(.whole($0.file)) } }
    }
}

extension SnapshotRow {
    init(_ item: SnapshotFolder.Item) {
        switch item {
        case .whole(let file):
            self.init(file: String(file.path.split(separator: "/").last ?? ""), end: file.end.rawValue)
            bytes = file.byteCount
            created = file.created.description
            lastTime = file.description.lastTime
            rows = file.description.tables.reduce(0) { $0 + $1.rows }
        case .unusable(let name, let end, let why):
            self.init(file: name, end: end.rawValue)
            error = why.description
        }
    }
}

/// The API's questions of the past.
struct PastAccess: HistoricalQueries {
    private let asOf: AsOf
    private let crls: PastCRLs

    init(asOf: AsOf) { (self.asOf, crls) = (asOf, PastCRLs(asOf)) }

    func device(tenant: String, device: String, at moment: PointInTime) async throws -> PastAnswer? {
        try await answer(moment) { try $0.device(tenant: tenant, device: device, at: $1) }
    }

    func campaign(tenant: String, id: Int64, at moment: PointInTime) async throws -> PastAnswer? {
        try await answer(moment) { try $0.campaign(id, tenant: tenant, at: $1)?.campaign }
    }

    func crl(_ authority: String, at moment: PointInTime) async throws -> PastCRL? {
        try await crls.crl(authority, at: moment)
    }

    private func answer(
        _ name: PointInTime, _ ask: @escaping @Sendable (AsOf, Moment) throws -> NamedRow?
    ) async throws -> PastAnswer? {
        try await onOwnThread("as-of") { [asOf] in
            let moment = try asOf.moment(name)
            return try ask(asOf, moment).map { row in
                PastAnswer(
                    row: JSONRow(row.json), position: moment.end == Position(0) ? nil : moment.end.rawValue - 1,
                    time: moment.time.description)
            }
        }
    }
}

/// Rebuilds CRLs of the past, one at a time: for each, all certificates are read from a snapshot into memory.
private actor PastCRLs {
    private let asOf: AsOf
    private let executor = ThreadExecutor(name: "past-crls")

    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    init(_ asOf: AsOf) { self.asOf = asOf }

    func crl(_ authority: String, at moment: PointInTime) throws -> PastCRL? {
        // The client may have gone while the request waited.
        try Task.checkCancellation()
        return try asOf.crl(of: authority, at: asOf.moment(moment))
    }
}
