// WhatIf: the rules of deciders and projections, over recorded history, under other settings. Nothing is written.
//
//     WhatIf            abort thresholds, presence and renewals of certificates, judged event by event
//     CampaignRerun     one campaign decided again by the real engine, over a made-up log
//
// Only what a rule decides is decided again. What people decided, and what devices reported, are facts: they stay as
// they are on record. Where another decision would have led to facts that history does not have (a device that would
// have been sent its update later, or never was), the report says that it cannot know.
import Campaigns
import EventModel

/// Settings other than those that were in force: `campaign.7.abort_threshold=0.05`.
public struct WhatIfSettings: Sendable, Equatable {
    /// Of every campaign, beneath those of single ones.
    var everyCampaign = CampaignSettings()
    var campaigns: [Int64: CampaignSettings] = [:]
    public private(set) var presence: PresenceThresholds?
    public private(set) var renewals: RenewalChange?

    struct CampaignSettings: Sendable, Equatable {
        /// `.some(nil)`: never abort.
        var threshold: Double??
        var resultsMin: Int64?

        var isEmpty: Bool { threshold == nil && resultsMin == nil }
    }

    public static let names = [
        "campaign.ID.abort_threshold", "campaign.ID.abort_results_min", "presence.stale_seconds",
        "presence.offline_seconds", "certificates.renew_after_percent", "certificates.renew_grace_days",
    ]

    public init() {}

    /// Whether anything about campaigns is asked.
    public var asksForCampaigns: Bool { !everyCampaign.isEmpty || !campaigns.isEmpty }
    public var isEmpty: Bool { !asksForCampaigns && presence == nil && renewals == nil }

    /// Takes in one `NAME=VALUE`. - Throws: `WhatIfError`, which says what would be right.
    public mutating func set(_ text: String) throws(WhatIfError) {
        let parts = text.split(separator: "=", maxSplits: 1).map(String.init)
        guard parts.count == 2 else { throw WhatIfError("\(text): must be NAME=VALUE") }
        let name = parts[0].split(separator: ".", omittingEmptySubsequences: false).map(String.init)
        switch (name.first, name.count) {
        case ("campaign", 3): try setCampaign(name[1], name[2], parts[1], text)
        case ("presence", 2): try setPresence(name[1], parts[1], text)
        case ("certificates", 2): try setRenewals(name[1], parts[1], text)
        default: throw Self.unknown(parts[0])
        }
    }

    private static func unknown(_ name: String) -> WhatIfError {
        WhatIfError(
            "\(name) is nothing that history can be asked about; there are: \(names.joined(separator: ", ")) "
                + "(ID may be * for every campaign)")
    }

    private mutating func setCampaign(
        _ id: String, _ name: String, _ value: String, _ text: String
    ) throws(WhatIfError) {
        guard id == "*" || Int64(id) != nil else { throw WhatIfError("\(text): a campaign is a number, or *") }
        var settings = Int64(id).map { campaigns[$0] ?? CampaignSettings() } ?? everyCampaign
        switch name {
        case "abort_threshold":
            if value == "none" {
                settings.threshold = .some(nil)
            } else if let share = Double(value), (0...1).contains(share) {
                settings.threshold = .some(share)
            } else {
                throw WhatIfError("\(text): a threshold is a share from 0 to 1, or none")
            }
        case "abort_results_min":
            guard let count = Int64(value), count >= 1 else { throw WhatIfError("\(text): must be 1 or more") }
            settings.resultsMin = count
        default: throw Self.unknown("campaign.\(id).\(name)")
        }
        if let id = Int64(id) { campaigns[id] = settings } else { everyCampaign = settings }
    }

    private mutating func setPresence(_ name: String, _ value: String, _ text: String) throws(WhatIfError) {
        guard let seconds = Double(value), seconds > 0, seconds <= 31_536_000 else {
            throw WhatIfError("\(text): must be seconds, more than 0 and at most a year")
        }
        var thresholds = presence ?? PresenceThresholds()
        switch name {
        case "stale_seconds": thresholds.staleSeconds = seconds
        case "offline_seconds": thresholds.offlineSeconds = seconds
        default: throw Self.unknown("presence.\(name)")
        }
        presence = thresholds
    }

    private mutating func setRenewals(_ name: String, _ value: String, _ text: String) throws(WhatIfError) {
        var change = renewals ?? RenewalChange()
        switch name {
        case "renew_after_percent":
            guard let percent = Int64(value), (1...95).contains(percent) else {
                throw WhatIfError("\(text): must be a percentage from 1 to 95")
            }
            change.afterPercent = percent
        case "renew_grace_days":
            guard let days = Int64(value), (1...365).contains(days) else {
                throw WhatIfError("\(text): must be from 1 to 365 days")
            }
            change.graceSeconds = days * 86_400
        default: throw Self.unknown("certificates.\(name)")
        }
        renewals = change
    }

    /// What only the settings together can be wrong in.
    public func check() throws(WhatIfError) {
        if let presence, presence.offlineSeconds < presence.staleSeconds {
            throw WhatIfError(
                "presence.offline_seconds (\(presence.offlineSeconds)) must not be less than presence.stale_seconds "
                    + "(\(presence.staleSeconds))")
        }
    }

    /// The rule for a campaign whose recorded threshold is `recorded`; nil when nothing was asked about it.
    func rule(campaign: Int64, recorded: Double?) -> AbortRule? {
        let own = campaigns[campaign] ?? CampaignSettings()
        guard !own.isEmpty || !everyCampaign.isEmpty else { return nil }
        return AbortRule(
            threshold: (own.threshold ?? everyCampaign.threshold) ?? recorded,
            resultsMin: own.resultsMin ?? everyCampaign.resultsMin ?? 1)
    }
}

/// A question that makes no sense. The text says what would.
public struct WhatIfError: Error, Sendable, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
}
