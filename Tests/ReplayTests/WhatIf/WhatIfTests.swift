import Campaigns
import EventLog
import EventModel
import Testing

@testable import WhatIf

/// A history of a campaign and its devices, written as a story.
private struct Story {
    var lines: [String] = []

    private mutating func add(
        _ kind: String, _ topic: String, _ payload: String, at second: Int, retain: Bool = false
    ) {
        let escaped = payload.replacing("\"", with: "\\\"")
        let time = Timestamp(microseconds: 1_772_352_000_000_000 + Int64(second) * 1_000_000)
        lines.append(
            #"{"position":\#(lines.count),"received_at":"\#(time)","kind":"\#(kind)","broker":"main","#
                + #""topic":"\#(topic)","retain":\#(retain),"verdict":"ACCEPTED","payload_text":"\#(escaped)"}"#)
    }

    mutating func campaign(_ id: Int, devices: Range<Int>, threshold: Double? = nil) {
        let share = threshold.map { #","abort_threshold":\#($0)"# } ?? ""
        add(
            "decision", "campaign.created/1",
            """
            {"id":\(id),"tenant_id":"acme","name":"june","firmware_version_id":1,"rollout_strategy":"linear",\
            "total_devices":\(devices.count),"actor":"ann"\(share)}
            """, at: 0)
        let names = devices.map { "\"d\($0)\"" }.joined(separator: ",")
        add(
            "decision", "campaign.targets/1",
            """
            {"campaign_id":\(id),"tenant_id":"acme","first_id":1,"devices":[\(names)]}
            """, at: 0)
        status(id, "started", "CREATED", "RUNNING", at: 1)
    }

    mutating func status(_ id: Int, _ verb: String, _ before: String, _ after: String, at: Int, by: String = "ann") {
        add(
            "decision", "campaign.\(verb)/1",
            """
            {"campaign_id":\(id),"tenant_id":"acme","before":"\(before)","after":"\(after)","actor":"\(by)"}
            """, at: at)
    }

    mutating func report(_ id: Int, _ device: Int, _ status: String, at: Int, tenant: String = "acme") {
        add(
            "message", "tenant/\(tenant)/device/d\(device)/ota/status",
            """
            {"campaign_id":\(id),"status":"\(status)"}
            """, at: at)
    }

    mutating func heartbeat(_ device: Int, at: Int, retain: Bool = false) {
        add("message", "tenant/acme/device/d\(device)/heartbeat", "{}", at: at, retain: retain)
    }

    func ask(_ settings: [String], was: PresenceThresholds = PresenceThresholds()) throws -> WhatIfReport {
        var asked = WhatIfSettings()
        for text in settings { try asked.set(text) }
        let log = CaseLog(try lines.map(RecordedCase.Event.init), commitEvents: 3)
        return try WhatIf.run(
            asked, presenceBefore: was, over: log, in: Position(0)..<Position(log.durableCount))
    }
}

@Suite struct WhatIfTests {
    /// d0 and d1 succeed, d2 fails, d3 is in flight, then d4 fails, d5 succeeds, d6 begins, d7 never speaks.
    private func story(threshold: Double? = nil) -> Story {
        var story = Story()
        story.campaign(7, devices: 0..<8, threshold: threshold)
        story.report(7, 0, "SUCCESS", at: 10)
        story.report(7, 1, "SUCCESS", at: 11)
        story.report(7, 3, "DOWNLOADING", at: 12)
        story.report(7, 2, "FAILED", at: 13)
        story.report(7, 2, "SUCCESS", at: 14)
        story.report(7, 4, "FAILED", at: 15)
        story.report(7, 5, "SUCCESS", at: 16)
        story.report(7, 6, "INSTALLING", at: 17)
        story.report(7, 3, "SUCCESS", at: 18)
        return story
    }

    @Test func aLowerThresholdWouldHaveEndedItEarlier() throws {
        let report = try story().ask(["campaign.7.abort_threshold=0.3"])
        let campaign = try #require(report.campaigns.first)
        #expect(campaign.recorded.status == .running && campaign.recorded.aborted == nil)
        #expect(campaign.recorded.succeeded == 4 && campaign.recorded.failed == 2)
        // 1 of 3 is more than 0.3.
        #expect(campaign.whatIf.status == .aborted && campaign.whatIf.aborted?.position == Position(6))
        #expect(campaign.whatIf.aborted?.reason == "1 of 3 failed" && campaign.whatIf.succeeded == 2)
        let difference = try #require(campaign.difference)
        #expect(difference.spared == ["d4"] && difference.lost == ["d5"] && difference.inFlight == ["d3"])
        #expect(difference.begunLater == ["d6"] && difference.silent == 1)
        #expect(campaign.caveats.contains { $0.contains("1 devices never reported") })
    }

    /// Exactly the threshold is not beyond it, and too few results are none.
    @Test(
        arguments: [
            ("abort_threshold=0.5", nil), ("abort_threshold=none", nil), ("abort_threshold=0", 6),
            ("abort_threshold=0.34", 8), ("abort_threshold=0.4", 8),
        ] as [(String, UInt64?)])
    func theRuleIsTheShareOfFinishedDevices(setting: String, position: UInt64?) throws {
        let report = try story().ask(["campaign.7.\(setting)"])
        #expect(report.campaigns[0].whatIf.aborted?.position.rawValue == position)
    }

    @Test func fewResultsAreNotJudged() throws {
        let report = try story().ask(["campaign.*.abort_threshold=0.3", "campaign.7.abort_results_min=6"])
        // 2 of 6, at the last result.
        #expect(report.campaigns[0].whatIf.aborted?.position == Position(11))
    }

    @Test func whatPeopleDecidedStandsAndWhatTheRuleDecidedDoesNot() throws {
        for (actor, stands) in [("ann", true), (AbortRule.actor, false)] {
            var story = Story()
            story.campaign(7, devices: 0..<4, threshold: 0.5)
            story.report(7, 0, "FAILED", at: 5)
            story.status(7, "aborted", "RUNNING", "ABORTED", at: 6, by: actor)
            story.report(7, 1, "SUCCESS", at: 7)
            let campaign = try story.ask(["campaign.7.abort_threshold=none"]).campaigns[0]
            #expect(campaign.recorded.aborted?.actor == actor)
            #expect((campaign.whatIf.aborted != nil) == stands)
            #expect(campaign.caveats.contains { $0.contains("cannot be known") } == !stands)
        }
    }

    @Test func aPausedCampaignIsJudgedWhenItGoesOn() throws {
        var story = Story()
        story.campaign(7, devices: 0..<4)
        story.status(7, "paused", "RUNNING", "PAUSED", at: 2)
        story.report(7, 0, "FAILED", at: 5)
        story.status(7, "resumed", "PAUSED", "RUNNING", at: 6)
        let campaign = try story.ask(["campaign.7.abort_threshold=0.1"]).campaigns[0]
        #expect(campaign.whatIf.aborted?.position == Position(5))
    }

    @Test func anUnheededThresholdAndAMissingCampaignAreSaid() throws {
        let report = try story(threshold: 0.1).ask(["campaign.7.abort_threshold=none", "campaign.8.abort_threshold=0"])
        #expect(report.campaigns[0].caveats.contains { $0.contains("its own threshold of 0.1") })
        #expect(report.missing == [8] && report.campaigns.count == 1)
    }

    @Test func silencesUnderTwoRules() throws {
        var story = Story()
        story.heartbeat(1, at: 0)
        story.heartbeat(2, at: 0)
        story.heartbeat(1, at: 90)  // exactly the threshold: ONLINE
        story.heartbeat(1, at: 200)  // STALE for 20 s
        story.heartbeat(2, at: 210, retain: true)  // replayed: no activity
        story.heartbeat(1, at: 600)  // STALE for 210 s, OFFLINE for 100 s
        story.heartbeat(3, at: 700)
        let report = try story.ask(["presence.stale_seconds=100", "presence.offline_seconds=650"])
        let presence = try #require(report.presence)
        // d1: 90, 110, 400, 100 to the end; d2: 700; d3: 0.
        #expect(
            presence.totalBefore
                == PresenceTally(
                    timesStale: 4, timesOffline: 2, staleMicroseconds: (20 + 210 + 10 + 210) * 1_000_000,
                    offlineMicroseconds: (100 + 400) * 1_000_000))
        #expect(
            presence.totalAfter
                == PresenceTally(
                    timesStale: 3, timesOffline: 1, staleMicroseconds: (10 + 300 + 550) * 1_000_000,
                    offlineMicroseconds: 50 * 1_000_000))
        #expect(presence.differing.map(\.address) == ["tenant/acme/device/d1", "tenant/acme/device/d2"])
        #expect(presence.devices == 3)
    }

    @Test(arguments: [
        "campaign.7", "campaign.x.abort_threshold=1", "campaign.7.abort_threshold=1.5", "campaign.7.rollout_rate=3",
        "presence.stale_seconds=0", "presence.grace=1", "scrub.bytes_per_second=0", "campaign.7.abort_results_min=0",
    ])
    func whatCannotBeAskedIsRefused(text: String) {
        var settings = WhatIfSettings()
        #expect(throws: WhatIfError.self) { try settings.set(text) }
    }

    /// History is not changed, and the same question has the same answer however the log is cut.
    @Test func recordedAndAskedAgainAreTheSame() throws {
        let story = story()
        let first = try story.ask(["campaign.7.abort_threshold=0.3"]).campaigns
        #expect(try story.ask(["campaign.*.abort_threshold=0.3"]).campaigns == first)
    }
}
