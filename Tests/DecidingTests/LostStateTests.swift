import Deciding
import Decisions
import EventLog
import EventModel
import TestSupport
import Testing
@testable import Access
@testable import Campaigns

/// A decision is durable, and the log cannot be read back.
@Suite struct LostStateTests {
    private let log = FaultyLog()
    private let time: @Sendable () -> Timestamp = { Timestamp(microseconds: 1_800_000_000_000_000) }

    @Test(.timeLimit(.minutes(1))) func aRevokedTokenOpensNothingMeanwhile() async throws {
        let decider = AccessDecider(writer: DecisionWriter(log), source: log, clock: time)
        let create = AccessRequest(
            principal: .folderAdmin, command: .create(TokenSpec(name: "leaked", role: .admin)))
        guard case .created(_, let token, let secret?) = try await decider.execute(create) else {
            Issue.record("no token")
            return
        }
        #expect(decider.tokenIndex.find(secret: secret) == .found(token.principal))
        log.failsReads = true
        await #expect(throws: LogError.self) {
            try await decider.execute(AccessRequest(principal: .folderAdmin, command: .revoke(1)))
        }
        #expect(decider.tokenIndex.find(secret: secret) == .notReady)
        log.failsReads = false
        // Its own service reads the log again.
        let service = Task { await decider.run { _ in } }
        #expect(await eventually(within: 20) { decider.tokenIndex.find(secret: secret) == .unknown })
        service.cancel()
        await service.value
    }

    @Test func whatWasDispatchedIsSentLater() throws {
        let sender = Sender()
        let engine = DeciderRuntime<CampaignState>(
            writer: DecisionWriter(log), source: log, clock: time, outbox: sender)
        try engine.resume()
        func run(_ command: CampaignCommand) throws -> CommandAnswer {
            try engine.execute(CommandRequest(tenantID: "t", actor: "op", command: command))
        }
        _ = try run(.addFirmware(FirmwareSpec(version: "1", fileURL: "https://h/f")))
        _ = try run(.createCampaign(CampaignSpec(name: "c", firmwareVersionID: 1, devices: ["d1", "d2"])))
        // The start is folded, the dispatch behind it is not.
        log.failsReadsAfter = 1
        _ = try run(.start(campaign: 1))
        #expect(throws: LogError.self) { try engine.step() }
        #expect(sender.sent.isEmpty && engine.state == nil)
        log.failsReads = false
        try engine.step()
        #expect(sender.sent.map(\.deviceID) == ["d1", "d2"])
        // So is the withdrawal of a pause that could not be folded.
        log.failsReads = true
        #expect(throws: LogError.self) { try run(.pause(campaign: 1, reason: nil)) }
        let before = sender.withdrawn
        #expect(!before.contains("campaign:1"))
        log.failsReads = false
        try engine.step()
        #expect(sender.withdrawn == ["campaign:1"] && sender.sent.count == 2)
    }

    /// `@unchecked Sendable`: for one thread.
    private final class Sender: Outbox, @unchecked Sendable {
        private(set) var sent: [Delivery] = []
        private(set) var withdrawn: [String] = []

        func send(_ commands: [Delivery]) { sent += commands }
        func withdraw(subject: String) { withdrawn.append(subject) }
        func onAcknowledged(_ body: @escaping @Sendable ([Delivery]) -> Void) {}
    }
}
