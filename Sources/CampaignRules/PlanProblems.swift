import Decisions
import EventModel

/// What makes no sense in a plan.
public struct PlanProblem: Error, Sendable, Equatable, CustomStringConvertible {
    /// As in the JSON form: `abort.results_min`, `stages[2].percent`.
    public let field: String
    /// What follows the field's name in a sentence: `must be 1 or more`.
    public let reason: String

    public init(_ field: String, _ reason: String) {
        self.field = field
        self.reason = reason
    }
    public var description: String { "\(field) \(reason)" }
}

extension CampaignPlan {
    public static let stagesMax = 100
    public static let windowsMax = 100
    public static let attemptsMax = 100
    /// No time in a plan is longer: 366 days. It keeps what is added to it within the numbers.
    public static let secondsMax: Double = 366 * 24 * 3600

    /// Everything that is wrong with it, in the order of its fields; none: a campaign can go by it, and will end.
    /// The time zone must have been filled in.
    public func problems() -> [PlanProblem] {
        var found = Findings()
        found.check(tickSeconds, 0.1...3600, "tick_seconds")
        checkStages(&found)
        if windows.count > Self.windowsMax { found.add("windows", "has more than \(Self.windowsMax)") }
        do throws(PlanProblem) {
            _ = try MaintenanceWindows(windows, timeZone: timeZone)
        } catch {
            found.all.append(error)
        }
        if abort.resultsMin < 1 { found.add("abort.results_min", "must be 1 or more") }
        found.check(kinds: abort.kinds, "abort.kinds")
        if let most = abort.consecutiveFailuresMax, most < 1 {
            found.add("abort.consecutive_failures_max", "must be 1 or more")
        }
        for (seconds, name) in [
            (timeouts.acknowledgeSeconds, "acknowledge_seconds"), (timeouts.downloadSeconds, "download_seconds"),
            (timeouts.installSeconds, "install_seconds"), (timeouts.verifySeconds, "verify_seconds"),
            (timeouts.campaignSeconds, "campaign_seconds"),
        ] { found.check(seconds, 1...Self.secondsMax, "timeouts.\(name)") }
        if !(1...Self.attemptsMax).contains(retry.attemptsMax) {
            found.add("retry.attempts_max", "must be 1 to \(Self.attemptsMax)")
        }
        found.check(retry.backoffSeconds, 0...Self.secondsMax, "retry.backoff_seconds")
        found.check(retry.backoffMaxSeconds, 0...Self.secondsMax, "retry.backoff_max_seconds")
        if retry.backoffMaxSeconds < retry.backoffSeconds {
            found.add("retry.backoff_max_seconds", "must be at least backoff_seconds")
        }
        found.check(kinds: retry.kinds, "retry.kinds")
        if !(completion.share > 0 && completion.share <= 1) {
            found.add("completion.share", "is a share of the devices: over 0, at most 1")
        }
        found.check(completion.seconds, 0...Self.secondsMax, "completion.seconds")
        return found.all
    }

    private func checkStages(_ found: inout Findings) {
        if stages.count > Self.stagesMax { return found.add("stages", "has more than \(Self.stagesMax)") }
        var before = 0.0
        for (index, stage) in stages.enumerated() {
            let name = "stages[\(index)]"
            if !(stage.percent > before && stage.percent <= 100) {
                found.add("\(name).percent", "must be over \(before), at most 100: it counts earlier stages in")
            }
            before = stage.percent.isFinite ? max(before, stage.percent) : before
            found.check(stage.soakSeconds, 0...Self.secondsMax, "\(name).soak_seconds")
            if !(stage.endedMin > 0 && stage.endedMin <= 1) {
                found.add("\(name).ended_min", "is a share of the devices: over 0, at most 1")
            }
            if let share = stage.successMin, !(0...1).contains(share) {
                found.add("\(name).success_min", "is a share of the devices: 0 to 1")
            }
        }
        guard let last = stages.last else { return }
        if last.percent != 100 {
            found.add("stages[\(stages.count - 1)].percent", "must be 100: other devices would never be dispatched")
        }
        // The last stage's soak keeps nobody waiting.
        let soaks = stages.dropLast().reduce(0) { $0 + $1.soakSeconds }
        if soaks >= timeouts.campaignSeconds {
            found.add("stages", "wait longer than timeouts.campaign_seconds: the last would never begin")
        }
    }

    private struct Findings {
        var all: [PlanProblem] = []

        mutating func add(_ field: String, _ reason: String) { all.append(PlanProblem(field, reason)) }

        mutating func check(_ seconds: Double, _ allowed: ClosedRange<Double>, _ field: String) {
            guard !allowed.contains(seconds) else { return }
            func text(_ value: Double) -> String { value == value.rounded() ? "\(Int64(value))" : "\(value)" }
            add(field, "must be \(text(allowed.lowerBound)) to \(text(allowed.upperBound)) seconds")
        }

        mutating func check(kinds: [String]?, _ field: String) {
            guard let kinds else { return }
            if kinds.isEmpty { add(field, "must name at least one kind, or be left out") }
            for kind in kinds where OTAFailureKind(rawValue: kind) == nil {
                let known = OTAFailureKind.allCases.map(\.rawValue).joined(separator: ", ")
                return add(field, "takes \(known)")
            }
        }
    }
}
