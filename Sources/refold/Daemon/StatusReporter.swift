import ControlAPI
import Enforcement
import EventLog
import EventModel
import Foundation
import Health
import Ingest
import Issuing
import Outbox
import Projecting
import Synchronization

/// What `status`, `/readyz` and `/metrics` say: one look at every part.
struct StatusReporter: StatusProviding, ProjectionControlling {
    let log: FileLog
    let projectors: [Projector]
    let ingest: @Sendable () -> [BrokerStatus]
    let commands: CommandPublisher
    let database: DatabaseKeeper
    let scrubService: ScrubService
    let checkpoints: CheckpointPublisher
    let archive: LogArchive
    let selfCheck: SelfCheck
    let rebuilds: RebuildKeeper
    let troubles: Troubles
    let check: CertificateCheck?
    let certificateAudit: CertificateAudit
    let enforcers: [(broker: String, enforcer: CRLEnforcer)]
    let jobs: JobProcessing.Reports
    private let memory = SharedMemory()

    /// Log lines dropped in the last minute, of `total` since the start.
    func droppedLately(_ total: UInt64) -> UInt64 { memory.droppedLately(total) }

    /// The one verdict that everything shows.
    func health() -> Health { memory.complete(Health(facts())) }

    func status() async -> SystemStatus {
        let health = health(), durable = log.durableCount, statistics = log.statistics
        return SystemStatus(
            state: health.state, reasons: health.problems.map(\.text),
            problems: health.problems.map(SystemStatus.Problem.init),
            log: .init(
                head: durable, durable: durable, segments: statistics.segments, bytes: statistics.usedBytes,
                keeping: keeping),
            projections: projectors.map { report($0.status) },
            brokers: zip(ingest(), commands.statuses).map { broker, lane in
                .init(
                    name: broker.name, clientID: broker.clientID, connected: broker.connected,
                    subscribed: broker.isSubscribed, sessionPresent: broker.sessionPresent,
                    lastError: broker.lastError,
                    withoutCertificate: check.map { _ in broker.withoutCertificate },
                    commands: .init(
                        connected: lane.isConnected, waiting: lane.waiting + lane.sent, refused: lane.refused,
                        acknowledged: lane.acknowledged, lastError: lane.lastError))
            },
            database: .init(connected: database.state.connected, lastError: database.state.lastError))
    }

    var keeping: SystemStatus.Keeping {
        var keeping = SystemStatus.Keeping(), forecast = scrubService.forecast
        keeping.firstPosition = log.firstPosition.rawValue
        keeping.lostEvents = log.acceptedLosses.reduce(0) { $0 + $1.event.to - $1.event.from + 1 }
        keeping.diskFreeBytes = forecast.freeBytes
        keeping.diskFullSeconds = forecast.secondsUntilFull
        if scrubService.isScrubbing {
            let scrub = scrubService.scrubber.status
            keeping.scrub = .init(
                position: scrub.position.rawValue, passes: scrub.passes, damaged: scrub.damages.count,
                lastError: scrub.lastError)
        }
        keeping.horizon = log.horizon.rawValue
        keeping.selfCheck = selfCheck.last
        if let status = archive.archiver?.status {
            keeping.archive = .init(
                through: status.through.rawValue, waiting: status.waiting, waitingSeconds: status.waitingSeconds,
                failures: status.failures, isBehind: status.isBehind, lastError: status.lastError)
        }
        let retention = archive.retention.status
        keeping.retentionBlockedBy = retention.lastError ?? retention.blockedBy
        if let tree = log.treeStatus {
            let problem: String? =
                switch tree.state {
                case .refused(let text), .stopped(let text): text
                case .catchingUp, .current: tree.lastError
                }
            let outside = checkpoints.destinations
            keeping.checkpoint = .init(
                size: tree.checkpointSize, at: tree.checkpointAt?.description, problem: problem,
                failures: outside.reduce(0) { $0 + $1.failures },
                lastError: outside.lazy.compactMap { place in place.lastError.map { "\(place.name): \($0)" } }.first)
        }
        return keeping
    }

    func reasonsNotReady() async -> [String] { health().notReady.map(\.text) }

    func reasonsNotLive() async -> [String] { health().stuck.map(\.text) }

    func projections() async -> [SystemStatus.Projection] { projectors.map { report($0.status) } }

    func pause(_ name: String) async -> SystemStatus.Projection? {
        await command(name, { $0.pause() }, until: { $0 == .paused })
    }

    func resume(_ name: String) async -> SystemStatus.Projection? {
        await command(name, { $0.resume() }, until: { $0 != .paused })
    }

    /// Answers with the state after the command took effect, which takes a transaction at most.
    private func command(
        _ name: String, _ command: (Projector) -> Void, until done: (ProjectorStatus.State) -> Bool
    ) async -> SystemStatus.Projection? {
        guard let projector = projectors.first(where: { $0.descriptor.name == name }) else { return nil }
        command(projector)
        let deadline = ContinuousClock.now + .seconds(2)
        while !done(projector.status.state), ContinuousClock.now < deadline {
            try? await Task.sleep(for: .milliseconds(10))
        }
        return report(projector.status)
    }

    func wait(for position: UInt64, in projection: String, timeout: Duration) async -> Bool {
        guard let projector = projectors.first(where: { $0.descriptor.name == projection }) else { return false }
        return await projector.waitUntilApplied(Position(position), timeout: timeout)
    }

    private func report(_ status: ProjectorStatus) -> SystemStatus.Projection {
        let (rebuild, paused) = rebuilds.note(on: status.name)
        var projection = SystemStatus.Projection(
            name: status.name, version: status.version, partition: status.partition,
            position: status.position?.rawValue,
            lagEvents: status.lagEvents, lagSeconds: status.lagSeconds, state: status.state.rawValue.lowercased(),
            lastError: status.lastError, parkedKeys: status.parked.count,
            parkedPosition: status.parked.first?.position.rawValue)
        projection.rebuild = rebuild
        if status.state == .paused, let paused { projection.lastError = paused }
        return projection
    }
}

/// Start time of each current problem; thread-safe.
private final class SharedMemory: Sendable {
    private let memory = Mutex(ProblemMemory())
    /// Log lines dropped in all before the last drops, and when those were seen.
    private let drops = Mutex((before: UInt64(0), total: UInt64(0), seen: ContinuousClock.now))

    func droppedLately(_ total: UInt64) -> UInt64 {
        drops.withLock { drops in
            let isOver = ContinuousClock.now - drops.seen > .seconds(60)
            if total != drops.total {
                if isOver { drops.before = drops.total }
                (drops.total, drops.seen) = (total, .now)
            } else if isOver {
                drops.before = total
            }
            return total - min(drops.before, total)
        }
    }

    func complete(_ health: Health) -> Health { memory.withLock { $0.complete(health, now: wallClock()) } }
}

extension SystemStatus.Problem {
    init(_ problem: Problem) {
        self.init(
            code: problem.code.rawValue, object: problem.object, since: problem.since?.description,
            text: problem.text, remedy: problem.code.remedy, isAcknowledgeable: problem.code.isAcknowledged)
    }
}
