import Decisions
import EventModel
import FleetSimulator
import Foundation

/// What a fleet says in all its variety, the same every time: telemetry, heartbeats, shadows, acks, connections,
/// reports of three campaigns, and a few messages that nobody understands.
struct MixedFleet {
    private var fleet: FleetGenerator
    private let broker = Array("main".utf8)
    private var waiting: [(topic: String, payload: [UInt8])] = []
    private let devices: Int

    init(devices: Int) {
        var shape = FleetShape()
        (shape.devices, shape.tenants) = (devices, 4)
        shape.mix.ota = 1
        (shape.malformed, shape.churn, shape.duplicates) = (0.001, 0.001, 0.001)
        fleet = FleetGenerator(seed: 7, shape: shape)
        self.devices = devices
    }

    /// Three campaigns over every device of one tenant each: what `ota/status` reports refer to.
    func decisions(at time: Timestamp) throws -> RecordBatch {
        var batch = RecordBatch(), firstID: Int64 = 1
        let encoder = JSONEncoder()
        func append(_ schema: CampaignSchema, _ event: some Encodable) throws {
            batch.append(
                kind: .decision, schema: schema.rawValue, receivedAt: time, json: Array(try encoder.encode(event)))
        }
        for id in 1...3 {
            let addresses = (0..<devices).map { fleet.shape.address(ofDevice: $0).split(separator: "/") }
            let tenant = String(addresses[id % 4][1])
            let targets = addresses.filter { $0[1] == tenant }.map { String($0[3]) }
            try append(
                .campaignCreated,
                CampaignCreated(
                    id: Int64(id), tenantID: tenant, name: "campaign \(id)", firmwareVersionID: 1,
                    rolloutStrategy: "linear", totalDevices: Int64(targets.count), actor: "bench"))
            try append(
                .campaignTargets,
                CampaignTargets(
                    campaignID: Int64(id), tenantID: tenant, firstID: firstID, devices: targets))
            firstID += Int64(targets.count)
        }
        return batch
    }

    /// Fills `batch` with `count` messages, one microsecond apart from `time` on.
    mutating func fill(_ batch: inout RecordBatch, count: Int, from time: Timestamp) {
        batch.removeAll()
        var index = 0
        while index < count {
            let at = time.adding(microseconds: Int64(index))
            let (topic, payload) = next(at)
            broker.withUnsafeBytes { broker in
                Array(topic.utf8).withUnsafeBytes { topic in
                    payload.withUnsafeBytes { payload in
                        let verdict: Verdict = DeviceTopic(topic) == nil ? .badTopicFormat : .accepted
                        batch.append(
                            kind: .message, verdict: verdict, flags: RecordFlags(qos: 1), receivedAt: at,
                            packetID: UInt16(truncatingIfNeeded: index | 1), broker: broker, topic: topic,
                            properties: UnsafeRawBufferPointer(start: nil, count: 0), payload: payload)
                    }
                }
            }
            index += 1
        }
    }

    private mutating func next(_ at: Timestamp) -> (topic: String, payload: [UInt8]) {
        if let first = waiting.popLast() { return first }
        switch fleet.next(at: at) {
        case .publish(let message): return (message.topic, message.payload)
        case .leave(let device, let orderly, _):
            let topic = fleet.shape.address(ofDevice: device) + "/connection"
            waiting = [(topic, Array("{\"status\":\"CONNECTED\"}".utf8))]
            return (topic, Array("{\"status\":\"\(orderly ? "DISCONNECTED" : "CONNECTION_LOST")\"}".utf8))
        }
    }
}
