import CampaignRules
import Decisions
import EventModel
@testable import Campaigns

/// Drives the engine without a log: decisions take effect at once, at the next position; time is the test's.
struct EngineTrace {
    var state = CampaignState()
    var now = Timestamp(microseconds: 1_800_000_000_000_000)
    var next: UInt64 = 0
    /// What the engine decided by itself, in order.
    var decisions: [(position: Position, event: CampaignEvent)] = []

    init(
        devices: Int = 4, rate: Int64? = nil, threshold: Double? = nil, strategy: String = "linear",
        starts: Bool = true, _ plan: (inout CampaignPlan) -> Void = { _ in }
    ) {
        command(.addFirmware(FirmwareSpec(version: "2.0", fileURL: "https://x/2.0")))
        create(devices: (1...devices).map { "d\($0)" }, rate: rate, threshold: threshold, strategy: strategy, plan)
        if starts { command(.start(campaign: 1)) }
    }

    mutating func create(
        devices: [String], rate: Int64? = nil, threshold: Double? = nil, strategy: String = "linear",
        _ change: (inout CampaignPlan) -> Void = { _ in }
    ) {
        var plan = CampaignPlan()
        change(&plan)
        command(
            .createCampaign(
                CampaignSpec(
                    name: "c", firmwareVersionID: 1, devices: devices, rolloutStrategy: strategy, rolloutRate: rate,
                    abortThreshold: threshold, plan: plan)))
    }

    @discardableResult
    mutating func command(_ command: CampaignCommand) -> CommandAnswer {
        let request = CommandRequest(tenantID: "t", actor: "op", command: command)
        guard case .append(let events) = state.decide(request, now: now) else { preconditionFailure() }
        let first = Position(next)
        for event in events { apply(event) }
        return state.answer(to: request, events, at: first..<Position(next))
    }

    mutating func apply(_ event: CampaignEvent) {
        state.apply(event, at: Position(next), time: now)
        next += 1
    }

    /// Lets the engine decide until it has nothing more to decide at this moment.
    mutating func advance() {
        for _ in 0..<1_000 {
            let events = state.advance(now)
            if events.isEmpty { return }
            for event in events {
                decisions.append((Position(next), event))
                apply(event)
            }
        }
        preconditionFailure("the engine decides without end")
    }

    mutating func pass(seconds: Double) {
        now = now.adding(microseconds: Int64(seconds * 1_000_000))
        advance()
    }

    /// The log's time steps, and says so.
    mutating func step(seconds: Double) {
        let micros = Int64(seconds * 1_000_000)
        state.moveTimers(by: micros)
        now = now.adding(microseconds: micros)
        next += 1
        advance()
    }

    /// The broker has acknowledged all that is out.
    mutating func publish(campaign: Int64 = 1) {
        let batches = state.campaigns[campaign]!.unpublished.keys.sorted()
        if batches.isEmpty { return }
        apply(
            .published(
                CampaignPublished(
                    campaignID: campaign, tenantID: "t", batches: batches.map { .init(command: $0.rawValue) })))
        advance()
    }

    mutating func report(
        _ device: String, _ reports: TargetProgress.Report..., campaign: Int64 = 1, command: UInt64? = nil
    ) {
        for report in reports {
            let index = state.campaigns[campaign]!.indexes[device]!
            let before = state.campaigns[campaign]!.report(
                index, report, command: command.map { Position($0) }, at: Position(next), time: now)
            state.moved(campaign, index, before)
            next += 1
        }
        advance()
    }

    mutating func show(_ device: String, version: String) {
        state.withCampaign(1) {
            $0.show($0.indexes[device]!, isCampaigns: version == "2.0", at: Position(next))
        }
        next += 1
        advance()
    }

    // MARK: what came of it

    func campaign(_ id: Int64 = 1) -> Campaign { state.campaigns[id]! }
    var status: CampaignStatus { campaign().status }
    func status(_ device: String, campaign id: Int64 = 1) -> OTADeviceStatus {
        campaign(id).targets[Int(campaign(id).indexes[device]!)].part.status
    }
    func kind(_ device: String) -> OTAFailureKind? { campaign().targets[Int(campaign().indexes[device]!)].part.kind }
    /// Devices that were sent for, in order.
    func sent(campaign id: Int64 = 1) -> [String] {
        decisions.flatMap { item -> [String] in
            if case .dispatched(let event) = item.event, event.campaignID == id { event.devices } else { [] }
        }
    }
    var lastStatusChange: CampaignStatusChanged? {
        decisions.compactMap { if case .statusChanged(_, let event) = $0.event { event } else { nil } }.last
    }
}
