import Certificates
import Decisions
import EventModel
import PKI

/// Renewals of device certificates, as they went and as they would have gone with other settings.
public struct RenewalWhatIf: Sendable, Equatable {
    /// One course of events.
    public struct Course: Sendable, Equatable {
        /// Nil: no settings are on record.
        public var afterPercent: Int64?
        public var graceSeconds: Int64?
        /// Devices that were asked as their certificates became due.
        public var asked = 0
        /// Of those, the most in one day (UTC), and that day.
        public var askedInADayMax = 0
        public var busiestDay: String?
        /// From the question to the expiry: the least, and the median.
        public var secondsLeftMin: Int64?
        public var secondsLeftMedian: Int64?
        /// The device's report came before the expiry, or after it.
        public var inTime = 0
        public var late = 0
        /// Expired without having been asked for.
        public var expiredUnasked = 0
        /// The renewal ended without a report: the old certificate counted as superseded.
        public var endedWithoutReport = 0
    }

    public struct Device: Sendable, Equatable, Hashable, Comparable {
        public let tenantID: String
        public let deviceID: String

        public static func < (a: Self, b: Self) -> Bool { (a.tenantID, a.deviceID) < (b.tenantID, b.deviceID) }
    }

    /// Certificates that were issued here.
    public let certificates: Int
    public let recorded: Course
    public let whatIf: Course
    /// Expired before the new certificate was in use, on record; they would have been in time.
    public let rescued: [Device]
    /// The other way round.
    public let endangered: [Device]
    /// What history cannot answer, in sentences.
    public let caveats: [String]
}

/// Settings that were not.
public struct RenewalChange: Sendable, Equatable {
    public var afterPercent: Int64?
    public var graceSeconds: Int64?
}

extension RenewalWhatIf {
    private enum Outcome: Equatable { case notDue, unanswered, inTime, late, expiredUnasked }

    init(_ histories: RenewalHistories, _ change: RenewalChange, until end: Timestamp) {
        let known = histories.policy, all = histories.certificates.values
        var policy = known ?? RenewalPolicy()
        policy.afterPercent = change.afterPercent ?? policy.afterPercent
        policy.graceSeconds = change.graceSeconds ?? policy.graceSeconds
        var before = Tally(known?.afterPercent, known?.graceSeconds)
        var after = Tally(policy.afterPercent, policy.graceSeconds)
        var rescued: Set<Device> = [], endangered: Set<Device> = [], silent = 0, other = 0
        for history in all {
            let recordedBySchedule = history.asked?.actor == EngineActor.name
            let recorded = Self.outcome(history, asked: history.asked?.at, until: end)
            before.add(history, recordedBySchedule ? history.asked?.at : nil, recorded)
            before.course.endedWithoutReport += history.failedAt != nil && history.issued != nil ? 1 : 0
            // What people asked for stands.
            let isFact = history.asked != nil && !recordedBySchedule
            other += isFact ? 1 : 0
            let asked = isFact ? history.asked?.at : Self.asked(history, policy, until: end)
            let whatIf = Self.outcome(history, asked: asked, until: end)
            after.add(history, isFact ? nil : asked, whatIf)
            after.course.endedWithoutReport += Self.endsWithoutReport(history, policy, until: end) ? 1 : 0
            silent += whatIf == .unanswered ? 1 : 0
            let device = Device(tenantID: history.tenantID, deviceID: history.deviceID)
            if [.late, .expiredUnasked].contains(recorded), whatIf == .inTime { rescued.insert(device) }
            if recorded == .inTime, [.late, .expiredUnasked].contains(whatIf) { endangered.insert(device) }
        }
        certificates = all.count
        (recorded, self.whatIf) = (before.finished, after.finished)
        (self.rescued, self.endangered) = (rescued.sorted(), endangered.sorted())
        caveats = Self.caveats(histories, silent: silent, byOperators: other)
    }

    /// When the schedule asks the device; nil: not within this history.
    private static func asked(_ history: RenewalHistory, _ policy: RenewalPolicy, until end: Timestamp) -> Timestamp? {
        let window = RenewalWindow(
            history.serial, notBefore: history.notBefore.wholeSeconds, notAfter: history.notAfter.wholeSeconds, policy)
        let at = max(window.renewAt, history.addedAt)
        return at <= min(end, history.withdrawnAt ?? end) ? at : nil
    }

    /// The device takes as long as it did on record.
    private static func outcome(_ history: RenewalHistory, asked: Timestamp?, until end: Timestamp) -> Outcome {
        guard let asked else {
            let isExpired = history.notAfter < end && history.withdrawnAt.map { history.notAfter < $0 } ?? true
            return isExpired ? .expiredUnasked : .notDue
        }
        guard let began = history.asked?.at, let installed = history.installedAt else { return .unanswered }
        let took = installed.microseconds.saturatingSubtracting(began.microseconds)
        return asked.microseconds.saturatingAdding(took) <= history.notAfter.microseconds ? .inTime : .late
    }

    /// The same rule as the decider's (`CertificateRegistry.end`).
    private static func endsWithoutReport(
        _ history: RenewalHistory, _ policy: RenewalPolicy, until end: Timestamp
    ) -> Bool {
        guard let issued = history.issued, let next = SerialNumber(1) else { return false }
        let window = RenewalWindow(
            next, notBefore: issued.notBefore.wholeSeconds, notAfter: issued.notAfter.wholeSeconds, policy)
        let grace = issued.at.adding(microseconds: policy.graceSeconds * 1_000_000)
        let limit = max(grace, min(history.notAfter, window.start))
        return history.installedAt.map { limit < $0 } ?? (limit <= end)
    }

    private static func caveats(_ histories: RenewalHistories, silent: Int, byOperators: Int) -> [String] {
        var caveats = [
            "the certificates of other renewals would have begun at other times: what follows from that is not counted"
        ]
        if silent > 0 {
            caveats.append(
                "\(silent) devices that are asked never reported: when they would have is not in the history")
        }
        if byOperators > 0 {
            caveats.append("\(byOperators) renewals that an operator asked for stand as they are on record")
        }
        if histories.policy.map({ !$0.isEnabled }) ?? true {
            caveats.append("certificates.renew was off: on record no device was asked as its certificate became due")
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

        mutating func add(_ history: RenewalHistory, _ asked: Timestamp?, _ outcome: Outcome) {
            if let asked {
                course.asked += 1
                days[asked.wholeSeconds / 86_400, default: 0] += 1
                left.append(history.notAfter.wholeSeconds.saturatingSubtracting(asked.wholeSeconds))
            }
            switch outcome {
            case .inTime: course.inTime += 1
            case .late: course.late += 1
            case .expiredUnasked: course.expiredUnasked += 1
            case .notDue, .unanswered: break
            }
        }

        var finished: Course {
            var course = course
            if let most = days.max(by: { ($0.value, $1.key) < ($1.value, $0.key) }) {
                course.askedInADayMax = most.value
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
