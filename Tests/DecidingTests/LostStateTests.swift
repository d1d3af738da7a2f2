import Deciding
import EventLog
import EventModel
import Testing
@testable import Access
@testable import Campaigns

/// A decision is durable, and the log cannot be read back.
@Suite struct LostStateTests {
    private let log = FaultyLog()
    private let time: @Sendable () -> Timestamp = { Timestamp(microseconds: 1_800_000_000_000_000) }

    @Test func aRevokedTokenOpensNothingMeanwhile() async throws {
        let decider = AccessDecider(writer: DecisionWriter(log), source: log, clock: time)
        let create = AccessRequest(
            principal: .folderAdmin, command: .create(TokenSpec(name: "leaked", role: .admin)))
        guard case .created(_, let token, let secret?) = try await decider.execute(create) else {
            Issue.record("no token")
            return
        }
        #expect(decider.book.find(secret: secret) == .found(token.principal))
        log.failsReads = true
        await #expect(throws: LogError.self) {
            try await decider.execute(AccessRequest(principal: .folderAdmin, command: .revoke(1)))
        }
        #expect(decider.book.find(secret: secret) == .notReady)
        for await _ in decider.stateLosses { break }
        log.failsReads = false
        try await decider.recover()
        #expect(decider.book.find(secret: secret) == .unknown)
    }

    @Test func whatWasDispatchedIsSentLater() throws {
        let sender = Sender()
        let engine = CampaignEngine(writer: DecisionWriter(log), source: log, clock: time, sender: sender)
        try engine.resume()
        func run(_ command: CampaignCommand) throws -> CommandAnswer {
            try engine.execute(CommandRequest(tenantID: "t", actor: "op", command: command))
        }
        _ = try run(.addFirmware(FirmwareSpec(version: "1", fileURL: "https://h/f")))
        _ = try run(.createCampaign(CampaignSpec(name: "c", firmwareVersionID: 1, devices: ["d1", "d2"])))
        // The start is folded, the dispatch behind it is not.
        log.failsReadsAfter = 1
        _ = try run(.start(campaign: 1))
        #expect(sender.sent.isEmpty && engine.state == nil)
        log.failsReads = false
        try engine.step()
        #expect(sender.sent.map(\.deviceID) == ["d1", "d2"])
        // So is the withdrawal of a pause that could not be folded.
        log.failsReads = true
        #expect(throws: LogError.self) { try run(.pause(campaign: 1, reason: nil)) }
        #expect(sender.withdrawn.isEmpty)
        log.failsReads = false
        try engine.step()
        #expect(sender.withdrawn == [1] && sender.sent.count == 2)
    }

    /// `@unchecked Sendable`: for one thread.
    private final class Sender: CommandSending, @unchecked Sendable {
        private(set) var sent: [DeviceCommand] = []
        private(set) var withdrawn: [Int64] = []

        func send(_ commands: [DeviceCommand]) { sent += commands }
        func withdraw(campaign: Int64) { withdrawn.append(campaign) }
        func onAcknowledged(_ body: @escaping @Sendable ([DeviceCommand]) -> Void) {}
    }
}
