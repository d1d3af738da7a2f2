import EventModel
import Testing

@testable import Health

/// A fault, the facts that it produces, and the expected verdict.
struct Fault: Sendable, CustomTestStringConvertible {
    let name: String
    let state: Health.State
    let codes: [ReasonCode]
    let isReady: Bool
    let isLive: Bool
    let facts: HealthFacts

    var testDescription: String { name }
    var row: HealthDocument.Row {
        .init(fault: name, state: state, codes: codes, isReady: isReady, isLive: isLive)
    }

    /// - Parameter facts: changes those of a sound system: two brokers, three projections.
    init(
        _ name: String, _ state: Health.State, _ codes: [ReasonCode] = [], ready: Bool = true, live: Bool = true,
        _ change: (inout HealthFacts) -> Void
    ) {
        self.name = name
        self.state = state
        self.codes = codes
        isReady = ready
        isLive = live
        var facts = Self.sound
        change(&facts)
        self.facts = facts
    }

    static var sound: HealthFacts {
        var facts = HealthFacts()
        facts.brokers = ["north", "south"].map { HealthFacts.Broker(name: $0) }
        facts.projections = ["campaigns", "dead_letters", "device_status"].map { HealthFacts.Projection(name: $0) }
        facts.process.descriptorsOpen = 80
        facts.process.descriptorsMax = 65536
        return facts
    }

    /// What the connection has observed and only it knows.
    static func alarm(_ code: ReasonCode) -> (inout HealthFacts) -> Void {
        { $0.brokers[0].alarms = [.init(code, text: "evidence")] }
    }

    static let table: [Fault] = brokers + database + projections + log + process

    static let brokers: [Fault] = [
        Fault("none", .healthy) { _ in },
        Fault("a broker is down", .degraded, [.brokerDisconnected], ready: false) {
            $0.brokers[0].isConnected = false
            $0.brokers[0].lastError = "connection refused"
        },
        Fault(
            "a broker is frozen, when the keepalive is over (`broker.keepalive_seconds`, at most twice that)",
            .degraded, [.brokerDisconnected], ready: false
        ) {
            $0.brokers[0].isConnected = false
            $0.brokers[0].lastError = "no answer within the keepalive"
        },
        Fault("both brokers are down", .degraded, [.brokerDisconnected, .brokerDisconnected], ready: false) {
            for index in 0..<2 { $0.brokers[index].isConnected = false }
        },
        Fault("connected, SUBACK outstanding", .degraded, [.brokerNotSubscribed], ready: false) {
            $0.brokers[0].isSubscribed = false
        },
        Fault(
            "the broker refuses the subscription", .degraded, [.brokerDisconnected, .brokerSubscriptionRefused],
            ready: false
        ) {
            $0.brokers[0].isConnected = false
            $0.brokers[0].isSubscribed = false
            $0.brokers[0].granted = [135]
            $0.brokers[0].alarms = [.init(.brokerSubscriptionRefused, text: "135")]
        },
        Fault(
            "SUBACK grants QoS 0 (MQTT.js#313)", .degraded, [.brokerNotSubscribed, .brokerQoSLowered], ready: false
        ) {
            $0.brokers[0].isSubscribed = false
            $0.brokers[0].granted = [1, 0]
            $0.brokers[0].alarms = [.init(.brokerQoSLowered, text: "granted 0")]
        },
        Fault(
            "the broker resumes a session of another log", .degraded, [.brokerDisconnected, .brokerForeignSession],
            ready: false
        ) {
            $0.brokers[0].isConnected = false
            $0.brokers[0].alarms = [.init(.brokerForeignSession, text: "evidence")]
        },
        Fault(
            "another client took our session (DISCONNECT 0x8E), before the next attempt", .degraded,
            [.brokerDisconnected, .brokerTakenOver], ready: false
        ) {
            $0.brokers[0].isConnected = false
            $0.brokers[0].alarms = [.init(.brokerTakenOver, text: "evidence")]
        },
        Fault(
            "a takeover, connected again; or a gap of packet ids at Mosquitto", .degraded, [.brokerTakenOver],
            alarm(.brokerTakenOver)),
        Fault("the broker lost our session", .degraded, [.brokerSessionLost], alarm(.brokerSessionLost)),
        Fault(
            "CONNACK caps the session expiry (mosquitto#3616)", .degraded, [.brokerSessionExpiryCapped],
            alarm(.brokerSessionExpiryCapped)),
        Fault(
            "the broker ends fresh connections, between two attempts", .degraded,
            [.brokerDisconnected, .brokerQuickDrops], ready: false
        ) {
            $0.brokers[0].isConnected = false
            $0.brokers[0].alarms = [.init(.brokerQuickDrops, text: "evidence")]
        },
        Fault("the broker drops messages", .degraded, [.brokerDropsMessages], alarm(.brokerDropsMessages)),
        Fault(
            "redelivery cannot be checked", .degraded, [.brokerRedeliveryUnchecked], alarm(.brokerRedeliveryUnchecked)),
        Fault(
            "the client id was changed (telegraf#797)", .degraded, [.brokerNotSubscribed, .brokerDrainingOldSession],
            ready: false
        ) {
            $0.brokers[0].isSubscribed = false
            $0.brokers[0].alarms = [.init(.brokerDrainingOldSession, text: "emptying")]
        },
        Fault(
            "a restart during such a drain: the new session is subscribed", .degraded, [.brokerDrainingOldSession],
            ready: false, alarm(.brokerDrainingOldSession)),
        Fault(
            "ingest blocks (the broker still counts as connected)", .degraded, [.ingestStuck], ready: false, live: false
        ) { $0.brokers[1].overdueSeconds = 12 },
        Fault("the broker refuses commands", .degraded, [.commandsRefused]) { $0.brokers[0].commandsRefused = 3 },
        Fault("commands wait for their connection", .degraded, [.commandsWaiting]) {
            $0.brokers[0].commandsWaiting = 2
        },
    ]

    static let database: [Fault] = [
        Fault("PostgreSQL is down", .degraded, [.databaseUnreachable]) { facts in
            facts.database.isConnected = false
            fail(&facts, "connection refused", seconds: 300)
        },
        Fault("PostgreSQL is frozen for an hour", .degraded, [.databaseUnreachable]) { facts in
            facts.database.isConnected = false
            fail(&facts, "no answer in time", seconds: 3600)
        },
        Fault(
            "a database that comes up later: tables of another log; a newer schema; PgBouncer in transaction mode",
            .degraded, [.databaseUnusable]
        ) {
            $0.database.isRefused = true
            $0.database.lastError = "the tables belong to another log"
        },
        Fault("failover to a standby, default_transaction_read_only", .degraded, [.databaseReadOnly]) { facts in
            facts.database.isReadOnly = true
            fail(&facts, "cannot execute UPDATE in a read-only transaction", seconds: 75)
        },
        Fault("a right was revoked (cubecart#2485)", .degraded, [.databaseRights]) {
            $0.database.missingGrants = ["GRANT TEMPORARY ON DATABASE fleet TO refold"]
        },
        Fault(
            "connection limit 4 (posthog#4709)", .degraded,
            [.databaseConnections, .projectionWaiting, .projectionWaiting]
        ) { facts in
            facts.database.connectionShortage = "the role refold may have 4 connections, up to 14 are needed"
            for index in 0..<2 { fail(&facts.projections[index], "too many connections", seconds: 20) }
        },
    ]

    static let projections: [Fault] = [
        Fault(
            "no space left on the database's disk", .degraded,
            [.projectionWaiting, .projectionWaiting, .projectionWaiting]
        ) { fail(&$0, "could not extend file: No space left on device", seconds: 75) },
        Fault("one attempt failed, a moment ago", .healthy) { fail(&$0.projections[0], "moved", seconds: 1) },
        Fault("a table is locked for 45 s", .degraded, [.projectionLagging]) {
            $0.projections[2].lagSeconds = 45
            $0.projections[2].lagEvents = 1000
        },
        Fault("a table is locked for 15 s", .healthy) { $0.projections[2].lagSeconds = 15 },
        Fault("a projection has failed", .degraded, [.projectionFailed]) {
            $0.projections[0].hasFailed = true
            $0.projections[0].lastError = "relation does not exist"
            $0.projections[0].lagSeconds = 500
        },
        Fault("a projection is paused", .degraded, [.projectionPaused]) {
            $0.projections[0].isPaused = true
            $0.projections[0].lagSeconds = 5000
        },
        Fault("a paused projection while the database is down", .degraded, [.databaseUnreachable, .projectionPaused]) {
            $0.projections[0].isPaused = true
            $0.database.isConnected = false
        },
        Fault("a projector's thread is wedged", .degraded, [.projectionStuck, .projectionLagging], live: false) {
            $0.projections[1].overdueSeconds = 30
            $0.projections[1].lagSeconds = 90
        },
        Fault("keys are parked", .degraded, [.keysParked]) { $0.projections[2].parkedKeys = 2 },
        Fault("somebody changed rows", .degraded, [.tablesDiffer]) { $0.rowsDiffering = 3 },
    ]

    static let log: [Fault] = [
        Fault("the disk is full", .held, [.diskFull, .diskFull], ready: false) {
            for index in 0..<2 {
                $0.brokers[index].isHeld = true
                $0.brokers[index].isConnected = false
                $0.brokers[index].alarms = [.init(.diskFull, text: "no space")]
            }
        },
        Fault("the disk is full in 20 min", .degraded, [.diskFilling]) { $0.log.diskFullSeconds = 1200 },
        Fault("the disk is full in 6 h", .healthy) { $0.log.diskFullSeconds = 21600 },
        Fault(
            "fdatasync does not return", .degraded, [.ingestStuck, .ingestStuck, .logStuck], ready: false, live: false
        ) {
            for index in 0..<2 { $0.brokers[index].overdueSeconds = 5 }
            $0.log.overdueSeconds = 5
        },
        Fault("bit rot", .degraded, [.logDamaged]) { $0.log.damagedPlaces = 1 },
        Fault("a damaged segment cannot be sealed", .degraded, [.segmentsDamaged]) {
            $0.log.damagedSegments = ["00000000000000000000.seg"]
        },
        Fault("sealing fails", .degraded, [.segmentsNotSealed]) { $0.log.sealingProblem = "EIO" },
        Fault("archive_command fails", .degraded, [.archiveBehind]) { $0.log.archiveWaiting = 9 },
        Fault("a segment cannot be removed", .degraded, [.retentionBlocked]) { $0.log.retentionProblem = "EACCES" },
        Fault("the signing key is gone", .degraded, [.logNotSigned]) { $0.log.treeProblem = "no key" },
        Fault("the checkpoint's destination is down", .degraded, [.checkpointsStay]) {
            $0.log.checkpointError = "exit 1"
        },
        Fault("the clock stepped by days", .degraded, [.clockNotTrusted]) {
            $0.log.clockProblem = "the clock stepped forward by 259200 s and is not believed yet"
        },
        Fault(
            "the clock is behind the log's last event at the start", .degraded,
            [.brokerDisconnected, .brokerDisconnected, .clockNotTrusted], ready: false
        ) {
            for index in 0..<2 { $0.brokers[index].isConnected = false }
            $0.log.clockProblem = "waiting for the clock"
        },
    ]

    static let process: [Fault] = [
        Fault("nobody reads stderr (moby#31540)", .degraded, [.logLinesDropped]) {
            $0.process.linesDroppedLately = 17
        },
        Fault("descriptors run out", .degraded, [.descriptorsShort]) {
            $0.process.descriptorsOpen = 250
            $0.process.descriptorsMax = 256
        },
        Fault("the decisions of campaigns cannot be read", .degraded, [.campaignsStopped]) {
            $0.process.deciderError = "damaged"
        },
        Fault("the tokens cannot be read", .degraded, [.tokensUnreadable]) { $0.process.tokenError = "damaged" },
        Fault("the jobs cannot be read", .degraded, [.jobsUnreadable]) { $0.process.jobError = "damaged" },
        Fault("no worker takes a queue's jobs", .degraded, [.jobsWaiting]) {
            $0.queues = [
                .init(name: "high", ready: 3, waitsSeconds: 901), .init(name: "low", ready: 9, waitsSeconds: 899),
            ]
        },
        Fault("jobs end without a result again and again", .degraded, [.jobsPoisoned]) { $0.poisonedJobs = 2 },
        Fault("the certificates cannot be read", .degraded, [.certificatesUnreadable]) {
            $0.process.certificateError = "damaged"
        },
        Fault(
            "the certificates cannot be read, and the gate enforces them", .degraded,
            [.brokerDisconnected, .brokerDisconnected, .certificatesUnreadable], ready: false
        ) {
            for index in 0..<2 { $0.brokers[index].isConnected = false }
            $0.process.certificateError = "damaged"
            $0.process.awaitsCertificates = true
        },
        Fault("renewed certificates cannot be signed", .degraded, [.renewalsWaiting]) {
            $0.process.renewalError = "damaged"
        },
        Fault("certificates cannot be audited", .degraded, [.certificatesNotAudited]) {
            $0.process.auditError = "no threads"
        },
        Fault("the certificates cannot be read, so none is renewed", .degraded, [.certificatesUnreadable]) {
            $0.process.certificateError = "damaged"
            $0.process.renewalError = "damaged"
            $0.process.auditError = "damaged"
        },
        Fault("an authority's key is gone", .degraded, [.crlNotIssued]) { $0.crls = [crl(secondsLeft: 2 * 86_400)] },
        Fault("an authority's key is gone before its first CRL", .degraded, [.crlNotIssued]) {
            $0.crls = [crl(secondsLeft: nil)]
        },
        Fault("a broker still accepts a revoked device", .degraded, [.crlUnproved]) {
            $0.crlsUnproved = ["north": "the broker still accepts a certificate that the CRL 7 revokes"]
        },
        Fault("a client of a revoked certificate is connected", .degraded, [.clientsUncut]) {
            $0.clientsUncut = ["north": "clients of revoked certificates are not disconnected: Connection refused"]
        },
        Fault("an authority expires, and none replaces it", .degraded, [.authorityExpiring]) {
            $0.authoritiesExpiring = ["ca": Timestamp(seconds: 1_900_000_000)]
        },
        Fault("an authority's CRL ends in a day", .degraded, [.crlExpiring]) { $0.crls = [crl(secondsLeft: 86_400)] },
        Fault("an authority's CRL has ended, another one's has not", .degraded, [.crlExpiring, .crlNotIssued]) {
            $0.crls = [crl(secondsLeft: -60), crl(secondsLeft: 3 * 86_400)]
        },
    ]

    private static func crl(secondsLeft: Double?) -> HealthFacts.CRL {
        var crl = HealthFacts.CRL(authority: "ca", error: "cannot issue a CRL of the authority ca: no such file")
        (crl.secondsLeft, crl.lifetimeSeconds) = (secondsLeft, 7 * 86_400)
        return crl
    }

    private static func fail(_ facts: inout HealthFacts, _ error: String, seconds: Double) {
        for index in facts.projections.indices { fail(&facts.projections[index], error, seconds: seconds) }
    }

    private static func fail(_ projection: inout HealthFacts.Projection, _ error: String, seconds: Double) {
        projection.failingSeconds = seconds
        projection.lastError = error
        projection.lagSeconds = seconds
    }
}
