import EventLog
import Foundation
import Testing
@testable import Simulation

/// A bounded share of what `make soak` does for hours: the same code, other numbers.
@Suite struct WorldTests {
    /// More of everything under `make soak`.
    static let isSoak = ProcessInfo.processInfo.environment["REFOLD_SOAK"] != nil

    @Test func theSameSeedIsTheSameWorld() {
        for seed in [3, 14] as [UInt64] {
            let first = World(WorldOptions(seed: seed, steps: 400)).run()
            let second = World(WorldOptions(seed: seed, steps: 400)).run()
            #expect(first.traceHash == second.traceHash && first.summary == second.summary)
            #expect(first.held && second.held)
            #expect(first.traceHash != World(WorldOptions(seed: seed + 1, steps: 400)).run().traceHash)
        }
    }

    @Test func everyInvariantHoldsInManyWorlds() {
        var sum = WorldSummary()
        for seed in 1...(Self.isSoak ? 2000 : 20) as ClosedRange<UInt64> {
            let verdict = World(WorldOptions(seed: seed, steps: 400)).run()
            #expect(verdict.violation == nil, "refold-sim --seed \(seed) --steps 400")
            sum = sum + verdict.summary
        }
        // It does not pass by doing nothing.
        #expect(sum.events > 1000 && sum.kills > 10 && sum.powerCuts > 10 && sum.failures > 5 && sum.tornTails > 0)
        #expect(sum.refusedWriters > 10 && sum.databaseCommits > 100 && sum.databaseCrashes > 5 && sum.rotten > 0)
        #expect(sum.segments > 100 && sum.holds > 0)
    }

    /// Seeds that found something once.
    @Test func recordedSeedsHold() throws {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let text = try String(contentsOf: root.appending(path: "replay/simulation.txt"), encoding: .utf8)
        var count = 0
        for line in text.split(separator: "\n") where !line.hasPrefix("#") {
            let fields = line.split(separator: " ")
            let seed = try #require(UInt64(fields[0])), steps = try #require(Int(fields[1]))
            let verdict = World(WorldOptions(seed: seed, steps: steps)).run()
            #expect(verdict.violation == nil, "\(line)")
            count += 1
        }
        #expect(count > 0)
    }

    /// Each planted bug is found within 40 worlds of 1000 steps, and the world in which it is found holds without it.
    @Test(arguments: Plant.allCases) func everyPlantedBugIsFound(_ plant: Plant) {
        for seed in 1...40 as ClosedRange<UInt64> {
            var options = WorldOptions(seed: seed, steps: 1000, plant: plant)
            let planted = World(options).run()
            options.withholdsPlant = true
            guard let violation = planted.violation else {
                if seed <= 2 { #expect(World(options).run().held, "seed \(seed) without \(plant.rawValue)") }
                continue
            }
            #expect(!violation.isEmpty)
            #expect(World(options).run().violation == nil, "seed \(seed) without \(plant.rawValue)")
            return
        }
        Issue.record("\(plant.rawValue) is not found")
    }

    @Test(
        arguments: [
            ("7", 7...7), ("1..3", 1...3), ("0..18446744073709551615", 0...UInt64.max), ("3..1", nil), ("", nil),
            ("a", nil), ("1..", nil), ("1..2..3", nil), ("-1", nil), ("18446744073709551616", nil),
        ] as [(String, ClosedRange<UInt64>?)])
    func seedsAreANumberOrARange(text: String, seeds: ClosedRange<UInt64>?) {
        #expect(ClosedRange<UInt64>(seeds: text) == seeds)
    }

    /// What is printed for a seed must be enough: the lines are the same run.
    @Test func recordingChangesNothing() {
        var options = WorldOptions(seed: 5, steps: 400)
        let silent = World(options).run()
        options.isRecording = true
        let told = World(options).run()
        #expect(silent.traceHash == told.traceHash && silent.lines.isEmpty && !told.lines.isEmpty)
    }
}
