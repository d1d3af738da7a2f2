import EventModel
import Primitives

/// The messages of one commit that were beyond their device's rate: one record a device, in the order in which the
/// devices first went over. Their payloads are not kept; their digests are, so that a redelivery is recognised.
struct Rejections {
    private struct Device {
        var topic: [UInt8]
        var broker: [UInt8]
        var receivedAt: Timestamp
        var count = 0
        var entries: [UInt8] = []
    }

    /// A record is split beyond this, far below what the log refuses.
    private static let entriesBytesMax = 1 << 20

    private var devices: [Device] = []
    private var indices: [[UInt8]: Int] = [:]

    mutating func add(_ record: RecordView, device: Range<Int>) {
        let address = Array(record.topic[device])
        var index = indices[address] ?? devices.count
        if index == devices.count || devices[index].entries.count > Self.entriesBytesMax {
            index = devices.count
            indices[address] = index
            devices.append(
                Device(
                    topic: address + Array("/rejected".utf8), broker: Array(record.broker),
                    receivedAt: record.receivedAt))
        }
        devices[index].count += 1
        devices[index].receivedAt = record.receivedAt
        Self.write(record, SHA256.digest(record.payload), to: &devices[index].entries)
    }

    func write(to batch: inout RecordBatch) {
        for device in devices {
            let json = Array("{\"count\":\(device.count),\"rejected\":[".utf8) + device.entries + Array("]}".utf8)
            device.topic.withUnsafeBytes { topic in
                device.broker.withUnsafeBytes { broker in
                    json.withUnsafeBytes { json in
                        batch.append(
                            kind: .rejection, verdict: .rateLimited, flags: [], receivedAt: device.receivedAt,
                            packetID: 0, broker: broker, topic: topic,
                            properties: UnsafeRawBufferPointer(start: nil, count: 0), payload: json)
                    }
                }
            }
        }
    }

    private static func write(_ record: RecordView, _ digest: Digest, to json: inout [UInt8]) {
        if !json.isEmpty { json.append(UInt8(ascii: ",")) }
        json.append(contentsOf: "{\"packet_id\":\(record.packetID),\"topic\":\"".utf8)
        JSONString.appendEscaped(record.topic, to: &json)
        json.append(contentsOf: "\",\"sha256\":\"".utf8)
        digest.withUnsafeBytes { Hex.append($0, to: &json) }
        json.append(UInt8(ascii: "\""))
        if record.flags.contains(.truncated) {
            // The digest is of the first bytes only: the rest was never copied.
            json.append(contentsOf: ",\"payload_bytes\":\(record.originalPayloadLength)".utf8)
        }
        json.append(UInt8(ascii: "}"))
    }
}

/// What a rejection record says, for those who read it back.
struct RejectionPayload: Codable {
    struct Entry: Codable {
        var packetID: UInt16
        var topic: String
        var sha256: String
        /// Only when the digest is of the first bytes: how long the payload was.
        var payloadBytes: Int?
        enum CodingKeys: String, CodingKey {
            case packetID = "packet_id", topic, sha256, payloadBytes = "payload_bytes"
        }
    }
    var count: Int
    var rejected: [Entry]
}
