import Decisions
import EventModel
import Testing

@testable import Projections

/// What a campaign counts, case by case: the reports of device d1 in order, and what then stands.
@Suite struct CampaignTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let name: String
        /// `status`, `status:progress` or `status:progress:error`; a `!` in front: from a device that is no target.
        let reports: [String]
        /// status, progress, error, started, completed, reports, late of d1
        let device: String
        /// succeeded, failed, skipped of the campaign
        let counts: String
        var testDescription: String { name }

        init(_ name: String, _ reports: [String], _ device: String, _ counts: String) {
            (self.name, self.reports, self.device, self.counts) = (name, reports, device, counts)
        }
    }

    @Test(arguments: [
        Case("none", [], "PENDING null null null null 0 0", "0 0 0"),
        Case(
            "the ordinary way", ["DOWNLOADING:10", "DOWNLOADING:90", "INSTALLING:95", "SUCCESS:100"],
            "SUCCESS 100.0 null @2 @5 4 0", "1 0 0"),
        Case("success repeated", ["SUCCESS", "SUCCESS", "SUCCESS"], "SUCCESS null null @2 @2 3 2", "1 0 0"),
        Case("failure repeated", ["FAILED:5:disk", "FAILED:6:again"], "FAILED 5.0 disk @2 @2 2 1", "0 1 0"),
        Case("failed, then success", ["FAILED:5:disk", "SUCCESS:100"], "FAILED 5.0 disk @2 @2 2 1", "0 1 0"),
        Case("success, then failed", ["SUCCESS", "FAILED:0:late"], "SUCCESS null null @2 @2 2 1", "1 0 0"),
        Case(
            "downloading after success", ["DOWNLOADING:50", "SUCCESS:100", "DOWNLOADING:60", "INSTALLING:70"],
            "SUCCESS 100.0 null @2 @3 4 2", "1 0 0"),
        Case(
            "reordered before the end", ["INSTALLING:80", "DOWNLOADING:40"],
            "DOWNLOADING 40.0 null @2 null 2 0", "0 0 0"),
        Case("an error that passed", ["DOWNLOADING:1:slow", "INSTALLING"], "INSTALLING 1.0 null @2 null 2 0", "0 0 0"),
        Case("words in any case", ["downloading", "Success"], "SUCCESS null null @2 @3 2 0", "1 0 0"),
        Case("no target", ["!SUCCESS", "!FAILED"], "PENDING null null null null 0 0", "0 0 0"),
        Case(
            "progress beyond the ends", ["DOWNLOADING:250", "INSTALLING:-1"],
            "INSTALLING 0.0 null @2 null 2 0", "0 0 0"),
    ])
    func reports(_ test: Case) throws {
        var history = History()
        try history.campaign(7, devices: ["d1", "d2"])
        for report in test.reports {
            let parts = report.split(separator: ":").map(String.init)
            var members = [#""campaign_id":7"#, #""status":"\#(parts[0].replacing("!", with: ""))""#]
            if parts.count > 1 { members.append(#""progress":\#(parts[1])"#) }
            if parts.count > 2 { members.append(#""error":"\#(parts[2])""#) }
            history.message(
                "ota/status", "{\(members.joined(separator: ","))}", device: report.hasPrefix("!") ? "stranger" : "d1")
        }
        let columns = [
            "device_id", "status", "progress_pct", "error_message", "started_at", "completed_at", "report_count",
            "late_report_count",
        ]
        #expect(
            history.rows("campaigns", "ota_device_status", columns)
                == ["d1 " + test.device, "d2 PENDING null null null null 0 0"])
        #expect(history.rows("campaigns", "ota_campaigns", ["succeeded", "failed", "skipped"]) == [test.counts])
    }

    @Test func reportsThatFitNoTargetAreKept() throws {
        var history = History()
        history.message("ota/status", #"{"campaign_id":7,"status":"SUCCESS"}"#)
        try history.campaign(7, devices: ["d1"])
        history.message("ota/status", #"{"campaign_id":7,"status":"SUCCESS"}"#, device: "d9")
        history.message("ota/status", #"{"campaign_id":7,"status":"SUCCESS"}"#, tenant: "other", device: "d1")
        history.message("ota/status", #"{"campaign_id":8,"status":"failed"}"#)
        history.message("ota/status", #"{"campaign_id":7,"status":"SUCCESS"}"#, flags: .retained)
        history.message("ota/status", #"{"campaign_id":7,"status":"SUCCESS"}"#, verdict: .payloadTooLarge)
        let columns = ["position", "tenant_id", "device_id", "campaign_id", "status", "reason"]
        #expect(
            history.rows("campaigns", "ota_unmatched_reports", columns) == [
                "0 acme d1 7 SUCCESS UNKNOWN_CAMPAIGN", "3 acme d9 7 SUCCESS NOT_A_TARGET",
                "4 other d1 7 SUCCESS OTHER_TENANT", "5 acme d1 8 FAILED UNKNOWN_CAMPAIGN",
            ])
        #expect(history.rows("campaigns", "ota_device_status", ["status"]) == ["PENDING"])
    }

    @Test func aCampaignsLife() throws {
        var history = History()
        var firmware = FirmwareAdded(id: 1, tenantID: "acme", version: "2.0", fileURL: "https://x/y", actor: "ann")
        firmware.fileSizeBytes = 5
        try history.decision(.firmwareAdded, firmware)
        try history.campaign(7, devices: ["d1"])
        for (schema, before, after) in [
            (CampaignSchema.campaignStarted, "CREATED", "RUNNING"), (.campaignPaused, "RUNNING", "PAUSED"),
            (.campaignResumed, "PAUSED", "RUNNING"), (.campaignAborted, "RUNNING", "ABORTED"),
        ] {
            try history.decision(
                schema,
                CampaignStatusChanged(
                    campaignID: 7, tenantID: "acme", before: before, after: after, actor: "bob"))
        }
        try history.decision(
            .commandRejected,
            CommandRejected(
                command: "campaign.start", subject: "campaign:7", tenantID: "acme", actor: "eve",
                reason: "it is aborted"))
        #expect(
            history.rows(
                "campaigns", "ota_campaigns",
                [
                    "id", "status", "started_at", "completed_at", "created_at", "created_by", "total_devices",
                    "last_position",
                ]) == ["7 ABORTED @3 @6 @1 ann 1 6"])
        #expect(
            history.rows(
                "campaigns", "firmware_versions",
                ["id", "version", "file_size_bytes", "description", "created_at"])
                == ["1 2.0 5 null @0"])
        #expect(
            history.rows("audit_logs", "audit_logs", ["position", "actor", "action", "subject", "before"]) == [
                "0 ann firmware.added firmware:1 null", "1 ann campaign.created campaign:7 null",
                #"3 bob campaign.started campaign:7 {"status":"CREATED"}"#,
                #"4 bob campaign.paused campaign:7 {"status":"RUNNING"}"#,
                #"5 bob campaign.resumed campaign:7 {"status":"PAUSED"}"#,
                #"6 bob campaign.aborted campaign:7 {"status":"RUNNING"}"#, "7 eve command.rejected campaign:7 null",
            ])
    }
}
