import ControlAPI
import EventLog
import EventModel
import Publishing
import Threading

/// Single events of the log, looked up for whoever wants to see the evidence.
struct EventLookup: Sendable {
    let log: FileLog

    /// - Throws: `LogError`: `.outOfRange`, `.beforeHorizon`, `.corrupt`.
    func event(at number: UInt64) async throws -> RecordedEvent? {
        try await onOwnThread("evidence") { [log] in
            guard number < log.durableCount else { return nil }
            let position = Position(number), reader = try log.reader(from: position), block = EventBlock()
            var found: RecordedEvent?
            while found == nil, try reader.read(into: block, atLeast: 1), block.base <= position {
                block.forEach { record, at in
                    guard at == position else { return }
                    var text: [UInt8] = []
                    EventJSON.append(record, at, to: &text)
                    found = RecordedEvent(
                        row: JSONRow(String(decoding: text, as: UTF8.self)), tenantID: Self.tenant(of: record))
                }
            }
            return found
        }
    }

    /// A message is the tenant's in whose topic it came; what was decided or commanded names its tenant.
    private static func tenant(of record: RecordView) -> String? {
        if let topic = DeviceTopic(record.topic) {
            return String(decoding: record.topic[topic.tenant], as: UTF8.self)
        }
        struct Owned: Decodable { var tenant_id: String }
        guard record.kind != .message, record.kind != .rejection else { return nil }
        return try? record.decoded(Owned.self).tenant_id
    }
}
