import EventModel

/// One block of device messages: 1,000 records of 100 devices of the tenant `acme`, ten messages per device. Every
/// block has the same topics and payloads; only positions and times differ.
struct FleetRecords {
    static let count = 1_000
    static let devices = (0..<100).map { "device-\(100_000 + $0)" }
    static let broker = "b1"

    struct Message {
        let topic: [UInt8]
        let payload: [UInt8]

        init(_ topic: String, _ payload: String) {
            (self.topic, self.payload) = (Array(topic.utf8), Array(payload.utf8))
        }
    }

    static let messages: [Message] = (0..<count).map { index in
        let device = index % devices.count, topic = "tenant/acme/device/\(devices[device])/"
        switch index / devices.count {
        case 5:
            // Ten of the heartbeats are not JSON: rows of `dead_letters`.
            let isBroken = device % 10 == 0
            return Message(topic + "heartbeat", isBroken ? "{\"seq\":" : "{\"seq\":\(index),\"site_id\":\"site-7\"}")
        case 6:
            let reported = "{\"firmware_version\":\"1.2.3\",\"interval_s\":60}"
            return Message(topic + "shadow/reported", "{\"version\":\(index),\"reported\":\(reported)}")
        case 7: return Message(topic + "connection", "{\"status\":\"CONNECTED\"}")
        case 8: return Message(topic + "ota/status", "{\"campaign_id\":1,\"status\":\"DOWNLOADING\",\"progress\":42.5}")
        case 9: return Message(topic + "commands/ack", "{\"command_id\":\"c\(index)\",\"status\":\"ok\"}")
        default:
            let metrics = "{\"temperature_c\":21.4,\"humidity_pct\":48.1,\"battery_v\":3.912,\"ok\":true}"
            return Message(
                topic + "telemetry",
                "{\"ts\":\"2026-01-01T00:00:00.000Z\",\"site_id\":\"site-7\",\"seq\":\(index),\"metrics\":\(metrics)}")
        }
    }

    /// Replaces the contents of `batch` with the messages, one microsecond apart. Packet ids count from 101.
    static func fill(_ batch: inout RecordBatch, at time: Timestamp, flags: RecordFlags = RecordFlags(qos: 1)) {
        batch.removeAll()
        for (index, message) in messages.enumerated() {
            Array(broker.utf8).withUnsafeBytes { broker in
                message.topic.withUnsafeBytes { topic in
                    message.payload.withUnsafeBytes { payload in
                        batch.append(
                            kind: .message, verdict: .accepted, flags: flags,
                            receivedAt: time.adding(microseconds: Int64(index)), packetID: UInt16(101 + index),
                            broker: broker, topic: topic, properties: UnsafeRawBufferPointer(start: nil, count: 0),
                            payload: payload)
                    }
                }
            }
        }
    }

    /// Start of the simulated time; block `number` begins `number` seconds later.
    static func time(ofBlock number: Int) -> Timestamp {
        Timestamp(microseconds: (1_767_225_600 + Int64(number)) * 1_000_000)
    }
}
