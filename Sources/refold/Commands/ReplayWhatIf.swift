import ArgumentParser
import Campaigns
import EventLog
import EventModel
import WhatIf

/// `refold replay what-if`: works on the files alone, and changes nothing.
struct ReplayWhatIf: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "what-if", abstract: "What would have been decided under another setting.",
        discussion: """
            Goes through the recorded history and decides again what a rule decides: whether a campaign would have \
            been aborted, when, and which devices would have been spared or have gone without their update \
            (campaign.ID.abort_threshold, a share from 0 to 1 or none; campaign.ID.abort_results_min; ID may be *); \
            with --campaign, the whole campaign by any other rule of its plan, such as abort.method=ratio, \
            rollout_rate=50, retry.attempts_max=3, stages=[{"percent":5},{"percent":100}]; \
            how often and for how long devices would have counted as STALE and OFFLINE (presence.stale_seconds, \
            presence.offline_seconds); when devices would have been asked to renew their certificates, and which would \
            have been in time (certificates.renew_after_percent, certificates.renew_grace_days). What people decided \
            and what devices reported stays as it is on record. Where history cannot answer, the report says so. \
            Nothing is changed. \
            Exit code 0: answered; 1: a campaign that was asked about is not in the history; 2: no such setting.
            """)
    @Option(name: .customLong("set"), help: "Setting to change, NAME=VALUE; may be repeated.")
    var set: [String] = []
    @Option(
        help: """
            Lets this campaign go once more, by the engine itself: each --set is a rule of its plan, or \
            abort_threshold, rollout_rate, rollout_strategy. Without any --set: as it was, to check.
            """)
    var campaign: Int64?
    @Option(
        name: .customLong("was"),
        help: """
            What presence is compared with, NAME=VALUE: the thresholds that were in force are not on record. \
            Default: \(Int(PresenceThresholds().staleSeconds)) and \(Int(PresenceThresholds().offlineSeconds)) seconds.
            """)
    var was: [String] = []
    @Option(help: "At most so many devices by name in each list; --json gives all.") var devices = 10
    @OptionGroup var range: LogRangeOptions
    @OptionGroup var data: DataOption
    @Flag(help: "Print JSON, one object.") var json = false

    func validate() throws {
        guard devices >= 0 else { throw ValidationError("--devices must be 0 or more") }
        guard campaign == nil else {
            guard was.isEmpty else {
                throw ValidationError(
                    "--was applies to presence only: the log has the settings of campaigns and renewals")
            }
            _ = try changes()
            return
        }
        _ = try settings()
    }

    private func settings() throws -> (asked: WhatIfSettings, before: PresenceThresholds) {
        do throws(WhatIfError) {
            var asked = WhatIfSettings(), before = WhatIfSettings()
            for text in set { try asked.set(text) }
            for text in was { try before.set(text) }
            try asked.check()
            try before.check()
            guard !asked.isEmpty else { throw WhatIfError("--set is missing: name the setting to change, NAME=VALUE") }
            guard !before.asksForCampaigns, before.renewals == nil else {
                throw WhatIfError("--was applies to presence only: the log has the settings of campaigns and renewals")
            }
            return (asked, before.presence ?? PresenceThresholds())
        } catch {
            throw ValidationError(error.description)
        }
    }

    private func changes() throws -> [PlanChange] {
        do {
            return try set.map { try PlanChange($0) }
        } catch {
            throw ValidationError("\(error)")
        }
    }

    private func rerun(_ campaign: Int64) throws {
        let log = try data.openLog()
        do {
            let rerun = try WhatIf.rerun(campaign: campaign, try changes(), over: log, in: try range.positions(in: log))
            guard let rerun else {
                throw ExitCode(1, printing: "there is no campaign \(campaign) in this history that was started")
            }
            if json { print(jsonLine(rerun.json)) } else { print(rerun.text(devicesMax: devices)) }
        } catch let error as LogError {
            throw error.exit
        } catch let error as WhatIfError {
            throw ValidationError(error.description)
        }
    }

    func run() throws {
        if let campaign { return try rerun(campaign) }
        let (asked, before) = try settings()
        let log = try data.openLog()
        do {
            let positions = try range.positions(in: log)
            let report = try WhatIf.run(asked, presenceBefore: before, over: log, in: positions)
            if json { print(jsonLine(report.json)) } else { print(report.text(devicesMax: devices)) }
            for id in report.missing { printError("there is no campaign \(id) in this history") }
            if !report.missing.isEmpty { throw ExitCode(1) }
        } catch let error as LogError {
            throw error.exit
        }
    }
}

// MARK: for people

extension WhatIfReport {
    func text(devicesMax: Int) -> String {
        var parts = campaigns.map { $0.text(devicesMax: devicesMax) }
        if let presence { parts.append(presence.text(devicesMax: devicesMax)) }
        if let renewals { parts.append(renewals.text(devicesMax: devicesMax)) }
        if parts.isEmpty { parts.append("no campaign in this history is asked about") }
        return parts.joined(separator: "\n\n")
    }
}

extension CampaignWhatIf {
    fileprivate func text(devicesMax: Int) -> String {
        var lines = ["campaign \(id) (\(name), tenant \(tenantID), \(devices) devices)"]
        lines.append(
            comparison(
                recorded, whatIf,
                [
                    ("abort_threshold", { $0.threshold.map { "\($0)" } ?? "none" }),
                    ("status", { $0.status.rawValue }),
                    ("aborted at", { $0.aborted?.at.description ?? "-" }),
                    ("at position", { $0.aborted.map { "\($0.position)" } ?? "-" }),
                    ("by", { $0.aborted?.actor ?? "-" }),
                    ("because", { $0.aborted?.reason ?? "-" }),
                    ("succeeded by then", { "\($0.succeeded)" }),
                    ("failed by then", { "\($0.failed)" }),
                ]))
        if let difference {
            let lists = [
                deviceList(
                    difference.spared, "failed after that moment and would have been spared", max: devicesMax),
                deviceList(
                    difference.lost, "succeeded after it and would have gone without their update",
                    max: devicesMax),
                deviceList(
                    difference.inFlight, "had begun and had no result: an abort does not call them back",
                    max: devicesMax),
                deviceList(difference.begunLater, "began after it and have no result", max: devicesMax),
            ]
            lines += lists.compactMap(\.self)
        }
        return (lines + caveats.map { "note: " + $0 }).joined(separator: "\n")
    }
}

extension WhatIfReport.Presence {
    fileprivate func text(devicesMax: Int) -> String {
        func hours(_ microseconds: Int64) -> String { "\((Double(microseconds) / 36_000_000).rounded() / 100) h" }
        func row(_ name: String, _ before: String, _ after: String) -> [String: Any] {
            ["": name, "before": before, "what if": after]
        }
        let columns: [TextTable.Column] = [.init("", ""), .init("before", "before"), .init("what if", "what if")]
        var lines = [
            "presence of \(devices) devices",
            TextTable(columns: columns).text([
                row("stale after", "\(before.staleSeconds) s", "\(after.staleSeconds) s"),
                row("offline after", "\(before.offlineSeconds) s", "\(after.offlineSeconds) s"),
                row("times stale", "\(totalBefore.timesStale)", "\(totalAfter.timesStale)"),
                row("times offline", "\(totalBefore.timesOffline)", "\(totalAfter.timesOffline)"),
                row("time stale", hours(totalBefore.staleMicroseconds), hours(totalAfter.staleMicroseconds)),
                row("time offline", hours(totalBefore.offlineMicroseconds), hours(totalAfter.offlineMicroseconds)),
            ]),
            "\(differing.count) devices differ",
        ]
        for device in differing.prefix(devicesMax) {
            lines.append(
                "  \(device.address): offline \(device.before.timesOffline) → \(device.after.timesOffline) times, "
                    + "stale \(device.before.timesStale) → \(device.after.timesStale) times")
        }
        lines.append("note: which thresholds were in force is not on record; --was says what to compare with")
        return lines.joined(separator: "\n")
    }
}

// MARK: for programs

extension WhatIfReport {
    var json: [String: Any] {
        var object: [String: Any] = [
            "from": range.lowerBound.rawValue, "to": range.upperBound.rawValue,
            "campaigns": campaigns.map(\.json), "missing_campaigns": missing,
        ]
        if let presence { object["presence"] = presence.json }
        if let renewals { object["renewals"] = renewals.json }
        return object
    }
}

extension CampaignWhatIf {
    fileprivate var json: [String: Any] {
        var object: [String: Any] = [
            "campaign_id": id, "tenant_id": tenantID, "name": name, "devices": devices, "recorded": recorded.json,
            "what_if": whatIf.json, "notes": caveats,
        ]
        if let difference {
            object["difference"] = [
                "spared": difference.spared, "lost": difference.lost, "in_flight": difference.inFlight,
                "begun_later_without_result": difference.begunLater, "silent": difference.silent,
            ]
        }
        return object
    }
}

extension CampaignWhatIf.Course {
    fileprivate var json: [String: Any] {
        var object: [String: Any] = ["status": status.rawValue, "succeeded": succeeded, "failed": failed]
        object["abort_threshold"] = threshold
        if let aborted {
            object["aborted_at"] = aborted.at.description
            object["aborted_position"] = aborted.position.rawValue
            object["aborted_by"] = aborted.actor
            object["reason"] = aborted.reason
        }
        return object
    }
}

extension WhatIfReport.Presence {
    fileprivate var json: [String: Any] {
        [
            "devices": devices, "before": Self.json(before, totalBefore), "what_if": Self.json(after, totalAfter),
            "differing": differing.map { device -> [String: Any] in
                [
                    "device": device.address, "before": Self.json(nil, device.before),
                    "what_if": Self.json(nil, device.after),
                ]
            },
        ]
    }

    private static func json(_ thresholds: PresenceThresholds?, _ tally: PresenceTally) -> [String: Any] {
        var object: [String: Any] = [
            "times_stale": tally.timesStale, "times_offline": tally.timesOffline,
            "seconds_stale": Double(tally.staleMicroseconds) / 1_000_000,
            "seconds_offline": Double(tally.offlineMicroseconds) / 1_000_000,
        ]
        object["stale_seconds"] = thresholds?.staleSeconds
        object["offline_seconds"] = thresholds?.offlineSeconds
        return object
    }
}
