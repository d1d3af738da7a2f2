import Foundation
import TestSupport
import Testing

/// Memory is bounded by the devices, not by the history: the short form of the half hour that the benchmark takes.
@Suite(.serialized) struct MemoryTests {
    /// At most so much at any moment, PostgreSQL there or not: the benchmark's limit.
    static let residentBytesMax = 150 << 20

    @Test func residentMemoryStaysBoundedWhilePostgresIsAway() async throws {
        let world = try World(postgres: try PostgresServer())
        try world.startDaemon()
        try await world.untilSubscribed()
        let fleet = try world.startFleet([
            "--devices", "2000", "--connections", "4", "--rate", "4000", "--count", "60000",
        ])
        var highest = 0, highestAway = 0
        func durableReaches(_ count: UInt64, away: Bool) async -> Bool {
            await eventually(within: 90) {
                guard let resident = world.residentBytes() else { return false }
                highest = max(highest, resident)
                if away { highestAway = max(highestAway, resident) }
                return world.status().map { $0.log.durable >= count } ?? false
            }
        }
        let third = UInt64(20_000)
        #expect(await durableReaches(third, away: false))
        world.postgres.stop()
        #expect(await durableReaches(2 * third, away: true))
        #expect(world.status()?.state == "degraded")
        try world.postgres.start()
        #expect(await durableReaches(3 * third, away: false))
        try await world.untilEnded(fleet)
        try await world.untilQuiet()
        #expect(highest > 0 && highest < Self.residentBytesMax, "\(highest >> 20) MiB at most")
        #expect(highestAway < Self.residentBytesMax, "\(highestAway >> 20) MiB while PostgreSQL was away")
        world.killDaemon()
    }
}
