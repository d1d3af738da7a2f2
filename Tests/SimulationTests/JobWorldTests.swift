import Foundation
import Testing
@testable import Simulation

/// Jobs, their queues and their workers, under everything that can fail between a command and its end.
@Suite struct JobWorldTests {
    static let isSoak = ProcessInfo.processInfo.environment["REFOLD_SOAK"] != nil

    private func run(_ seed: UInt64, _ plant: JobPlant? = nil, withholds: Bool = false) -> JobVerdict {
        var options = JobWorldOptions(seed: seed, steps: JobWorld.stepsStandard, plant: plant)
        options.withholdsPlant = withholds
        return JobWorld(options).run()
    }

    @Test func everyInvariantHoldsInManyHistories() async {
        let last: UInt64 = Self.isSoak ? 10_000 : 60
        let workers = UInt64(ProcessInfo.processInfo.activeProcessorCount)
        let sum = await withTaskGroup(of: JobWorldSummary.self) { group in
            for worker in 0..<workers {
                group.addTask {
                    var sum = JobWorldSummary()
                    for seed in stride(from: 1 + worker, through: last, by: Int(workers)) {
                        let verdict = run(seed)
                        #expect(
                            verdict.violation == nil, "refold-sim jobs --seed \(seed): \(verdict.violation ?? "")")
                        sum = sum + verdict.summary
                    }
                    return sum
                }
            }
            return await group.reduce(JobWorldSummary(), +)
        }
        // It does not pass by doing nothing.
        for count in JobWorldSummary.counts { #expect(sum[keyPath: count] > 5, "\(sum)") }
        #expect(sum.histories == Int(last) && sum.queued > 3_000 && sum.succeeded > 2_000, "\(sum)")
    }

    @Test func aSeedIsAHistory() {
        for seed in 1...10 as ClosedRange<UInt64> {
            let one = run(seed), other = run(seed)
            #expect(one.traceHash == other.traceHash && one.summary == other.summary)
        }
    }

    /// Each planted bug is found within 200 histories, and the history in which it is found holds without it.
    @Test(arguments: JobPlant.allCases)
    func everyPlantedBugIsFound(_ plant: JobPlant) {
        for seed in 1...200 as ClosedRange<UInt64> {
            guard run(seed, plant).violation != nil else { continue }
            #expect(run(seed, plant, withholds: true).violation == nil, "seed \(seed)")
            return
        }
        Issue.record("\(plant.rawValue) is not found")
    }
}
