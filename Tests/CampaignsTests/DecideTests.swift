import Decisions
import EventModel
import Testing
@testable import Campaigns

private let now = Timestamp(microseconds: 1_800_000_000_000_000)

/// Folds a decision as the log would.
private func run(
    _ command: CampaignCommand, _ state: inout CampaignState, tenant: String = "t1", key: String? = nil,
    at time: Timestamp = now
) -> CommandAnswer {
    let request = CommandRequest(tenantID: tenant, actor: "admin", idempotencyKey: key, command: command)
    switch state.decide(request, now: time) {
    case .repeated(let answer): return answer
    case .append(let events):
        let first = Position(1000)
        for (index, event) in events.enumerated() {
            state.apply(event, at: first.advanced(by: index), time: time)
        }
        return state.answer(to: request, events, at: first..<first.advanced(by: events.count))
    }
}

private func code(_ answer: CommandAnswer) -> RejectionCode? {
    if case .rejected(_, let code, _) = answer { code } else { nil }
}

private let firmware = CampaignCommand.addFirmware(FirmwareSpec(version: "1.0.0", fileURL: "https://h/f.bin"))
private func campaign(_ devices: [String] = ["d1", "d2"], firmware: Int64 = 1) -> CampaignCommand {
    .createCampaign(CampaignSpec(name: "night", firmwareVersionID: firmware, devices: devices))
}

@Suite struct DecideTests {
    /// Campaign 1 in each status, by legal commands only (COMPLETED by its event, which the engine will write).
    static func state(in status: CampaignStatus) -> CampaignState {
        var state = CampaignState()
        _ = run(firmware, &state)
        _ = run(campaign(), &state)
        switch status {
        case .created: break
        case .running: _ = run(.start(campaign: 1), &state)
        case .paused:
            _ = run(.start(campaign: 1), &state)
            _ = run(.pause(campaign: 1, reason: nil), &state)
        case .aborted: _ = run(.abort(campaign: 1, reason: nil), &state)
        case .completed:
            _ = run(.start(campaign: 1), &state)
            state.apply(
                .statusChanged(
                    .campaignStarted,
                    CampaignStatusChanged(
                        campaignID: 1, tenantID: "t1", before: "RUNNING", after: "COMPLETED", actor: "engine")),
                at: Position(2000), time: now)
        }
        return state
    }

    static let commands: [CampaignCommand] = [
        .start(campaign: 1), .pause(campaign: 1, reason: "r"), .resume(campaign: 1), .abort(campaign: 1, reason: nil),
    ]

    /// The whole table: what each command makes of each status; what is not here is refused.
    static let legal: [CampaignStatus: [String: CampaignStatus]] = [
        .created: ["campaign.start": .running, "campaign.abort": .aborted],
        .running: ["campaign.pause": .paused, "campaign.abort": .aborted],
        .paused: ["campaign.resume": .running, "campaign.abort": .aborted],
        .completed: [:],
        .aborted: [:],
    ]

    @Test(arguments: CampaignStatus.allCases, commands)
    func everyStatusMeetsEveryCommand(status: CampaignStatus, command: CampaignCommand) {
        var state = Self.state(in: status)
        #expect(state.campaigns[1]?.status == status)
        let answer = run(command, &state)
        if let after = Self.legal[status]?[command.name] {
            #expect(answer == .accepted(position: Position(1000), id: 1, status: after))
            #expect(state.campaigns[1]?.status == after)
        } else {
            #expect(code(answer) == .illegalTransition)
            #expect(state.campaigns[1]?.status == status, "a refused command changes nothing")
        }
    }

    @Test(arguments: commands)
    func anotherTenantsCampaignIsNotFound(command: CampaignCommand) {
        var state = Self.state(in: .running)
        #expect(code(run(command, &state, tenant: "t2")) == .notFound)
        #expect(state.campaigns[1]?.status == .running)
        var empty = CampaignState()
        #expect(code(run(command, &empty)) == .notFound)
    }

    static let badFirmware: [(String, FirmwareSpec)] = [
        ("empty version", FirmwareSpec(version: "", fileURL: "https://h/f")),
        ("long version", FirmwareSpec(version: String(repeating: "9", count: 101), fileURL: "https://h/f")),
        ("version with NUL", FirmwareSpec(version: "1\u{0}", fileURL: "https://h/f")),
        ("no URL", FirmwareSpec(version: "1", fileURL: "firmware.bin")),
        ("URL that begins with a colon", FirmwareSpec(version: "1", fileURL: "://h/f")),
        ("URL with a space", FirmwareSpec(version: "1", fileURL: "https://h/a b")),
        ("negative size", FirmwareSpec(version: "1", fileURL: "https://h/f", fileSizeBytes: -1)),
        ("short checksum", FirmwareSpec(version: "1", fileURL: "https://h/f", checksumSHA256: "abc")),
        (
            "checksum of no hex digits",
            FirmwareSpec(
                version: "1", fileURL: "https://h/f", checksumSHA256: String(repeating: "g", count: 64))
        ),
        ("description with NUL", FirmwareSpec(version: "1", fileURL: "https://h/f", description: "a\u{0}b")),
        ("empty device type", FirmwareSpec(version: "1", fileURL: "https://h/f", deviceType: "")),
    ]

    @Test(arguments: badFirmware)
    func firmwareThatIsRefused(name: String, spec: FirmwareSpec) {
        var state = CampaignState()
        #expect(code(run(.addFirmware(spec), &state)) == .invalidValue, "\(name)")
        #expect(state.firmware.isEmpty && state.nextFirmwareID == 1)
    }

    static let badCampaigns: [(String, CampaignCommand, RejectionCode)] = [
        ("no devices", campaign([]), .invalidValue),
        ("a device twice", campaign(["a", "b", "a"]), .invalidValue),
        ("a device with a slash", campaign(["a/b"]), .invalidValue),
        ("an empty device", campaign([""]), .invalidValue),
        ("a device of 129 characters", campaign([String(repeating: "x", count: 129)]), .invalidValue),
        ("a device with an umlaut", campaign(["tür"]), .invalidValue),
        ("unknown firmware", campaign(["a"], firmware: 99), .notFound),
        ("another tenant's firmware", campaign(["a"], firmware: 2), .notFound),
        ("no name", .createCampaign(CampaignSpec(name: "", firmwareVersionID: 1, devices: ["a"])), .invalidValue),
        (
            "unknown strategy",
            .createCampaign(
                CampaignSpec(
                    name: "n", firmwareVersionID: 1, devices: ["a"], rolloutStrategy: "all")), .invalidValue
        ),
        (
            "rate 0",
            .createCampaign(
                CampaignSpec(
                    name: "n", firmwareVersionID: 1, devices: ["a"], rolloutRate: 0)), .invalidValue
        ),
        (
            "threshold beyond 1",
            .createCampaign(
                CampaignSpec(
                    name: "n", firmwareVersionID: 1, devices: ["a"], abortThreshold: 1.01)), .invalidValue
        ),
        (
            "threshold that is no number",
            .createCampaign(
                CampaignSpec(
                    name: "n", firmwareVersionID: 1, devices: ["a"], abortThreshold: .nan)), .invalidValue
        ),
    ]

    @Test(arguments: badCampaigns)
    func campaignsThatAreRefused(name: String, command: CampaignCommand, expected: RejectionCode) {
        var state = CampaignState()
        _ = run(firmware, &state)
        _ = run(firmware, &state, tenant: "t2")
        #expect(code(run(command, &state)) == expected, "\(name)")
        #expect(state.campaigns.isEmpty && state.nextCampaignID == 1 && state.nextTargetID == 1)
    }

    @Test func targetsAreChunkedInOneCommitWithConsecutiveIDs() throws {
        var state = CampaignState()
        _ = run(firmware, &state)
        let devices = (0..<12_001).map { "d\($0)" }
        let request = CommandRequest(tenantID: "t1", actor: "admin", command: campaign(devices))
        guard case .append(let events) = state.decide(request, now: now) else { throw Unexpected() }
        let targets = events.dropFirst().compactMap { event in
            if case .campaignTargets(let targets) = event { targets } else { nil }
        }
        #expect(targets.map(\.devices.count) == [5_000, 5_000, 2_001])
        #expect(targets.map(\.firstID) == [1, 5_001, 10_001])
        #expect(targets.flatMap(\.devices) == devices)
        for event in events { state.apply(event, at: Position(5), time: now) }
        #expect(state.nextTargetID == 12_002 && state.nextCampaignID == 2)
    }

    @Test func theSameKeyGetsTheSameAnswerForADay() {
        var state = CampaignState()
        let first = run(firmware, &state, key: "k")
        #expect(run(firmware, &state, key: "k") == first)
        #expect(state.nextFirmwareID == 2, "no second event")
        #expect(run(firmware, &state, tenant: "t2", key: "k") != first, "keys are the tenant's own")
        let nearlyADay = now.adding(microseconds: 86_400_000_000 - 1)
        #expect(run(firmware, &state, key: "k", at: nearlyADay) == first)
        let aDay = now.adding(microseconds: 86_400_000_000)
        #expect(run(firmware, &state, key: "k", at: aDay) == .accepted(position: Position(1000), id: 3, status: nil))
        #expect(state.answerCount == 1, "what expired is forgotten")
    }

    @Test func aKeyOfAnotherCommandIsRefusedAndKeepsItsAnswer() {
        var state = CampaignState()
        let first = run(firmware, &state, key: "k")
        #expect(code(run(campaign(), &state, key: "k")) == .keyReused)
        #expect(run(firmware, &state, key: "k") == first)
    }

    @Test func aRefusalIsRepeatedToo() {
        var state = Self.state(in: .created)
        let refused = run(.pause(campaign: 1, reason: nil), &state, key: "p")
        #expect(code(refused) == .illegalTransition)
        _ = run(.start(campaign: 1), &state)
        #expect(run(.pause(campaign: 1, reason: nil), &state, key: "p") == refused)
        #expect(state.campaigns[1]?.status == .running)
    }

    @Test func aTenantThatBreaksTheGrammarStaysOutOfTheRecord() throws {
        let request = CommandRequest(tenantID: "a/\u{0}", actor: "admin", command: firmware)
        guard case .append(let events) = CampaignState().decide(request, now: now),
            case .rejected(let event) = events[0]
        else { throw Unexpected() }
        #expect(event.tenantID == "" && event.code == "invalid_value")
    }

    @Test func fieldsThatRunTogetherHaveDifferentDigests() {
        func digest(_ name: String, _ devices: [String]) -> String {
            CommandRequest(
                tenantID: "t", actor: "a",
                command: .createCampaign(
                    CampaignSpec(name: name, firmwareVersionID: 1, devices: devices))
            ).digest
        }
        #expect(digest("n", ["ab", "c"]) != digest("n", ["a", "bc"]))
        #expect(digest("n", ["a"]) == digest("n", ["a"]))
    }

    struct Unexpected: Error {}
}
