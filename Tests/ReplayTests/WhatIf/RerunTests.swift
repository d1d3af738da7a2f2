import CampaignRules
import Campaigns
import Deciding
import Decisions
import EventLog
import EventModel
import Testing

@testable import WhatIf

/// Campaigns that went by the real engine, and are asked how they would have gone.
struct RerunTests {
    /// A hundred devices, one a second; a device answers after 5, 25 and 45 seconds.
    private final class Fleet: Outbox, @unchecked Sendable {
        let log = ScratchLog()
        private var sent: [Delivery] = []
        private var says: [(at: Int64, device: String, word: String, command: Position)] = []
        private let fails: (Int) -> Bool
        private let clock = Clock()
        private(set) var engine: DeciderRuntime<CampaignState>!

        final class Clock: @unchecked Sendable { var now = Timestamp(microseconds: 1_772_352_000_000_000) }

        init(fails: @escaping (Int) -> Bool) {
            self.fails = fails
            let clock = clock
            engine = DeciderRuntime<CampaignState>(
                writer: DecisionWriter(log), source: log, clock: { clock.now }, outbox: self)
        }

        func send(_ commands: [Delivery]) { sent += commands }
        func withdraw(subject: String) {}
        func onAcknowledged(_ body: @escaping @Sendable ([Delivery]) -> Void) {}

        func go(threshold: Double?, plan: CampaignPlan = CampaignPlan(), abortAt: Int? = nil) throws {
            try engine.resume()
            func command(_ command: CampaignCommand) throws {
                _ = try engine.execute(CommandRequest(tenantID: "acme", actor: "ann", command: command))
            }
            try command(.addFirmware(FirmwareSpec(version: "2", fileURL: "https://f/2")))
            var plan = plan
            plan.tickSeconds = 1
            try command(
                .createCampaign(
                    CampaignSpec(
                        name: "june", firmwareVersionID: 1, devices: (0..<100).map { "d\($0)" }, rolloutRate: 1,
                        abortThreshold: threshold, plan: plan)))
            try command(.start(campaign: 1))
            for second in 0..<400 {
                clock.now = clock.now.adding(microseconds: 1_000_000)
                if second == abortAt { try command(.abort(campaign: 1, reason: "enough")) }
                try speak()
                try engine.step()
                for command in sent { answer(command) }
                engine.note(sent)
                sent = []
            }
        }

        private func answer(_ command: Delivery) {
            let number = Int(command.deviceID.dropFirst()) ?? 0
            let words = fails(number) ? ["DOWNLOADING", "FAILED"] : ["DOWNLOADING", "INSTALLING", "SUCCESS"]
            for (index, word) in words.enumerated() {
                let at = clock.now.microseconds + Int64(5 + 20 * index) * 1_000_000
                says.append((at, command.deviceID, word, command.id))
            }
        }

        private func speak() throws {
            let due = says.filter { $0.at <= clock.now.microseconds }
            says.removeAll { $0.at <= clock.now.microseconds }
            for item in due {
                var batch = RecordBatch()
                let topic = Array("tenant/acme/device/\(item.device)/ota/status".utf8)
                let payload = Array(
                    """
                    {"campaign_id":1,"status":"\(item.word)","command_id":\(item.command)}
                    """.utf8)
                let none = UnsafeRawBufferPointer(start: nil, count: 0)
                topic.withUnsafeBytes { topic in
                    payload.withUnsafeBytes { payload in
                        batch.append(
                            kind: .message, verdict: .accepted, flags: [], receivedAt: clock.now, packetID: 1,
                            broker: none, topic: topic, properties: none, payload: payload)
                    }
                }
                try log.append(&batch)
            }
        }

        func ask(_ changes: String...) throws -> CampaignRerun {
            let all = Position(0)..<Position(log.durableCount)
            return try #require(
                try WhatIf.rerun(
                    campaign: 1, try changes.map { try PlanChange($0) }, over: log, in: all))
        }
    }

    @Test func withoutAChangeItGoesAsItWent() throws {
        let fleet = Fleet { $0 % 10 == 3 }
        try fleet.go(threshold: 0.2)
        let same = try fleet.ask()
        #expect(same.recorded.status == .completed && same.recorded.code == "ALL_ENDED")
        #expect(same.recorded.counts.succeeded == 90 && same.recorded.counts.failed == 10)
        #expect(same.whatIf == same.recorded)
        #expect(same.spared == [] && same.lost == [] && same.gained == [] && same.borrowed == 0)
    }

    @Test func theSameAbortIsDecidedAgain() throws {
        let fleet = Fleet { $0 >= 20 }
        try fleet.go(threshold: 0.1)
        let same = try fleet.ask()
        #expect(same.recorded.status == .aborted && same.recorded.code == "ABORT_THRESHOLD")
        #expect(same.whatIf == same.recorded)
    }

    @Test func theOldRatioWouldHaveEndedItAtTheFirstFailure() throws {
        let fleet = Fleet { $0 % 10 == 3 }
        try fleet.go(threshold: 0.2)
        let rerun = try fleet.ask("abort.method=ratio")
        #expect(rerun.whatIf.status == .aborted && rerun.whatIf.reason == "1 of 1 devices failed")
        #expect(rerun.whatIf.counts.failed + rerun.whatIf.counts.succeeded + rerun.whatIf.counts.skipped == 100)
        #expect(rerun.whatIf.sentFor < 40 && rerun.whatIf.counts.skipped > 60)
        #expect(rerun.lost.count > 50 && rerun.spared.count > 4)
    }

    @Test func aPausedCampaignsRuleIsAskedToo() throws {
        let fleet = Fleet { $0 % 10 == 3 }
        try fleet.go(threshold: 0.2)
        #expect(try fleet.ask("abort_threshold=0.01").whatIf.status == .aborted)
        #expect(try fleet.ask("abort_threshold=none", "abort.method=ratio").whatIf.status == .completed)
        #expect(try fleet.ask("abort.consecutive_failures_max=1").whatIf.code == "CONSECUTIVE_FAILURES")
        let canary = try fleet.ask(
            "rollout_strategy=canary", #"stages=[{"percent":10,"soak_seconds":60},{"percent":100}]"#)
        #expect(canary.whatIf.status == .completed)
        let last = try #require(canary.whatIf.lastSentAt), before = try #require(canary.recorded.lastSentAt)
        #expect(last > before.adding(microseconds: 60_000_000))
        #expect(try fleet.ask("rollout_rate=10").whatIf.endedAt! < canary.recorded.endedAt!)
        // Nobody answers within 10 seconds of DOWNLOADING.
        #expect(try fleet.ask("timeouts.download_seconds=10", "abort_threshold=none").whatIf.sentFor == 100)
        let never = try fleet.ask(#"windows=[{"from":"05:00","to":"06:00"}]"#, "time_zone=Asia/Kathmandu")
        #expect(never.whatIf.endedAt! > never.recorded.endedAt!)
    }

    /// What would have become of those that were skipped is not known: they are lent the answers of others.
    @Test func anAbortedCampaignIsTakenToItsEnd() throws {
        let fleet = Fleet { $0 >= 20 }
        try fleet.go(threshold: 0.1)
        let rerun = try fleet.ask("abort.method=none")
        #expect(rerun.whatIf.status == .completed && rerun.whatIf.sentFor == 100)
        #expect(rerun.borrowed > 30 && rerun.borrowed == Int(rerun.recorded.counts.skipped))
        #expect(rerun.whatIf.counts.failed > rerun.recorded.counts.failed)
        #expect(rerun.caveats.contains { $0.contains("were never sent for") })
    }

    @Test func whatPeopleDecidedStands() throws {
        let fleet = Fleet { _ in false }
        try fleet.go(threshold: nil, abortAt: 30)
        let rerun = try fleet.ask("rollout_rate=2")
        #expect(rerun.whatIf.status == .aborted && rerun.whatIf.actor == "as recorded")
        #expect(rerun.whatIf.reason == "enough")
        #expect(rerun.whatIf.sentFor > rerun.recorded.sentFor)
    }

    @Test(arguments: [
        ("abort.methods=ratio", "is no rule"), ("abort.method=guess", "no plan is like that"),
        ("abort_threshold=2", "share"), ("retry.attempts_max=0", "must be 1 to 100"), ("nonsense", "NAME=VALUE"),
        ("time_zone=Mars", "time_zone is no name"), ("abort=1", "no plan is like that"),
    ])
    func changesThatMakeNoSense(change: String, words: String) throws {
        let fleet = Fleet { _ in false }
        try fleet.go(threshold: nil)
        do {
            _ = try fleet.ask(change)
            Issue.record("taken")
        } catch {
            #expect("\(error)".contains(words), "\(error)")
        }
    }

    /// Steps of the clock as a damaged or foreign log may hold them.
    @Test(arguments: [Int64.max, .min]) func stepsBeyondAllBoundsOverflowNothing(step: Int64) throws {
        let log = ScratchLog(), time = Timestamp(microseconds: 1_772_352_000_000_000)
        for _ in 0..<4 {
            var event = ClockStepped(before: time, after: time), batch = RecordBatch()
            event.stepMicroseconds = step
            event.adopted = true
            batch.append(kind: .system, schema: LogSchema.clockStepped.rawValue, receivedAt: time, json: event.json)
            try log.append(&batch)
        }
        var record = RerunRecord(campaign: 1)
        let reader = try log.reader(from: Position(0)), block = EventBlock()
        while try reader.read(into: block, atLeast: 1) { block.forEach { record.apply($0, $1) } }
        // Steady time: as far from the first event as the bounds of stored times let it be.
        #expect(record.end == Timestamp(microseconds: step > 0 ? time.microseconds - 1 << 61 : 1 << 61))
    }

    @Test func aCampaignThatIsNotThereHasNoCourse() throws {
        let log = ScratchLog()
        #expect(try WhatIf.rerun(campaign: 7, [], over: log, in: Position(0)..<Position(0)) == nil)
    }
}
