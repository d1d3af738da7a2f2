import Deciding
import EventLog
import EventModel
import Foundation
import Testing
@testable import Campaigns

/// The decider on the log's own files.
@Suite struct DurableCampaignTests {
    @Test func aCampaignOfManyDevicesSurvivesARestart() async throws {
        let folder = FileManager.default.temporaryDirectory
            .appendingPathComponent("refold-campaigns-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: folder) }
        // In the past: the log refuses to open behind an event from the future.
        let clock: @Sendable () -> Timestamp = { Timestamp(microseconds: 1_700_000_000_000_000) }
        let devices = (0..<100_000).map { "device-\($0)" }
        let create = CommandRequest(
            tenantID: "t1", actor: "admin", idempotencyKey: "k",
            command: .createCampaign(CampaignSpec(name: "all of them", firmwareVersionID: 1, devices: devices)))

        let log = try FileLog.open(directory: folder.path)
        let live = DeciderService<CampaignState>(writer: DecisionWriter(log), source: log, clock: clock)
        _ = try await live.execute(
            CommandRequest(
                tenantID: "t1", actor: "admin",
                command: .addFirmware(FirmwareSpec(version: "1", fileURL: "https://h/f"))))
        let answer = try await live.execute(create)
        #expect(answer == .accepted(position: Position(21), id: 1, status: .created))
        let state = try await live.recover()
        #expect(state.nextTargetID == 100_001)
        log.close()

        let reopened = try FileLog.open(directory: folder.path)
        let restarted = DeciderService<CampaignState>(writer: DecisionWriter(reopened), source: reopened, clock: clock)
        #expect(try await restarted.recover().stored() == state.stored())
        #expect(try await restarted.execute(create) == answer)
        #expect(reopened.durableCount == 22)
        reopened.close()
    }
}
