import CampaignRules
import EventModel
import Testing
@testable import Campaigns

struct RolloutTests {
    @Test func everyDeviceIsSentForAndTheCampaignEnds() {
        var trace = EngineTrace()
        trace.advance()
        #expect(trace.sent() == ["d1", "d2", "d3", "d4"])
        trace.publish()
        for device in ["d1", "d2", "d3"] { trace.report(device, .downloading, .installing, .success) }
        #expect(trace.status == .running)
        trace.report("d4", .downloading, .failed)
        #expect(trace.status == .completed && trace.lastStatusChange?.code == "ALL_ENDED")
        #expect(trace.lastStatusChange?.counts?.succeeded == 3 && trace.lastStatusChange?.counts?.failed == 1)
        #expect(trace.kind("d4") == .download)
    }

    @Test func theRateIsExactOverTimeAndEvenlySpread() {
        var trace = EngineTrace(devices: 100, rate: 7)
        trace.advance()
        var sentAt: [Double] = []
        let begin = trace.now
        for _ in 0..<6_000 {
            trace.pass(seconds: 0.01)
            while sentAt.count < trace.sent().count {
                sentAt.append(Double(trace.now.microseconds - begin.microseconds) / 1_000_000)
            }
        }
        // 60 s are six ticks: seven devices each, and the first of the seventh.
        #expect(trace.sent().count == 43)
        for (index, at) in sentAt.enumerated() {
            let due = Double(index) * 10 / 7
            #expect(at >= due - 0.000_001 && at <= due + 0.011, "device \(index) at \(at), due at \(due)")
        }
    }

    @Test func whatWasMissedIsNotMadeUpForAtOnce() {
        var trace = EngineTrace(devices: 1_000, rate: 10)
        trace.advance()
        trace.pass(seconds: 3_600)
        #expect(trace.sent().count == 2, "one at the start, one now")
        trace.pass(seconds: 10)
        #expect(trace.sent().count == 12)
    }

    /// The log's time stepped, forward and back: nobody is given less time, and nothing stands still.
    @Test(arguments: [259_200.0, 7_300, -259_200])
    func aStepOfTheClockMovesTimers_fluentScheduler305(step: Double) throws {
        var trace = EngineTrace(devices: 4) {
            $0.timeouts.acknowledgeSeconds = 60
            $0.timeouts.campaignSeconds = 1_000
            $0.retry.attemptsMax = 2
            $0.retry.backoffSeconds = 30
        }
        trace.advance()
        trace.publish()
        trace.report("d1", .downloading)
        trace.report("d2", .downloading, .failed)
        trace.pass(seconds: 20)
        trace.step(seconds: step)
        #expect(trace.status("d3") == .downloading && trace.status("d2") == .failed && trace.sent().count == 4)
        // A stored state is moved as well.
        var stored = try CampaignState(stored: trace.state.stored())
        #expect(stored.nextDeadline(after: trace.now) == trace.state.nextDeadline(after: trace.now))
        trace.pass(seconds: 9.9)
        #expect(trace.sent().count == 4)
        trace.pass(seconds: 0.2)
        #expect(trace.sent().last == "d2", "tried again 30 s after its failure")
        trace.pass(seconds: 29.8)
        #expect(trace.status("d3") == .downloading)
        trace.pass(seconds: 0.2)
        #expect(trace.status("d3") == .unreachable)
        trace.pass(seconds: 939.8)
        #expect(trace.status == .running)
        trace.pass(seconds: 0.2)
        #expect(trace.lastStatusChange?.code == "DEADLINE")
    }

    /// Steps as a damaged or foreign log may hold them, several times.
    @Test(arguments: [Int64.max, .min]) func stepsBeyondAllBoundsOverflowNothing(step: Int64) throws {
        var trace = EngineTrace(devices: 4, rate: 1) { $0.retry.attemptsMax = 2 }
        trace.advance()
        trace.publish()
        trace.report("d1", .downloading, .failed)
        for _ in 0..<4 { trace.state.moveTimers(by: step) }
        _ = trace.state.nextDeadline(after: trace.now)
        trace.advance()
        trace.pass(seconds: 10)
        #expect(trace.status == (step > 0 ? .running : .completed), "a deadline that is moved ahead, or has passed")
        var stored = try CampaignState(stored: trace.state.stored())
        #expect(stored == trace.state)
        #expect(stored.nextDeadline(after: trace.now) == trace.state.nextDeadline(after: trace.now))
    }

    @Test func pausedNothingIsSent() {
        var trace = EngineTrace(devices: 100, rate: 10)
        trace.advance()
        trace.pass(seconds: 5)
        #expect(trace.sent().count == 6)
        trace.command(.pause(campaign: 1, reason: nil))
        trace.pass(seconds: 100)
        #expect(trace.sent().count == 6)
        trace.command(.resume(campaign: 1))
        trace.pass(seconds: 9.9)
        #expect(trace.sent().count == 16)
    }

    @Test func canaryGoesByStagesThatSoak() {
        var trace = EngineTrace(devices: 200, strategy: "canary") {
            $0.stages = [.init(percent: 1, soakSeconds: 60), .init(percent: 10, soakSeconds: 0), .init(percent: 100)]
        }
        trace.advance()
        #expect(trace.sent() == ["d1", "d2"])
        trace.publish()
        trace.report("d1", .downloading, .installing, .success)
        trace.report("d2", .downloading, .installing, .success)
        trace.pass(seconds: 59)
        #expect(trace.sent().count == 2)
        trace.pass(seconds: 1)
        #expect(trace.sent().count == 20 && trace.campaign().stage == 1)
        for n in 3...20 { trace.report("d\(n)", .downloading, .installing, .success) }
        #expect(trace.sent().count == 200 && trace.campaign().stage == 2)
    }

    @Test func aStageThatFailsStops() {
        var trace = EngineTrace(devices: 200, strategy: "canary") {
            $0.stages = [.init(percent: 2, soakSeconds: 0, successMin: 0.9), .init(percent: 100)]
            $0.abort.action = .pause
        }
        trace.advance()
        for device in ["d1", "d2", "d3"] { trace.report(device, .downloading, .installing, .success) }
        trace.report("d4", .downloading, .installing, .failed)
        #expect(trace.status == .paused && trace.lastStatusChange?.code == "STAGE_FAILED")
        #expect(trace.lastStatusChange?.evidence?.count == 1)
        // A person looked and lets it go on.
        trace.command(.resume(campaign: 1))
        trace.advance()
        #expect(trace.status == .running && trace.campaign().stage == 1 && trace.sent().count == 200)
    }

    @Test func aStageOfWhichNobodyAnswersIsNoSuccess() {
        var trace = EngineTrace(devices: 200, strategy: "canary") {
            $0.stages = [.init(percent: 1), .init(percent: 100)]
            $0.timeouts.acknowledgeSeconds = 60
        }
        trace.advance()
        trace.publish()
        trace.pass(seconds: 60)
        #expect(trace.status == .aborted && trace.lastStatusChange?.code == "STAGE_FAILED")
        #expect(trace.campaign().counts.skipped == 198)
    }

    @Test func oneFailureInASmallStageIsNoReasonToStop() {
        var trace = EngineTrace(devices: 200, threshold: 0.05, strategy: "canary") {
            $0.stages = [.init(percent: 2), .init(percent: 100)]
        }
        trace.advance()
        for device in ["d1", "d2", "d3"] { trace.report(device, .downloading, .installing, .success) }
        trace.report("d4", .downloading, .installing, .failed)
        #expect(trace.status == .running && trace.campaign().stage == 1)
    }

    @Test func aDeviceRunsOneCampaignAtATime() {
        var trace = EngineTrace(devices: 2)
        trace.create(devices: ["d2", "d3"])
        trace.advance()
        trace.command(.start(campaign: 2))
        trace.advance()
        #expect(trace.sent() == ["d1", "d2"] && trace.sent(campaign: 2) == ["d3"])
        trace.report("d2", .downloading, .installing, .success)
        #expect(trace.sent(campaign: 2) == ["d3", "d2"])
    }

    @Test func nothingIsSentOutsideOfWindows() {
        var trace = EngineTrace(devices: 2) {
            // 1,800,000,000 is 2027-01-15T08:00:00Z, a Friday.
            $0.windows = [.init(days: ["fri"], from: "09:00", to: "10:00")]
        }
        trace.advance()
        #expect(trace.sent().isEmpty)
        #expect(trace.state.nextDeadline(after: trace.now)?.microseconds == trace.now.microseconds + 3_600_000_000)
        trace.pass(seconds: 3_600)
        #expect(trace.sent().count == 2)
    }

    @Test func sleepingDevicesAreSentForWhenTheyShowThemselves() {
        var trace = EngineTrace { $0.delivery = .onConnect }
        trace.pass(seconds: 100)
        #expect(trace.sent().isEmpty)
        trace.state.withCampaign(1) { $0.wake($0.indexes["d3"]!) }
        trace.advance()
        #expect(trace.sent() == ["d3"])
        trace.pass(seconds: 30 * 24 * 3_600)
        #expect(trace.status("d1") == .unreachable, "never seen")
    }
}

struct StoppingTests {
    @Test func todaysRatioAbortsOnOneFailureOfOne() {
        var trace = EngineTrace(threshold: 0.5) { $0.abort.method = .ratio }
        trace.advance()
        trace.report("d1", .downloading, .failed)
        #expect(trace.status == .aborted && trace.lastStatusChange?.code == "ABORT_THRESHOLD")
    }

    @Test func aMinimumOfResultsIsWaitedFor() {
        var trace = EngineTrace(devices: 10, threshold: 0.5) {
            $0.abort.method = .ratio
            $0.abort.resultsMin = 3
        }
        trace.advance()
        trace.report("d1", .downloading, .failed)
        trace.report("d2", .downloading, .failed)
        #expect(trace.status == .running)
        trace.report("d3", .downloading, .failed)
        #expect(trace.status == .aborted)
    }

    @Test func onlyFailuresOfTheKindsNamedCount() {
        var trace = EngineTrace(devices: 10, threshold: 0.1) {
            $0.abort.method = .ratio
            $0.abort.kinds = ["INSTALL"]
        }
        trace.advance()
        for n in 1...5 { trace.report("d\(n)", .downloading, .failed) }
        #expect(trace.status == .running)
        trace.report("d6", .downloading, .installing, .failed)
        #expect(trace.status == .aborted)
    }

    @Test func failuresInARowBreakIt() {
        var trace = EngineTrace(devices: 10) { $0.abort.consecutiveFailuresMax = 3 }
        trace.advance()
        for n in 1...2 { trace.report("d\(n)", .failed) }
        trace.report("d3", .success)
        for n in 4...5 { trace.report("d\(n)", .failed) }
        #expect(trace.status == .running)
        trace.report("d6", .failed)
        #expect(trace.status == .aborted && trace.lastStatusChange?.code == "CONSECUTIVE_FAILURES")
    }

    @Test func theSequentialTestStopsABadBuildAndNotAGoodOne() {
        for (isBad, expected) in [(true, CampaignStatus.aborted), (false, .completed)] {
            var trace = EngineTrace(devices: 500, rate: 100, threshold: 0.05)
            for n in 0..<600 {
                trace.pass(seconds: 0.1)
                let inFlight = trace.campaign().targets.filter { $0.part.status.isInFlight }.map(\.id)
                for device in inFlight {
                    let fails = isBad ? n % 3 == 0 : n % 40 == 0
                    trace.report(device, .downloading, .installing, fails ? .failed : .success)
                }
            }
            #expect(trace.status == expected)
            if isBad { #expect(trace.campaign().counts.failed < 30, "stopped early") }
        }
    }

    @Test func abortedPendingDevicesAreSkippedAndLateResultsCount() {
        var trace = EngineTrace(devices: 10, rate: 2)
        trace.advance()
        trace.pass(seconds: 9.9)
        trace.publish()
        trace.command(.abort(campaign: 1, reason: "no"))
        trace.advance()
        #expect(trace.campaign().counts.skipped == 8 && trace.campaign().counts.inFlight == 2)
        trace.report("d1", .downloading, .installing, .success)
        trace.report("d9", .downloading, .installing, .success)
        #expect(trace.campaign().counts.succeeded == 2 && trace.campaign().counts.skipped == 7)
        #expect(trace.status == .aborted)
    }

    @Test func whatNeverLeftUsIsSkippedAndNoFailure() {
        var trace = EngineTrace(devices: 2)
        trace.advance()
        trace.command(.abort(campaign: 1, reason: nil))
        trace.advance()
        #expect(trace.campaign().counts.skipped == 2 && trace.campaign().counts.failed == 0)
    }

    @Test func resumedAfterTheEnginesPauseItIsJudgedAnew() {
        var trace = EngineTrace(devices: 10, threshold: 0.5) {
            $0.abort.method = .ratio
            $0.abort.action = .pause
        }
        trace.advance()
        trace.report("d1", .failed)
        #expect(trace.status == .paused)
        trace.command(.resume(campaign: 1))
        trace.advance()
        #expect(trace.status == .running)
        trace.report("d2", .failed)
        #expect(trace.status == .paused)
    }
}

struct DeadlineTests {
    @Test func aDeviceThatNeverAnswersIsUnreachable() {
        var trace = EngineTrace(devices: 1) { $0.timeouts.acknowledgeSeconds = 60 }
        trace.advance()
        trace.pass(seconds: 10_000)
        #expect(trace.status("d1") == .downloading, "the broker has not taken it: that is not the device's fault")
        trace.publish()
        trace.pass(seconds: 59)
        #expect(trace.status("d1") == .downloading)
        trace.pass(seconds: 1)
        #expect(trace.status("d1") == .unreachable && trace.status == .completed)
        // A later word of the device stands.
        trace.report("d1", .downloading, .installing, .success)
        #expect(trace.status("d1") == .success && trace.campaign().counts.failed == 0)
    }

    @Test func everyStateHasItsTime() {
        var trace = EngineTrace(devices: 2) {
            $0.timeouts.downloadSeconds = 100
            $0.timeouts.installSeconds = 50
        }
        trace.advance()
        trace.publish()
        trace.report("d1", .downloading)
        trace.report("d2", .downloading, .installing)
        trace.pass(seconds: 50)
        #expect(trace.status("d2") == .timedOut && trace.status("d1") == .downloading)
        trace.report("d1", .downloading)
        trace.pass(seconds: 50)
        #expect(trace.status("d1") == .timedOut, "saying it again buys no time")
    }

    @Test func transientFailuresAreTriedAgainWithPauses() {
        var trace = EngineTrace(devices: 1) {
            $0.retry.attemptsMax = 3
            $0.retry.backoffSeconds = 100
        }
        trace.advance()
        trace.report("d1", .downloading, .failed)
        #expect(trace.campaign().counts.failed == 1 && trace.status == .running)
        trace.pass(seconds: 99)
        #expect(trace.sent().count == 1)
        trace.pass(seconds: 1)
        #expect(trace.sent().count == 2 && trace.status("d1") == .downloading && trace.campaign().counts.failed == 0)
        trace.report("d1", .downloading, .failed)
        trace.pass(seconds: 199)
        #expect(trace.sent().count == 2)
        trace.pass(seconds: 1)
        trace.report("d1", .downloading, .installing, .failed)
        #expect(trace.status == .completed && trace.kind("d1") == .install, "a failed installation is no accident")
    }

    @Test func noCampaignHangs() {
        var trace = EngineTrace(devices: 4, rate: 1) { $0.timeouts.campaignSeconds = 15 }
        trace.advance()
        trace.publish()
        trace.pass(seconds: 10)
        trace.report("d1", .downloading)
        trace.command(.pause(campaign: 1, reason: nil))
        trace.pass(seconds: 5)
        #expect(trace.status == .completed && trace.lastStatusChange?.code == "DEADLINE")
        #expect(trace.status("d1") == .timedOut && trace.status("d3") == .skipped)
        #expect(trace.status("d2") == .skipped, "its command had not left us")
    }

    @Test func enoughIsEnough() {
        var trace = EngineTrace(devices: 4) {
            $0.completion.share = 0.75
            $0.completion.seconds = 100
        }
        trace.advance()
        trace.publish()
        for n in 1...3 { trace.report("d\(n)", .downloading, .success) }
        #expect(trace.status == .running)
        trace.pass(seconds: 100)
        #expect(trace.status == .completed && trace.lastStatusChange?.code == "SHARE_REACHED")
        #expect(trace.status("d4") == .unreachable)
    }
}

struct VerificationTests {
    private func trace() -> EngineTrace {
        var trace = EngineTrace(devices: 1) { $0.verify = .shadow }
        trace.advance()
        trace.publish()
        return trace
    }

    @Test func successIsBelievedWhenTheVersionIsSeen() {
        var trace = trace()
        trace.report("d1", .downloading, .installing, .success)
        #expect(trace.status("d1") == .verifying)
        trace.show("d1", version: "1.0")
        #expect(trace.status("d1") == .verifying, "what it ran before may still be under way")
        trace.show("d1", version: "2.0")
        #expect(trace.status("d1") == .success && trace.status == .completed)
    }

    @Test func theVersionMayComeBeforeTheWord() {
        var trace = trace()
        trace.report("d1", .downloading, .installing)
        trace.show("d1", version: "2.0")
        trace.report("d1", .success)
        #expect(trace.status("d1") == .success)
    }

    @Test func withoutTheVersionItIsNoSuccess() {
        var trace = trace()
        trace.report("d1", .downloading, .installing, .success)
        trace.pass(seconds: 1_800)
        #expect(trace.status("d1") == .failed && trace.kind("d1") == .notVerified)
    }

    @Test func aRollbackIsNoticed() {
        var trace = trace()
        trace.report("d1", .downloading, .installing, .success)
        trace.show("d1", version: "1.0")
        trace.pass(seconds: 1_800)
        #expect(trace.kind("d1") == .rolledBack)
        // And when it comes after the success was seen.
        trace = self.trace()
        trace.report("d1", .downloading, .installing, .success)
        trace.show("d1", version: "2.0")
        trace.show("d1", version: "1.0")
        #expect(trace.status("d1") == .failed && trace.kind("d1") == .rolledBack)
    }

    @Test func aRefusalIsOne() {
        var trace = EngineTrace(devices: 1)
        trace.advance()
        trace.state.withCampaign(1) { $0.acknowledge(0, isRefusal: true, at: Position(77), time: trace.now) }
        trace.advance()
        #expect(trace.status("d1") == .failed && trace.kind("d1") == .rejected && trace.status == .completed)
    }
}

struct RetryTests {
    @Test func anOperatorHasFailedDevicesTriedAgain() {
        var trace = EngineTrace(devices: 3)
        trace.advance()
        trace.report("d1", .downloading, .installing, .success)
        trace.report("d2", .downloading, .installing, .failed)
        trace.report("d3", .downloading, .failed)
        #expect(trace.status == .completed)
        trace.command(.retryFailed(campaign: 1, kinds: [.install]))
        trace.advance()
        #expect(trace.status == .running && trace.sent().last == "d2" && trace.sent().count == 4)
        trace.report("d2", .success)
        #expect(trace.status("d2") == .downloading, "a straggler of the first attempt")
        trace.report("d2", .downloading, .installing, .success)
        #expect(trace.status == .completed && trace.campaign().counts.failed == 1)
    }

    @Test func aStateThatWasStoredDecidesTheSame() throws {
        var trace = EngineTrace(devices: 50, rate: 10, threshold: 0.3, strategy: "canary") {
            $0.stages = [.init(percent: 20, soakSeconds: 5), .init(percent: 100)]
            $0.retry.attemptsMax = 2
            $0.retry.backoffSeconds = 3
            $0.order = .shuffled
        }
        for step in 0..<200 {
            trace.pass(seconds: 1)
            trace.publish()
            if let device = trace.campaign().targets.first(where: { $0.part.status.isInFlight })?.id {
                trace.report(device, .downloading, step % 5 == 0 ? .failed : .success)
            }
            var restored = try CampaignState(stored: trace.state.stored())
            var live = trace.state
            #expect(restored.stored() == live.stored())
            let later = trace.now.adding(microseconds: 7_000_000)
            #expect(restored.nextDeadline(after: trace.now) == live.nextDeadline(after: trace.now))
            #expect(restored.advance(later) == live.advance(later))
        }
        #expect(trace.status == .completed)
    }
}
