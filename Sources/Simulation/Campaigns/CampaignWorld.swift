// Campaigns among devices that fail in every way, by a seed.
//
// Real here: the engine (state, rules, decisions, their encoding, folding back, snapshots' state). Simulated: time, the
// log's medium, the broker, devices, operators. What goes wrong:
//
//     reports        lost, repeated, late, out of order, contradictory, without ids, of older attempts, unreadable
//     devices        silent, offline, refusing, stuck, rolling back, reporting without being asked
//     the broker     away for minutes; messages twice; acknowledgements lost with the process
//     the disk       refuses appends; others append between a decision and its record
//     the process    stops at any moment; begins with the whole log or with a state of before
//     the clock      set forward and back, by seconds to days, for seconds or for good
//     operators      pause, resume, abort, retry, delete, and ask for what cannot be
//
// After every look of the engine `CampaignRecount` must agree with it, and nothing may be beyond its deadline.
import Campaigns
import Deciding
import Decisions
import EventLog
import EventModel
import Primitives

public struct CampaignVerdict: Sendable {
    public var seed: UInt64
    /// The first thing that did not hold.
    public var violation: String?
    public var traceHash: UInt64
    public var summary: CampaignRunSummary
    public var lines: [String]
}

public struct CampaignRunSummary: WorldCounts, Sendable {
    public var histories = 0
    public var campaigns = 0
    public var devices = 0
    public var records = 0
    public var looks = 0
    public var completed = 0
    public var aborted = 0
    public var restarts = 0
    public var commands = 0
    public var failedAppends = 0
    public var races = 0
    public var refolds = 0
    public var clockSteps = 0

    public init() {}

    public static var counts: [WritableKeyPath<Self, Int>] {
        [
            \.histories, \.campaigns, \.devices, \.records, \.looks, \.completed, \.aborted, \.restarts, \.commands,
            \.failedAppends, \.races, \.refolds, \.clockSteps,
        ]
    }
}

public final class CampaignWorld {
    enum Event {
        case look
        case pump
        case arrive(DeviceMessage)
        case deliver(Delivery)
        case acknowledge([Delivery], process: Int)
        case online(String)
        case operate(Int, CampaignCommand)
        case create(Int)
        case stop(Double)
        case begin
        case setClock(Double)
    }

    let options: CampaignWorldOptions
    let scenario: CampaignScenario
    var random: SeededRandom
    let log: DecisionLog
    let carrier = CampaignCarrier()
    var recount = CampaignRecount()
    var engine: DeciderRuntime<CampaignState>?
    /// True time, which nothing sets. The engine's is the log's.
    var now: Timestamp { didSet { clock.time = now } }
    private let clock: SettableClock
    let beginning: Timestamp
    var summary = CampaignRunSummary()
    var trace = TraceHash()
    var lines: [String] = []
    var violation: String?

    private var queue: [(at: Int64, number: Int, event: Event)] = []
    private var number = 0
    private var process = 0
    private var lookAt = Int64.max
    private var isLooking = false
    /// The broker keeps these.
    private var retained: [String: Delivery] = [:]
    private var kept: [String: [Delivery]] = [:]
    private var online: Set<String> = []
    private var handled: [CampaignRecount.Delivery: Int] = [:]
    /// The scenario's number of each campaign.
    private var planned: [Int64: Int] = [:]
    private var snapshot: (state: [UInt8], end: Position)?

    /// Nothing in a scenario takes longer.
    static let secondsMax = 60_000.0

    public init(_ options: CampaignWorldOptions) {
        self.options = options
        random = SeededRandom(seed: options.seed)
        scenario = CampaignScenario(&random, setsClock: options.setsClock)
        beginning = scenario.begin
        clock = SettableClock(beginning)
        var rules = GuardedClock.Rules()
        rules.holdMicros = Int64(scenario.clockHold * 1e6)
        log = DecisionLog(clock: GuardedClock(clock, rules: rules))
        now = beginning
    }

    /// What the engine takes for the time.
    private func engineClock() -> @Sendable () -> Timestamp {
        let clock = clock, log = log
        switch options.plant {
        case .sleeps:
            let last = beginning.adding(microseconds: 500_000_000)
            return { min(log.now(), last) }
        case .wallTimers: return { clock.now() }
        default: return { log.now() }
        }
    }

    /// Lets the seed's history happen.
    public func run() -> CampaignVerdict {
        log.refuses = { [unowned self] in refusesAppend() }
        log.beforeAppend = { [unowned self] in othersAppend() }
        log.watch = { [unowned self] in watch($0, $1) }
        carrier.handed = { [unowned self] in handed($0) }
        schedule()
        plantBug()
        begin()
        let firmware = CampaignCommand.addFirmware(FirmwareSpec(version: "2.0.0", fileURL: "https://f/2"))
        var tenants: Set<String> = []
        for (index, planned) in scenario.campaigns.enumerated() where tenants.insert(planned.tenant).inserted {
            operate(index, firmware)
        }
        while violation == nil, !queue.isEmpty {
            let next = queue.removeLast()
            now = Timestamp(microseconds: max(now.microseconds, next.at))
            if seconds > Self.secondsMax {
                violate("it does not come to an end")
                break
            }
            happen(next.event, at: next.at)
            take(recount.violations)
            if isOver { break }
        }
        if violation == nil { checkEnd() }
        summary.histories = 1
        summary.campaigns = recount.campaigns.count
        summary.devices = recount.campaigns.values.reduce(0) { $0 + $1.names.count }
        summary.completed = recount.campaigns.values.count { $0.status == "COMPLETED" }
        summary.aborted = recount.campaigns.values.count { $0.status == "ABORTED" }
        return CampaignVerdict(
            seed: options.seed, violation: violation, traceHash: trace.value, summary: summary, lines: lines)
    }

    var seconds: Double { Double(now.microseconds - beginning.microseconds) / 1e6 }
    func draw() -> Double { CampaignScenario.unit(&random) }

    func violate(_ text: String) {
        if violation == nil { violation = "after \(Int(seconds)) s: \(text)" }
    }

    func take(_ violations: [String]) {
        if let first = violations.first { violate(first) }
    }

    func line(_ text: @autoclosure () -> String) {
        if options.isRecording { lines.append("\(now) \(text())") }
    }

    // MARK: time

    func after(_ seconds: Double, _ event: Event) {
        let at = now.microseconds + Int64(max(0, seconds) * 1e6)
        number += 1
        // The next is the last; of the same time the first that was put in.
        queue.insert((at, number, event), at: queue.partitioningIndex { $0.at <= at })
    }

    private func schedule() {
        for (name, after) in scenario.onlineAfter.sorted(by: { $0.key < $1.key }) {
            if let after { self.after(after, .online(name)) }
        }
        for (index, planned) in scenario.campaigns.enumerated() { after(planned.createdAfter, .create(index)) }
        for (from, length) in scenario.stops { after(from, .stop(length)) }
        for step in scenario.clockSteps {
            after(step.at, .setClock(step.by))
            if let length = step.length { after(step.at + length, .setClock(-step.by)) }
        }
    }

    private func within(_ spans: [(Double, Double)]) -> Double? {
        spans.first { $0.0 <= seconds && seconds < $0.0 + $0.1 }.map { $0.0 + $0.1 - seconds }
    }

    private func look(in seconds: Double) {
        let at = now.microseconds + Int64(seconds * 1e6)
        guard at < lookAt else { return }
        lookAt = at
        after(seconds, .look)
    }

    private var isOver: Bool {
        guard planned.count == scenario.campaigns.count, carrier.waiting.isEmpty, engine != nil else { return false }
        return !queue.contains { item in
            if case .look = item.event { return false }
            return true
        }
            && recount.campaigns.values.allSatisfy {
                ($0.hasEnded || $0.status == "CREATED") && !$0.devices.values.contains { $0.isInFlight }
            }
    }

    private func happen(_ event: Event, at: Int64) {
        switch event {
        case .look:
            guard at == lookAt else { return }
            lookAt = .max
            lookNow()
        case .pump: pump()
        case .arrive(let message): arrive(message)
        case .deliver(let command): deliver(command)
        case .acknowledge(let commands, let process):
            if process == self.process { engine?.note(commands) }
            look(in: 0.05)
        case .online(let name): goOnline(name)
        case .operate(let number, let command): operate(number, command)
        case .create(let index): create(index)
        case .stop(let length):
            stop()
            after(length, .begin)
        case .begin: if engine == nil { begin() }
        case .setClock(let seconds):
            line("the clock is set by \(seconds) s")
            clock.ahead += Int64(seconds * 1e6)
            summary.clockSteps += 1
            // Somebody sees it before it may be gone.
            _ = log.now()
        }
    }

    // MARK: the process

    private func stop() {
        guard engine != nil else { return }
        line("stops")
        engine = nil
        carrier.restart()
        process += 1
        summary.restarts += 1
    }

    private func begin() {
        line("begins")
        let start = snapshot.flatMap { snapshot in
            (try? CampaignState(stored: snapshot.state)).map {
                DeciderSnapshot(
                    state: $0,
                    end: options.plant == .staleSnapshot ? Position(log.durableCount) : snapshot.end)
            }
        }
        let isUsed = random.chance(0.5) || options.plant == .staleSnapshot
        let engine = DeciderRuntime<CampaignState>(
            writer: DecisionWriter(log), source: log, clock: engineClock(), outbox: carrier,
            snapshot: { isUsed ? start : nil })
        do {
            let state = try engine.recover()
            // Half of them: it takes as long as all the rest.
            let isCompared = (options.seed &+ UInt64(summary.restarts)) & 1 == 0
            if options.plant == nil, isCompared { compareWithRefold(state, "after a start") }
            self.engine = engine
            try engine.resume()
        } catch {
            violate("\(error)")
        }
        look(in: draw())
        if !carrier.waiting.isEmpty { after(0.01, .pump) }
    }

    private func plantBug() {
        switch options.plant {
        case .forgetsAcknowledgements:
            log.hides = { $0.topicString == CampaignSchema.campaignPublished.rawValue }
        case .deaf:
            log.hides = { record in
                record.kind == .message && record.topicString.hasSuffix("ota/status")
                    && (record.receivedAt.microseconds / 1_000) % 20 == 0
            }
        case .pinnedTime: log.isPinned = true
        case .losesCommands: carrier.loses = { [unowned self] in random.chance(0.05) }
        case .staleSnapshot, .sleeps, .sharesDevices, .wallTimers, nil: break
        }
    }

    private func lookNow() {
        guard let engine else { return }
        summary.looks += 1
        let isFull = within(scenario.diskFull) != nil
        do {
            recount.known = log.durableCount
            isLooking = true
            defer { isLooking = false }
            try engine.step()
            isLooking = false
            check()
        } catch {
            if case .full? = error as? AppendError { summary.failedAppends += 1 } else { violate("\(error)") }
        }
        if random.chance(0.02), let stored = engine.state?.stored() {
            snapshot = (stored, engine.end)
        }
        if !carrier.waiting.isEmpty { after(0.01, .pump) }
        var wake = 120.0
        if let next = engine.nextDeadline() {
            wake = min(wake, Double(max(0, next.microseconds - log.now().microseconds)) / 1e6)
        }
        look(in: isFull ? 5 : max(0.05, wake) + 0.05 * draw())
    }

    private func refusesAppend() -> Bool { within(scenario.diskFull) != nil || random.chance(scenario.appendFailures) }

    /// Between a decision and its record: what is to arrive within seconds arrives now.
    private func othersAppend() {
        recount.known = log.durableCount
        guard random.chance(0.2), within(scenario.diskFull) == nil else { return }
        for _ in 0..<3 {
            guard
                let index = queue.lastIndex(where: { item in
                    if case .arrive = item.event { return item.at < now.microseconds + 20_000_000 }
                    return false
                }), case .arrive(let message) = queue[index].event
            else { return }
            queue.remove(at: index)
            summary.races += 1
            arrive(message)
        }
    }

    // MARK: operators

    private func operate(_ index: Int, _ command: CampaignCommand) {
        let isDone = execute(scenario.campaigns[index].tenant, command) { _ in }
        if !isDone { after(3, .operate(index, command)) }
    }

    private func create(_ index: Int) {
        let planned = scenario.campaigns[index]
        var spec = planned.spec
        guard let firmware = recount.firmware[planned.tenant] else { return after(3, .create(index)) }
        spec.firmwareVersionID = firmware
        let isDone = execute(planned.tenant, .createCampaign(spec)) { answer in
            guard case .accepted(_, let id, _) = answer else { return violate("not created: \(answer)") }
            self.planned[id] = index
            script(index, id)
        }
        if !isDone { after(3, .create(index)) }
    }

    private func script(_ index: Int, _ id: Int64) {
        guard let started = scenario.campaigns[index].startedAfter else {
            if random.chance(0.5) { after(50, .operate(index, .delete(campaign: id))) }
            return
        }
        after(started, .operate(index, .start(campaign: id)))
        func some(_ share: Double, _ command: CampaignCommand, _ from: Double, _ length: Double) {
            if random.chance(share) { after(started + from + length * draw(), .operate(index, command)) }
        }
        for _ in 0..<2 {
            some(0.3, .pause(campaign: id, reason: nil), 0, 900)
            some(0.5, .resume(campaign: id), 100, 1_500)
        }
        some(0.08, .abort(campaign: id, reason: nil), 10, 2_000)
        some(0.3, .retryFailed(campaign: id, kinds: nil), 300, 3_000)
        some(0.1, .retryFailed(campaign: id, kinds: [.timedOut, .install]), 300, 3_000)
        some(0.1, .start(campaign: id + 1), 0, 100)
        some(0.05, .delete(campaign: id), 0, 100)
    }

    /// False: the log could not be written to, or the process is down.
    @discardableResult
    private func execute(_ tenant: String, _ command: CampaignCommand, _ done: (CommandAnswer) -> Void) -> Bool {
        guard let engine else { return false }
        recount.known = log.durableCount
        do {
            let answer = try engine.execute(CommandRequest(tenantID: tenant, actor: "anna", command: command))
            line("\(command.name) \(command.subject): \(answer)")
            done(answer)
        } catch {
            guard case .full? = error as? AppendError else {
                violate("\(command.name): \(error)")
                return true
            }
            summary.failedAppends += 1
            return recount.known < log.durableCount
        }
        if !carrier.waiting.isEmpty { after(0.01, .pump) }
        look(in: 0.05)
        return true
    }

    // MARK: the broker

    private func pump() {
        guard !carrier.waiting.isEmpty else { return }
        if let left = within(scenario.brokerAway) { return after(left + 0.1, .pump) }
        let commands = carrier.take()
        for command in commands {
            let address = "\(command.tenantID)/\(command.deviceID)"
            if command.isRemoval {
                // A broker removes whatever it retains on the topic.
                retained[address] = nil
                continue
            }
            if command.isRetained { retained[address] = command }
            after(0.01 + 0.1 * draw(), .deliver(command))
            if random.chance(scenario.repeated) { after(0.1 + 5 * draw(), .deliver(command)) }
        }
        // In blocks, not always together.
        var rest = commands.filter { !$0.isRemoval }[...]
        while !rest.isEmpty {
            let block = rest.prefix(1 + random.below(20))
            rest = rest.dropFirst(block.count)
            after(0.02 + (random.chance(0.1) ? 8 : 0.3) * draw(), .acknowledge(Array(block), process: process))
        }
    }

    private func goOnline(_ name: String) {
        online.insert(name)
        for tenant in ["t1", "t2"] {
            send([(0.1 * draw(), DeviceMessage(tenant: tenant, device: name, content: .connected))])
            let address = "\(tenant)/\(name)"
            for command in kept.removeValue(forKey: address) ?? [] { after(0.2, .deliver(command)) }
            if let command = retained[address] { after(0.3, .deliver(command)) }
        }
        // It says something now and then, whatever it is asked.
        guard seconds < 5_000 else { return }
        for _ in 0..<random.below(3) {
            let content = random.pick([
                DeviceMessage.Content.heartbeat, .noise, .connected, .telemetry(version: "1.0.0"),
            ])
            send([(5_000 * draw(), DeviceMessage(tenant: "t1", device: name, content: content))])
        }
    }

    private func deliver(_ command: Delivery) {
        let address = "\(command.tenantID)/\(command.deviceID)"
        guard online.contains(command.deviceID) else {
            kept[address, default: []].append(command)
            return
        }
        let delivery = carrier.delivery(command)
        handled[delivery, default: 0] += 1
        guard let index = planned[command.campaign], handled[delivery] == 1,
            let number = Int(command.deviceID.dropFirst())
        else { return }
        let behaviour = scenario.campaigns[index].behaviours[number]
        send(behaviour.messages(command, draw))
    }

    private func send(_ messages: [(after: Double, message: DeviceMessage)]) {
        for (after, message) in messages {
            if random.chance(scenario.lost) { continue }
            let delay = random.chance(scenario.delayed) ? 400 * draw() : 0
            self.after(after + delay, .arrive(message))
            if random.chance(scenario.repeated) { self.after(after + delay + 300 * draw(), .arrive(message)) }
        }
    }

    /// A message reaches ingest.
    private func arrive(_ message: DeviceMessage) {
        if let left = within(scenario.diskFull) { return after(left + draw(), .arrive(message)) }
        line("\(message.tenant)/\(message.device) says \(message.content)")
        var batch = RecordBatch()
        message.append(to: &batch, at: log.now())
        guard let position = try? log.record(&batch).lowerBound.rawValue else { return violate("ingest cannot append") }
        switch message.content {
        case .report(let campaign, let word, let command, _):
            recount.report(
                campaign, tenant: message.tenant, message.device, word, command: command, at: position, time: now)
        case .acknowledgement(let command, _):
            recount.acknowledge(tenant: message.tenant, message.device, command: command, time: now)
        default: break
        }
        // The engine looks often, but not after every message. In the middle of a look it will look again anyway.
        if !isLooking { look(in: random.chance(0.5) ? 0.05 : 3 * draw()) }
    }
}
