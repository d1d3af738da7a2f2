import Foundation
import Simulation
import Testing

/// Campaigns among devices that fail in every way (`CampaignWorld`).
struct CampaignHistoriesTests {
    private func run(_ seed: UInt64, _ plant: CampaignPlant? = nil) -> CampaignVerdict {
        CampaignWorld(CampaignWorldOptions(seed: seed, plant: plant)).run()
    }

    @Test func tenThousandHistoriesHold() async {
        let isSoaking = ProcessInfo.processInfo.environment["REFOLD_SOAK"] != nil
        let last: UInt64 = isSoaking ? 200_000 : 10_000
        let seen = await histories(through: last, setsClock: false)
        #expect(seen.histories == Int(last))
        // The worlds are as bad as they are meant to be.
        #expect(seen.restarts > 1_000 && seen.failedAppends > 1_000 && seen.races > 10_000 && seen.refolds > 10_000)
        #expect(seen.completed > 1_000 && seen.aborted > 1_000)
    }

    @Test func historiesHoldUnderAClockThatIsSet() async {
        let seen = await histories(through: 1_000, setsClock: true)
        #expect(seen.histories == 1_000 && seen.clockSteps > 500)
    }

    /// On all cores; violations by seed.
    private func histories(through last: UInt64, setsClock: Bool) async -> CampaignRunSummary {
        let workers = UInt64(ProcessInfo.processInfo.activeProcessorCount)
        return await withTaskGroup(of: CampaignRunSummary.self) { group in
            for worker in 0..<workers {
                group.addTask {
                    var sum = CampaignRunSummary()
                    for seed in stride(from: 1 + worker, through: last, by: Int(workers)) {
                        var options = CampaignWorldOptions(seed: seed)
                        options.setsClock = setsClock
                        let verdict = CampaignWorld(options).run()
                        sum = sum + verdict.summary
                        #expect(
                            verdict.violation == nil,
                            "refold-sim campaigns --seed \(seed)\(setsClock ? " --sets-clock" : "")")
                    }
                    return sum
                }
            }
            return await group.reduce(CampaignRunSummary(), +)
        }
    }

    @Test func aSeedIsAHistory() {
        for seed in UInt64(1)...20 {
            let one = run(seed), other = run(seed)
            #expect(one.traceHash == other.traceHash && one.violation == other.violation)
        }
    }

    /// Of a hundred histories some must notice; and the same ones hold without it.
    @Test(arguments: CampaignPlant.allCases)
    func plantedBugsAreNoticed(plant: CampaignPlant) {
        let noticed = (UInt64(1)...100).first { run($0, plant).violation != nil }
        #expect(noticed != nil)
    }
}
