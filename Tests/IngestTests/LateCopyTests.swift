import EventModel
import Synchronization
import TestSupport
import Testing
@testable import Ingest

/// Redeliveries on a live connection, as NATS makes them when `ack_wait` is over.
@Suite struct LateCopyTests {
    private struct Arrival {
        var id: UInt16
        var payload = "{}"
        var topic = device("d")
        var isDuplicate = false
        var qos: UInt8 = 1
    }

    private static func late(_ batches: [[Arrival]]) -> [UInt16?] {
        var copies = LateCopies()
        return batches.map { arrivals in
            var batch = RecordBatch()
            for arrival in arrivals {
                var flags = RecordFlags(qos: arrival.qos)
                if arrival.isDuplicate { flags.insert(.duplicate) }
                withBytes("b1", arrival.topic, arrival.payload) { broker, topic, payload in
                    batch.append(
                        kind: .message, verdict: .accepted, flags: flags, receivedAt: Timestamp(microseconds: 1),
                        packetID: arrival.id, broker: broker, topic: topic,
                        properties: UnsafeRawBufferPointer(start: nil, count: 0), payload: payload)
                }
            }
            return copies.note(batch)
        }
    }

    @Test func aCopyOfWhatThisConnectionBroughtIsLate() {
        let first = Arrival(id: 7), again = Arrival(id: 7, isDuplicate: true)
        #expect(Self.late([[first], [again]]) == [nil, 7])
        #expect(Self.late([[first, again]]) == [7])
        #expect(Self.late([[first, Arrival(id: 8), Arrival(id: 8, isDuplicate: true), again]]) == [8])
        // Redelivered from an earlier connection, and then once more.
        #expect(Self.late([[again], [again]]) == [nil, 7])
        #expect(Self.late([[Arrival(id: .max)], [Arrival(id: .max, isDuplicate: true)]]) == [nil, .max])
    }

    @Test func whatIsNoCopyIsNot() {
        let first = Arrival(id: 7)
        // An identical heartbeat under an id that is free again.
        #expect(Self.late([[first, first], [first]]) == [nil, nil])
        // A pending message that got another id when its broker was killed.
        #expect(Self.late([[first], [Arrival(id: 7, payload: "{\"a\":1}", isDuplicate: true)]]) == [nil, nil])
        #expect(Self.late([[first], [Arrival(id: 7, topic: device("e"), isDuplicate: true)]]) == [nil, nil])
        #expect(Self.late([[first], [Arrival(id: 8, isDuplicate: true)]]) == [nil, nil])
        // The id has been given to another message since.
        let other = Arrival(id: 7, payload: "{\"a\":1}")
        #expect(Self.late([[first, other, Arrival(id: 7, isDuplicate: true)]]) == [nil])
        let zero = Arrival(id: 0, qos: 0)
        #expect(Self.late([[zero, Arrival(id: 0, isDuplicate: true, qos: 0)]]) == [nil])
    }

    /// The second PUBACK would end the message that has the id by then, which is still on its way.
    @Test func aLateCopyIsRecordedAndNotAcknowledged() async throws {
        let acknowledged = Mutex<[[UInt16]]>([])
        let peer = try ScriptedBroker { connection in
            guard let level = try connection.accept(sessionPresent: connection.number > 0) else { return }
            acknowledged.withLock { $0.append([]) }
            func send(_ text: String, duplicate: Bool) throws {
                try connection.send(
                    ScriptedConnection.publishBytes(
                        device("d"), Array(text.utf8), id: 1, duplicate: duplicate, level: level))
            }
            try send(connection.number == 0 ? "m1" : "m2", duplicate: connection.number > 0)
            try connection.serve(level: level) { id in
                let count = acknowledged.withLock {
                    $0[$0.count - 1].append(id); return $0.flatMap(\.self).count
                }
                if connection.number == 0, count == 1 { try send("m1", duplicate: true) }
            }
        }
        let rig = try Rig(port: peer.port) { $0.protocolPreference = .v311 }
        #expect(await eventually { acknowledged.withLock { $0 } == [[1], [1]] })
        #expect(await eventually { rig.log.messages.count == 3 })
        await rig.stop()
        #expect(acknowledged.withLock { $0 } == [[1], [1]])
        #expect(rig.log.messages.map { String(decoding: $0.payload, as: UTF8.self) } == ["m1", "m1", "m2"])
    }
}
