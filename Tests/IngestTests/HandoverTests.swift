import EventModel
import Primitives
import Testing

@testable import Ingest

/// What two sessions of one log may drop, because the other one has recorded it.
struct HandoverTests {
    private func batch(_ payloads: [String], length: Int? = nil) -> RecordBatch {
        var batch = RecordBatch()
        for payload in payloads {
            Array("tenant/t/device/d/heartbeat".utf8).withUnsafeBytes { topic in
                Array(payload.utf8).withUnsafeBytes { payload in
                    batch.append(
                        kind: .message, verdict: .accepted, flags: length == nil ? [] : .truncated,
                        receivedAt: Timestamp(microseconds: 1), packetID: 1,
                        broker: UnsafeRawBufferPointer(rebasing: topic[..<1]),
                        topic: topic, properties: UnsafeRawBufferPointer(start: nil, count: 0), payload: payload,
                        originalPayloadLength: length)
                }
            }
        }
        return batch
    }

    private func digests(_ payloads: String..., length: Int? = nil) -> [Digest] {
        Handover.digests(of: batch(payloads, length: length))
    }

    private func begun() -> Handover {
        let handover = Handover(logID: "x")
        handover.noteProbe(isAnswered: true)
        #expect(handover.begin())
        return handover
    }

    @Test func itBeginsOnceAndOnlyBehindAnAnsweredProbe() {
        let handover = Handover(logID: "x")
        #expect(!Handover(logID: "x").begin())
        handover.noteProbe(isAnswered: true)
        handover.noteProbe(isAnswered: false)
        #expect(!handover.isRefused && handover.begin())
        #expect(!handover.begin() && handover.hasBegun)
    }

    /// What the old session has behind the marker is the beginning of what the new one recorded there.
    @Test func theOldSessionDropsOnlyTheNewOnesNextRecords() {
        let handover = begun()
        #expect(handover.takeNew(digests("{}")[...]) == 0 && !handover.isClosed)
        handover.noteNew(digests("{}", "{}", "a"))
        #expect(handover.takeNew(digests("{}")[...]) == 1)
        #expect(handover.takeNew(digests("{}", "a", "b")[...]) == 2 && !handover.isClosed)
        handover.noteNew(digests("c", "b"))
        #expect(handover.takeNew(digests("b")[...]) == 0 && handover.isClosed)
        handover.noteNew(digests("b"))
        #expect(handover.takeNew(digests("b")[...]) == 0)
    }

    /// What the new session has before the marker is the end of what the old one recorded there: all of it, or nothing.
    @Test func theNewSessionDropsOnlyTheOldOnesLastRecords() {
        let handover = begun()
        handover.noteOld(digests("a", "{}", "b"))
        #expect(!handover.endsOld(digests("b")), "the old session has not passed the marker")
        handover.notePassed()
        handover.noteOld(digests("c"))
        #expect(handover.endsOld(digests("{}", "b")))
        #expect(!handover.endsOld(digests("{}")) && !handover.endsOld(digests("a", "b")))
        #expect(!handover.endsOld(digests("c", "a", "{}", "b")))
    }

    @Test func nothingIsDroppedOnceItIsClosed() {
        let handover = begun()
        handover.noteNew(digests("a"))
        handover.close()
        handover.noteNew(digests("a"))
        #expect(handover.takeNew(digests("a")[...]) == 0)
        // An old session that connects again before the exchange has closed nothing.
        let early = Handover(logID: "x")
        early.close()
        #expect(!early.isClosed)
    }

    /// Payloads that were cut to the same first bytes.
    @Test func whatWasCutMatchesByItsLength() {
        let handover = begun()
        handover.noteNew(digests("{", length: 2_000))
        #expect(handover.takeNew(digests("{", length: 3_000)[...]) == 0)
    }

    @Test func retainedMessagesAreNoPartOfIt() {
        var retained = RecordBatch()
        batch(["a"]).forEach { record in
            retained.append(
                kind: .message, verdict: .accepted, flags: .retained, receivedAt: record.receivedAt, packetID: 1,
                broker: record.broker, topic: record.topic, properties: record.properties, payload: record.payload)
        }
        #expect(Handover.digests(of: retained).isEmpty)
    }

    @Test func memoryIsBounded() {
        let handover = begun()
        for index in 0..<3_000 { handover.noteOld(digests("\(index)")) }
        handover.notePassed()
        #expect(handover.endsOld(digests("2998", "2999")))
        let many = digests("x")
        for _ in 0..<70 { handover.noteNew(Array(repeating: many[0], count: 1_000)) }
        #expect(handover.isClosed, "the old session asks for nothing")
    }

    /// Anyone who may write to the topic can send such payloads, and learns no marker before it is used.
    @Test func markersAndProbesAreRandomAndRecognised() {
        let handover = Handover(logID: "x"), other = Handover(logID: "x")
        #expect(Set([handover.marker, handover.probe, other.marker, other.probe]).count == 4)
        for payload in [handover.marker, handover.probe] { #expect(payload.withUnsafeBytes(Handover.isOurs)) }
        for text in ["", "handover ", "handover 0123456789abcde", "{\"handover\":1}"] {
            #expect(!Array(text.utf8).withUnsafeBytes(Handover.isOurs), "\(text)")
        }
    }
}
