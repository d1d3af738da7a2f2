import Testing
@testable import EventModel

private func parse(_ text: String) -> (tenant: String, device: String, TopicClass)? {
    let bytes = Array(text.utf8)
    return bytes.withUnsafeBytes { raw in
        guard let topic = DeviceTopic(raw) else { return nil }
        return (
            String(decoding: raw[topic.tenant], as: UTF8.self), String(decoding: raw[topic.device], as: UTF8.self),
            topic.topicClass
        )
    }
}

@Suite struct DeviceTopicTests {
    @Test(arguments: [
        ("telemetry", TopicClass.telemetry), ("heartbeat", .heartbeat), ("shadow/reported", .shadowReported),
        ("commands/ack", .commandAck), ("ota/status", .otaStatus), ("connection", .connection), ("ota", .otaCommand),
        ("certificate", .certificateCommand), ("certificate/request", .certificateRequest),
        ("certificate/installed", .certificateInstalled),
        ("x", .other), ("telemetry/2", .other), ("Telemetry", .other), ("ota/", .other),
    ])
    func classes(rest: String, expected: TopicClass) throws {
        let parsed = try #require(parse("tenant/a.B_9:-/device/d/\(rest)"))
        #expect(parsed.tenant == "a.B_9:-")
        #expect(parsed.device == "d")
        #expect(parsed.2 == expected)
    }

    @Test(arguments: [
        "", "tenant", "tenant//device/d/telemetry", "tenant/a/device//telemetry", "tenant/a/device/d",
        "tenant/a/device/d/",
        "tenant/a b/device/d/telemetry", "tenant/ä/device/d/telemetry", "tenant/a/device/d+/telemetry",
        "Tenant/a/device/d/x",
        "tenants/a/device/d/telemetry", "tenant/a/devices/d/telemetry", "tenant/a/b/device/d/telemetry",
        "/tenant/a/device/d/x",
    ])
    func badGrammar(topic: String) { #expect(parse(topic) == nil) }

    @Test func idsAreAtMost128Bytes() {
        let longest = String(repeating: "x", count: 128)
        #expect(parse("tenant/\(longest)/device/\(longest)/telemetry") != nil)
        #expect(parse("tenant/\(longest)y/device/d/telemetry") == nil)
        #expect(parse("tenant/a/device/\(longest)y/telemetry") == nil)
    }

    @Test func everyByteOfTheAlphabetAndNoOther() {
        let allowed = Set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-".utf8)
        for byte in UInt8.min...UInt8.max { #expect(DeviceTopic.isIdByte(byte) == allowed.contains(byte), "\(byte)") }
    }
}

/// The fast way over ids gives what the byte-wise one does, wherever the first other byte stands.
struct TopicIDTests {
    @Test func everyByteAtEveryPlace() {
        for byte in UInt8.min...UInt8.max {
            for place in 0..<40 {
                var topic = [UInt8](repeating: UInt8(ascii: "a"), count: 48)
                topic[place] = byte
                let end = topic.withUnsafeBytes { DeviceTopic.idEnd($0, from: 0) }
                #expect(end == (DeviceTopic.isIdByte(byte) ? 48 : place), "byte \(byte) at \(place)")
            }
        }
    }
}
