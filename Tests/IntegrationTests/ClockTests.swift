import Foundation
import TestSupport
import Testing

/// The wall clock of the real daemon is wrong, for a moment or at the start (`ClockShim`).
@Suite(.serialized) struct ClockTests {
    private static let devices = (1...10).map { "d\($0)" }

    private struct Event: Decodable {
        var kind: String
        var topic: String
        var received_at: String
    }

    private func events(_ world: World) throws -> [Event] {
        try String(contentsOfFile: try world.writeEvents(), encoding: .utf8).split(separator: "\n").map {
            try JSONDecoder().decode(Event.self, from: Data($0.utf8))
        }
    }

    private func says(_ world: World, _ text: String) -> Bool {
        world.status()?.reasons.contains { $0.contains(text) } ?? false
    }

    /// Three days ahead for 3 s, 7,300 s ahead for 1 s, and the same back, under a campaign with all devices in flight.
    @Test func aMomentaryErrorOfTheClockGivesNoDeviceUp_fluentScheduler305() async throws {
        let site = try await Site(shiftsClock: true), world = site.world, clock = try #require(site.clock)
        for device in Self.devices { try site.publish(device, "heartbeat", "{}") }
        let id = try await site.campaign("Clock", Self.devices)
        try await site.api("POST", "/tenants/acme/campaigns/\(id)/start")
        func row() async throws -> [String: Any] {
            let last = (world.status()?.log.durable ?? 1) - 1
            return try await site.api("GET", "/tenants/acme/campaigns/\(id)?min_position=\(last)")
        }
        let sent = { try events(world).contains { $0.topic.hasPrefix("campaign.published/") } }
        #expect(try await eventually(within: 30) { try sent() })
        for device in Self.devices.dropLast(3) {
            try site.publish(device, "ota/status", #"{"campaign_id":\#(id),"status":"DOWNLOADING"}"#)
        }
        for (step, seconds) in [(259_200.0, 3.0), (7_300, 1), (-259_200, 2)] {
            try clock.set(seconds: step)
            #expect(await eventually { says(world, "the clock stepped") }, "\(String(describing: world.status()))")
            for device in Self.devices { try site.publish(device, "heartbeat", "{}") }
            try await Task.sleep(for: .seconds(seconds))
            try clock.set(seconds: 0)
            #expect(await eventually { world.status()?.reasons.isEmpty ?? false })
        }
        for device in Self.devices { try site.publish(device, "heartbeat", "{}") }
        try await world.untilQuiet()
        let during = try await row()
        #expect(during["status"] as? String == "RUNNING" && during["failed"] as? Int == 0, "\(during)")
        // Killed with the clock ahead, and started again: it goes on with the time that it had.
        try clock.set(seconds: 259_200)
        world.killDaemon()
        try world.startDaemon()
        try await world.untilSubscribed()
        #expect(says(world, "the clock stepped"))
        for device in Self.devices { try site.publish(device, "heartbeat", "{}") }
        try await world.untilQuiet()
        try clock.set(seconds: 0)
        world.killDaemon()
        try world.startDaemon()
        try await world.untilSubscribed()
        for device in Self.devices {
            try site.publish(device, "ota/status", #"{"campaign_id":\#(id),"status":"INSTALLING"}"#)
            try site.publish(device, "ota/status", #"{"campaign_id":\#(id),"status":"SUCCESS"}"#)
        }
        try await world.untilQuiet()
        let done = try await row()
        #expect(done["status"] as? String == "COMPLETED" && done["succeeded"] as? Int == 10, "\(done)")
        let now = Date().addingTimeInterval(60).ISO8601Format()
        let since = Date().addingTimeInterval(-600).ISO8601Format()
        let entries = try events(world)
        #expect(entries.allSatisfy { $0.received_at < now && $0.received_at > since })
        #expect(zip(entries, entries.dropFirst()).allSatisfy { $0.received_at <= $1.received_at })
        #expect(entries.contains { $0.topic == "log.clock_stepped/1" })
        #expect(try world.naiveFoldDifferences() == nil)
    }

    /// Booted in 1970, with a log of today; NTP corrects the clock a little later.
    @Test func aClockBehindTheLogIsWaitedFor_weewx72() async throws {
        let site = try await Site(shiftsClock: true), world = site.world, clock = try #require(site.clock)
        try site.publish("d1", "heartbeat", "{}")
        try await world.untilQuiet()
        #expect(world.stopDaemon().exitCode == 0)
        let before = try events(world).count
        try clock.set(seconds: -1_795_000_000)
        try world.startDaemon()
        let isWaiting = await eventually(within: 60) { says(world, "waiting for the clock") }
        #expect(isWaiting, "\(world.daemonLog.suffix(2000))")
        #expect(world.daemonLog.contains("waiting for the clock"))
        // The broker keeps it.
        try site.publish("d1", "heartbeat", #"{"seq":2}"#)
        #expect(world.daemon?.isRunning == true && world.status()?.brokers.first?.connected == false)
        #expect(world.stopDaemon().exitCode == 0, "it can be stopped while it waits")
        try world.startDaemon()
        #expect(await eventually(within: 60) { says(world, "waiting for the clock") })
        try clock.set(seconds: 0)
        try await world.untilSubscribed()
        try await world.untilQuiet()
        let entries = try events(world)
        #expect(entries.dropFirst(before).contains { $0.topic == "tenant/acme/device/d1/heartbeat" })
        #expect(entries.allSatisfy { $0.received_at > "2026" })
        #expect(await eventually { world.status()?.state == "healthy" }, "\(String(describing: world.status()))")
    }
}
