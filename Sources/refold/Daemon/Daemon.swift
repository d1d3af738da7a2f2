import Access
import Campaigns
import ControlAPI
import Deciding
import Dispatching
import EventLog
import EventModel
import Evidence
import Foundation
import Ingest
import Logging
import Postgres
import PostgresStore
import Primitives
import PrivateServices
import Projecting
import Projections
import Queries
import Replay
import Settings
import Snapshots
import Threading

// The composition root: what `refold run` is made of, the order in which it starts, and the order in which it stops.
//
//     start   private services → log (recovery) → database (one attempt) → decider → API → projectors → brokers
//             → campaigns
//     stop    brokers (durable, then acknowledged) → API → commands → campaigns → projectors (commit) → log → private
//             services
//
// PostgreSQL and the brokers may be away at any time; the log may not.

/// A daemon that is running. Made by `start`, ended by `stop`.
final class Daemon: Sendable {
    let settings: Settings
    let log: FileLog
    let reporter: StatusReporter
    let queries: QueryPool
    let ingest: IngestService
    let services: PrivateServerSet
    /// `HOST:PORT` that the API listens on.
    let apiAddress: String

    private let projectors: [Projector]
    private let api: APIServer
    private let care: LogCare
    private let checkpoints: CheckpointPublisher
    private let archive: LogArchive
    private let snapshots: SnapshotKeeper
    private let rebuilds: RebuildKeeper
    private let commands: CommandPublisher
    private let background: Task<Void, Never>
    private let access: Task<Void, Never>
    private let engine: Task<Void, Never>
    /// Whether the clock was right and receiving has begun.
    private let receiving: Task<Bool, Never>
    private let logger: Logger

    /// - Parameter onFatal: the log can no longer be written; the process must end, acknowledging nothing.
    static func start(
        _ settings: Settings, acceptClock: Bool, adoptsSession: Bool, logger: Logger,
        onFatal: @escaping @Sendable (String) -> Void
    ) async throws -> Daemon {
        do {
            try FileManager.default.createDirectory(
                atPath: settings.data, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o750])
        } catch {
            throw StartError(
                "cannot create the data folder \(settings.data): \(error.localizedDescription)", exitCode: 2)
        }
        var folder = stat()
        if stat(settings.data, &folder) == 0, folder.st_uid != geteuid(), folder.st_uid != 0 {
            logger.warning(
                "the data folder belongs to another user, who can modify the log; chown it",
                metadata: ["data": "\(settings.data)", "owner": "\(folder.st_uid)"])
        }
        // The log first: its lock says whether the folder, private services included, is ours.
        var options = FileLogOptions()
        options.segmentBytes = settings.segmentBytes
        options.sealAfterSeconds = settings.archiveTimeoutSeconds
        options.acceptClock = acceptClock
        options.signer = { (logID) throws(LogError) in
            try LogKey.open(dataFolder: settings.data, logID: logID)
        }
        options.onFailure = onFatal
        options.onSlowSync = { seconds in
            logger.warning(
                "an fdatasync of the log took \((seconds * 10).rounded() / 10) s: the disk is slow or failing"
            )
        }
        let log = try FileLog.open(directory: settings.data + "/log", options: options)
        if let torn = log.report.torn { logger.warning("\(torn)") }
        for range in log.report.corrupt { logger.error("\(range)") }
        do {
            return try await start(
                settings, log: log, adoptsSession: adoptsSession, logger: logger, onFatal: onFatal)
        } catch {
            try? await onOwnThread("close") { log.close() }
            throw error
        }
    }

    private static func start(
        _ settings: Settings, log: FileLog, adoptsSession: Bool, logger: Logger,
        onFatal: @escaping @Sendable (String) -> Void
    ) async throws -> Daemon {
        let services = try await PrivateServerSet.start(
            for: settings, logID: log.report.logID.description, adoptsSession: adoptsSession, logger: logger)
        do {
            return try await Daemon(settings, log: log, services: services, logger: logger, onFatal: onFatal)
        } catch {
            await services.stop()
            throw error
        }
    }

    private init(
        _ settings: Settings, log: FileLog, services: PrivateServerSet, logger: Logger,
        onFatal: @escaping @Sendable (String) -> Void
    ) async throws {
        let startedAt = wallClock()
        let token = try TokenFile.loadOrCreate(inFolder: settings.data)
        let databaseURL = services.databaseURL
        let keeper = DatabaseKeeper(
            url: databaseURL, settings: settings, log: log, connectionsNeeded: DatabaseConnections.needed,
            logger: logger)
        try await keeper.prepare()

        // Install restore_command before the first reader opens.
        let archive = try LogArchive(settings, log: log, database: keeper, logger: logger)
        let snapshots = SnapshotKeeper(settings, log: log, logger: logger)
        let commands = CommandPublisher(
            brokers: services.brokers, logID: log.report.logID.description,
            notify: { notice in
                logger.log(level: notice.logLevel, "\(notice.text)", metadata: ["broker": "\(notice.broker)"])
            })
        let decisions = DecisionWriter(log)
        let passOver: @Sendable (SnapshotError) -> Void = { logger.error("a damaged snapshot is passed over: \($0)") }
        let decider = CampaignDecider(writer: decisions, source: log, clock: { log.now() }, sender: commands) {
            snapshots.folder.newest(CampaignState.self, horizon: log.horizon, report: passOver)
        }
        let tokens = AccessDecider(writer: decisions, source: log, clock: { log.now() }) {
            snapshots.folder.newest(AccessState.self, horizon: log.horizon, report: passOver)
        }
        let projectors = Self.makeProjectors(
            settings, log: log, databaseURL: databaseURL, snapshots: snapshots, logger: logger)
        let rebuilds = RebuildKeeper(
            log: log, databaseURL: databaseURL, projectors: projectors, snapshots: snapshots, logger: logger)
        let ingest = try IngestService(
            brokers: services.brokers, gate: GateSettings(settings), log: log, history: log,
            logID: log.report.logID.description,
            notify: { notice in
                logger.log(level: notice.logLevel, "\(notice.text)", metadata: ["broker": "\(notice.broker)"])
            },
            onFatal: onFatal)
        let care = LogCare(
            log: log, folder: settings.data, scrubBytesPerSecond: settings.scrubBytesPerSecond, logger: logger)
        let checkpoints = CheckpointPublisher(
            log: log, brokers: settings.publishesCheckpoints ? services.brokers : [],
            command: settings.checkpointCommand.map {
                ShellCommand($0, timeoutSeconds: settings.commandTimeoutSeconds)
            }, logger: logger)
        let selfCheck = SelfCheck(settings, log: log, databaseURL: databaseURL, logger: logger)
        let troubles = Troubles()
        let reporter = StatusReporter(
            log: log, projectors: projectors, ingest: { ingest.statuses }, commands: commands,
            database: keeper, care: care,
            checkpoints: checkpoints, archive: archive, selfCheck: selfCheck, rebuilds: rebuilds,
            troubles: troubles)
        let queries = QueryPool(databaseURL: databaseURL, size: DatabaseConnections.reads)
        let metrics = MetricsCollector(
            reporter: reporter, deadLetters: DeadLetterCounts(queries), startedAt: startedAt,
            limitedDevices: { ingest.mostLimited(20) })
        let asOf = AsOf(
            log: log, snapshots: snapshots.folder,
            thresholds: settings.presence)
        let system = SystemAccess(
            status: reporter, projections: reporter, campaigns: decider, queries: TableAccess(pool: queries),
            keeping: LogKeeper(log: log, projectors: projectors, logger: logger),
            snapshots: snapshots, past: PastAccess(asOf: asOf), rebuilds: rebuilds, tokens: tokens,
            metrics: { await metrics.collect() },
            acknowledgeBroker: { broker, name, reason in
                try await ingest.acknowledge(broker: broker, operator: name, reason: reason)?.rawValue
            },
            gate: { tenant, device in
                ingest.deviceStatistics(tenant: tenant, device: device).map(GateStatistics.init)
            },
            event: { [lookup = EventLookup(log: log)] in try await lookup.event(at: $0) })

        let policy = AccessPolicy(token: token, reachability: Reachability(settings), book: tokens.book)
        let api = ControlAPI(system: system, policy: policy)
        let server = try await APIServer.start(api, host: settings.httpHost, port: settings.httpPort, logger: logger)
        background = Task {
            await keeper.watch {
                await rebuilds.begin()
                for projector in projectors { Task { await projector.run() } }
                logger.info("projecting into the database")
            }
        }
        let wait = ClockWait(clock: log.clock, logger: logger)
        let receiving = Task {
            guard await wait.run() else { return false }
            ingest.start()
            commands.start()
            return true
        }
        self.receiving = receiving
        care.start()
        selfCheck.start()
        checkpoints.start()
        archive.start(snapshots)
        snapshots.start(for: archive.retention)
        // Recovers the deciders in the background: ingest neither waits for them nor stops with them. Only commands and
        // tokens of the log need the recovered state.
        self.access = Task {
            await Self.recover(tokens, troubles, logger)
            for await _ in tokens.stateLosses { await Self.recover(tokens, troubles, logger) }
        }
        engine = Task {
            guard await receiving.value else { return }
            await decider.run { error in
                troubles.deciderFailed(error)
                logger.error("campaign engine stopped; retrying in 2 s", metadata: ["error": "\(error)"])
            }
        }
        self.settings = settings
        self.log = log
        self.reporter = reporter
        self.commands = commands
        self.care = care
        self.checkpoints = checkpoints
        self.archive = archive
        self.snapshots = snapshots
        self.rebuilds = rebuilds
        self.queries = queries
        self.ingest = ingest
        self.services = services
        self.projectors = projectors
        self.logger = logger
        self.api = server
        apiAddress = server.address
    }

    /// A damaged log may be repaired while the daemon runs: it is tried until it is done.
    private static func recover(_ tokens: AccessDecider, _ troubles: Troubles, _ logger: Logger) async {
        var isTold = false
        while !Task.isCancelled {
            do {
                try await tokens.recover()
                troubles.tokenError = nil
                return
            } catch {
                if !isTold { logger.error("cannot read tokens back; only the data folder's token works: \(error)") }
                troubles.tokenError = "\(error)"
                isTold = true
            }
            try? await Task.sleep(for: .seconds(2))
        }
    }

    private static func makeProjectors(
        _ settings: Settings, log: FileLog, databaseURL: String, snapshots: SnapshotKeeper, logger: Logger
    ) -> [Projector] {
        Catalog.entries.map { entry in
            var options = ProjectorOptions()
            options.stateBytesMax = settings.stateBytes
            options.minimumCommitInterval = entry.descriptor.minimumCommitInterval
            let name = entry.descriptor.name
            return Projector(
                entry.descriptor, source: log, options: options, makeFold: { entry.makeFold($0) },
                makeStore: {
                    SeededStore(
                        PostgresStore(Target(databaseURL, applicationName: "refold \(name)")),
                        snapshots: snapshots.folder, horizon: { log.horizon },
                        note: { logger.warning("\($0)", metadata: ["projection": "\(name)"]) })
                },
                note: { logger.warning("\($0)", metadata: ["projection": "\(name)"]) })
        }
    }

    /// How long all background threads together may take to end; then the log is closed.
    private static let joinMicros: Int64 = 2_000_000

    /// Orderly: nothing is acknowledged that is not durable, everything folded is committed.
    func stop() async {
        receiving.cancel()
        let hasReceived = await receiving.value
        if hasReceived, !(await ingest.stop()) {
            logger.warning("a broker connection did not end in time; nothing is lost by that")
        }
        await api.stop()
        care.stop()
        reporter.selfCheck.stop()
        checkpoints.stop()
        archive.stop()
        snapshots.stop()
        rebuilds.stop()
        background.cancel()
        access.cancel()
        // The last acknowledgements are still written down.
        if hasReceived { await commands.stop() }
        engine.cancel()
        await engine.value
        await withTaskGroup(of: Void.self) { group in
            // One that was never started (no database yet) has nothing to stop.
            for projector in projectors where reporter.database.state.prepared {
                group.addTask { await projector.stop() }
            }
        }
        let threads = [
            ("log-care", care.thread), ("self-check", reporter.selfCheck.thread), ("checkpoints", checkpoints.thread),
            ("archive", archive.thread), ("snapshots", snapshots.thread),
        ]
        try? await onOwnThread("close") { [log, logger] in
            let end = SystemTime.monotonicMicroseconds() + Self.joinMicros
            for (name, thread) in threads {
                let left = max(0, end - SystemTime.monotonicMicroseconds())
                if thread.join(milliseconds: Int(left / 1_000)) { continue }
                logger.warning("a background thread still runs; closing the log", metadata: ["thread": "\(name)"])
            }
            log.close()
        }
        await services.stop()
        logger.info("stopped in order at position \(log.durableCount) (events durable)")
    }
}

/// Why the daemon does not start. The text says what to do.
struct StartError: Error, CustomStringConvertible {
    /// Exit code of `run` when another process holds the lock or the port. It passes, so that a service manager starts
    /// the daemon again, which it does not after 2.
    static let inUse: Int32 = 4

    let description: String
    let exitCode: Int32

    init(_ description: String, exitCode: Int32) {
        self.description = description
        self.exitCode = exitCode
    }
}

extension IngestNotice {
    var logLevel: Logger.Level {
        switch level {
        case .info: .info
        case .warning: .warning
        case .error: .error
        }
    }
}

extension Reachability {
    init(_ settings: Settings) {
        self.init(
            bindHost: settings.httpHost, hosts: settings.httpHosts,
            proxies: settings.httpProxies.compactMap { AddressRange($0) })
    }
}

extension GateSettings {
    init(_ settings: Settings) {
        self.init()
        payloadBytesMax = settings.payloadBytesMax
        messagesPerSecond = Double(settings.ratePerSecond)
        burst = settings.burst
        devicesTrackedMax = settings.devicesTrackedMax
    }
}

extension GateStatistics {
    init(_ statistics: DeviceStatistics) {
        self.init(accepted: statistics.accepted, rateLimited: statistics.rejected, tokens: statistics.tokensLeft)
    }
}
