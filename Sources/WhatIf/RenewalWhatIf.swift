import Certificates
import Decisions
import EventModel
import PKI

/// Renewals of device certificates, as they went and as they would have gone with other settings.
public struct RenewalWhatIf: Sendable, Equatable {
    /// One course of events.
    public struct Course: Sendable, Equatable {
        /// In force at the end of the history; nil: no settings are on record.
        public var afterPercent: Int64?
        public var graceSeconds: Int64?
        /// Renewals that the schedule requested.
        public var requested = 0
        /// Of those, the most in one day (UTC), and that day.
        public var requestedPerDayMax = 0
        public var busiestDay: String?
        /// From the request to the expiry: shortest and median.
        public var secondsLeftMin: Int64?
        public var secondsLeftMedian: Int64?
        /// The device's report came before the expiry, or after it.
        public var inTime = 0
        public var late = 0
        public var expiredWithoutRequest = 0
        /// Renewals that ended because the device did not report in time: the old certificate counts as superseded.
        public var endedWithoutReport = 0
    }

    public struct Device: Sendable, Equatable, Hashable, Comparable {
        public let tenantID: String
        public let deviceID: String

        public static func < (a: Self, b: Self) -> Bool { (a.tenantID, a.deviceID) < (b.tenantID, b.deviceID) }
    }

    /// Number of certificates issued here.
    public let certificates: Int
    public let recorded: Course
    public let whatIf: Course
    /// Late on record (the certificate expired before the new one was in use); would have been in time.
    public let newlyInTime: [Device]
    /// In time on record; would have been late.
    public let newlyLate: [Device]
    /// What history cannot answer, in sentences.
    public let caveats: [String]
}

/// Renewal settings to replay with; nil: as recorded.
public struct RenewalChange: Sendable, Equatable {
    public var afterPercent: Int64?
    public var graceSeconds: Int64?
}

extension RenewalWhatIf {
    private enum Outcome: Equatable { case notDue, unanswered, inTime, late, expiredWithoutRequest }

    init(_ histories: RenewalHistories, _ change: RenewalChange, from start: Position, until end: Timestamp) {
        let known = histories.policy, all = histories.certificates.values
        var policy = known ?? RenewalPolicy()
        policy.afterPercent = change.afterPercent ?? policy.afterPercent
        policy.graceSeconds = change.graceSeconds ?? policy.graceSeconds
        var before = Tally(known?.afterPercent, known?.graceSeconds)
        var after = Tally(policy.afterPercent, policy.graceSeconds)
        var newlyInTime: Set<Device> = [], newlyLate: Set<Device> = [], silent = 0, byOperators = 0
        for history in all {
            let isScheduled = history.requested?.actor == EngineActor.name
            let recorded = Self.outcome(history, requested: history.requested?.at, until: end)
            before.add(history, isScheduled ? history.requested?.at : nil, recorded)
            before.course.endedWithoutReport += history.endedWithoutReport ? 1 : 0
            // Renewals that an operator requested stay as they are.
            let isFact = history.requested != nil && !isScheduled
            byOperators += isFact ? 1 : 0
            let requested = isFact ? history.requested?.at : Self.requested(history, policy, until: end)
            let whatIf = Self.outcome(history, requested: requested, until: end)
            after.add(history, isFact ? nil : requested, whatIf)
            let endsWithoutReport =
                isFact ? history.endedWithoutReport : Self.endsWithoutReport(history, policy, until: end)
            after.course.endedWithoutReport += endsWithoutReport ? 1 : 0
            silent += whatIf == .unanswered ? 1 : 0
            let device = Device(tenantID: history.tenantID, deviceID: history.deviceID)
            if [.late, .expiredWithoutRequest].contains(recorded), whatIf == .inTime { newlyInTime.insert(device) }
            if recorded == .inTime, [.late, .expiredWithoutRequest].contains(whatIf) { newlyLate.insert(device) }
        }
        certificates = all.count
        (recorded, self.whatIf) = (before.finished, after.finished)
        (self.newlyInTime, self.newlyLate) = (newlyInTime.sorted(), newlyLate.sorted())
        var caveats = Self.caveats(histories, from: start, wasScheduled: before.course.requested > 0)
        if silent > 0 {
            caveats.append(
                counted(silent, "request has", "requests have")
                    + " no report on record; the what-if cannot tell when the device would have reported")
        }
        if byOperators > 0 {
            caveats.append(counted(byOperators, "renewal") + " that an operator requested: unchanged")
        }
        self.caveats = caveats
    }

    /// When the schedule requests the renewal; nil: not within this history.
    private static func requested(
        _ history: RenewalHistory, _ policy: RenewalPolicy, until end: Timestamp
    ) -> Timestamp? {
        let window = RenewalWindow(
            history.serial, notBefore: history.notBefore.wholeSeconds, notAfter: history.notAfter.wholeSeconds, policy)
        let at = max(window.renewAt, history.addedAt)
        return at <= min(end, history.withdrawnAt ?? end) ? at : nil
    }

    /// The device is assumed to take as long as it did on record.
    private static func outcome(_ history: RenewalHistory, requested: Timestamp?, until end: Timestamp) -> Outcome {
        guard let requested else {
            let isExpired = history.notAfter < end && history.withdrawnAt.map { history.notAfter < $0 } ?? true
            return isExpired ? .expiredWithoutRequest : .notDue
        }
        guard let began = history.requested?.at, let installed = history.installedAt else { return .unanswered }
        let took = installed.microseconds.saturatingSubtracting(began.microseconds)
        return requested.microseconds.saturatingAdding(took) <= history.notAfter.microseconds ? .inTime : .late
    }

    private static func endsWithoutReport(
        _ history: RenewalHistory, _ policy: RenewalPolicy, until end: Timestamp
    ) -> Bool {
        guard let issued = history.issued else { return false }
        let limit = policy.end(
            issuedAt: issued.at, oldNotAfter: history.notAfter, newNotBefore: issued.notBefore.wholeSeconds,
            newNotAfter: issued.notAfter.wholeSeconds)
        return limit <= end && [history.installedAt, history.revokedAt].allSatisfy { $0.map { limit < $0 } ?? true }
    }

    private static func caveats(_ histories: RenewalHistories, from start: Position, wasScheduled: Bool) -> [String] {
        var caveats = [
            "renewed certificates would have other validity periods; later renewals that depend on them are not "
                + "recomputed"
        ]
        if start > Position(0) { caveats.append("certificates issued before position \(start) are not included") }
        if histories.imported > 0 {
            caveats.append(
                "not included: " + counted(histories.imported, "imported certificate")
                    + ", which Refold renews on request only")
        }
        if histories.policyChanges > 0 {
            caveats.append(
                "the renewal settings changed " + counted(histories.policyChanges, "time")
                    + "; `recorded` shows the last ones")
        }
        if histories.policy == nil, start > Position(0) {
            caveats.append("no renewal settings are on record in this range: those not given have their defaults")
        } else if !histories.wasEnabled, !wasScheduled {
            caveats.append("certificates.renew was off: no renewal on record was requested by schedule")
        }
        return caveats
    }

    private struct Tally {
        var course: Course
        private var days: [Int64: Int] = [:]
        private var left: [Int64] = []

        init(_ afterPercent: Int64?, _ graceSeconds: Int64?) {
            course = Course(afterPercent: afterPercent, graceSeconds: graceSeconds)
        }

        mutating func add(_ history: RenewalHistory, _ requested: Timestamp?, _ outcome: Outcome) {
            if let requested {
                course.requested += 1
                days[requested.wholeSeconds / 86_400, default: 0] += 1
                left.append(history.notAfter.wholeSeconds.saturatingSubtracting(requested.wholeSeconds))
            }
            switch outcome {
            case .inTime: course.inTime += 1
            case .late: course.late += 1
            case .expiredWithoutRequest: course.expiredWithoutRequest += 1
            case .notDue, .unanswered: break
            }
        }

        var finished: Course {
            var course = course
            if let most = days.max(by: { ($0.value, $1.key) < ($1.value, $0.key) }) {
                course.requestedPerDayMax = most.value
                course.busiestDay = String(Timestamp(seconds: most.key * 86_400).description.prefix(10))
            }
            let sorted = left.sorted()
            (course.secondsLeftMin, course.secondsLeftMedian) = (
                sorted.first, sorted.isEmpty ? nil : sorted[sorted.count / 2]
            )
            return course
        }
    }
}
