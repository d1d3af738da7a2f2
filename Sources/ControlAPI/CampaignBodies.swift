import CampaignRules
import Campaigns
import Decisions
import EventModel
import Hummingbird

// The JSON of commands about campaigns and groups, as schemas/openapi.yaml names it.

struct CampaignBody: BodyFields {
    static let fields = CodingKeys.allCases.map(\.rawValue)
    let name: String
    let firmwareVersionID: Int64
    let devices: [String]?
    let targetGroupID: Int64?
    let rolloutStrategy: String?
    let rolloutRate: Int64?
    let abortThreshold: Double?
    let plan: PlanBody?

    enum CodingKeys: String, CodingKey, CaseIterable {
        case name, firmwareVersionID = "firmware_version_id", devices, targetGroupID = "target_group_id"
        case rolloutStrategy = "rollout_strategy", rolloutRate = "rollout_rate", abortThreshold = "abort_threshold"
        case plan
    }

    func spec() throws(Problem) -> CampaignSpec {
        guard (devices == nil) != (targetGroupID == nil) else {
            throw Problem(
                .unprocessableContent, "invalid_body", "name the devices with either devices or target_group_id")
        }
        return CampaignSpec(
            name: name, firmwareVersionID: firmwareVersionID, devices: devices ?? [], targetGroupID: targetGroupID,
            rolloutStrategy: rolloutStrategy ?? "linear", rolloutRate: rolloutRate, abortThreshold: abortThreshold,
            plan: plan?.plan ?? CampaignPlan(), timeZone: plan?.timeZone)
    }
}

/// A plan whose fields are all known by name, and the time zone if it was given.
struct PlanBody: Decodable, Sendable {
    let plan: CampaignPlan
    let timeZone: String?

    /// What a plan's objects may have.
    static let fields: [String: [String]] = [
        "": [
            "tick_seconds", "stages", "order", "windows", "time_zone", "abort", "timeouts", "retry", "completion",
            "verify", "delivery",
        ],
        "stages": ["percent", "soak_seconds", "success_min"],
        "windows": ["days", "from", "to"],
        "abort": ["method", "action", "results_min", "kinds", "consecutive_failures_max"],
        "timeouts": [
            "acknowledge_seconds", "download_seconds", "install_seconds", "verify_seconds", "campaign_seconds",
        ],
        "retry": ["attempts_max", "backoff_seconds", "backoff_max_seconds", "kinds"],
        "completion": ["share", "seconds"],
    ]

    init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: AnyKey.self)
        try container.refuse(otherThan: Self.fields[""]!)
        for (name, known) in Self.fields.sorted(by: { $0.key < $1.key }) where !name.isEmpty {
            let key = AnyKey(stringValue: name)
            guard container.contains(key), try !container.decodeNil(forKey: key) else { continue }
            if name == "stages" || name == "windows" {
                var list = try container.nestedUnkeyedContainer(forKey: key)
                while !list.isAtEnd { try list.nestedContainer(keyedBy: AnyKey.self).refuse(otherThan: known) }
            } else {
                try container.nestedContainer(keyedBy: AnyKey.self, forKey: key).refuse(otherThan: known)
            }
        }
        plan = try CampaignPlan(from: decoder)
        timeZone = try container.decodeIfPresent(String.self, forKey: AnyKey(stringValue: "time_zone"))
    }
}

struct GroupBody: BodyFields {
    static let fields = CodingKeys.allCases.map(\.rawValue)
    let name: String
    let description: String?
    let devices: [String]?
    let query: QueryBody?

    enum CodingKeys: String, CodingKey, CaseIterable { case name, description, devices, query }

    var spec: GroupSpec {
        GroupSpec(name: name, description: description, devices: devices, query: query?.query)
    }
}

struct QueryBody: Decodable, Sendable {
    static let fields = ["sites", "firmware_versions", "firmware_versions_not", "seen_within_seconds"]
    let query: GroupQuery

    init(from decoder: any Decoder) throws {
        try decoder.container(keyedBy: AnyKey.self).refuse(otherThan: Self.fields)
        query = try GroupQuery(from: decoder)
    }
}

struct MembersBody: BodyFields {
    static let fields = CodingKeys.allCases.map(\.rawValue)
    let add: [String]?
    let remove: [String]?

    enum CodingKeys: String, CodingKey, CaseIterable { case add, remove }
}

struct SettingsBody: BodyFields {
    static let fields = CodingKeys.allCases.map(\.rawValue)
    let timeZone: String

    enum CodingKeys: String, CodingKey, CaseIterable { case timeZone = "time_zone" }
}

struct RetryBody: BodyFields {
    static let fields = ["kinds"]
    static var whenEmpty: RetryBody? { RetryBody(kinds: nil) }
    let kinds: [String]?

    func failureKinds() throws(Problem) -> [OTAFailureKind]? {
        guard let kinds else { return nil }
        var known: [OTAFailureKind] = []
        for kind in kinds {
            guard let one = OTAFailureKind(rawValue: kind) else {
                let all = OTAFailureKind.allCases.map(\.rawValue).joined(separator: ", ")
                throw Problem(.unprocessableContent, "invalid_value", "kinds are of: \(all)")
            }
            known.append(one)
        }
        return known
    }
}

extension KeyedDecodingContainer<AnyKey> {
    /// A misspelt setting is not lost in silence.
    func refuse(otherThan known: [String]) throws {
        guard let unknown = allKeys.map(\.stringValue).filter({ !known.contains($0) }).min() else { return }
        throw DecodingError.dataCorrupted(
            .init(
                codingPath: codingPath + [AnyKey(stringValue: unknown)],
                debugDescription: "is not a field; there are: \(known.joined(separator: ", "))"))
    }
}
