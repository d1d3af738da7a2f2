import Foundation
import TestSupport
import Testing

/// The real daemon on a disk whose fdatasync does not return.
@Suite(.serialized) struct StuckDiskTests {
    private func heartbeats(in world: World) throws -> Int {
        try world.log().filter { $0.key.contains("/heartbeat ") }.reduce(0) { $0 + $1.value }
    }

    /// It answers meanwhile: not ready, not live, with the reason. Nothing is acknowledged, and all of it comes when
    /// the disk answers, or after a kill.
    @Test func aDiskThatDoesNotAnswerIsNeitherReadyNorLive() async throws {
        let world = try World(postgres: try PostgresServer.shared.get()), disk = try DiskShim(in: world.folder)
        defer { disk.release() }
        world.commandPrefix = disk.prefix
        try world.startDaemon()
        try await world.untilSubscribed()
        let publisher = try TestPublisher(port: world.broker.port)
        var count = 0
        func publish() async throws {
            for _ in 0..<50 {
                try publisher.publish("tenant/acme/device/d/heartbeat", "{\"seq\":\(count)}".utf8)
                count += 1
            }
            try await publisher.flush()
        }
        try await publish()
        try await world.untilQuiet()
        #expect(world.get("/healthz") == 200 && world.get("/readyz") == 200)
        let acknowledgedTotal = "refold_messages_acknowledged_total{broker=\"main\"}"
        let acknowledged = try #require(world.metric(acknowledgedTotal))

        try disk.hang()
        try await publish()
        let isSeen = await eventually(within: 120) { world.get("/healthz") == 503 }
        let status = world.status()
        #expect(isSeen && world.get("/readyz") == 503)
        #expect(status?.state == "degraded")
        let isNamed = status?.reasons.contains { $0.contains("has not made events durable") } ?? false
        #expect(isNamed, "\(status?.reasons ?? [])")
        #expect(world.metric(acknowledgedTotal) == acknowledged)
        disk.release()
        let isHealthy = await eventually(within: 60) { world.status()?.state == "healthy" }
        #expect(isHealthy, "\(String(describing: world.status()))")
        try await world.untilQuiet()
        #expect(try heartbeats(in: world) == count)

        try disk.hang()
        try await publish()
        world.killDaemon()
        disk.release()
        try world.startDaemon()
        try await world.untilSubscribed()
        try await publish()
        try await world.untilQuiet()
        #expect(try heartbeats(in: world) == count)
        world.killDaemon()
    }
}
