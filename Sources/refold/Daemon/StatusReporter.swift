import ControlAPI
import Dispatching
import EventLog
import EventModel
import Foundation
import Ingest
import Projecting

/// What `status`, `/readyz` and `/metrics` say: one look at every part.
struct StatusReporter: StatusProviding, ProjectionControlling {
    let log: FileLog
    let projectors: [Projector]
    let ingest: @Sendable () -> [BrokerStatus]
    let commands: CommandPublisher
    let database: DatabaseKeeper
    let care: LogCare
    let checkpoints: CheckpointPublisher
    let archive: LogArchive
    let selfCheck: SelfCheck
    let rebuilds: RebuildKeeper

    func status() async -> SystemStatus {
        let durable = log.durableCount, brokers = ingest(), keeper = database.state, statistics = log.statistics
        let projections = projectors.map { report($0.status) }
        let held = brokers.contains { $0.state == .held }
        var reasons: [String] = []
        for broker in brokers {
            if !broker.connected {
                reasons.append("broker \(broker.name) is not connected: \(broker.lastError ?? "connecting")")
            } else if !broker.subscribed {
                reasons.append("broker \(broker.name): nothing is subscribed")
            }
            reasons += broker.alarms.map { "broker \(broker.name): \($0.text): \($0.code.remedy)" }
        }
        for lane in commands.statuses where lane.refused > 0 || !lane.isConnected && lane.waiting > 0 {
            let waiting = lane.refused > 0 ? "\(lane.refused) devices' commands" : "\(lane.waiting) commands"
            reasons.append("broker \(lane.broker): \(waiting) wait: \(lane.lastError ?? "connecting")")
        }
        if !keeper.connected { reasons.append("the database cannot be reached: \(keeper.lastError ?? "connecting")") }
        if keeper.refused, let text = keeper.lastError { reasons.append("the database cannot be used: \(text)") }
        for projection in projections where projection.state == "failed" {
            reasons.append("projection \(projection.name) has failed: \(projection.lastError ?? "")")
        }
        for status in projectors.map(\.status) {
            guard let first = status.parked.first else { continue }
            let keys = status.parked.count == 1 ? "1 key is" : "\(status.parked.count) keys are"
            reasons.append(
                "\(status.name): \(keys) parked, the first \(first.key), whose events wait from position "
                    + "\(first.position) on: \(first.reason). When that is mended: refold dead-letters retry")
        }
        for projection in projections where projection.state == "paused" && projection.lastError != nil {
            reasons.append("projection \(projection.name) is paused: \(projection.lastError ?? "")")
        }
        let keeping = self.keeping
        if let damaged = keeping.scrub?.damaged, damaged > 0 {
            reasons.append("the log is damaged in \(damaged) places: refold log verify says where and what to do")
        }
        // What an operator has signed for stays as it is, and is no news.
        let signed = Set(log.acceptedLosses.map(\.event.segment))
        let damaged = statistics.keeping.damaged.filter { !signed.contains($0) }
        if let name = damaged.first {
            let count = damaged.count
            reasons.append("\(count) damaged files of the log are kept as they are, the first is \(name): "
                + "refold log verify says what is lost")
        }
        if let check = selfCheck.last, check.agrees == false {
            reasons.append(
                "the tables are not what the log says (\(check.differences) rows): refold replay verify shows them")
        }
        if let problem = statistics.keeping.problem {
            reasons.append("files of the log are not packed and sealed: \(problem)")
        }
        if let archive = keeping.archive, archive.isBehind {
            reasons.append("the archive is behind by \(archive.waiting) segments: \(archive.lastError ?? "it is slow")")
        }
        if let text = keeping.checkpoint?.problem { reasons.append("the log's tree is not signed: \(text)") }
        if let text = keeping.checkpoint?.lastError { reasons.append("checkpoints do not leave this machine: \(text)") }
        return SystemStatus(
            state: held ? .held : reasons.isEmpty ? .healthy : .degraded, reasons: reasons,
            log: .init(
                head: durable, durable: durable, segments: statistics.segments, bytes: statistics.usedBytes,
                keeping: keeping),
            projections: projections,
            brokers: zip(brokers, commands.statuses).map { broker, lane in
                .init(
                    name: broker.name, connected: broker.connected, sessionPresent: broker.sessionPresent,
                    lastError: broker.lastError, commands: .init(
                        connected: lane.isConnected, waiting: lane.waiting + lane.sent, refused: lane.refused,
                        acknowledged: lane.acknowledged, lastError: lane.lastError))
            },
            database: .init(connected: keeper.connected, lastError: keeper.lastError))
    }

    var keeping: SystemStatus.Keeping {
        var keeping = SystemStatus.Keeping(), forecast = care.forecast
        keeping.firstPosition = log.firstPosition.rawValue
        keeping.lostEvents = log.acceptedLosses.reduce(0) { $0 + $1.event.to - $1.event.from + 1 }
        keeping.diskFreeBytes = forecast.freeBytes
        keeping.diskFullSeconds = forecast.secondsUntilFull
        if care.isScrubbing {
            let scrub = care.scrubber.status
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
            let problem: String? = switch tree.state {
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

    func reasonsNotReady() async -> [String] {
        ingest().compactMap { broker in
            if broker.state == .held { return "broker \(broker.name) is held: the disk is full" }
            if !broker.connected {
                return "broker \(broker.name) is not connected: \(broker.lastError ?? "connecting")"
            }
            return broker.subscribed ? nil : "broker \(broker.name): nothing is subscribed"
        }
    }

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
