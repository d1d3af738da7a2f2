import Access
import Campaigns
import Certificates
import EventLog
import EventModel
import Foundation
import Health
import Ingest
import Issuing
import Jobs
import Outbox
import Output
import Projecting
import Synchronization
import Threading

/// What every part is like at this moment, for `Health` to judge. Nothing is decided here.
extension StatusReporter {
    func facts() -> HealthFacts {
        var facts = HealthFacts()
        facts.brokers = zip(ingest(), commands.statuses).map(broker)
        facts.projections = projectors.map { projection($0.status) }
        facts.database = database.state.facts
        facts.log = logFacts
        facts.process = process
        facts.queues = queues
        facts.poisonedJobs = jobs.latest?.poisoned ?? 0
        facts.crls = troubles.crls.map(crl)
        facts.crlsUnproved = crlsUnproved
        facts.clientsUncut = troubles.clientsUncut
        facts.authoritiesExpiring = certificateAudit.latest?.authoritiesExpiring ?? [:]
        if let check = selfCheck.last, check.agrees == false { facts.rowsDiffering = max(1, check.differences) }
        return facts
    }

    /// By broker. A round that hangs reports nothing.
    private var crlsUnproved: [String: String] {
        enforcers.reduce(into: troubles.crlsUnproved) { found, enforced in
            if let problem = enforced.enforcer.overdueProblem { found[enforced.broker] = problem }
        }
    }

    private func broker(_ status: BrokerStatus, _ lane: CommandPublisher.Status) -> HealthFacts.Broker {
        var facts = HealthFacts.Broker(name: status.name)
        facts.isConnected = status.connected
        facts.isSubscribed = status.subscribed
        facts.isHeld = status.state == .held
        facts.lastError = status.lastError
        facts.granted = status.granted
        facts.alarms = status.alarms.map {
            .init($0.code.reasonCode, since: $0.since, text: "\($0.text): \($0.code.remedy)")
        }
        facts.commandsWaiting = lane.isConnected ? 0 : lane.waiting
        facts.commandsRefused = lane.refused
        facts.commandError = lane.lastError
        facts.overdueSeconds = status.overdueSeconds
        return facts
    }

    private func projection(_ status: ProjectorStatus) -> HealthFacts.Projection {
        var facts = HealthFacts.Projection(name: status.name)
        facts.isPaused = status.state == .paused
        facts.hasFailed = status.state == .failed
        facts.failingSeconds = status.failingSeconds
        facts.lastError = status.lastError
        facts.lagSeconds = status.lagSeconds
        facts.lagEvents = status.lagEvents
        facts.pauseReason = rebuilds.note(on: status.name).paused
        facts.parkedKeys = status.parked.count
        facts.firstParked = status.parked.first.map {
            "\($0.key), whose events wait from position \($0.position) on: \($0.reason)"
        }
        facts.overdueSeconds = status.overdueSeconds
        return facts
    }

    private var logFacts: HealthFacts.Log {
        var facts = HealthFacts.Log()
        let keeping = keeping, statistics = log.statistics
        facts.overdueSeconds = log.overdueSeconds
        facts.damagedPlaces = keeping.scrub?.damaged ?? 0
        // Accepted losses are not reported.
        let signed = Set(log.acceptedLosses.map(\.event.segment))
        facts.damagedSegments = statistics.keeping.damaged.filter { !signed.contains($0) }
        facts.sealingProblem = statistics.keeping.problem
        if let archive = keeping.archive, archive.isBehind {
            facts.archiveWaiting = archive.waiting
            facts.archiveError = archive.lastError
        }
        facts.treeProblem = keeping.checkpoint?.problem
        facts.checkpointError = keeping.checkpoint?.lastError
        facts.retentionProblem = archive.retention.status.lastError
        facts.diskFullSeconds = keeping.diskFullSeconds
        facts.clockProblem = log.clock.status.reason
        return facts
    }

    private func crl(_ failure: CRLFailure) -> HealthFacts.CRL {
        var facts = HealthFacts.CRL(authority: failure.authority, error: failure.description)
        guard let begin = failure.thisUpdate, let end = failure.nextUpdate else { return facts }
        facts.lifetimeSeconds = Double(end.wholeSeconds - begin.wholeSeconds)
        facts.secondsLeft = Double(end.wholeSeconds - log.now().wholeSeconds)
        return facts
    }

    private var queues: [HealthFacts.Queue] {
        guard let report = jobs.latest else { return [] }
        return report.queues.filter { $0.pause == nil }.compactMap { queue in
            queue.oldest.map { oldest in
                let waits = report.at.microseconds.saturatingSubtracting(oldest.microseconds)
                return HealthFacts.Queue(
                    name: queue.queue.rawValue, ready: queue.ready, waitsSeconds: Double(waits) / 1_000_000)
            }
        }
    }

    private var process: HealthFacts.Process {
        var facts = HealthFacts.Process()
        facts.descriptorsOpen = Descriptors.open ?? 0
        facts.descriptorsMax = Descriptors.limit
        facts.linesDroppedLately = droppedLately(LogOutput.shared.statistics.dropped)
        facts.deciderError = troubles.error(of: CampaignState.storedName)
        facts.tokenError = troubles.error(of: AccessState.storedName)
        facts.certificateError = troubles.error(of: CertificateRegistry.storedName)
        facts.jobError =
            [JobQueues.storedName, "leases", "workers"].lazy.compactMap { troubles.error(of: $0) }.first
        facts.renewalError = troubles.error(of: "renewals")
        facts.auditError = troubles.error(of: "audit")
        facts.awaitsCertificates = check.map { !$0.isReady } ?? false
        return facts
    }
}

/// What deciders report when they fail.
final class Troubles: Sendable {
    private let errors = Mutex<[String: String]>([:])
    private let unissued = Mutex<[CRLFailure]>([])
    private let unproved = Mutex<[String: String]>([:])
    private let uncut = Mutex<[String: String]>([:])

    /// Returns whether that is news.
    func report(_ error: (any Error)?, by decider: String) -> Bool {
        errors.withLock { errors in
            let before = errors[decider]
            errors[decider] = error.map { "\($0)" }
            return before != errors[decider]
        }
    }

    /// Authorities whose next CRL is due and cannot be issued. Returns whether that is news.
    func report(crls failures: [CRLFailure]) -> Bool {
        unissued.withLock { known in
            defer { known = failures }
            return known.map(\.description) != failures.map(\.description)
        }
    }

    var crls: [CRLFailure] { unissued.withLock { $0 } }

    /// Nil: the newest CRLs are in force at the broker. Returns whether that is news.
    func report(crlsAt broker: String, _ problem: String?) -> Bool {
        unproved.withLock { known in
            defer { known[broker] = problem }
            return known[broker] != problem
        }
    }

    /// By broker.
    var crlsUnproved: [String: String] { unproved.withLock { $0 } }

    /// Nil: no client of a revoked certificate is left to be disconnected. Returns whether that is news.
    func report(cutsAt broker: String, _ problem: String?) -> Bool {
        uncut.withLock { known in
            defer { known[broker] = problem }
            return known[broker] != problem
        }
    }

    /// By broker.
    var clientsUncut: [String: String] { uncut.withLock { $0 } }

    /// Nil: none, or it has gone well since.
    func error(of decider: String) -> String? { errors.withLock { $0[decider] } }
}

extension BrokerAlarm.Code {
    var reasonCode: ReasonCode {
        switch self {
        case .sessionTakenOver: .brokerTakenOver
        case .sessionLost: .brokerSessionLost
        case .sessionUnknown: .brokerForeignSession
        case .messagesDropped: .brokerDropsMessages
        case .sessionExpiryCapped: .brokerSessionExpiryCapped
        case .subscriptionRefused: .brokerSubscriptionRefused
        case .grantedQoS0: .brokerQoSLowered
        case .closedEarly: .brokerQuickDrops
        case .diskFull: .diskFull
        case .historyUnreadable: .brokerRedeliveryUnchecked
        case .drainingOldSession: .brokerDrainingOldSession
        }
    }
}
