import Foundation
import Primitives
import TestSupport
import Testing

/// kill -9 of the whole daemon under live QoS 1 load, again and again. After each: every acknowledged publish is in the
/// log, nothing is there that was not published (the seam's redeliveries are suppressed), and every table is what an
/// independent fold makes of the log.
@Suite(.serialized) struct KillTests {
    /// 50 kills; KILL_TEST_KILLS changes that.
    static let kills = ProcessInfo.processInfo.environment["KILL_TEST_KILLS"].flatMap { Int($0) } ?? 50
    private static let killsAWorld = 10

    /// Moments are drawn by seed: the same run again kills as long after the load began as this one did.
    @Test func killedUnderLoadItLosesNothingAndInventsNothing() async throws {
        let postgres = try PostgresServer()
        var random = Moments(seed: 20_261_121)
        var killed = 0, interrupted = 0
        while killed < Self.kills {
            let world = try World(postgres: postgres)
            try world.startDaemon()
            try await world.untilSubscribed()
            // Half of the worlds have devices that drop their connections: what they send again may be there twice.
            let hasChurn = killed / Self.killsAWorld % 2 == 1
            for _ in 0..<min(Self.killsAWorld, Self.kills - killed) {
                killed += 1
                let fleet = try world.startFleet(Self.fleet(hasChurn: hasChurn))
                try await Task.sleep(for: .milliseconds(random.next(20...1100)))
                if fleet.isRunning { interrupted += 1 }
                world.killDaemon()
                try world.startDaemon()
                if random.next(0...3) == 0 {  // and once more, in the middle of its recovery
                    try await Task.sleep(for: .milliseconds(random.next(0...250)))
                    world.killDaemon()
                    try world.startDaemon()
                }
                try await world.untilEnded(fleet)
                try await world.untilQuiet()
                try check(world, exactly: !hasChurn, kill: killed)
            }
            world.killDaemon()
        }
        // A kill that comes after the load proves nothing.
        #expect(interrupted >= Self.kills * 3 / 4, "\(interrupted) of \(Self.kills) kills came under load")
    }

    /// About 1.2 s of load.
    private static func fleet(hasChurn: Bool) -> [String] {
        let common = [
            "--devices", "40", "--rate", "1000", "--count", "1200", "--malformed", "0.03", "--late", "0.02",
            "--out-of-order",
            "0.02", "--mix", "telemetry=70,heartbeat=10,shadow=10,ack=4,ota=4,other=2",
        ]
        return common + (hasChurn ? ["--churn", "0.005", "--duplicates", "0.02"] : [])
    }

    private func check(_ world: World, exactly: Bool, kill: Int) throws {
        let ledger = try world.ledger()
        var result = Comparison(
            log: try world.log(), published: ledger.published, acknowledged: ledger.acknowledged, exactly: exactly)
        // Killed again between a CONNECT and the end of redelivery, nothing proves what comes after it.
        if !result.surplus.isEmpty, try world.hasUnfinishedResume() { result.surplus = [] }
        #expect(result.missing.isEmpty, "kill \(kill): \(result.missing.count) missing, \(result.missing.prefix(3))")
        #expect(result.surplus.isEmpty, "kill \(kill): \(result.surplus.count) too many, \(result.surplus.prefix(3))")
        let differences = try world.naiveFoldDifferences()
        #expect(differences == nil, "kill \(kill): \(differences ?? "")")
        guard result.missing.isEmpty, result.surplus.isEmpty, differences == nil else {
            throw SystemError("stopped at kill \(kill); the daemon said:\n\(world.daemonLog.suffix(3000))")
        }
    }
}

/// Moments that can be drawn again.
struct Moments {
    private var random: SeededRandom
    init(seed: UInt64) { random = SeededRandom(seed: seed) }

    mutating func next(_ range: ClosedRange<Int>) -> Int { range.lowerBound + random.below(range.count) }
}
