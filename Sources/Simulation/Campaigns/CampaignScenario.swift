import Campaigns
import Decisions
import EventModel
import Primitives

/// Bugs that a world can be given, to see that it notices.
public enum CampaignPlant: String, Sendable, CaseIterable {
    /// What the broker has acknowledged is not read back.
    case forgetsAcknowledgements = "forgets-acknowledgements"
    /// Some reports are not read.
    case deaf
    /// Some commands are decided and never handed over.
    case losesCommands = "loses-commands"
    /// A snapshot is taken for newer than it is.
    case staleSnapshot = "stale-snapshot"
    /// The engine's clock stops after a while.
    case sleeps
    /// A device that is dispatched is dispatched by another campaign as well.
    case sharesDevices = "shares-devices"
    /// Timers run on the wall clock.
    case wallTimers = "timers-on-wall-clock"
    /// Received-at stays where a clock was that was ahead.
    case pinnedTime = "received-at-pinned"
}

public struct CampaignWorldOptions: Sendable {
    public var seed: UInt64
    public var plant: CampaignPlant?
    /// In half of the worlds the wall clock is set forward and back.
    public var setsClock = false
    /// Keeps a line for every event.
    public var isRecording = false

    public init(seed: UInt64, plant: CampaignPlant? = nil) {
        self.seed = seed
        self.plant = plant
        setsClock = [.wallTimers, .pinnedTime].contains(plant)
    }
}

/// What a seed stands for: campaigns, devices, and what goes wrong.
struct CampaignScenario {
    struct Planned {
        var tenant: String
        var spec: CampaignSpec
        var createdAfter: Double
        var startedAfter: Double?
        var behaviours: [DeviceBehaviour]
    }

    var begin: Timestamp
    var campaigns: [Planned] = []
    /// Shares of messages.
    var lost: Double
    var repeated: Double
    var delayed: Double
    /// Seconds from the beginning to when each device is online for the first time; nil: never.
    var onlineAfter: [String: Double?] = [:]
    /// The broker is away, the disk is full, the engine is stopped: from, and for how long.
    var brokerAway: [(Double, Double)] = []
    var diskFull: [(Double, Double)] = []
    var stops: [(Double, Double)] = []
    var appendFailures: Double
    /// The wall clock is set: when, by how many seconds, and for how long; nil: for good.
    var clockSteps: [(at: Double, by: Double, length: Double?)] = []
    /// How long a step must stay before it is believed.
    var clockHold = 30.0

    init(_ random: inout SeededRandom, setsClock: Bool) {
        // Near the nights in which Europe's clocks change, and elsewhere.
        let days = [1_774_720_800, 1_792_872_000, 1_767_225_600, 1_782_900_000]
        begin = Timestamp(microseconds: Int64(random.pick(days) + random.below(36_000)) * 1_000_000)
        let isCalm = random.chance(0.3)
        lost = isCalm ? 0 : 0.1 * Self.unit(&random)
        repeated = isCalm ? 0 : 0.2 * Self.unit(&random)
        delayed = isCalm ? 0 : 0.3 * Self.unit(&random)
        appendFailures = isCalm ? 0 : random.pick([0, 0, 0.02, 0.1])
        let names = (0..<(5 + random.below(random.chance(0.2) ? 56 : 20))).map { "d\($0)" }
        for _ in 0..<(random.chance(0.6) ? 1 : 2 + random.below(2)) {
            campaigns.append(Self.campaign(names, &random))
        }
        for name in names {
            onlineAfter[name] = .some(random.chance(0.8) ? 0 : random.chance(0.3) ? nil : 3_000 * Self.unit(&random))
        }
        guard !isCalm else { return }
        func spans(_ most: Int, _ seconds: Double) -> [(Double, Double)] {
            (0..<random.below(most + 1)).map { _ in
                (2_500 * Self.unit(&random), seconds * Self.unit(&random))
            }.sorted { $0.0 < $1.0 }
        }
        brokerAway = spans(2, 900)
        diskFull = spans(1, 300)
        stops = spans(3, 200)
        guard random.chance(0.5), setsClock else { return }
        clockHold = random.pick([5, 30, 300])
        for _ in 0..<(1 + random.below(4)) {
            let size = random.pick([2, 30, 200, 400, 7_300, 86_400, 259_200] as [Double])
            let length = random.pick([1, 3, 60, 900, nil] as [Double?])
            clockSteps.append(
                (at: 3_000 * Self.unit(&random), by: size * (random.chance(0.6) ? 1 : -1), length: length))
        }
    }

    static func unit(_ random: inout SeededRandom) -> Double { Double(random.next() >> 11) * 0x1p-53 }

    private static func campaign(_ names: [String], _ random: inout SeededRandom) -> Planned {
        var devices = names.filter { _ in random.chance(0.8) }
        if devices.isEmpty { devices = [names[0]] }
        var plan = plan(&random)
        let isCanary = random.chance(0.4)
        if isCanary { plan.stages = stages(&random) }
        let badness = random.pick([0, 0.05, 0.2, 0.6, 1])
        let behaviours = names.map { _ -> DeviceBehaviour in
            let kind = random.chance(badness) ? random.pick(DeviceBehaviour.Kind.allCases) : .good
            return DeviceBehaviour(
                kind: kind, identifying: random.pick(DeviceBehaviour.Identifying.allCases), plan: plan)
        }
        let spec = CampaignSpec(
            name: "c", firmwareVersionID: 1, devices: devices, rolloutStrategy: isCanary ? "canary" : "linear",
            rolloutRate: random.chance(0.3) ? nil : Int64(1 + random.below(6)),
            abortThreshold: random.chance(0.3) ? nil : random.pick([0, 0.05, 0.1, 0.3, 0.5, 1]), plan: plan,
            timeZone: random.pick(["UTC", "Europe/Berlin"]))
        return Planned(
            tenant: random.chance(0.85) ? "t1" : "t2", spec: spec, createdAfter: 300 * unit(&random),
            startedAfter: random.chance(0.04) ? nil : 100 * unit(&random), behaviours: behaviours)
    }

    private static func plan(_ random: inout SeededRandom) -> CampaignPlan {
        var plan = CampaignPlan()
        func seconds(_ low: Double, _ high: Double) -> Double { (low + (high - low) * unit(&random)).rounded() }
        plan.tickSeconds = random.pick([1, 5, 10])
        plan.order = random.pick([.listed, .shuffled])
        if random.chance(0.2) {
            let from = random.pick(["22:00", "01:30", "20:30", "02:15"])
            plan.windows = [.init(from: from, to: random.pick(["02:45", "03:30", "23:00"]))]
        }
        plan.abort.method = random.pick([.sequential, .sequential, .ratio, .none])
        plan.abort.action = random.pick([.abort, .abort, .pause])
        plan.abort.resultsMin = Int64(random.pick([1, 1, 5]))
        if random.chance(0.2) { plan.abort.kinds = ["INSTALL", "REJECTED", "ROLLED_BACK"] }
        if random.chance(0.2) { plan.abort.consecutiveFailuresMax = Int64(2 + random.below(4)) }
        plan.timeouts.acknowledgeSeconds = seconds(20, 300)
        plan.timeouts.downloadSeconds = seconds(20, 300)
        plan.timeouts.installSeconds = seconds(20, 300)
        plan.timeouts.verifySeconds = seconds(20, 200)
        plan.timeouts.campaignSeconds = random.chance(0.8) ? seconds(2_000, 7_200) : seconds(300, 1_000)
        plan.retry.attemptsMax = random.pick([1, 1, 2, 3])
        plan.retry.backoffSeconds = seconds(0, 60)
        plan.retry.backoffMaxSeconds = 90
        if random.chance(0.2) { plan.retry.kinds = ["DOWNLOAD", "INSTALL", "NOT_VERIFIED", "REJECTED"] }
        if random.chance(0.2) {
            plan.completion.share = random.pick([0.5, 0.9])
            plan.completion.seconds = seconds(0, 1_500)
        }
        plan.verify = random.pick([nil, nil, .shadow, .telemetry])
        plan.delivery = random.pick([.queue, .queue, .retained, .onConnect])
        return plan
    }

    private static func stages(_ random: inout SeededRandom) -> [CampaignPlan.Stage] {
        let last = CampaignPlan.Stage(percent: 100)
        let soak = 60 * unit(&random)
        return random.pick([
            [.init(percent: 10, soakSeconds: soak), last],
            [.init(percent: 5, soakSeconds: soak), .init(percent: 30, successMin: 0.5), last],
            [.init(percent: 1), .init(percent: 2), .init(percent: 50, soakSeconds: soak, successMin: 0), last],
        ])
    }
}
