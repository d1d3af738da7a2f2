// What the fuzzers do with an input. `make fuzz` searches for new inputs, `make test` replays the kept ones.

import Decisions
import Decoding
import EventModel

/// Decodes the input as the payload of each kind of message, and as an event of our own: no input may crash, hang or
/// take memory beyond what its length allows, and the answer is the same each time.
/// The first byte chooses the topic, the rest is the payload.
public func fuzzPayload(_ input: UnsafeRawBufferPointer) {
    guard let choice = input.first else { return }
    let payload = UnsafeRawBufferPointer(rebasing: input.dropFirst())
    let topics = [
        "telemetry", "heartbeat", "shadow/reported", "commands/ack", "ota/status", "connection", "rejected", "x/y",
    ]
    let schemas =
        CampaignSchema.allCases.map { ($0.rawValue, EventKind.decision) }
        + BrokerEvent.Schema.allCases.map { ($0.rawValue, EventKind.connection) }
    let index = Int(choice) % (topics.count + schemas.count)
    if index < topics.count {
        let topic = "tenant/t/device/d/" + topics[index]
        withRecord(kind: index == 6 ? .rejection : .message, topic: topic, payload: payload) { record in
            decodeTwice(record)
        }
    } else {
        let (schema, kind) = schemas[index - topics.count]
        withRecord(kind: kind, topic: schema, payload: payload) { record in
            _ = FactDecoder().decodeInternal(record)
        }
    }
}

private func decodeTwice(_ record: RecordView) {
    guard let topic = DeviceTopic(record.topic) else { preconditionFailure("a topic of ours does not parse") }
    let decoder = FactDecoder()
    if record.kind == .rejection { return _ = decoder.rejectedCount(record) }
    let first = String(describing: kind(of: decoder.decode(record, topic: topic)))
    let fact = decoder.decode(record, topic: topic)
    precondition(String(describing: kind(of: fact)) == first, "two answers to one payload")
    guard case .telemetry(let telemetry) = fact else { return }
    // The ranges of a fact lie in readable memory, and what was accepted can be merged with itself.
    let metrics = [UInt8](telemetry.metrics)
    precondition(metrics.first == UInt8(ascii: "{") && metrics.last == UInt8(ascii: "}"), "metrics are an object")
    metrics.withUnsafeBytes { metrics in
        let once = [UInt8](decoder.merge(metrics: metrics, with: metrics).merged)
        once.withUnsafeBytes { once in
            let twice = [UInt8](decoder.merge(metrics: once, with: metrics).merged)
            precondition(twice.count == once.count || once.count > FactDecoder.metricsBytesMax, "a merge that grows")
        }
    }
}

private func kind(of fact: MessageFact) -> String {
    switch fact {
    case .telemetry: "telemetry"
    case .heartbeat: "heartbeat"
    case .shadow: "shadow"
    case .commandAck: "ack"
    case .otaStatus: "ota"
    case .connection: "connection"
    case .none: "none"
    case .undecodable(let why): "undecodable \(why)"
    }
}

/// The record as it would lie in a block: with simdjson's slack behind it.
func withRecord(
    kind: EventKind, topic: String, payload: UnsafeRawBufferPointer, _ body: (RecordView) -> Void
) {
    var batch = RecordBatch(), topic = topic
    let none = UnsafeRawBufferPointer(start: nil, count: 0)
    topic.withUTF8 { topic in
        batch.append(
            kind: kind, verdict: .accepted, flags: [], receivedAt: Timestamp(microseconds: 1), packetID: 1,
            broker: none, topic: UnsafeRawBufferPointer(topic), properties: none, payload: payload)
    }
    let block = EventBlock(capacity: 64)
    let whole = batch.withUnsafeBytes { bytes in
        block.append(base: Position(0), count: 1, byteCount: bytes.count) { room in
            room.copyMemory(from: bytes)
            return true
        }
    }
    precondition(whole, "a record of ours does not walk")
    block.forEach { record, _ in body(record) }
}
