import Access
import Campaigns
import Certificates
import ControlAPI
import Deciding
import EventLog
import EventModel
import Evidence
import Foundation
import History
import Ingest
import Issuing
import Jobs
import Logging
import Outbox
import Postgres
import PostgresStore
import Primitives
import PrivateServices
import Projecting
import Projections
import Queries
import Settings
import Snapshots
import Threading

// The composition root: what `refold run` is made of, the order in which it starts, and the order in which it stops.
//
//     start   private services → log (recovery) → database (one attempt) → API → projectors → upkeep of the log
//             → deciders → commands → brokers
//     stop    brokers (durable, then acknowledged) → API → commands → deciders → upkeep → projectors (commit) → log
//             → private services
//
// What runs is a `DaemonPart` in one service group: a part has ended before the one before it is stopped.
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

    private let parts: RunningParts
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
                description: "cannot create the data folder \(settings.data): \(error.localizedDescription)",
                exitCode: 2)
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
        let decider = DeciderService<CampaignState>(
            writer: decisions, source: log, clock: { log.now() }, outbox: commands
        ) {
            snapshots.folder.newest(CampaignState.self, horizon: log.horizon, report: passOver)
        }
        let tokens = AccessDecider(writer: decisions, source: log, clock: { log.now() }) {
            snapshots.folder.newest(AccessState.self, horizon: log.horizon, report: passOver)
        }
        let queries = QueryPool(databaseURL: databaseURL, size: DatabaseConnections.reads)
        let certificates = CertificateIssuing(
            settings, log: log, writer: decisions, outbox: commands
        ) {
            snapshots.folder.newest(CertificateRegistry.self, horizon: log.horizon, report: passOver)
        }
        let jobs = JobProcessing(settings, log: log, writer: decisions, certificates: certificates.service) {
            snapshots.folder.newest(JobQueues.self, horizon: log.horizon, report: passOver)
        }
        let projectors = Self.makeProjectors(
            settings, log: log, databaseURL: databaseURL, snapshots: snapshots, logger: logger)
        let rebuilds = RebuildKeeper(
            log: log, databaseURL: databaseURL, projectors: projectors, snapshots: snapshots, logger: logger)
        let ingest = try IngestService(
            brokers: services.brokers, gate: GateSettings(settings), certificates: certificates.check, log: log,
            history: log, logID: log.report.logID.description,
            notify: { notice in
                logger.log(level: notice.logLevel, "\(notice.text)", metadata: ["broker": "\(notice.broker)"])
            },
            onFatal: onFatal)
        let certificateAudit = certificates.makeAudit(queries, ingest)
        let scrubService = ScrubService(
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
            database: keeper, scrubService: scrubService,
            checkpoints: checkpoints, archive: archive, selfCheck: selfCheck, rebuilds: rebuilds,
            troubles: troubles, check: certificates.check, certificateAudit: certificateAudit,
            enforcers: certificates.enforcers, jobs: jobs.reports)
        let metrics = MetricsCollector(
            reporter: reporter, deadLetters: DeadLetterCounts(queries), startedAt: startedAt,
            limitedDevices: { ingest.mostLimited(20) },
            uncertifiedDevices: { ingest.mostWithoutCertificate(20) })
        let asOf = AsOf(
            log: log, snapshots: snapshots.folder,
            thresholds: settings.presence)
        let system = APIDependencies(
            status: reporter, projections: reporter, campaigns: decider, queries: TableAccess(pool: queries),
            log: FileLogOperations(log: log, projectors: projectors, logger: logger),
            snapshots: snapshots, past: PastAccess(asOf: asOf), rebuilds: rebuilds, tokens: tokens,
            certificates: certificates.service, crls: certificates.crls, certificateAudit: certificateAudit,
            jobs: jobs.service,
            metrics: { await metrics.collect() },
            acknowledgeBroker: { broker, name, reason in
                try await ingest.acknowledge(broker: broker, operator: name, reason: reason)?.rawValue
            },
            gate: { tenant, device in
                ingest.deviceStatistics(tenant: tenant, device: device).map(GateStatistics.init)
            },
            uncertified: { tenant in
                ingest.mostWithoutCertificate(1_000, tenant: tenant).map { broker, device in
                    UncertifiedDeviceRow(device: device.device, broker: broker, messages: device.messages)
                }
            },
            event: { [lookup = EventLookup(log: log)] in try await lookup.event(at: $0) })

        let policy = AccessPolicy(token: token, reachability: Reachability(settings), tokenIndex: tokens.tokenIndex)
        let api = ControlAPI(system: system, policy: policy)
        let server = try await APIServer.start(api, host: settings.httpHost, port: settings.httpPort, logger: logger)
        let receiving = Task { [wait = ClockWait(clock: log.clock, logger: logger)] in await wait.run() }
        parts = await RunningParts.start(
            [
                Self.projecting(projectors, keeper, rebuilds, logger),
                DaemonPart("rebuilds", logger: logger, cancellable: { await rebuilds.run() }),
                DaemonPart(
                    "snapshots", [snapshots.thread], logger: logger, start: { snapshots.start(for: archive.retention) },
                    stop: { snapshots.stop() }),
                DaemonPart(
                    "archive", [archive.thread], logger: logger, start: { archive.start() },
                    stop: { archive.stop() }),
                DaemonPart("retention", logger: logger, cancellable: { await archive.remove(snapshots) }),
                DaemonPart(
                    "checkpoints", checkpoints.threads, logger: logger, start: { checkpoints.start() },
                    stop: { checkpoints.stop() }),
                DaemonPart(
                    "self-check", [selfCheck.thread], logger: logger, start: { selfCheck.start() },
                    stop: { selfCheck.stop() }),
                DaemonPart(
                    "log-care", [scrubService.thread], logger: logger, start: { scrubService.start() },
                    stop: { scrubService.stop() }),
                Self.tokens(tokens, troubles, logger),
                certificates.part(certificateAudit, after: receiving, troubles, logger),
                jobs.part(after: receiving, troubles, logger),
                Self.campaigns(decider, after: receiving, troubles, logger),
                DaemonPart("commands") {
                    guard await receiving.value else { return }
                    commands.start()
                    await DaemonPart.shutdown()
                    // The last acknowledgements are still written down.
                    await commands.stop()
                },
                DaemonPart("api") {
                    await DaemonPart.shutdown()
                    await server.stop()
                },
                Self.receiving(ingest, after: receiving, logger),
            ], logger: logger)
        self.settings = settings
        self.log = log
        self.reporter = reporter
        self.queries = queries
        self.ingest = ingest
        self.services = services
        self.logger = logger
        apiAddress = server.address
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
                        PostgresStore(DatabaseTarget(databaseURL, applicationName: "refold \(name)")),
                        snapshots: snapshots.folder, horizon: { log.horizon },
                        note: { logger.warning("\($0)", metadata: ["projection": "\(name)"]) })
                },
                note: { logger.warning("\($0)", metadata: ["projection": "\(name)"]) })
        }
    }

    /// Orderly: nothing is acknowledged that is not durable, everything folded is committed.
    func stop() async {
        await parts.stop()
        try? await onOwnThread("close") { [log] in log.close() }
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
        self.init(
            accepted: statistics.accepted, rateLimited: statistics.rejected,
            withoutCertificate: statistics.withoutCertificate, tokens: statistics.tokensLeft)
    }
}
