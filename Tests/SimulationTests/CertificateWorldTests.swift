import Foundation
import Testing
@testable import Simulation

/// Certificates, CRLs and their enforcement, under everything that can fail between a revocation and a broker.
@Suite struct CertificateWorldTests {
    static let isSoak = ProcessInfo.processInfo.environment["REFOLD_SOAK"] != nil

    private func run(_ seed: UInt64, _ plant: CertificatePlant? = nil, withholds: Bool = false) throws
        -> CertificateVerdict
    {
        var options = CertificateWorldOptions(seed: seed, steps: CertificateWorld.stepsStandard, plant: plant)
        options.withholdsPlant = withholds
        return try CertificateWorld(options).run()
    }

    @Test func everyInvariantHoldsInManyHistories() async throws {
        let last: UInt64 = Self.isSoak ? 10_000 : 1_000
        let workers = UInt64(ProcessInfo.processInfo.activeProcessorCount)
        let sum = try await withThrowingTaskGroup(of: CertificateSummary.self) { group in
            for worker in 0..<workers {
                group.addTask {
                    var sum = CertificateSummary()
                    for seed in stride(from: 1 + worker, through: last, by: Int(workers)) {
                        let verdict = try run(seed)
                        #expect(
                            verdict.violation == nil,
                            "refold-sim certificates --seed \(seed): \(verdict.violation ?? "")")
                        sum = sum + verdict.summary
                    }
                    return sum
                }
            }
            return try await group.reduce(CertificateSummary(), +)
        }
        // It does not pass by doing nothing.
        #expect(sum.histories == Int(last) && sum.certificates > 5_000 && sum.revoked > 3_000 && sum.released > 300)
        #expect(sum.crls > 5_000 && sum.races > 50 && sum.dropped > 1_000 && sum.proved > 3_000 && sum.unproved > 300)
        #expect(sum.kills > 300 && sum.powerCuts > 100 && sum.failedAppends > 300 && sum.failedWrites > 100)
        #expect(sum.cuts > 1_000 && sum.bans > 500 && sum.lifts > 300 && sum.uncut > 50, "\(sum)")
        #expect(sum.ignoredReloads > 30 && sum.clockSteps > 60 && sum.refolds > 1_000 && sum.rebuilt > 5_000)
    }

    @Test func aSeedIsAHistory() throws {
        for seed in 1...10 as ClosedRange<UInt64> {
            let one = try run(seed), other = try run(seed)
            #expect(one.traceHash == other.traceHash && one.summary == other.summary)
        }
    }

    /// Each planted bug is found within 200 histories, and the history in which it is found holds without it.
    @Test(arguments: CertificatePlant.allCases)
    func everyPlantedBugIsFound(_ plant: CertificatePlant) throws {
        for seed in 1...200 as ClosedRange<UInt64> {
            guard try run(seed, plant).violation != nil else { continue }
            #expect(try run(seed, plant, withholds: true).violation == nil, "seed \(seed)")
            return
        }
        Issue.record("\(plant.rawValue) is not found")
    }
}
