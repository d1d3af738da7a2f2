import CampaignRules
import Deciding
import Decisions
import EventLog
import EventModel
import Testing

@testable import Campaigns

/// What the histories have found, each in as few words as it takes (`CampaignWorld`).
struct CampaignEngineTests {
    private final class Rig: LogWriter, CommandSending, @unchecked Sendable {
        final class Clock: @unchecked Sendable { var now = Timestamp(microseconds: 1_800_000_000_000_000) }
        let log = ScratchLog(), clock = Clock()
        var sent: [DeviceCommand] = []
        var isFull = false
        /// So many appends of the engine go well before the disk is full.
        var appendsLeft = Int.max
        private(set) var engine: CampaignEngine!

        init(devices: Int = 1, _ change: (inout CampaignPlan) -> Void = { _ in }) throws {
            let clock = clock
            engine = CampaignEngine(writer: DecisionWriter(self), source: log, clock: { clock.now }, sender: self)
            try engine.resume()
            try command(.addFirmware(FirmwareSpec(version: "2", fileURL: "https://f/2")))
            var plan = CampaignPlan()
            (plan.timeouts.acknowledgeSeconds, plan.timeouts.downloadSeconds) = (100, 200)
            (plan.timeouts.installSeconds, plan.timeouts.verifySeconds) = (300, 400)
            change(&plan)
            try command(
                .createCampaign(
                    CampaignSpec(
                        name: "c", firmwareVersionID: 1, devices: (0..<devices).map { "d\($0)" }, plan: plan)))
        }

        func append(_ batch: inout RecordBatch) throws(AppendError) -> Range<Position> {
            if isFull || appendsLeft == 0 { throw .full("full") }
            appendsLeft -= 1
            return try log.append(&batch)
        }
        func append(_ batch: RecordBatch) async throws(AppendError) -> Range<Position> { try await log.append(batch) }
        func send(_ commands: [DeviceCommand]) { sent += commands }
        func withdraw(campaign: Int64) {}
        func onAcknowledged(_ body: @escaping @Sendable ([DeviceCommand]) -> Void) {}

        @discardableResult
        func command(_ command: CampaignCommand) throws -> CommandAnswer {
            try engine.execute(CommandRequest(tenantID: "t", actor: "ann", command: command))
        }

        func wait(_ seconds: Double) throws {
            clock.now = clock.now.adding(microseconds: Int64(seconds * 1e6))
            try engine.step()
        }

        func says(_ topic: String, _ payload: String, device: String = "d0") throws {
            var batch = RecordBatch()
            let topic = Array("tenant/t/device/\(device)/\(topic)".utf8), payload = Array(payload.utf8)
            let none = UnsafeRawBufferPointer(start: nil, count: 0)
            topic.withUnsafeBytes { topic in
                payload.withUnsafeBytes { payload in
                    batch.append(
                        kind: .message, verdict: .accepted, flags: [], receivedAt: clock.now, packetID: 1, broker: none,
                        topic: topic, properties: none, payload: payload)
                }
            }
            try log.append(&batch)
            try engine.step()
        }

        func reports(_ word: String) throws { try says("ota/status", "{\"campaign_id\":1,\"status\":\"\(word)\"}") }
        var status: OTADeviceStatus? { engine.state?.parts(of: 1).first?.part.status }
        var campaign: CampaignStatus? { engine.state?.standing(1)?.status }
    }

    @Test func whoGoesBackToTheDownloadHasItsTimeAgain() throws {
        let rig = try Rig()
        try rig.command(.start(campaign: 1))
        try rig.reports("INSTALLING")
        try rig.wait(100)
        try rig.reports("DOWNLOADING")
        try rig.wait(199)
        #expect(rig.status == .downloading)
        try rig.wait(1)
        #expect(rig.status == .timedOut && rig.campaign == .completed)
    }

    @Test func whoComesLateHasItsTimeAndNoMore() throws {
        let rig = try Rig()
        try rig.command(.start(campaign: 1))
        try rig.reports("DOWNLOADING")
        try rig.wait(200)
        #expect(rig.status == .timedOut && rig.campaign == .completed)
        try rig.reports("DOWNLOADING")
        #expect(rig.status == .downloading)
        try rig.wait(200)
        #expect(rig.status == .timedOut)
    }

    @Test func aDeviceWithOneTimeTwiceEndsOnce() throws {
        let rig = try Rig { $0.timeouts.downloadSeconds = 300 }
        try rig.command(.start(campaign: 1))
        try rig.reports("DOWNLOADING")
        try rig.says("ota/status", "{\"campaign_id\":1,\"status\":\"INSTALLING\"}")
        try rig.reports("DOWNLOADING")
        try rig.wait(300)
        var ended: [[String]] = []
        let reader = try rig.log.reader(from: Position(0)), block = EventBlock()
        while try reader.read(into: block, atLeast: 1 << 16) {
            try block.forEach { record, position in
                guard case .devicesEnded(let event)? = try CampaignEvent(record, at: position) else { return }
                ended.append(event.devices)
            }
        }
        #expect(ended == [["d0"]])
    }

    @Test func anAcknowledgementThatCouldNotBeRecordedIsRecordedLater() throws {
        let rig = try Rig()
        try rig.command(.start(campaign: 1))
        rig.engine.note(rig.sent)
        rig.isFull = true
        #expect(throws: AppendError.self) { try rig.wait(1) }
        rig.isFull = false
        try rig.wait(1)
        try rig.wait(100)
        #expect(rig.status == .unreachable)
    }

    @Test func whoHasAcknowledgedIsNotSkippedAsNotSent() throws {
        let rig = try Rig()
        try rig.command(.start(campaign: 1))
        let command = try #require(rig.sent.first?.command)
        try rig.says("commands/ack", "{\"command_id\":\"\(command)\",\"status\":\"ACCEPTED\"}")
        try rig.command(.abort(campaign: 1, reason: nil))
        try rig.wait(1)
        #expect(rig.status == .downloading)
        try rig.wait(200)
        #expect(rig.status == .timedOut)
    }

    /// The command is on record: whoever gave it must not hear that it was not done.
    @Test func whatFollowsOfACommandMayFailWithoutIt() throws {
        let rig = try Rig()
        rig.appendsLeft = 1
        guard case .accepted(_, 1, .running) = try rig.command(.start(campaign: 1)) else {
            Issue.record("not accepted")
            return
        }
        #expect(rig.sent.isEmpty)
        rig.appendsLeft = .max
        try rig.wait(0.1)
        #expect(rig.sent.count == 1)
    }
}
