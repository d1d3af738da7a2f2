import Deciding
import EventLog
import EventModel
import Testing
@testable import Campaigns

/// A decider that goes on from a snapshot is where one is that read everything.
@Suite struct StoredStateTests {
    let log = MemoryLog()
    let clock = TestClock()

    /// Commands that are accepted, refused, repeated and expired.
    private func history() async throws {
        let decider = DeciderService<CampaignState>(
            writer: DecisionWriter(log), source: log, clock: { [clock] in clock.now })
        func run(_ command: CampaignCommand, _ key: String?, tenant: String = "t1") async throws {
            _ = try await decider.execute(
                CommandRequest(tenantID: tenant, actor: "admin", idempotencyKey: key, command: command))
            clock.advance(microseconds: 3_600_000_000 * 5)
        }
        try await run(.addFirmware(FirmwareSpec(version: "1", fileURL: "https://h/f")), "a")
        try await run(.createCampaign(CampaignSpec(name: "n", firmwareVersionID: 1, devices: ["d1", "d2"])), "b")
        try await run(.start(campaign: 1), "c")
        try await run(.start(campaign: 1), "d")
        try await run(.pause(campaign: 1, reason: "lunch"), nil)
        try await run(.start(campaign: 9), "a", tenant: "t2")
        try await run(.addFirmware(FirmwareSpec(version: "2", fileURL: "https://h/f")), "a")
        try await run(.abort(campaign: 1, reason: nil), "e")
    }

    @Test func theStateComesBackAtEveryPosition() async throws {
        try await history()
        let end = Position(log.durableCount)
        var whole = CampaignState()
        try whole.fold(Position(0)..<end, of: log)
        for cut in 0...end.rawValue {
            var before = CampaignState()
            try before.fold(Position(0)..<Position(cut), of: log)
            let bytes = before.stored()
            let restored = try CampaignState(stored: bytes)
            #expect(restored == before)
            #expect(restored.stored() == bytes, "one state, one spelling")
            let decider = DeciderService<CampaignState>(
                writer: DecisionWriter(log), source: log, clock: { [clock] in clock.now }
            ) {
                DeciderSnapshot(state: restored, end: Position(cut))
            }
            #expect(try await decider.recover() == whole)
        }
    }

    @Test func aSnapshotOfALongerLogIsNotGoneOnFrom() async throws {
        try await history()
        let decider = DeciderService<CampaignState>(
            writer: DecisionWriter(log), source: log, clock: { [clock] in clock.now }
        ) { [log] in
            DeciderSnapshot(state: CampaignState(), end: Position(log.durableCount + 1))
        }
        #expect(try await decider.recover().campaigns.count == 1)
    }

    /// Times and counts as a damaged snapshot may hold them.
    @Test(arguments: [Int64.max, .min]) func timesBeyondAllBoundsOverflowNothing(limit: Int64) throws {
        var trace = EngineTrace(devices: 4, rate: 1)
        trace.advance()
        trace.publish()
        var text = String(decoding: trace.state.stored(), as: UTF8.self)
        for name in ["paceFrom", "paceCount", "timer"] {
            let changed = text.replacing(try Regex("\"\(name)\":[0-9]+"), with: "\"\(name)\":\(limit)")
            #expect(changed != text, "\(name)")
            text = changed
        }
        var state = try CampaignState(stored: Array(text.utf8))
        state.moveTimers(by: limit.signum())
        _ = state.nextDeadline(after: trace.now)
        _ = state.advance(trace.now)
        #expect(state.campaigns[1]?.targets.allSatisfy { $0.timer == .max || abs($0.timer) <= 1 << 61 } == true)
    }

    @Test func nonsenseIsRefused() {
        #expect(throws: UnreadableDecision.self) { try CampaignState(stored: Array("{}".utf8)) }
    }
}
