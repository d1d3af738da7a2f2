import EventLog
import EventModel
import Foundation
import Health
import Logging
import Postgres
import PostgresStore
import Settings
import Synchronization
import Threading

/// Keeps an eye on the database: brings its schema up to date before any projector starts, writes the thresholds of
/// presence, and then watches whether it is there and still has the projectors' checkpoints. Nothing waits for it but
/// the projectors.
actor DatabaseKeeper {
    struct State: Sendable {
        var connected = false
        var lastError: String?
        /// The schema is ours and up to date.
        var prepared = false
        /// It is there, but not for us: a newer schema, an old server. Trying again does not help.
        var refused = false
        var examination = DatabaseExamination()
    }

    private let executor = ThreadExecutor(name: "database")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }
    private let target: DatabaseTarget
    private let presence: PresenceThresholds
    private let logID: String
    private let durableCount: @Sendable () -> UInt64
    private let connectionsNeeded: Int
    private let logger: Logger
    private nonisolated let shared = Mutex(State())
    private let interrupt = Interrupt()
    private var connection: Connection?
    private var checkpoints = CheckpointWatch()
    private static let interval = Duration.seconds(1)

    init(url: String, settings: Settings, log: FileLog, connectionsNeeded: Int, logger: Logger) {
        self.connectionsNeeded = connectionsNeeded
        target = DatabaseTarget(url, applicationName: "refold", connectTimeoutSeconds: 3, responseTimeoutSeconds: 20)
        presence = settings.presence
        logID = log.report.logID.description
        durableCount = { log.durableCount }
        self.logger = logger
    }

    nonisolated var state: State { shared.withLock { $0 } }

    /// One attempt to connect and prepare.
    /// - Throws: `MigrationError`, `OtherLogError` or `TransactionPoolerError` when the database can never be used as
    ///   it is.
    func prepare() throws {
        do {
            connection = nil
            let open = try session()
            try Pooler.refuseTransactionMode(open, target)
            let examination = try examine(open)
            guard examination.mayHaveSchema, !examination.isReadOnly else {
                if examination.isReadOnly { connection = nil }
                return set(nil)
            }
            let applied = try Migrator(RefoldSchema.migrations, schema: RefoldSchema.name).run(on: open)
            for migration in applied { logger.info("applied the migration \(migration.number)_\(migration.name)") }
            try RefoldSchema.write(presence, open)
            try RefoldSchema.bind(open, logID: logID, durableCount: durableCount())
            set(nil, prepared: true)
        } catch let error
            where error is MigrationError || error is OtherLogError || error is TransactionPoolerError
        {
            shared.withLock { $0 = State(connected: true, lastError: "\(error)", prepared: false, refused: true) }
            throw error
        } catch let error as PostgresError {
            report(error)
        } catch {
            connection = nil
            set("\(error)")
        }
    }

    /// The connection, or a new one. Its statements have no time limit of the role's: `target` limits the waiting.
    private func session() throws(PostgresError) -> Connection {
        if let connection, connection.isUsable { return connection }
        let open = try Connection(target, interrupt: interrupt) { [logger] notice in
            logger.info("database: \(notice)")
        }
        connection = open
        checkpoints.restart()
        try open.exec("set statement_timeout = 0", name: "set up the session")
        return open
    }

    /// See `RefoldSchema.flushedPositions`; nil when the database does not answer.
    func flushedPositions() -> [String: Position]? {
        do {
            return try RefoldSchema.flushedPositions(session())
        } catch {
            connection = nil
            return nil
        }
    }

    /// Runs `body`, which prepares and watches. When the task is cancelled, the database's answer is not waited for.
    nonisolated func interruptible(_ body: () async -> Void) async {
        await withTaskCancellationHandler(operation: body) {
            interrupt.signal()
            executor.wake()
        }
    }

    /// Prepares until it succeeds, or until the task is cancelled: then false.
    func untilPrepared() async -> Bool {
        var wait = Duration.milliseconds(200), reported: String?
        while !Task.isCancelled, !state.prepared {
            do {
                try prepare()
            } catch {
                if reported != "\(error)" { logger.error("the database cannot be used: \(error)") }
                reported = "\(error)"
            }
            if state.prepared { break }
            _ = await rest(wait)
            wait = min(wait * 2, .seconds(5))
        }
        return !Task.isCancelled
    }

    /// Watches until the task is cancelled.
    /// - Parameter changed: gets the names of projections whose checkpoints may have changed; nil: all.
    func watch(changed: @Sendable (Set<String>?) -> Void) async {
        var examines = false
        while await rest(Self.interval) {
            // The examination costs more, and what it finds changes rarely.
            examines = !examines || connection == nil
            if examines { ask() }
            readCheckpoints(changed)
        }
    }

    /// Rests on the actor's own thread, and lets other calls in. False once the task is cancelled.
    private func rest(_ duration: Duration) async -> Bool {
        let end = ContinuousClock.now + duration
        while !Task.isCancelled {
            let left = end - .now
            guard left > .zero else { return true }
            executor.rest(milliseconds: Int(left / .milliseconds(1)) + 1)
            if executor.hasJobs { await Task.yield() }
        }
        return false
    }

    /// A schema that somebody dropped is made again: the projectors then find no checkpoint and refold from the log.
    private func ask() {
        do {
            let examination = try examine(session())
            // Its setting may outlive the cause: the next examination has a new session.
            if examination.isReadOnly { connection = nil }
            guard examination.hasSchema || examination.isReadOnly else {
                logger.warning("the schema refold is gone: it is made again and refolded from the log")
                return try prepare()
            }
            set(nil)
        } catch let error as PostgresError {
            report(error)
        } catch {
            logger.error("the database cannot be used: \(error)")
        }
    }

    private func readCheckpoints(_ changed: (Set<String>?) -> Void) {
        // Without one, the examination has failed: the projectors find out, each on its own connection.
        guard let open = connection else { return changed(nil) }
        do {
            let names = try checkpoints.changes(open)
            if names != [] { changed(names) }
        } catch {
            // Not while somebody locks the table: the projectors would wait as well.
            if error.sqlState != "55P03" { changed(nil) }
            // The examination reports what a server that answers refuses.
            if !open.isUsable { report(error) }
        }
    }

    private func examine(_ open: Connection) throws(PostgresError) -> DatabaseExamination {
        let examination = try DatabaseExamination(open, connectionsNeeded: connectionsNeeded)
        let before = shared.withLock { state in
            defer { state.examination = examination }
            return state.examination
        }
        if examination.isReadOnly, !before.isReadOnly {
            logger.warning("the database takes no writes: it is a standby, or default_transaction_read_only is on")
        }
        if !examination.missingGrants.isEmpty, examination.missingGrants != before.missingGrants {
            let grants = examination.missingGrants.joined(separator: "; ")
            logger.warning("the database role lacks rights", metadata: ["grant": "\(grants)"])
        }
        if let text = examination.connectionShortage, text != before.connectionShortage {
            logger.warning("too few database connections", metadata: ["limit": "\(text)"])
        }
        return examination
    }

    /// An error of PostgreSQL itself is not reported as an unreachable database when it says what to mend.
    private func report(_ error: PostgresError) {
        let remedy = connection.flatMap { $0.isUsable ? DatabaseRemedy(error, $0) : nil }
        connection = nil
        switch remedy {
        case nil: set("\(error)")
        case .grant(let grant)?:
            let isNew = shared.withLock { state in
                defer { state.examination.missingGrants = [grant] }
                return state.examination.missingGrants != [grant]
            }
            if isNew { logger.warning("the database role lacks rights", metadata: ["grant": "\(grant)"]) }
            set(nil)
        case .unusable(let text)?:
            set(text, answers: true)
        }
    }

    /// - Parameter answers: the server is there, and refuses.
    private func set(_ problem: String?, prepared: Bool = false, answers: Bool = false) {
        let before = shared.withLock { state in
            let before = state
            state.connected = problem == nil || answers
            state.refused = answers
            state.lastError = problem
            state.prepared = state.prepared || prepared
            return before
        }
        if let problem, answers {
            if before.lastError != problem { logger.error("the database cannot be used: \(problem)") }
        } else if let problem, before.lastError != problem {
            logger.warning(
                "the database cannot be reached: \(problem). The log goes on; the tables catch up by themselves"
            )
        } else if problem == nil, before.lastError != nil {
            logger.info("connected to the database again")
        }
    }
}

extension DatabaseKeeper.State {
    var facts: HealthFacts.Database {
        var facts = HealthFacts.Database()
        facts.isConnected = connected
        facts.isRefused = refused
        facts.isReadOnly = examination.isReadOnly
        facts.missingGrants = examination.missingGrants
        facts.connectionShortage = examination.connectionShortage
        facts.lastError = lastError
        return facts
    }
}
