import EventModel
import Foundation
import Primitives
import TestSupport
import Testing
@testable import MQTT
@testable import Ingest

@Suite(.serialized) struct GateTests {
    @Test func everyVerdictIsRecorded() async throws {
        let broker = try MosquittoServer()
        var gate = GateSettings()
        gate.payloadBytesMax = 2_000
        let rig = try Rig(port: broker.port, gate: gate) { $0.filters = ["#"] }
        try await rig.subscribed()
        let publisher = try TestPublisher(port: broker.port)
        let large = (0..<5_000).map { UInt8(truncatingIfNeeded: $0) }
        try publisher.publish(device("d"), "fine")
        try publisher.publish("tenant/acme/gadget/d/telemetry", "bad topic")
        try publisher.publish(device("d"), large)
        try publisher.publish(device("d", "ota"), "theirs")
        try publisher.publish(device("d"), "", qos: 0)
        try await publisher.flush()
        #expect(await eventually { rig.log.messages.count == 5 })
        let messages = rig.log.messages
        #expect(messages.map(\.verdict) == [.accepted, .badTopicFormat, .payloadTooLarge, .foreignCommand, .accepted])
        #expect(messages[2].payload == Array(large.prefix(1_024)))
        #expect(messages[2].originalLength == 5_000)
        #expect(messages[2].flags.contains(.truncated))
        #expect(messages[3].text == "theirs")
        #expect(messages[4].flags.qos == 0)
        #expect(messages[4].payload.isEmpty)
        #expect(await eventually { rig.status.acknowledged == 4 })
        await rig.stop()
    }

    @Test func retainedMessagesThatTheBrokerReplaysAreMarked() async throws {
        let broker = try MosquittoServer()
        let publisher = try TestPublisher(port: broker.port)
        try publisher.publish(device("d", "shadow/reported"), "before", retain: true)
        try await publisher.flush()
        let rig = try Rig(port: broker.port)
        try await rig.subscribed()
        try publisher.publish(device("d", "shadow/reported"), "live", retain: true)
        #expect(await eventually { rig.log.messages.count == 2 })
        #expect(rig.log.messages.map { $0.flags.contains(.retained) } == [true, false])
        await rig.stop()
    }

    /// The wire form of MQTT 5.0, 2.2.2.2.
    @Test func propertiesAreKept() async throws {
        let broker = try MosquittoServer()
        let rig = try Rig(port: broker.port)
        try await rig.subscribed()
        let publisher = try TestPublisher(port: broker.port)
        var properties = TestPublisher.Properties()
        properties.payloadIsText = true
        properties.contentType = "a/b"
        properties.responseTopic = "r"
        properties.correlationData = [0, 255, 1]
        properties.userProperties = [("k", "v"), ("k", "")]
        try publisher.publish(device("d"), "x".utf8, properties: properties)
        #expect(await eventually { rig.log.messages.count == 1 })
        let kept = try #require(rig.log.messages.first).properties
        let parts: [[UInt8]] = [
            [1, 1], [3, 0, 3] + Array("a/b".utf8), [8, 0, 1] + Array("r".utf8), [9, 0, 3, 0, 255, 1],
            [38, 0, 1] + Array("k".utf8) + [0, 1] + Array("v".utf8), [38, 0, 1] + Array("k".utf8) + [0, 0],
        ]
        #expect(kept.count == parts.joined().count)
        for part in parts { #expect(kept.firstRange(of: part) != nil, "\(part)") }
        await rig.stop()
    }

    @Test func beyondItsRateADeviceLeavesOneRecordACommit() async throws {
        let broker = try MosquittoServer()
        let log = MemoryLog()
        var gate = GateSettings()
        gate.messagesPerSecond = 0.001
        gate.burst = 3
        let rig = try Rig(port: broker.port, log: log, gate: gate)
        try await rig.subscribed()
        let publisher = try TestPublisher(port: broker.port)
        let topic = device("loud", "x/\"quoted\\")
        for index in 0..<10 {
            try publisher.publish(topic, "m\(index)")
            try publisher.publish(device("calm-\(index)"), "calm")
        }
        try await publisher.flush()
        #expect(await eventually { rig.status.acknowledged == 20 })
        let rejections = log.entries.filter { $0.kind == .rejection }
        #expect(!rejections.isEmpty)
        #expect(rejections.allSatisfy { $0.topic == "tenant/acme/device/loud/rejected" && $0.verdict == .rateLimited })
        let payloads = try rejections.map { try JSONDecoder().decode(RejectionPayload.self, from: Data($0.payload)) }
        #expect(payloads.reduce(0) { $0 + $1.count } == 7)
        #expect(payloads.allSatisfy { $0.count == $0.rejected.count })
        let first = try #require(payloads.first?.rejected.first)
        #expect(first.topic == topic)
        #expect(first.packetID > 0)
        #expect(first.sha256 == SHA256.digest("m3".utf8).description)
        #expect(log.messages.filter { $0.topic == topic }.map(\.text) == ["m0", "m1", "m2"])
        #expect(rig.status.verdicts[Int(Verdict.rateLimited.rawValue)] == 7)
        let statistics = try #require(rig.service.deviceStatistics(tenant: "acme", device: "loud"))
        #expect(statistics.accepted == 3)
        #expect(statistics.rejected == 7)
        #expect(statistics.tokensLeft < 1)
        await rig.stop()
    }

    // MARK: parts

    private func take(_ limiter: inout RateLimiter, _ name: String, _ time: Int64) -> Bool {
        let index = Array(name.utf8).withUnsafeBytes { limiter.index(of: $0, DeviceHash($0), at: time) }
        return limiter.take(index, at: time)
    }

    @Test func bucketsFillWithTimeAndNoFurtherThanTheBurst() {
        var limiter = RateLimiter(tokensPerSecond: 10, burst: 5, devicesMax: 100)
        #expect((0..<7).map { _ in take(&limiter, "a", 0) } == [true, true, true, true, true, false, false])
        #expect(take(&limiter, "b", 0))
        #expect(!take(&limiter, "a", 99_999))
        #expect(take(&limiter, "a", 100_000))
        #expect(!take(&limiter, "a", 50_000), "a clock that steps back gives nothing")
        #expect(take(&limiter, "a", 150_000), "and takes nothing: from there on it fills again")
        #expect((0..<7).filter { _ in take(&limiter, "a", 60_000_000) }.count == 5)
    }

    @Test func theMostRefusedDevicesAreNamedOnceAndInOrder() {
        var limiter = RateLimiter(tokensPerSecond: 0, burst: 1, devicesMax: 6)
        for (name, count) in [("a", 3), ("b", 5), ("c", 1), ("d", 2), ("b", 1), ("e", 1), ("b", 1)] {
            for _ in 0..<count { _ = take(&limiter, name, 0) }
        }
        let worst = limiter.highest(2) { $0.rejected }
        #expect(worst.map { $0.entry.rejected } == [6, 2])
        #expect(worst.map { String(decoding: $0.address, as: UTF8.self) } == ["b", "a"])
        #expect(worst.allSatisfy { $0.entry.accepted == 1 })
        #expect(limiter.highest(9, prefix: [UInt8(ascii: "a")]) { $0.rejected }.count == 1)
        #expect(limiter.highest(9) { _ in 0 }.isEmpty)
    }

    @Test func theHighestAreThoseOfASort() {
        var limiter = RateLimiter(tokensPerSecond: 0, burst: 1, devicesMax: 1_000)
        var refused: [Int: UInt64] = [:]
        for device in 0..<400 {
            let count = UInt64(device * 7_919 % 31)
            for _ in 0...count { _ = take(&limiter, "device-\(device)", 0) }
            if count > 0 { refused[device] = count }
        }
        let sorted = refused.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
        for limit in [1, 7, 100, 1_000] {
            let found = limiter.highest(limit) { $0.rejected }
            let names = found.map { String(decoding: $0.address, as: UTF8.self) }
            #expect(names == sorted.prefix(limit).map { "device-\($0.key)" })
            #expect(found.map { $0.entry.rejected } == sorted.prefix(limit).map(\.value))
        }
    }

    @Test func devicesAreBoundedAndBusyOnesAreRemembered() {
        var limiter = RateLimiter(tokensPerSecond: 0, burst: 1, devicesMax: 1_000)
        #expect(take(&limiter, "busy", 0))
        for index in 0..<20_000 {
            _ = take(&limiter, "device-\(index)", 0)
            if index % 100 == 0 { #expect(!take(&limiter, "busy", 0)) }
            #expect(limiter.count <= 1_000)
        }
        #expect(take(&limiter, "device-0", 0), "long forgotten: a full bucket again")
        #expect(!take(&limiter, "device-19999", 0))
    }

    @Test func backoffGrowsWithJitterAndStartsOverAfterAStableConnection() {
        var settings = ReconnectBackoff.Settings()
        settings.millisecondsMin = 1_000
        settings.millisecondsMax = 60_000
        for attempt in 0..<12 {
            var waits: Set<Int> = []
            for _ in 0..<50 {
                var backoff = ReconnectBackoff(settings)
                for _ in 0..<attempt { _ = backoff.next() }
                waits.insert(backoff.next())
            }
            #expect(waits.max()! <= min(60_000, 1_000 << attempt))
            #expect(waits.count > 10, "without jitter a fleet comes back in step")
        }
        var backoff = ReconnectBackoff(settings)
        for _ in 0..<10 { _ = backoff.next() }
        backoff.connectionLasted(milliseconds: 29_999)
        #expect((0..<50).map { _ in backoff.next() }.max()! > 1_000)
        backoff.connectionLasted(milliseconds: 30_000)
        #expect(backoff.next() <= 1_000)
        let takeovers = (0..<8).map { _ in backoff.nextAfterTakeover() }
        #expect(takeovers.allSatisfy { (30_000...750_000).contains($0) })
        #expect(takeovers[4] > takeovers[0])
    }
}
