import EventLog
import EventModel
import Foundation
import TestSupport
import Testing
@testable import MQTT
@testable import Ingest

/// What a process learns from the log about the sessions, alarms and counters of those before it.
@Suite struct SessionHistoryTests {
    private let log = MemoryLog()

    private func add(_ schema: BrokerEvent.Schema, _ client: String, _ change: (inout BrokerEvent) -> Void = { _ in })
        throws
    {
        var event = BrokerEvent(clientID: client), batch = RecordBatch()
        change(&event)
        batch.append(schema, event, broker: "b1", at: Timestamp(microseconds: 5))
        _ = try log.append(&batch)
    }

    private func add(messages count: Int) throws {
        var batch = RecordBatch()
        withBytes("b1", device("d"), "{}") { broker, topic, payload in
            for id in 0..<count {
                batch.append(
                    kind: .message, verdict: .accepted, flags: RecordFlags(qos: 1),
                    receivedAt: Timestamp(microseconds: 6), packetID: UInt16(id % 65_535 + 1), broker: broker,
                    topic: topic, properties: UnsafeRawBufferPointer(start: nil, count: 0), payload: payload)
            }
        }
        _ = try log.append(&batch)
    }

    private func known(_ client: String = "new") throws -> SessionHistory {
        try SessionHistory.read(from: log, broker: "b1", clientID: client)
    }

    /// A restart under another client id, hours after the connection began: the old session still collects messages.
    @Test func earlierClientIDsAreKnownHoweverLongTheConnectionLasted() throws {
        try add(.connected, "older")
        try add(.sessionState, "old") {
            $0.sessions = [
                .init(clientID: "old", filters: ["a/#"]), .init(clientID: "older", filters: nil),
            ]
            $0.alarms = [.init(code: "session_lost", sinceMicroseconds: 3, evidence: "why")]
            $0.droppedByBroker = 7
        }
        for _ in 0..<4 { try add(messages: 100_000) }
        try add(.disconnected, "old") { $0.droppedByBroker = 9 }
        let known = try known()
        #expect(known.existing.sorted() == ["old", "older"])
        #expect(known.sessions["old"] == .init(exists: true, isSubscribed: true, filters: ["a/#"]))
        #expect(known.sessions["new"] == nil, "no session was lost")
        #expect(known.alarms == [BrokerAlarm(.sessionLost, since: Timestamp(microseconds: 3), evidence: "why")])
        #expect(known.droppedByBroker == 9)
    }

    @Test(arguments: [
        BrokerEvent.Schema.connected, .disconnected, .draining, .sessionResumed, .sessionAdopted, .subscribed,
    ])
    func eventsOfAConnectionShowThatTheSessionMayExist(_ schema: BrokerEvent.Schema) throws {
        try add(messages: 10)
        try add(schema, "old") { $0.sessionPresent = true }
        #expect(try known().existing == ["old"])
    }

    /// Neither drained nor taken over, also by way of a state that is written at the next start.
    @Test func anAttemptAndARefusalMakeNoSessionOurs() throws {
        try add(.connecting, "theirs")
        try add(.sessionUnknown, "theirs")
        try add(.draining, "theirs")
        #expect(try known("theirs").existing.isEmpty)
        #expect(try !SessionHistory.mentions("theirs", in: log, broker: "b1"))
    }

    /// The process that has this client id again must subscribe, also over MQTT 3.1.1.
    @Test func anUnsubscribedSessionExistsAndReceivesNothing() throws {
        try add(.subscribed, "old") { $0.filters = ["a/#"] }
        try add(.unsubscribing, "old")
        #expect(try known("old").sessions["old"] == .init(exists: true, isSubscribed: false, filters: nil))
    }

    @Test func aDrainedSessionIsGone() throws {
        try add(.connected, "old")
        try add(.sessionDrained, "old")
        #expect(try known().existing.isEmpty)
    }

    /// The state replaces what stood before it, however much that was.
    @Test func theStateIsWhole() throws {
        try add(.subscribed, "gone")
        try add(.alarmRaised, "gone") { $0.alarm = "messages_dropped" }
        try add(.sessionState, "new") { $0.sessions = [.init(clientID: "new", filters: ["a/#"])] }
        #expect(try known().existing == ["new"])
        #expect(try known().alarms.isEmpty)
    }

    /// An alarm that came up while the operator's acknowledgement was written is not what was acknowledged.
    @Test func anAcknowledgementEndsTheAlarmsThatItNames() throws {
        let first = BrokerEvent.Alarm(code: "session_lost", sinceMicroseconds: 1, evidence: nil)
        let second = BrokerEvent.Alarm(code: "messages_dropped", sinceMicroseconds: 2, evidence: nil)
        for alarm in [first, second] {
            try add(.alarmRaised, "new") {
                $0.alarm = alarm.code; $0.alarms = [alarm]
            }
        }
        try add(.alarmsAcknowledged, "new") {
            $0.alarm = first.code; $0.alarms = [first]
        }
        #expect(try known().alarms.map(\.code) == [.messagesDropped])
        var status = BrokerStatus(BrokerSettings(name: "b1", host: "h", port: 1, clientID: "new"))
        for alarm in [first, second] { BrokerAlarm(alarm).map { _ = status.raise($0) } }
        let seen = status.outstanding
        status.clear(.sessionLost)
        status.raise(BrokerAlarm(.sessionLost, since: Timestamp(microseconds: 9)))
        status.acknowledge(seen)
        #expect(status.alarms.map(\.code) == [.sessionLost])
    }

    @Test func anAcceptedExpiryStaysAccepted() throws {
        try add(.connected, "new") { $0.sessionExpirySeconds = 300 }
        let alarm = BrokerEvent.Alarm(code: "session_expiry_capped", sinceMicroseconds: 2, evidence: nil)
        try add(.alarmRaised, "new") {
            $0.alarm = alarm.code; $0.alarms = [alarm]
        }
        #expect(try known().acceptedExpirySeconds == nil)
        try add(.alarmsAcknowledged, "new") {
            $0.alarm = alarm.code; $0.alarms = [alarm]
        }
        #expect(try known().acceptedExpirySeconds == 300)
    }

    /// Another client of our session, while no process of ours ran, took what lies between.
    @Test(arguments: [true, false])
    func aGapOverARestartIsSeen(orderly: Bool) throws {
        try add(.connected, "new")
        try add(messages: 20)
        if orderly { try add(.disconnected, "new") { $0.lastPacketID = 20 } }
        var keeper = SessionKeeper(broker: "b1", clientID: "new", history: log)
        _ = try keeper.connected(sessionPresent: true, isV5: true)
        var batch = RecordBatch()
        withBytes("b1", device("d"), "{}") { broker, topic, payload in
            batch.append(
                kind: .message, verdict: .accepted, flags: RecordFlags(qos: 1), receivedAt: Timestamp(microseconds: 7),
                packetID: 221, broker: broker, topic: topic, properties: UnsafeRawBufferPointer(start: nil, count: 0),
                payload: payload)
        }
        #expect(keeper.missingDeliveries(in: batch, isMosquitto: true) == 200)
    }

    /// What is not recorded has packet ids, too.
    @Test func withoutAnEndNothingFollowsFromTheLastRecord() throws {
        try add(.connected, "new")
        try add(messages: 20)
        var batch = RecordBatch()
        batch.append(
            kind: .decision, schema: "campaign.created/1", broker: "", receivedAt: Timestamp(microseconds: 6),
            json: Array("{}".utf8))
        _ = try log.append(&batch)
        #expect(try known().lastPacketID == nil)
    }

    /// A subscription at QoS 0 is made again, also over MQTT 3.1.1.
    @Test func filtersOfALowerQoSAreNotKnownAsSubscribed() throws {
        try add(.subscribed, "new") {
            $0.filters = ["a/#"]; $0.granted = [0]
        }
        #expect(try known().sessions["new"] == .init(exists: true, isSubscribed: true, filters: nil))
    }

    /// With each connection, and again when so many events lie behind the last one that it would not be found.
    @Test func theStateIsWrittenAgainAsTheLogGrows() async throws {
        let peer = try ScriptedBroker { connection in
            guard let level = try connection.accept() else { return }
            try connection.serve(level: level) { _ in }
        }
        let rig = try Rig(port: peer.port, log: log)
        try await rig.subscribed()
        #expect(log.events(.sessionState).count == 1)
        for _ in 0..<11 { try add(messages: 100_000) }
        let end = log.durableCount
        // What comes behind them can only be the next one.
        #expect(await eventually { log.durableCount > end })
        await rig.stop()
        let state = try SessionHistory.read(from: log, broker: "b1", clientID: "refold-test")
        #expect(state.existing == ["refold-test"])
        #expect(log.events(.sessionState).count == 2)
    }
}
