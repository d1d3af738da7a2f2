import Decisions
import EventModel
import Testing

@testable import CampaignRules

struct PlanProblemsTests {
    @Test func theDefaultsAreSound() {
        #expect(CampaignPlan().problems() == [])
        var canary = CampaignPlan()
        canary.stages = CampaignPlan.Stage.defaults
        #expect(canary.problems() == [])
    }

    struct Case: Sendable, CustomTestStringConvertible {
        var field: String
        var change: @Sendable (inout CampaignPlan) -> Void
        var testDescription: String { field }
        init(_ field: String, _ change: @escaping @Sendable (inout CampaignPlan) -> Void) {
            (self.field, self.change) = (field, change)
        }
    }

    @Test(arguments: [
        Case("tick_seconds") { $0.tickSeconds = 0 },
        Case("tick_seconds") { $0.tickSeconds = .nan },
        Case("stages[0].percent") { $0.stages = [.init(percent: 0), .init(percent: 100)] },
        Case("stages[1].percent") { $0.stages = [.init(percent: 10), .init(percent: 10), .init(percent: 100)] },
        Case("stages[0].percent") { $0.stages = [.init(percent: 99)] },
        Case("stages[0].soak_seconds") { $0.stages = [.init(percent: 100, soakSeconds: -1)] },
        Case("stages[0].ended_min") { $0.stages = [.init(percent: 100, endedMin: 0)] },
        Case("stages[0].success_min") { $0.stages = [.init(percent: 100, successMin: 1.1)] },
        Case("stages") { $0.stages = (1...101).map { .init(percent: Double($0)) } },
        Case("stages") { $0.stages = [.init(percent: 1, soakSeconds: 31 * 86_400), .init(percent: 100)] },
        Case("windows[0].to") { $0.windows = [.init(from: "01:00", to: "")] },
        Case("windows") { $0.windows = .init(repeating: .init(from: "01:00", to: "02:00"), count: 101) },
        Case("time_zone") { $0.timeZone = "" },
        Case("abort.results_min") { $0.abort.resultsMin = 0 },
        Case("abort.kinds") { $0.abort.kinds = [] },
        Case("abort.kinds") { $0.abort.kinds = ["DOWNLOAD", "MELTED"] },
        Case("abort.consecutive_failures_max") { $0.abort.consecutiveFailuresMax = 0 },
        Case("timeouts.acknowledge_seconds") { $0.timeouts.acknowledgeSeconds = 0 },
        Case("timeouts.download_seconds") { $0.timeouts.downloadSeconds = .infinity },
        Case("timeouts.install_seconds") { $0.timeouts.installSeconds = -5 },
        Case("timeouts.verify_seconds") { $0.timeouts.verifySeconds = 1e12 },
        Case("timeouts.campaign_seconds") { $0.timeouts.campaignSeconds = 0 },
        Case("retry.attempts_max") { $0.retry.attemptsMax = 0 },
        Case("retry.attempts_max") { $0.retry.attemptsMax = 101 },
        Case("retry.backoff_seconds") { $0.retry.backoffSeconds = -1 },
        Case("retry.backoff_max_seconds") { $0.retry.backoffMaxSeconds = 10 },
        Case("retry.kinds") { $0.retry.kinds = ["download"] },
        Case("completion.share") { $0.completion.share = 0 },
        Case("completion.share") { $0.completion.share = .nan },
        Case("completion.seconds") { $0.completion.seconds = -1 },
    ])
    func eachIsNamed(_ item: Case) {
        var plan = CampaignPlan()
        item.change(&plan)
        #expect(plan.problems().map(\.field) == [item.field], "\(plan.problems())")
    }

    @Test func allAreSaidAtOnce() {
        var plan = CampaignPlan()
        plan.tickSeconds = -1
        plan.timeZone = "Mars/Olympus"
        plan.retry.attemptsMax = 0
        #expect(
            plan.problems().map(\.description) == [
                "tick_seconds must be 0.1 to 3600 seconds",
                "time_zone is no name of the IANA time zone database, such as Europe/Berlin",
                "retry.attempts_max must be 1 to 100",
            ])
    }
}
