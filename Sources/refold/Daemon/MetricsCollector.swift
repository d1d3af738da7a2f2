import Certificates
import ControlAPI
import EventLog
import EventModel
import Foundation
import Health
import Ingest
import Issuing
import Output
import Projecting
import Queries
import Threading

/// Everything that `/metrics` shows.
struct MetricsCollector: Sendable {
    let reporter: StatusReporter
    let deadLetters: DeadLetterCounts
    let startedAt: Timestamp
    /// Only the worst: a label for each device of a fleet would drown Prometheus. The API answers for any one.
    let limitedDevices: @Sendable () -> [(broker: String, device: LimitedDevice)]
    let uncertifiedDevices: @Sendable () -> [(broker: String, device: UncertifiedDevice)]

    func collect() async -> MetricsSnapshot {
        var metrics = MetricsSnapshot()
        addLog(to: &metrics)
        addBrokers(to: &metrics)
        addProjections(to: &metrics)
        addHealth(to: &metrics)
        if let audit = reporter.certificateAudit.latest {
            for (code, count) in audit.totals.sorted(by: { $0.key.rawValue < $1.key.rawValue }) {
                metrics.add(.certificateFindings, UInt64(count), ["code": code.rawValue])
            }
        }
        if let jobs = reporter.jobs.latest { add(jobs, to: &metrics) }
        metrics.add(.databaseConnected, reporter.database.state.connected)
        for (reason, count) in await deadLetters.latest() {
            metrics.add(.deadLetters, UInt64(clamping: count), ["reason": reason])
        }
        reporter.rebuilds.add(to: &metrics)
        addProcess(to: &metrics)
        return metrics
    }

    private func add(_ jobs: JobProcessing.Report, to metrics: inout MetricsSnapshot) {
        for queue in jobs.queues {
            let labels: KeyValuePairs = ["queue": queue.queue.rawValue]
            let waits = queue.oldest.map { jobs.at.microseconds.saturatingSubtracting($0.microseconds) } ?? 0
            metrics.add(.jobsWaiting, UInt64(clamping: queue.waiting), labels)
            metrics.add(.jobsReady, UInt64(clamping: queue.ready), labels)
            metrics.add(.jobsRunning, UInt64(clamping: queue.running), labels)
            metrics.add(.jobsReadySeconds, UInt64(clamping: waits / 1_000_000), labels)
            metrics.add(.jobsSucceeded, UInt64(clamping: queue.lastDay.succeeded), labels)
            metrics.add(.jobsFailed, UInt64(clamping: queue.lastDay.failed), labels)
            metrics.add(.jobQueuePaused, queue.pause != nil, labels)
        }
        metrics.add(.jobsPoisoned, UInt64(clamping: jobs.poisoned))
    }

    /// 0 for what is not wrong: an alert that never had a sample cannot tell silence from health.
    private func addHealth(to metrics: inout MetricsSnapshot) {
        let health = reporter.health()
        for code in ReasonCode.allCases {
            let count = health.problems.count { $0.code == code }
            metrics.add(.problems, UInt64(count), ["code": code.rawValue])
        }
        metrics.add(.ready, health.notReady.isEmpty)
        metrics.add(.live, health.stuck.isEmpty)
    }

    private func addLog(to metrics: inout MetricsSnapshot) {
        let log = reporter.log, statistics = log.statistics
        metrics.add(.eventsAppended, statistics.events)
        metrics.add(.bytesAppended, statistics.storedBytes)
        metrics.add(.commitEvents, statistics.commitEvents)
        metrics.add(.fdatasyncSeconds, statistics.syncSeconds)
        metrics.add(.logDurableEvents, log.durableCount)
        metrics.add(.logBytes, statistics.usedBytes)
        metrics.add(.logSegments, UInt64(statistics.segments))
        metrics.add(.logSegmentsWaiting, UInt64(statistics.keeping.waiting))
        metrics.add(.logSegmentsDamaged, UInt64(statistics.keeping.damaged.count))
        let keeping = reporter.keeping
        metrics.add(.logFirstPosition, keeping.firstPosition)
        metrics.add(.logLostEvents, keeping.lostEvents)
        if let free = keeping.diskFreeBytes { metrics.add(.diskFreeBytes, free) }
        if let seconds = keeping.diskFullSeconds { metrics.add(.diskFullSeconds, seconds) }
        metrics.add(.logHorizon, keeping.horizon)
        if let status = reporter.archive.archiver?.status {
            metrics.add(.archiveThrough, status.through.rawValue)
            metrics.add(.archiveWaiting, UInt64(status.waiting))
            metrics.add(.archiveWaitingSeconds, status.waitingSeconds)
            metrics.add(.archiveSegments, status.archived)
            metrics.add(.archiveFailures, status.failures)
            metrics.add(.archiveBehind, status.isBehind)
        }
        metrics.add(.retentionRemoved, reporter.archive.retention.status.removedSegments)
        metrics.add(.retentionBlocked, keeping.retentionBlockedBy != nil)
        if let tree = log.treeStatus, let size = tree.checkpointSize {
            metrics.add(.checkpointSize, size)
            if let at = tree.checkpointAt { metrics.add(.checkpointTime, at.secondsSinceEpoch) }
        }
        for place in reporter.checkpoints.destinations {
            metrics.add(.checkpointsPublished, place.published, ["destination": place.name])
            metrics.add(.checkpointFailures, place.failures, ["destination": place.name])
        }
        if let check = reporter.selfCheck.last, let at = check.at.flatMap({ Timestamp(rfc3339: $0) }) {
            metrics.add(.selfCheckDifferences, UInt64(check.differences))
            metrics.add(.selfCheckTime, at.secondsSinceEpoch)
        }
        if let scrub = keeping.scrub {
            metrics.add(.scrubPosition, scrub.position)
            metrics.add(.scrubBytes, reporter.scrubService.scrubber.status.bytes)
            metrics.add(.scrubPasses, scrub.passes)
            metrics.add(.scrubDamaged, UInt64(scrub.damaged))
        }
    }

    private func addBrokers(to metrics: inout MetricsSnapshot) {
        let brokers = reporter.ingest()
        for broker in brokers {
            metrics.add(.messagesReceived, broker.received, ["broker": broker.name])
            metrics.add(.messagesAcknowledged, broker.acknowledged, ["broker": broker.name])
            metrics.add(.duplicatesSuppressed, broker.duplicatesSuppressed, ["broker": broker.name])
            metrics.add(.replaysRecognised, broker.replays, ["broker": broker.name])
            metrics.add(.commandEchoes, broker.echoes, ["broker": broker.name])
            metrics.add(.withoutCertificate, broker.withoutCertificate, ["broker": broker.name])
            metrics.add(.brokerConnected, broker.isSubscribed, ["broker": broker.name])
            metrics.add(.brokerSessionLost, broker.sessionsLost, ["broker": broker.name])
            metrics.add(.brokerTakenOver, broker.has(.sessionTakenOver), ["broker": broker.name])
            if let dropped = broker.droppedByBroker {
                metrics.add(.brokerMessagesDropped, dropped, ["broker": broker.name])
            }
        }
        for lane in reporter.commands.statuses {
            metrics.add(.commandsWaiting, UInt64(lane.waiting + lane.sent), ["broker": lane.broker])
            metrics.add(.commandsAcknowledged, lane.acknowledged, ["broker": lane.broker])
            metrics.add(.commandsWithoutSubscribers, lane.withoutSubscribers, ["broker": lane.broker])
            metrics.add(.commandsRefused, UInt64(lane.refused), ["broker": lane.broker])
            metrics.add(.commandsConnected, lane.isConnected, ["broker": lane.broker])
        }
        for verdict in Verdict.allCases {
            let count = brokers.reduce(0 as UInt64) { $0 + $1.verdicts[Int(verdict.rawValue)] }
            metrics.add(.verdicts, count, ["verdict": verdict.name])
        }
        for (broker, device) in limitedDevices() {
            let (tenant, name) = (device.tenant, device.device)
            metrics.add(.deviceAccepted, device.accepted, ["broker": broker, "tenant": tenant, "device": name])
            metrics.add(.deviceRateLimited, device.rejected, ["broker": broker, "tenant": tenant, "device": name])
        }
        for (broker, device) in uncertifiedDevices() {
            metrics.add(
                .deviceWithoutCertificate, device.messages,
                ["broker": broker, "tenant": device.tenant, "device": device.device])
        }
        metrics.add(.held, brokers.contains { $0.state == .held })
    }

    private func addProjections(to metrics: inout MetricsSnapshot) {
        for projector in reporter.projectors {
            let status = projector.status, name = status.name
            metrics.add(.projectionPosition, status.position.map { Double($0.rawValue) } ?? -1, ["projection": name])
            metrics.add(.projectionLagEvents, status.lagEvents, ["projection": name])
            metrics.add(.projectionLagSeconds, status.lagSeconds, ["projection": name])
            metrics.add(.projectionApplySeconds, status.applySeconds, ["projection": name])
            metrics.add(.projectionParkedKeys, UInt64(status.parked.count), ["projection": name])
            if let first = status.parked.first {
                metrics.add(.projectionParkedPosition, first.position.rawValue, ["projection": name])
            }
            for state in ProjectorStatus.State.allCases {
                metrics.add(
                    .projectionState, state == status.state,
                    ["projection": name, "state": state.rawValue.lowercased()])
            }
        }
    }

    private func addProcess(to metrics: inout MetricsSnapshot) {
        var usage = rusage()
        getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
        func seconds(_ time: timeval) -> Double { Double(time.tv_sec) + Double(time.tv_usec) / 1_000_000 }
        metrics.add(.cpuSeconds, seconds(usage.ru_utime) + seconds(usage.ru_stime))
        let output = LogOutput.shared.statistics
        metrics.add(.logLinesDropped, output.dropped)
        metrics.add(.logLinesWaiting, UInt64(output.waiting))
        metrics.add(.logOutputBlocked, output.blockedSeconds)
        if let count = Descriptors.open { metrics.add(.openDescriptors, UInt64(count)) }
        metrics.add(.descriptorsMax, UInt64(clamping: Descriptors.limit))
        metrics.add(.startTime, startedAt.secondsSinceEpoch)
        if let resident = residentBytes() { metrics.add(.residentMemory, resident) }
    }
}

/// proc(5): the second field of statm, in pages.
func residentBytes() -> UInt64? {
    guard let text = try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8) else { return nil }
    let fields = text.split(separator: " ")
    return fields.count > 1 ? UInt64(fields[1]).map { $0 * UInt64(sysconf(Int32(_SC_PAGESIZE))) } : nil
}
