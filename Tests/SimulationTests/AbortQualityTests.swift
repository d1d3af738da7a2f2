import Simulation
import Testing

/// In little what `refold-sim abort-quality` shows at length.
struct AbortQualityTests {
    private func run(
        threshold: Double = 0.05, rate: Double, devices: Int, rollout: AbortQuality.Rollout, campaigns: Int
    ) -> AbortQuality.Outcome {
        AbortQuality.run(
            .init(
                threshold: threshold, rate: rate, devices: devices, rollout: rollout, campaigns: campaigns, seed: 1))
    }

    /// 12 of 600 would happen once in 80 times at a true rate of 1 %: the seed is fixed, and it is not one of them.
    @Test(arguments: AbortQuality.Rollout.allCases)
    func atTheThresholdHardlyAnyCampaignIsEnded(rollout: AbortQuality.Rollout) {
        for devices in [100, 2_000] {
            let outcome = run(rate: 0.05, devices: devices, rollout: rollout, campaigns: 600)
            #expect(outcome.test.aborted <= 11)
            // What it replaces ends most of them.
            #expect(outcome.ratio.aborted > 300)
        }
    }

    @Test func withoutFailuresNoneIs() {
        #expect(run(rate: 0, devices: 1_000, rollout: .linear, campaigns: 50).test.aborted == 0)
    }

    @Test(arguments: AbortQuality.Rollout.allCases)
    func twiceTheThresholdHarmsAtMostTwiceAsManyAsTheBestTest(rollout: AbortQuality.Rollout) {
        let outcome = run(rate: 0.1, devices: 5_000, rollout: rollout, campaigns: 200)
        #expect(outcome.test.aborted == 200)
        #expect(outcome.test.harmed <= 2 * outcome.sprt.harmed, "\(outcome)")
        #expect(10 * outcome.test.harmed < 6 * outcome.failing, "\(outcome)")
    }
}
