import Deciding
import EventLog
import EventModel
import Primitives
import Synchronization
import Testing
@testable import Campaigns

/// A clock that tests move; it may go back, as real ones do.
final class TestClock: Sendable {
    private let time = Mutex(Timestamp(microseconds: 1_800_000_000_000_000))
    var now: Timestamp { time.withLock { $0 } }
    func advance(microseconds: Int64) { time.withLock { $0 = $0.adding(microseconds: microseconds) } }
}

@Suite struct CampaignDeciderTests {
    let log = MemoryLog()
    let clock = TestClock()

    func decider() -> DeciderService<CampaignState> {
        DeciderService<CampaignState>(writer: DecisionWriter(log), source: log, clock: { [clock] in clock.now })
    }

    func firmware(_ version: String = "1", key: String? = nil) -> CommandRequest {
        CommandRequest(
            tenantID: "t1", actor: "admin", idempotencyKey: key,
            command: .addFirmware(FirmwareSpec(version: version, fileURL: "https://h/f")))
    }

    func request(_ command: CampaignCommand, tenant: String = "t1", key: String? = nil) -> CommandRequest {
        CommandRequest(tenantID: tenant, actor: "admin", idempotencyKey: key, command: command)
    }

    /// A device's message, which is none of the decider's business.
    func appendMessage() throws {
        var batch = RecordBatch()
        let topic = Array("tenant/t1/device/d1/telemetry".utf8)
        topic.withUnsafeBytes { topic in
            batch.append(
                kind: .message, verdict: .accepted, flags: [], receivedAt: clock.now, packetID: 1,
                broker: topic, topic: topic, properties: UnsafeRawBufferPointer(start: nil, count: 0), payload: topic)
        }
        _ = try log.append(&batch)
    }

    /// The log's clock stepped, as the writer records it.
    private func appendStep(_ json: String) throws {
        var batch = RecordBatch()
        batch.append(
            kind: .system, schema: LogSchema.clockStepped.rawValue, receivedAt: clock.now, json: Array(json.utf8))
        _ = try log.append(&batch)
    }

    /// Passed over, it would leave timers where they are: devices would be given up.
    @Test func aClockStepThatCannotBeUnderstoodStopsTheDecider() async throws {
        let decider = decider()
        _ = try await decider.execute(firmware())
        try appendStep(#"{"before":"","after":"","step_microseconds":7300000000,"adopted":"yes"}"#)
        await #expect(throws: UnreadableDecision.self) { try await decider.execute(self.firmware("2")) }
        await #expect(throws: UnreadableDecision.self) { try await self.decider().recover() }
    }

    @Test func theAnswersPositionIsThatOfTheLastEvent() async throws {
        let decider = decider()
        try appendMessage()
        #expect(try await decider.execute(firmware()) == .accepted(position: Position(1), id: 1, status: nil))
        let devices = (0..<5_001).map { "d\($0)" }
        let create = request(.createCampaign(CampaignSpec(name: "n", firmwareVersionID: 1, devices: devices)), key: "c")
        let answer = try await decider.execute(create)
        #expect(answer == .accepted(position: Position(4), id: 1, status: .created), "created, and two of targets")
        #expect(log.commitCount == 3, "a campaign and its targets are one commit")
        #expect(try await decider.execute(create) == answer)
        #expect(try await self.decider().execute(create) == answer, "after a restart too")
        #expect(log.commitCount == 3)
    }

    @Test func aRefusalIsOnTheRecord() async throws {
        let decider = decider()
        let answer = try await decider.execute(request(.start(campaign: 7)))
        #expect(
            answer
                == .rejected(
                    position: Position(0), code: .notFound, reason: "there is no campaign 7 in this tenant"))
        #expect(try log.records().map(\.topic) == ["command.rejected/1"])
        #expect(try log.records()[0].payload.contains(#""subject":"campaign:7""#))
    }

    @Test func whenTheLogIsFullNothingIsDecided() async throws {
        let decider = decider()
        log.fail(with: .full("no space"))
        await #expect(throws: AppendError.self) { try await decider.execute(firmware(key: "k")) }
        #expect(try await decider.recover() == CampaignState())
        log.fail(with: nil)
        #expect(try await decider.execute(firmware(key: "k")) == .accepted(position: Position(0), id: 1, status: nil))
    }

    @Test func manyAtOnceAreDecidedOneByOne() async throws {
        let decider = decider()
        let ids = try await withThrowingTaskGroup(of: Int64.self) { group in
            for index in 0..<200 {
                group.addTask {
                    guard case .accepted(_, let id, _) = try await decider.execute(firmware("v\(index)"))
                    else { return -1 }
                    return id
                }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        #expect(ids.sorted() == Array(1...200))
        #expect(try await self.decider().recover() == decider.recover())
    }

    @Test func anEventOfANewerVersionStopsTheDecider() async throws {
        var batch = RecordBatch()
        batch.append(
            kind: .decision, schema: "campaign.created/1", receivedAt: clock.now, json: Array(#"{"id":"one"}"#.utf8))
        _ = try log.append(&batch)
        await #expect(throws: UnreadableDecision.self) { try await decider().execute(firmware()) }
        #expect(log.commitCount == 1, "nothing is decided on top of what is not understood")
    }

    @Test func anotherDecidersEventsArePassedOver() async throws {
        var batch = RecordBatch()
        batch.append(kind: .decision, schema: "certificate.issued/1", receivedAt: clock.now, json: Array("{}".utf8))
        _ = try log.append(&batch)
        #expect(try await decider().recover() == CampaignState())
    }

    /// Random commands, restarts in between, a clock that jumps: the live state is always the log's fold.
    @Test(arguments: 0..<40)
    func theRefoldedStateIsTheLiveState(seed: UInt64) async throws {
        var random = SeededRandom(seed: seed)
        var live = decider()
        // The first answer under each key: its day begins there.
        var answers: [String: (request: CommandRequest, answer: CommandAnswer, at: Timestamp)] = [:]
        for _ in 0..<60 {
            clock.advance(microseconds: Int64.random(in: -2_000_000...(3 * 3_600_000_000), using: &random))
            let next = randomRequest(&random)
            let commits = log.commitCount
            let answer = try await live.execute(next)
            if let key = next.idempotencyKey, log.commitCount > commits, Self.code(answer) != .keyReused {
                answers[next.tenantID + "/" + key] = (next, answer, clock.now)
            }
            if Int.random(in: 0..<10, using: &random) == 0 { try appendMessage() }
            if Int.random(in: 0..<8, using: &random) == 0 {
                let state = try await live.recover()
                live = decider()
                #expect(try await live.recover().stored() == state.stored())
            }
        }
        #expect(try await decider().recover() == live.recover())
        let before = log.commitCount
        // Whatever had a key and is younger than a day is answered as it was, also by a new process.
        let restarted = decider()
        for (request, answer, at) in answers.values {
            guard clock.now.microseconds - at.microseconds < 20 * 3_600_000_000 else { continue }
            #expect(try await restarted.execute(request) == answer)
        }
        #expect(log.commitCount == before)
    }

    private static func code(_ answer: CommandAnswer) -> RejectionCode? {
        if case .rejected(_, let code, _) = answer { code } else { nil }
    }

    private func randomRequest(_ random: inout SeededRandom) -> CommandRequest {
        let id = Int64.random(in: 1...6, using: &random)
        let command: CampaignCommand =
            switch Int.random(in: 0..<8, using: &random) {
            case 0:
                .addFirmware(
                    FirmwareSpec(
                        version: ["1", "2", ""].randomElement(using: &random)!, fileURL: "https://h/f"))
            case 1, 2:
                .createCampaign(
                    CampaignSpec(
                        name: "n", firmwareVersionID: id,
                        devices: [["a"], ["a", "b"], ["a", "a"], []].randomElement(using: &random)!))
            case 3, 4: .start(campaign: id)
            case 5: .pause(campaign: id, reason: nil)
            case 6: .resume(campaign: id)
            default: .abort(campaign: id, reason: "enough")
            }
        let key = Bool.random(using: &random) ? "k\(Int.random(in: 0..<12, using: &random))" : nil
        return request(command, tenant: ["t1", "t2"].randomElement(using: &random)!, key: key)
    }
}
