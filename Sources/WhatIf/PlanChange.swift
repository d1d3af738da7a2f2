import CampaignRules
import Campaigns
import Decisions
import EventModel
import Foundation

/// A rule of a campaign's that was not: `abort.method=ratio`, `abort_threshold=0.02`, `stages=[{"percent":100}]`.
public struct PlanChange: Sendable, Equatable {
    public let name: String
    public let value: String

    /// Takes `NAME=VALUE`. - Throws: `WhatIfError`.
    public init(_ text: String) throws(WhatIfError) {
        let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        guard parts.count == 2, !parts[0].isEmpty else { throw WhatIfError("\(text): must be NAME=VALUE") }
        name = parts[0].hasPrefix("plan.") ? String(parts[0].dropFirst(5)) : parts[0]
        value = parts[1]
    }

    /// Beside everything in a plan.
    public static let ownNames = ["abort_threshold", "rollout_rate", "rollout_strategy"]

    /// The campaign as it would have been created. - Throws: `WhatIfError` where that makes no sense.
    static func apply(_ changes: [PlanChange], to created: CampaignCreated) throws(WhatIfError) -> CampaignCreated {
        var created = created
        let plan = created.plan ?? CampaignPlan()
        guard var fields = try? JSONSerialization.jsonObject(with: JSONEncoder().encode(plan)) as? [String: Any],
            let known = try? JSONSerialization.jsonObject(with: JSONEncoder().encode(complete(plan))) as? [String: Any]
        else { throw WhatIfError("the plan of campaign \(created.id) cannot be changed") }
        for change in changes {
            switch change.name {
            case "abort_threshold":
                guard change.value == "none" || Double(change.value).map({ (0...1).contains($0) }) ?? false else {
                    throw WhatIfError("abort_threshold is a share of the devices, 0 to 1, or none")
                }
                created.abortThreshold = Double(change.value)
            case "rollout_rate":
                guard change.value == "none" || Int64(change.value).map({ $0 >= 1 }) ?? false else {
                    throw WhatIfError("rollout_rate is 1 or more devices a tick, or none")
                }
                created.rolloutRate = Int64(change.value)
            case "rollout_strategy":
                guard CampaignSpec.strategies.contains(change.value) else {
                    throw WhatIfError("rollout_strategy is one of: \(CampaignSpec.strategies.joined(separator: ", "))")
                }
                created.rolloutStrategy = change.value
                if change.value == "linear" { fields["stages"] = [Any]() }
            default:
                let path = change.name.split(separator: ".").map(String.init)
                let isNone = change.value == "none" && optional.contains(change.name)
                let value = isNone ? NSNull() : json(change.value)
                guard set(&fields, path[...], value, known: known) else {
                    throw WhatIfError(
                        "\(change.name) is no rule of a campaign; there are: \(names(known).joined(separator: ", "))")
                }
            }
        }
        do {
            let changed = try JSONDecoder().decode(
                CampaignPlan.self, from: JSONSerialization.data(withJSONObject: fields))
            created.plan = changed
        } catch {
            let words = changes.map { "\($0.name)=\($0.value)" }.joined(separator: " ")
            throw WhatIfError("\(words): no plan is like that")
        }
        if created.rolloutStrategy == "canary", created.plan?.stages.isEmpty ?? false {
            created.plan?.stages = CampaignPlan.Stage.defaults
        }
        if let problem = created.plan?.problems().first { throw WhatIfError("\(problem)") }
        return created
    }

    /// What need not be there: `none`.
    private static let optional: Set<String> = [
        "abort.kinds", "abort.consecutive_failures_max", "retry.kinds", "verify",
    ]

    /// With a value in every field, so that all of their names are there.
    private static func complete(_ plan: CampaignPlan) -> CampaignPlan {
        var plan = plan
        plan.abort.kinds = []
        plan.abort.consecutiveFailuresMax = 1
        plan.retry.kinds = []
        plan.verify = .shadow
        return plan
    }

    private static func names(_ fields: [String: Any]) -> [String] {
        ownNames
            + fields.sorted { $0.key < $1.key }.flatMap { name, value -> [String] in
                guard let inner = value as? [String: Any] else { return [name] }
                return inner.keys.sorted().map { "\(name).\($0)" }
            }
    }

    private static func json(_ text: String) -> Any {
        (try? JSONSerialization.jsonObject(with: Data(text.utf8), options: .fragmentsAllowed)) ?? text
    }

    private static func set(
        _ fields: inout [String: Any], _ path: ArraySlice<String>, _ value: Any, known: [String: Any]
    ) -> Bool {
        guard let first = path.first, let there = known[first] else { return false }
        if path.count == 1 {
            fields[first] = value
            return true
        }
        guard let knownInner = there as? [String: Any] else { return false }
        var inner = fields[first] as? [String: Any] ?? [:]
        guard set(&inner, path.dropFirst(), value, known: knownInner) else { return false }
        fields[first] = inner
        return true
    }
}
