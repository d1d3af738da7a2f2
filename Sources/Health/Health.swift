// Health: what "healthy" means, defined once.
//
// `Health(facts)` is a pure function: the facts of one moment in, a verdict out. The program gathers the facts; status,
// /healthz, /readyz, the watchdog and the metric refold_problems all show this verdict and nothing else. A fault that
// must be visible is a case of `ReasonCode`, a fact, a line below, and a row of the table in Tests/HealthTests.
//
// Invariants. `healthy` means: no problem. Only a thread that misses its heartbeat makes the daemon not live, since a
// restart cures that; a database that is down, a full disk and a paused projection do not. One cause gives one problem:
// its consequences (nine projections that wait for one database) are suppressed.

import EventModel

/// The verdict of one moment.
public struct Health: Sendable, Equatable {
    public enum State: String, Codable, Sendable { case healthy, degraded, held }

    public var problems: [Problem]

    public init(_ facts: HealthFacts) {
        problems = []
        facts.brokers.forEach { add($0) }
        add(facts.database)
        let isDatabaseAway =
            !facts.database.isConnected || facts.database.isRefused || facts.database.isReadOnly
        facts.projections.forEach { add($0, isDatabaseAway: isDatabaseAway) }
        if facts.rowsDiffering > 0 {
            add(
                .tablesDiffer,
                text: "\(facts.rowsDiffering) rows of the tables are not what the log gives: "
                    + "refold replay verify shows them")
        }
        add(facts.log)
        add(facts.process)
        for queue in facts.queues where queue.waitsSeconds > Self.jobWaitSecondsMax {
            add(
                .jobsWaiting, queue.name,
                "\(queue.ready) jobs of the queue \(queue.name) could start, the first one for "
                    + "\(whole(queue.waitsSeconds / 60)) min")
        }
        if facts.poisonedJobs > 0 {
            add(.jobsPoisoned, text: "jobs that ended without a result three times: \(facts.poisonedJobs)")
        }
        facts.crls.forEach { add($0) }
        for (broker, text) in facts.crlsUnproved.sorted(by: { $0.key < $1.key }) { add(.crlUnproved, broker, text) }
        for (broker, text) in facts.clientsUncut.sorted(by: { $0.key < $1.key }) { add(.clientsUncut, broker, text) }
        for (authority, end) in facts.authoritiesExpiring.sorted(by: { $0.key < $1.key }) {
            let text = "the authority \(authority) expires \(end) and has no successor"
            add(.authorityExpiring, authority, text)
        }
    }

    public var state: State {
        if problems.contains(where: { $0.code.effect.isHeld }) { return .held }
        return problems.isEmpty ? .healthy : .degraded
    }

    /// Messages are taken in and may be acknowledged: every broker is connected and subscribed at QoS 1.
    public var notReady: [Problem] { problems.filter { $0.code.effect.isUnready } }

    /// A thread missed its heartbeat. /healthz answers 503 and the watchdog is not fed.
    public var stuck: [Problem] { problems.filter { $0.code.effect.isDead } }

    // MARK: Limits

    /// A projection that is further behind is a problem.
    public static let lagSecondsMax = 20.0
    /// Attempts may fail for so long (tables that were exchanged, a restart of the database) before that is a problem.
    public static let failingSecondsMax = 5.0
    /// Less time than that until the disk is full.
    public static let diskFullSecondsMin = 3600.0
    /// A job that could have started so long ago lacks a worker.
    public static let jobWaitSecondsMax = 900.0
    /// A CRL that cannot be followed by another one is urgent in this last share of its life.
    public static let crlLifeShareMin = 0.25
    /// Open file descriptors as a share of the process limit.
    public static let descriptorsShareMax = 0.9

    // MARK: Rules

    private mutating func add(_ broker: HealthFacts.Broker) {
        let name = broker.name
        if broker.isHeld {
            let why = broker.lastError ?? "the disk is full"
            add(.diskFull, name, "broker \(name) is held, nothing is read or acknowledged: \(why)")
        } else if !broker.isConnected {
            add(.brokerDisconnected, name, "broker \(name) is not connected: \(broker.lastError ?? "connecting")")
        } else if !broker.isSubscribed {
            add(.brokerNotSubscribed, name, "broker \(name): no subscription at QoS 1 is in force")
        } else if broker.granted.contains(where: { $0 < 1 }) {
            add(.brokerQoSLowered, name, "broker \(name) granted the subscription at QoS 0: messages may be lost")
        }
        if let seconds = broker.overdueSeconds {
            add(.ingestStuck, name, "the thread of broker \(name) has not moved for \(whole(seconds)) s too long")
        }
        for alarm in broker.alarms {
            // Reported above already.
            if problems.contains(where: { $0.code == alarm.code && $0.object == name }) { continue }
            add(alarm.code, name, "broker \(name): \(alarm.text)", since: alarm.since)
        }
        if broker.commandsRefused > 0 {
            let error = broker.commandError ?? "no reason given"
            add(
                .commandsRefused, name,
                "broker \(name) refuses the commands of \(broker.commandsRefused) devices: \(error)")
        } else if broker.commandsWaiting > 0 {
            add(
                .commandsWaiting, name,
                "broker \(name): \(broker.commandsWaiting) commands wait: \(broker.commandError ?? "connecting")")
        }
    }

    private mutating func add(_ database: HealthFacts.Database) {
        let error = database.lastError
        if !database.isConnected {
            add(.databaseUnreachable, text: "the database cannot be reached: \(error ?? "connecting")")
        } else if database.isRefused {
            add(.databaseUnusable, text: "the database cannot be used: \(error ?? "unknown")")
        } else if database.isReadOnly {
            add(.databaseReadOnly, text: "the database takes no writes: \(error ?? "it is read-only")")
        }
        if !database.missingGrants.isEmpty {
            let grants = database.missingGrants.joined(separator: "; ")
            add(.databaseRights, text: "the database role lacks rights; as the database's owner run: \(grants)")
        }
        if let text = database.connectionShortage { add(.databaseConnections, text: text) }
    }

    private mutating func add(_ projection: HealthFacts.Projection, isDatabaseAway: Bool) {
        let name = projection.name, error = projection.lastError ?? "unknown"
        if let seconds = projection.overdueSeconds {
            add(
                .projectionStuck, name,
                "the thread of projection \(name) has not moved for \(whole(seconds)) s too long")
        }
        if projection.hasFailed {
            add(.projectionFailed, name, "projection \(name) has failed: \(error)")
        } else if projection.isPaused {
            let why = projection.pauseReason ?? "by command; refold projection resume \(name) ends that"
            add(.projectionPaused, name, "projection \(name) is paused: \(why)")
        } else if isDatabaseAway {
            // Suppressed: a consequence of the database problem.
        } else if let seconds = projection.failingSeconds, seconds > Self.failingSecondsMax {
            add(.projectionWaiting, name, "projection \(name) cannot write its tables: \(error)")
        } else if projection.lagSeconds > Self.lagSecondsMax {
            add(
                .projectionLagging, name,
                "projection \(name) is \(whole(projection.lagSeconds)) s and \(projection.lagEvents) events behind")
        }
        if projection.parkedKeys > 0 {
            let keys = projection.parkedKeys == 1 ? "1 key is" : "\(projection.parkedKeys) keys are"
            add(
                .keysParked, name,
                "\(name): \(keys) parked, the first \(projection.firstParked ?? "unknown"). "
                    + "When that is mended: refold dead-letters retry")
        }
    }

    private mutating func add(_ log: HealthFacts.Log) {
        if let seconds = log.overdueSeconds {
            add(.logStuck, text: "the log's writer has not made events durable for \(whole(seconds)) s too long")
        }
        if log.damagedPlaces > 0 {
            add(
                .logDamaged,
                text: "the log is damaged in \(log.damagedPlaces) places: refold log verify says where and what to do")
        }
        if let first = log.damagedSegments.first {
            add(
                .segmentsDamaged,
                text: "\(log.damagedSegments.count) damaged files of the log are kept as they are, "
                    + "the first is \(first): refold log verify says what is lost")
        }
        if let text = log.sealingProblem {
            add(.segmentsNotSealed, text: "files of the log are not packed and sealed: \(text)")
        }
        if let waiting = log.archiveWaiting {
            let why = log.archiveError ?? "it is slow"
            add(.archiveBehind, text: "the archive is behind by \(waiting) segments: \(why)")
        }
        if let text = log.treeProblem { add(.logNotSigned, text: "the log's tree is not signed: \(text)") }
        if let text = log.checkpointError {
            add(.checkpointsStay, text: "checkpoints do not leave this machine: \(text)")
        }
        if let text = log.retentionProblem {
            add(.retentionBlocked, text: "a segment that the retention rules want removed must stay: \(text)")
        }
        if let seconds = log.diskFullSeconds, seconds < Self.diskFullSecondsMin {
            add(.diskFilling, text: "the disk of the log is full in \(whole(seconds / 60)) min at the present rate")
        }
        if let text = log.clockProblem { add(.clockNotTrusted, text: text) }
    }

    private mutating func add(_ process: HealthFacts.Process) {
        if process.linesDroppedLately > 0 {
            add(
                .logLinesDropped,
                text: "\(process.linesDroppedLately) lines of the program's log were dropped in the last minute")
        }
        if process.descriptorsMax > 0,
            Double(process.descriptorsOpen) > Self.descriptorsShareMax * Double(process.descriptorsMax)
        {
            add(
                .descriptorsShort,
                text: "\(process.descriptorsOpen) of \(process.descriptorsMax) file descriptors are open")
        }
        if let text = process.deciderError {
            add(.campaignsStopped, text: "the campaign engine stopped; commands are refused: \(text)")
        }
        if let text = process.tokenError {
            add(.tokensUnreadable, text: "only the data folder's token is accepted: \(text)")
        }
        if let text = process.jobError { add(.jobsUnreadable, text: "no job starts: \(text)") }
        if let text = process.certificateError {
            let waiting = process.awaitsCertificates ? "; no message is received, messages wait at the brokers" : ""
            add(
                .certificatesUnreadable,
                text: "no certificate is issued or revoked, and no CRL issued\(waiting): \(text)")
        } else {
            if let text = process.renewalError {
                add(.renewalsWaiting, text: "certificates of devices are not renewed: \(text)")
            }
            if let text = process.auditError {
                add(
                    .certificatesNotAudited,
                    text: "certificates cannot be audited, and findings are out of date: \(text)")
            }
        }
    }

    private mutating func add(_ crl: HealthFacts.CRL) {
        let isUrgent = crl.secondsLeft.map { $0 < Self.crlLifeShareMin * crl.lifetimeSeconds } ?? false
        add(isUrgent ? .crlExpiring : .crlNotIssued, crl.authority, crl.error)
    }

    private mutating func add(_ code: ReasonCode, _ object: String? = nil, _ text: String, since: Timestamp? = nil) {
        problems.append(Problem(code: code, object: object, since: since, text: text))
    }

    private mutating func add(_ code: ReasonCode, text: String) { add(code, nil, text) }

    private func whole(_ seconds: Double) -> String { "\(UInt64(exactly: max(0, seconds).rounded()) ?? .max)" }
}

/// One thing that is wrong.
public struct Problem: Sendable, Equatable {
    public var code: ReasonCode
    /// The broker, projection or authority that it is about; nil when it is about the whole.
    public var object: String?
    /// When it began; nil where the facts do not say, see `ProblemMemory`.
    public var since: Timestamp?
    /// One sentence for people, with the evidence.
    public var text: String
}
