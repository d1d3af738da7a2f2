import CampaignRules
import Deciding
import Decisions
import EventLog
import EventModel
import Synchronization
import Testing
@testable import Campaigns

/// A sender that a test looks into; it acknowledges when it is told to.
final class WatchedSender: Outbox {
    private struct State {
        var sent: [Delivery] = []
        var acknowledged: (@Sendable ([Delivery]) -> Void)?
        var withdrawn: [String] = []
    }
    private let state = Mutex(State())
    var sent: [Delivery] { state.withLock { $0.sent } }
    var withdrawn: [String] { state.withLock { $0.withdrawn } }

    func send(_ commands: [Delivery]) { state.withLock { $0.sent += commands } }
    func withdraw(subject: String) { state.withLock { $0.withdrawn.append(subject) } }
    func onAcknowledged(_ body: @escaping @Sendable ([Delivery]) -> Void) {
        state.withLock { $0.acknowledged = body }
    }
    func acknowledge(_ commands: [Delivery]) { state.withLock { $0.acknowledged }?(commands) }
}

struct SendingTests {
    let log = MemoryLog()
    let clock = TestClock()

    /// Runs the engine over the log while `body` looks on, as a daemon would between a start and a kill.
    private func live(_ body: (DeciderService<CampaignState>, WatchedSender) async throws -> Void) async throws {
        let sender = WatchedSender()
        let decider = DeciderService<CampaignState>(
            writer: DecisionWriter(log), source: log, clock: { [clock] in clock.now }, outbox: sender)
        let engine = Task { await decider.run { if let error = $0 { Issue.record("\(error)") } } }
        do {
            try await body(decider, sender)
        } catch {
            Issue.record("\(error)")
        }
        engine.cancel()
        await engine.value
    }

    private func until(_ what: String, _ condition: () async throws -> Bool) async throws {
        for _ in 0..<1_000 {
            if try await condition() { return }
            try await Task.sleep(for: .milliseconds(10))
        }
        throw Timeout(what: what)
    }
    private struct Timeout: Error { var what: String }
    private struct Refused: Error { var answer: CommandAnswer }

    private func begin(_ decider: DeciderService<CampaignState>, devices: Int, _ plan: CampaignPlan = CampaignPlan())
        async throws
    {
        func run(_ command: CampaignCommand) async throws {
            let answer = try await decider.execute(CommandRequest(tenantID: "t", actor: "op", command: command))
            guard case .accepted = answer else { throw Refused(answer: answer) }
        }
        try await run(.addFirmware(FirmwareSpec(version: "2.0", fileURL: "https://x/2.0")))
        try await run(
            .createCampaign(
                CampaignSpec(
                    name: "c", firmwareVersionID: 1, devices: (1...devices).map { "d\($0)" }, plan: plan)))
        try await run(.start(campaign: 1))
    }

    private func report(_ device: String, _ status: String) throws {
        var batch = RecordBatch()
        let topic = Array("tenant/t/device/\(device)/ota/status".utf8)
        let payload = Array(#"{"campaign_id": 1, "status": "\#(status)"}"#.utf8)
        topic.withUnsafeBytes { topic in
            payload.withUnsafeBytes { payload in
                batch.append(
                    kind: .message, verdict: .accepted, flags: [], receivedAt: clock.now, packetID: 1,
                    broker: topic, topic: topic, properties: UnsafeRawBufferPointer(start: nil, count: 0),
                    payload: payload)
            }
        }
        _ = try log.append(&batch)
    }

    @Test func aRestartLosesNoCommandAndRepeatsNoneThatIsAcknowledgedInTheLog() async throws {
        var first: [Delivery] = []
        try await live { decider, sender in
            try await begin(decider, devices: 700)
            try await until("all are sent for") { sender.sent.count == 700 }
            first = sender.sent
            #expect(Set(first.map(\.id)).count == 2, "at most 500 devices a decision")
            // Killed before the broker has acknowledged anything.
        }
        try await live { _, sender in
            try await until("all are sent again") { sender.sent.count == 700 }
            #expect(Set(sender.sent) == Set(first), "with the same ids")
            sender.acknowledge(Array(first[..<500]) + Array(first[600...]))
            try report(first[550].deviceID, "DOWNLOADING")
            try await until("the log says so") {
                try log.records().filter { $0.topic == "campaign.published/1" }.count == 1
            }
            // What is left of a batch is said after a while.
            clock.advance(microseconds: 3_000_000)
            try await until("the log says so") {
                try log.records().filter { $0.topic == "campaign.published/1" }.count == 2
            }
        }
        try await live { _, sender in
            try await until("the rest is sent") { !sender.sent.isEmpty }
            let expected = first[500..<600].filter { $0.deviceID != first[550].deviceID }
            #expect(Set(sender.sent) == Set(expected))
        }
    }

    @Test func anOrderlyStopWritesDownTheLastAcknowledgements() async throws {
        try await live { decider, sender in
            try await begin(decider, devices: 10)
            try await until("all are sent for") { sender.sent.count == 10 }
            sender.acknowledge(Array(sender.sent[..<9]))
        }
        try await live { _, sender in
            try await until("what is left is sent") { !sender.sent.isEmpty }
            #expect(sender.sent.map(\.deviceID) == ["d10"])
        }
    }

    @Test func pausedNothingIsSentAgainAndResumedItIs() async throws {
        try await live { decider, sender in
            try await begin(decider, devices: 3)
            try await until("all are sent for") { sender.sent.count == 3 }
            _ = try await decider.execute(
                CommandRequest(
                    tenantID: "t", actor: "op", command: .pause(campaign: 1, reason: nil)))
            #expect(sender.withdrawn == ["campaign:1"])
        }
        try await live { decider, sender in
            _ = try await decider.execute(CommandRequest(tenantID: "t", actor: "op", command: .resume(campaign: 1)))
            try await until("all are sent again") { sender.sent.count >= 3 }
            #expect(Set(sender.sent.map(\.deviceID)) == ["d1", "d2", "d3"])
        }
    }

    @Test func retainedCommandsAreTakenBack() async throws {
        var plan = CampaignPlan()
        plan.delivery = .retained
        try await live { decider, sender in
            try await begin(decider, devices: 2, plan)
            try await until("all are sent for") { sender.sent.count == 2 }
            #expect(sender.sent.allSatisfy { $0.isRetained && !$0.isRemoval })
            try report("d1", "SUCCESS")
            try await until("it is taken back") { sender.sent.count == 3 }
            #expect(sender.sent[2].isRemoval && sender.sent[2].deviceID == "d1")
        }
        // It may not have reached the broker: it is taken back once more.
        try await live { _, sender in
            try await until("again") { sender.sent.contains { $0.isRemoval && $0.deviceID == "d1" } }
        }
    }

    @Test func whileTheLogIsFullTheEngineWaits() async throws {
        let sender = WatchedSender()
        let decider = DeciderService<CampaignState>(
            writer: DecisionWriter(log), source: log, clock: { [clock] in clock.now }, outbox: sender)
        try await begin(decider, devices: 3)
        log.fail(with: .full("no space"))
        let failures = Mutex(0)
        let engine = Task { await decider.run { _ in failures.withLock { $0 += 1 } } }
        try await until("it was tried") { failures.withLock { $0 } > 0 }
        #expect(sender.sent.isEmpty, "nothing is sent that is not durable")
        log.fail(with: nil)
        try await until("all are sent for") { sender.sent.count == 3 }
        engine.cancel()
        await engine.value
    }
}
