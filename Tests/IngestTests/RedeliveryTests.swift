import EventModel
import Foundation
import Testing
@testable import Ingest

/// Which redeliveries are suppressed. Each case is a trace of one session; the right value is how many messages are in
/// the log at the end. A message too many is allowed where nothing proves the redelivery; one too few never is.
@Suite struct RedeliveryTests {
    struct Case: CustomTestStringConvertible, Sendable {
        let name: String
        let recorded: Int
        let suppressed: Int
        let run: @Sendable (SessionTrace) throws -> Void
        var testDescription: String { name }

        init(_ name: String, recorded: Int, suppressed: Int, _ run: @escaping @Sendable (SessionTrace) throws -> Void) {
            (self.name, self.recorded, self.suppressed, self.run) = (name, recorded, suppressed, run)
        }
    }

    private static func unique(_ id: Int) -> String { "m\(id)" }

    static let cases: [Case] = [
        Case("lost acknowledgements after kill -9", recorded: 50, suppressed: 50) {
            try $0.connect(present: false)
            try $0.suback()
            try $0.receive(101...150)
            $0.restart()
            try $0.connect(present: true)
            try $0.receive(101...150, duplicate: true)
        },
        Case("lost acknowledgements, killed a second time while they come again", recorded: 50, suppressed: 100) {
            try $0.connect(present: false)
            try $0.receive(101...150)
            for _ in 0..<2 {
                $0.restart()
                try $0.connect(present: true)
                try $0.receive(101...150, duplicate: true)
                try $0.suback()
            }
        },
        // emqx#16296: Mosquitto lost its counter; what follows was never read before the second kill.
        Case("04a: identical heartbeats under ids that began again", recorded: 100, suppressed: 0) {
            try $0.connect(present: false)
            try $0.identify()
            try $0.suback()
            try $0.receive(1...50)
            try $0.disconnect()
            try $0.connect(present: true)
            try $0.suback()
            $0.restart()
            try $0.connect(present: true)
            try $0.receive(1...50, duplicate: true)
        },
        Case("04a, partly read before the kill, SUBACK not recorded", recorded: 100, suppressed: 10) {
            try $0.connect(present: false)
            try $0.identify()
            try $0.suback()
            try $0.receive(1...50)
            try $0.disconnect()
            try $0.connect(present: true)
            try $0.receive(1...10)
            $0.restart()
            try $0.connect(present: true)
            try $0.receive(1...50, duplicate: true)
        },
        Case("04a, the connection in between was never answered", recorded: 100, suppressed: 0) {
            try $0.connect(present: false)
            try $0.identify()
            try $0.suback()
            try $0.receive(1...50)
            try $0.disconnect()
            try $0.attemptUnanswered()
            $0.restart()
            try $0.connect(present: true)
            try $0.receive(1...50, duplicate: true)
        },
        Case("an attempt of the same process was never answered", recorded: 100, suppressed: 0) {
            try $0.connect(present: false)
            try $0.identify()
            try $0.suback()
            try $0.receive(1...50)
            try $0.disconnect()
            try $0.attemptUnanswered()
            try $0.connect(present: true)
            try $0.receive(1...50, duplicate: true)
        },
        Case("04b: the packet id has gone round once", recorded: 65_536, suppressed: 0) {
            try $0.connect(present: false)
            try $0.identify()
            try $0.suback()
            try $0.receive(1...65_535)
            $0.restart()
            try $0.connect(present: true)
            try $0.receive([1], duplicate: true)
        },
        Case("sixty thousand unread behind a full round", recorded: 125_535, suppressed: 0) {
            try $0.connect(present: false)
            try $0.identify()
            try $0.suback()
            try $0.receive(1...65_535)
            $0.restart()
            try $0.connect(present: true)
            try $0.receive(1...60_000, duplicate: true)
        },
        Case("ids that count from 1 in each connection, as RabbitMQ's", recorded: 60, suppressed: 0) {
            try $0.connect(present: false)
            try $0.suback()
            try $0.receive(1...50)
            $0.restart()
            try $0.connect(present: true)
            try $0.receive(1...10, duplicate: true)
        },
        // Found by the ledger soak: NATS was killed, gave a pending heartbeat the id of a recorded one, and sent it
        // first on the next connection.
        Case("3.1.1: another heartbeat under the id of a recorded one, as NATS's", recorded: 4, suppressed: 0) {
            try $0.connect(present: false, isV5: false)
            try $0.suback()
            try $0.receive(1...3)
            $0.restart()
            try $0.connect(present: true, isV5: false)
            try $0.receive([3], duplicate: true)
        },
        Case("a broker that gives an id out again at once", recorded: 6, suppressed: 0) {
            try $0.connect(present: false)
            try $0.suback()
            for _ in 0..<5 { try $0.receive([7]) }
            $0.restart()
            try $0.connect(present: true)
            try $0.receive([7], duplicate: true)
        },
        Case("a message behind a new one is new", recorded: 12, suppressed: 0) {
            try $0.connect(present: false)
            try $0.receive(101...110)
            $0.restart()
            try $0.connect(present: true)
            try $0.receive([111])
            try $0.receive([105], duplicate: true)
        },
        Case("a redelivery that was delivered again is new the second time", recorded: 11, suppressed: 1) {
            try $0.connect(present: false)
            try $0.receive(101...110)
            $0.restart()
            try $0.connect(present: true)
            try $0.receive([105], duplicate: true)
            try $0.receive([105], duplicate: true)
        },
        Case("another payload under the same id", recorded: 11, suppressed: 0) {
            try $0.connect(present: false)
            try $0.receive(101...110, unique)
            $0.restart()
            try $0.connect(present: true)
            try $0.receive([105], { _ in "other" }, duplicate: true)
        },
        Case("an unmatched redelivery ends nothing", recorded: 11, suppressed: 9) {
            try $0.connect(present: false)
            try $0.receive(101...110, unique)
            $0.restart()
            try $0.connect(present: true)
            try $0.receive([101, 300] + Array(103...110), unique, duplicate: true)
        },
        Case("a new session means nothing of the old one", recorded: 100, suppressed: 0) {
            try $0.connect(present: false)
            try $0.receive(101...150)
            $0.restart()
            try $0.connect(present: false)
            $0.restart()
            try $0.connect(present: true)
            try $0.receive(101...150, duplicate: true)
        },
        Case("only the last 16,384 deliveries can be unacknowledged", recorded: 30_001, suppressed: 1) {
            try $0.connect(present: false)
            try $0.identify()
            try $0.receive(1...30_000)
            $0.restart()
            try $0.connect(present: true)
            try $0.receive([13_616, 13_617], duplicate: true)
        },
    ]

    @Test(arguments: cases) func theSession(_ test: Case) throws {
        let trace = SessionTrace(gate: Self.unlimited)
        try test.run(trace)
        #expect(trace.log.messages.count == test.recorded)
        #expect(trace.suppressed == test.suppressed)
    }

    static var unlimited: GateSettings {
        var gate = GateSettings()
        gate.burst = 1_000_000
        return gate
    }

    /// A rejected message is recognised too: its digest is kept.
    @Test func aRejectedMessageIsRecognised() throws {
        var gate = GateSettings()
        (gate.messagesPerSecond, gate.burst) = (0.0001, 1)
        let trace = SessionTrace(gate: gate)
        try trace.connect(present: false)
        try trace.receive(101...103, Self.unique)
        trace.restart()
        try trace.connect(present: true)
        try trace.receive(101...103, Self.unique, duplicate: true)
        #expect(trace.suppressed == 3)
    }

    // MARK: Whose session it is

    @Test func standings() throws {
        let fresh = SessionTrace()
        try fresh.connect(present: true)
        #expect(fresh.standings == [.unknown], "an empty log has no session anywhere")
        let trace = SessionTrace()
        try trace.connect(present: false)
        try trace.suback()
        try trace.connect(present: true)
        trace.restart()
        try trace.connect(present: true)
        try trace.connect(present: false)
        trace.restart()
        try trace.connect(present: false)
        // A session without a subscription holds nothing.
        #expect(trace.standings == [.new, .resumed, .resumed, .lost, .new])
    }

    @Test func anotherClientIDsSessionIsKnownAsOurs() throws {
        let trace = SessionTrace(clientID: "refold-a")
        try trace.connect(present: false)
        try trace.suback()
        let history = try SessionHistory.read(from: trace.log, broker: "b1", clientID: "refold-b")
        let left = SessionHistory.Session(exists: true, isSubscribed: true, filters: ["tenant/+/device/+/#"])
        #expect(history.sessions["refold-a"] == left)
        #expect(history.sessions["refold-b"] == nil)
    }

    // MARK: Takeover

    struct Gap: Sendable { let before: Int, dups: [Int], next: Int, missing: Int }

    @Test(arguments: [
        Gap(before: 100, dups: [], next: 101, missing: 0), Gap(before: 100, dups: [], next: 121, missing: 20),
        Gap(before: 100, dups: [101, 102], next: 103, missing: 0),
        Gap(before: 100, dups: [99, 100], next: 101, missing: 0),
        Gap(before: 65_535, dups: [], next: 1, missing: 0), Gap(before: 65_534, dups: [], next: 3, missing: 3),
        Gap(before: 100, dups: [], next: 1, missing: 0), Gap(before: 40_000, dups: [], next: 1, missing: 0),
    ])
    func idsThatWentToAnotherClientAreCounted(_ gap: Gap) throws {
        var keeper = SessionKeeper(broker: "b1", clientID: "c", history: nil)
        _ = try keeper.connected(sessionPresent: false, isV5: true)
        keeper.disconnected(lastPacketID: UInt16(gap.before))
        _ = try keeper.connected(sessionPresent: true, isV5: true)
        var missing = 0
        for (id, isDuplicate) in gap.dups.map({ ($0, true) }) + [(gap.next, false), (gap.next + 500, false)] {
            missing += keeper.missingDeliveries(in: Self.arrival(id, isDuplicate), isMosquitto: true)
        }
        #expect(missing == gap.missing)
    }

    /// A connection of a process that had not heard yet what the broker is: its version comes behind the backlog.
    @Test func whatWasReadBeforeTheBrokerSaidWhatItIsWentToNobodyElse() throws {
        var keeper = SessionKeeper(broker: "b1", clientID: "c", history: nil)
        _ = try keeper.connected(sessionPresent: false, isV5: true)
        keeper.disconnected(lastPacketID: 100)
        _ = try keeper.connected(sessionPresent: true, isV5: true)
        for (id, isDuplicate) in [(100, true), (101, true), (102, false)] {
            #expect(keeper.missingDeliveries(in: Self.arrival(id, isDuplicate), isMosquitto: false) == 0)
        }
        #expect(keeper.missingDeliveries(in: Self.arrival(8_000, false), isMosquitto: true) == 0)
    }

    private static func arrival(_ id: Int, _ isDuplicate: Bool) -> RecordBatch {
        var batch = RecordBatch(), flags = RecordFlags(qos: 1)
        if isDuplicate { flags.insert(.duplicate) }
        let empty = UnsafeRawBufferPointer(start: nil, count: 0)
        batch.append(
            kind: .message, verdict: .accepted, flags: flags, receivedAt: Timestamp(microseconds: 0),
            packetID: UInt16(id), broker: empty, topic: empty, properties: empty, payload: empty)
        return batch
    }

    // MARK: Absence

    private static func limited() -> Gate {
        var gate = GateSettings()
        (gate.messagesPerSecond, gate.burst) = (10, 50)
        return Gate(gate)
    }

    /// How many of one device's messages the gate accepts.
    private static func send(_ count: Int, at steady: Int64, through gate: Gate) -> Int {
        var accepted = 0
        for _ in 0..<count {
            var filter: RedeliveryFilter?
            var batch = RecordBatch(), outgoing = RecordBatch()
            let empty = UnsafeRawBufferPointer(start: nil, count: 0)
            Array(device("d").utf8).withUnsafeBytes {
                batch.append(
                    kind: .message, verdict: .accepted, flags: RecordFlags(qos: 1),
                    receivedAt: Timestamp(microseconds: steady), packetID: 1, broker: empty, topic: $0,
                    properties: empty, payload: empty)
            }
            let tally = gate.examine(batch, filter: &filter, steadyMicros: steady, into: &outgoing)
            gate.endJudging()
            accepted += Int(tally.verdicts[Int(Verdict.accepted.rawValue)])
        }
        return accepted
    }

    /// thingsboard#15685: 45 minutes of a device's 5 messages a second come at once.
    @Test func aBacklogIsNotChargedAsOneBurst_thingsboard15685() {
        let gate = Self.limited()
        var absence = AbsenceCredit()
        absence.round(at: 1_000_000, hasInput: true, gate)
        #expect(Self.send(100, at: 1_000_000, through: gate) == 50, "no credit without an absence")
        let back: Int64 = 1_000_000 + 2_700_000_000
        absence.round(at: back, hasInput: true, gate)
        #expect(Self.send(13_500, at: back, through: gate) == 13_500)
        // The backlog is read: the rate holds again.
        for second in 1...6 { absence.round(at: back + Int64(second) * 1_000_000, hasInput: false, gate) }
        #expect(Self.send(1_000, at: back + 6_000_000, through: gate) <= 60 + 50)
    }

    /// A revoked device is found by the time of its last message. What a broker kept for two days was sent before, but
    /// on a busy broker the credit lasts as long.
    @Test func refusedMessagesOfABacklogHaveNoTime() {
        let check = CertificateCheck(refuses: true)
        check.load(LiveCertificates())
        let gate = Gate(GateSettings(), certificates: check), back: Int64 = 2 * 86_400 * 1_000_000
        var absence = AbsenceCredit()
        func lastAt(after micros: Int64) -> Timestamp? {
            absence.round(at: back + micros, hasInput: true, gate)
            _ = Self.send(1, at: back + micros, through: gate)
            return gate.withoutCertificate(tenant: "acme", device: "d")?.lastAt
        }
        absence.round(at: 0, hasInput: true, gate)
        #expect(lastAt(after: 0) == Timestamp(seconds: 0) && gate.lastWithoutCertificate(10).isEmpty)
        // The broker never rests: messages every second.
        for second in 1..<600 as Range<Int64> { #expect(lastAt(after: second * 1_000_000) == Timestamp(seconds: 0)) }
        #expect(lastAt(after: 600_000_000) == Timestamp(microseconds: back + 600_000_000))
        #expect(gate.lastWithoutCertificate(10).map(\.device) == ["d"])
        // Another absence.
        let again: Int64 = 700_000_000 + 3_600_000_000
        #expect(lastAt(after: again) == Timestamp(microseconds: back + 600_000_000))
    }

    /// Back after a second, the broker delivers nothing for 20 s more, then everything at once.
    @Test func theSilenceBehindAConnectBelongsToTheAbsence() {
        let gate = Self.limited()
        var absence = AbsenceCredit()
        absence.connected(awayMicros: 0, at: 0, gate)
        absence.round(at: 1_000_000, hasInput: true, gate)
        #expect(Self.send(50, at: 1_000_000, through: gate) == 50)
        absence.connected(awayMicros: 0, at: 2_000_000, gate)
        for half in 4...44 { absence.round(at: Int64(half) * 500_000, hasInput: false, gate) }
        #expect(Self.send(300, at: 22_000_000, through: gate) >= 210, "21 s at 10 a second")
    }

    @Test func aConnectionThatStaysSilentEarnsNoMoreThanAMinute() {
        let gate = Self.limited()
        var absence = AbsenceCredit()
        absence.connected(awayMicros: 0, at: 0, gate)
        for second in 1...3_600 { absence.round(at: Int64(second) * 1_000_000, hasInput: false, gate) }
        #expect(Self.send(10_000, at: 3_600_000_000, through: gate) <= 600 + 50)
    }
}
