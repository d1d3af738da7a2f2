import CampaignRules
import Deciding
import Decisions
import EventLog
import EventModel
import Testing

@testable import Campaigns

/// What the histories have found, each in as few words as it takes (`CampaignWorld`).
struct CampaignEngineTests {
    private final class Rig: LogWriter, Outbox, @unchecked Sendable {
        final class Clock: @unchecked Sendable { var now = Timestamp(microseconds: 1_800_000_000_000_000) }
        let log = ScratchLog(), clock = Clock()
        var sent: [Delivery] = []
        var isFull = false
        /// So many appends of the engine go well before the disk is full.
        var appendsLeft = Int.max
        private(set) var engine: DeciderRuntime<CampaignState>!

        init(devices: Int = 1, _ change: (inout CampaignPlan) -> Void = { _ in }) throws {
            let clock = clock
            engine = DeciderRuntime<CampaignState>(
                writer: DecisionWriter(self), source: log, clock: { clock.now }, outbox: self)
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
        func send(_ commands: [Delivery]) { sent += commands }
        func withdraw(subject: String) {}
        func onAcknowledged(_ body: @escaping @Sendable ([Delivery]) -> Void) {}

        @discardableResult
        func command(_ command: CampaignCommand) throws -> CommandAnswer {
            let answer = try engine.execute(CommandRequest(tenantID: "t", actor: "ann", command: command))
            // An append of what follows may fail; the next step meets it.
            try? engine.step()
            return answer
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
        var campaign: CampaignStatus? { engine.state?.summary(1)?.status }
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

    /// A campaign leaves memory a day after its end, without another command, and after a restart too.
    @Test func anEndedCampaignIsArchivedByDeadline() throws {
        let rig = try Rig()
        try rig.command(.start(campaign: 1))
        try rig.reports("FAILED")
        #expect(rig.campaign == .completed)
        let day = 24 * 3_600.0
        try rig.wait(day - 1)
        #expect(rig.engine.state?.campaignCount == 1)
        let due = try #require(rig.engine.nextDeadline())
        #expect(due.microseconds - rig.clock.now.microseconds == 1_000_000)
        try rig.wait(1)
        #expect(rig.engine.state?.campaignCount == 0 && rig.engine.state?.wantsMessages == false)
        #expect(rig.engine.nextDeadline() == nil)
        guard case .rejected(_, .illegalTransition, _) = try rig.command(.retryFailed(campaign: 1, kinds: nil)) else {
            Issue.record("its devices are gone")
            return
        }
        var refolded = CampaignState()
        try refolded.fold(Position(0)..<Position(rig.log.durableCount), of: rig.log)
        #expect(refolded.stored() == rig.engine.state?.stored())
    }

    /// A device may end long after its campaign: what the broker retains for it is still removed.
    @Test func aLateDevicesRetainedCommandIsRemovedBeforeItsCampaignIsArchived() throws {
        let rig = try Rig {
            $0.delivery = .retained
            $0.timeouts.downloadSeconds = 2 * 86_400
        }
        try rig.command(.start(campaign: 1))
        try rig.reports("DOWNLOADING")
        try rig.command(.abort(campaign: 1, reason: nil))
        try rig.wait(25 * 3_600)
        #expect(rig.engine.state?.campaignCount == 1)
        try rig.reports("SUCCESS")
        #expect(rig.sent.map(\.isRemoval) == [false, true])
        #expect(rig.engine.state?.campaignCount == 1, "a restart repeats the removal for a day")
        try rig.wait(86_400)
        #expect(rig.engine.state?.campaignCount == 0)
    }

    /// The broker keeps one retained message a topic: that of the campaign which sends to the device now stays.
    @Test func aRestartLeavesTheRetainedCommandOfAnotherCampaign() throws {
        let rig = try Rig { $0.delivery = .retained }
        try rig.command(.start(campaign: 1))
        try rig.reports("SUCCESS")
        var plan = CampaignPlan()
        plan.delivery = .retained
        try rig.command(
            .createCampaign(CampaignSpec(name: "d", firmwareVersionID: 1, devices: ["d0"], plan: plan)))
        try rig.command(.start(campaign: 2))
        let second = try #require(rig.sent.last)
        #expect(second.subject == "campaign:2" && !second.isRemoval)
        rig.engine.note([second])
        try rig.engine.step()
        let before = rig.sent.count
        try rig.engine.resume()
        #expect(!rig.sent[before...].contains { $0.isRemoval })
    }

    /// A retry that was decided before the archiving is folded wins.
    @Test func aRetriedCampaignIsNotArchived() throws {
        let rig = try Rig()
        try rig.command(.start(campaign: 1))
        try rig.reports("FAILED")
        rig.isFull = true
        #expect(throws: AppendError.self) { try rig.wait(24 * 3_600) }
        rig.isFull = false
        _ = try rig.engine.execute(
            CommandRequest(tenantID: "t", actor: "ann", command: .retryFailed(campaign: 1, kinds: nil)))
        #expect(rig.campaign == .running)
        try rig.wait(1)
        #expect(rig.campaign == .running && rig.engine.state?.campaignCount == 1)
    }

    /// Logs of older versions have `campaign.dispatched/1`, which does not say what was sent.
    @Test func anOlderDispatchIsSentAfterARestart() throws {
        let rig = try Rig()
        try rig.command(.start(campaign: 1))
        var batch = RecordBatch()
        let reader = try rig.log.reader(from: Position(0)), block = EventBlock()
        while try reader.read(into: block, atLeast: 1 << 16) {
            block.forEach { record, _ in
                var json = String(decoding: record.payload, as: UTF8.self), schema = record.topicString
                if schema == "campaign.dispatched/2" {
                    schema = "campaign.dispatched/1"
                    for field in [
                        #""firmware_url":"https:\/\/f\/2","#, #""firmware_url":"https://f/2","#, #","version":"2""#,
                    ] {
                        json = json.split(separator: field, omittingEmptySubsequences: false).joined()
                    }
                }
                batch.append(kind: record.kind, schema: schema, receivedAt: record.receivedAt, json: Array(json.utf8))
            }
        }
        let older = ScratchLog()
        try older.append(&batch)
        var state = CampaignState()
        try state.fold(Position(0)..<Position(older.durableCount), of: older)
        guard case .send(let sent)? = state.pendingEffects().last else {
            Issue.record("nothing is sent")
            return
        }
        #expect(sent == rig.sent && sent.count == 1)
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
        let command = try #require(rig.sent.first?.id)
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
