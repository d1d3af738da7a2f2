import EventModel

/// One message as a block of its own, for as long as `body` runs.
func withRecord<R>(
    _ topic: String, _ payload: [UInt8], kind: EventKind = .message, verdict: Verdict = .accepted,
    flags: RecordFlags = [],
    _ body: (RecordView) throws -> R
) rethrows -> R {
    var batch = RecordBatch()
    Array(topic.utf8).withUnsafeBytes { topic in
        payload.withUnsafeBytes { payload in
            let none = UnsafeRawBufferPointer(start: nil, count: 0)
            batch.append(
                kind: kind, verdict: verdict, flags: flags, receivedAt: Timestamp(microseconds: 1), packetID: 1,
                broker: none, topic: topic, properties: none, payload: payload)
        }
    }
    return try batch.withUnsafeBytes { bytes in try body(RecordView(unchecked: bytes.baseAddress!)) }
}
