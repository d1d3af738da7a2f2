import Access
import CampaignRules
import Campaigns
import Decisions
import EventModel
import Foundation
import Testing
@testable import ControlAPI
@testable import refold

/// The verbs about campaigns, groups and tokens, run as programs.
@Suite struct CampaignCommandTests {
    let commands = CommandTests()
    var system: StandIn { commands.system }

    @Test func verbsReachTheirRoutes() async throws {
        system.set { $0.campaignRow = #"{"id":1,"status":"COMPLETED","total_devices":2,"succeeded":2}"# }
        system.tokens.add("old", .viewer)
        try await commands.withServer { refold in
            for verb in [
                ["group", "create", "--tenant", "t1", "--name", "g", "--devices", "a, b"],
                [
                    "group", "create", "--tenant", "t1", "--name", "q", "--site", "s1", "--site", "s2",
                    "--not-firmware",
                    "1.0", "--seen-within", "60",
                ],
                ["group", "add", "2", "--tenant", "t1", "--devices", "c"],
                ["group", "remove", "2", "--tenant", "t1", "--devices", "a"],
                ["group", "delete", "2", "--tenant", "t1"],
                ["campaign", "retry", "7", "--tenant", "t1", "--kind", "download"],
                ["campaign", "delete", "7", "--tenant", "t1"],
                ["campaign", "time-zone", "Europe/Berlin", "--tenant", "t1"],
                ["campaign", "start", "1", "--tenant", "t1", "--watch"],
                ["group", "list", "--tenant", "t1"], ["group", "show", "1", "--tenant", "t1"],
                ["group", "members", "1", "--tenant", "t1"], ["campaign", "time-zone", "--tenant", "t1"],
                ["campaign", "devices", "1", "--tenant", "t1", "--status", "failed", "--search", "d"],
                ["campaign", "timeline", "1", "--tenant", "t1", "--newest", "--limit", "2"],
                ["campaign", "failures", "1", "--tenant", "t1"], ["campaign", "watch", "1", "--tenant", "t1"],
                ["token", "create", "--name", "ci", "--role", "operator", "--tenant", "t1", "--days", "1"],
                ["token", "list"], ["token", "revoke", "1"],
            ] {
                let people = try await refold(verb)
                #expect(people.code == 0 && !people.out.isEmpty, "\(verb): \(people.err)")
                guard ["list", "show", "devices", "timeline", "failures", "watch"].contains(verb[1]) else { continue }
                let programs = try await refold(verb + ["--json"])
                #expect(programs.code == 0 && programs.out.hasPrefix("{"), "\(verb): \(programs.err)")
            }
        }
        var query = GroupQuery()
        (query.sites, query.firmwareVersionsNot, query.seenWithinSeconds) = (["s1", "s2"], ["1.0"], 60)
        #expect(
            system.requests.map(\.command) == [
                .createGroup(GroupSpec(name: "g", devices: ["a", "b"])),
                .createGroup(GroupSpec(name: "q", query: query)),
                .changeMembers(group: 2, add: ["c"], remove: []), .changeMembers(group: 2, add: [], remove: ["a"]),
                .deleteGroup(2), .retryFailed(campaign: 7, kinds: [.download]), .delete(campaign: 7),
                .configureTenant(timeZone: "Europe/Berlin"), .start(campaign: 1),
            ])
    }

    @Test func aPlanComesFromAFileAndFromSettings() async throws {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("plan-\(UUID().uuidString)")
        try Data(#"{"tick_seconds":5,"abort":{"results_min":10}}"#.utf8).write(to: file)
        defer { try? FileManager.default.removeItem(at: file) }
        let create = ["campaign", "create", "--tenant", "t1", "--name", "n", "--firmware", "1", "--group", "3"]
        try await commands.withServer { refold in
            let made = try await refold(
                create + [
                    "--plan", file.path, "--set", "abort.method=ratio", "--set", "timeouts.download_seconds=600",
                    "--set", "verify=shadow",
                ])
            #expect(made.code == 0, "\(made.err)")
            #expect(try await refold(create + ["--set", "verify"]).code == 2)
            #expect(try await refold(create + ["--devices", "a"]).code == 2, "devices from two places")
            let misspelt = try await refold(create + ["--set", "abort.methode=ratio"])
            #expect(misspelt.code == 1 && misspelt.err.contains("plan.abort.methode"), "\(misspelt.err)")
        }
        guard case .createCampaign(let spec)? = system.requests.first?.command else {
            return #expect(Bool(false), "no command")
        }
        #expect(spec.targetGroupID == 3 && spec.plan.tickSeconds == 5 && spec.plan.abort.resultsMin == 10)
        #expect(spec.plan.abort.method == .ratio && spec.plan.timeouts.downloadSeconds == 600)
        #expect(spec.plan.verify == .shadow && system.requests.count == 1)
    }

    @Test func anAbortedCampaignIsExitCodeOne() async throws {
        system.set { $0.campaignRow = #"{"id":1,"status":"ABORTED","total_devices":2,"failed":2}"# }
        try await commands.withServer { refold in
            let watched = try await refold(["campaign", "watch", "1", "--tenant", "t1"])
            #expect(watched.code == 1 && watched.out.hasPrefix("ABORTED: 2 of 2 ended"), "\(watched.err)")
            #expect(try await refold(["campaign", "watch", "2", "--tenant", "t1"]).code == 1)
        }
    }

    @Test func theLiveViewIsCalm() throws {
        let row = try #require(
            try JSONSerialization.jsonObject(
                with: Data(
                    #"""
                    {"id":7,"name":"night\u001b[2J","status":"RUNNING","stage":1,"total_devices":100,"pending":50,
                     "in_flight":10,"succeeded":30,"failed":10,"skipped":0,
                     "plan":{"stages":[{"percent":10},{"percent":100}]}}
                    """#.utf8)) as? [String: Any])
        let lines = CampaignWatch.lines(
            row, failures: [["devices": 8, "failure_kind": "DOWNLOAD", "error": "checksum"]],
            timeline: [["at": "2026-11-21T22:00:00", "event_type": "stage_begun", "actor": "engine", "devices": 90]],
            devicesPerSecond: 2)
        #expect(lines[0] == "campaign 7 night\u{FFFD}[2J: RUNNING, stage 2 of 2 (100 %)")
        let bar = String(repeating: "█", count: 15) + "▓▓▓▓▓░░░░░" + String(repeating: "·", count: 25)
        #expect(lines[2] == "  \(bar) 40 % of 100")
        #expect(lines.contains("  2.0 devices/s, about 30 s left at this pace"))
        #expect(lines.contains("    8 × DOWNLOAD checksum"))
        #expect(lines.last == "    2026-11-21T22:00:00 stage_begun 90 devices by engine")
    }
}
