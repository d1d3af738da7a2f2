import Foundation
import Testing
@testable import Simulation

/// Persistent sessions at three kinds of brokers, under everything that public reports have found to lose messages.
@Suite struct SessionWorldTests {
    static let isSoak = ProcessInfo.processInfo.environment["REFOLD_SOAK"] != nil

    @Test func everyInvariantHoldsInManyWorlds() {
        var sum = SessionSummary()
        for seed in 1...(Self.isSoak ? 100_000 : 400) as ClosedRange<UInt64> {
            let verdict = SessionWorld(SessionWorldOptions(seed: seed)).run()
            #expect(verdict.violation == nil, "refold-sim sessions --seed \(seed)")
            sum = sum + verdict.summary
        }
        // It does not pass by doing nothing.
        #expect(sum.acknowledged > 3_000 && sum.suppressed > 20 && sum.recordedAgain > 20 && sum.kills > 100)
        #expect(sum.brokerKills > 10 && sum.cuts > 30 && sum.drained > 5 && sum.refused > 5 && sum.lateCopies > 100)
        #expect(sum.handedOver > 20)
    }

    @Test func theSameSeedIsTheSameWorld() {
        for seed in [3, 14] as [UInt64] {
            let first = SessionWorld(SessionWorldOptions(seed: seed)).run().summary
            #expect(first == SessionWorld(SessionWorldOptions(seed: seed)).run().summary)
        }
    }

    /// Each planted bug is found within 300 worlds, and the world in which it is found holds without it.
    @Test(arguments: SessionPlant.allCases)
    func everyPlantedBugIsFound(_ plant: SessionPlant) {
        for seed in 1...300 as ClosedRange<UInt64> {
            var options = SessionWorldOptions(seed: seed, plant: plant)
            guard SessionWorld(options).run().violation != nil else { continue }
            options.withholdsPlant = true
            #expect(SessionWorld(options).run().violation == nil, "seed \(seed)")
            return
        }
        Issue.record("\(plant.rawValue) is not found")
    }
}
