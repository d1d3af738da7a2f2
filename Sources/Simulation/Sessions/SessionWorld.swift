// Devices, a broker and our processes around one persistent session. A seed decides what happens next and what fails.
//
// The code under test is the real one: SessionKeeper, RedeliveryFilter, SessionHistory, Gate, AbsenceCredit and
// Handover. Models stand for the broker (three kinds, see `BrokerModel`), the connection and the process around them.
//
// What fails: our process (kill -9 before and after the append, before and after the PUBACK), the connection at any
// packet, the broker (Mosquitto comes back as it was saved last, with its packet ids), reading (a frozen process), the
// client id (a restart under another one), and a second instance with a log of its own under the same client id.
//
// Invariants:
// - When the broker takes a PUBACK, the message that it ends stands in our log.
// - A log that did not create the session has none of its messages.
// - A device that keeps to its rate is never limited, whatever backlog its messages come out of.
// - Once a session of ours is subscribed, one always is.
// - The session of an earlier client id is ended only when it is empty.
// - At rest everything that the broker still had is in the log.
// - Where packet ids and markers prove everything (Mosquitto without kills of it, without an unanswered attempt, and
//   without a lost connection or an expired wait during a handover), nothing is recorded twice.

import EventLog
import EventModel
import Ingest
import Primitives

public final class SessionWorld {
    private let options: SessionWorldOptions
    private var random: SeededRandom
    private var model: BrokerModel
    private var fleet: SessionFleet
    private let log = ScratchLog()
    private let limits: PacketIDLimits
    private let gate: GateSettings
    private var main: SessionClient
    private var drains: [SessionClient] = []
    private var intruder: SessionClient?
    /// The handover from the one earlier session at Mosquitto, and its marker's number.
    private var handover: (exchange: Handover, marker: Int)?
    private var markers = 0
    private var clientNumber = 0, clientNumbers = 1
    private var hasSubscribed = false
    private var steady: Int64 = 0
    private var deviceReady: [Int64]
    private var recorded: [Int: Int] = [:]
    private var readTo = Position(0)
    private let faultRate: Double
    private let killsBroker: Bool, changesClientID: Bool, hasIntruders: Bool
    /// MQTT 3.1.1: a resumed session is not subscribed to again, so that no SUBACK ends the redelivery.
    private let subscribesOnce: Bool
    /// NATS: ack_wait is short, so that it redelivers on live connections too.
    private let redeliversEagerly: Bool
    private var isExact = true
    /// No faults any more.
    private var isCalm = false
    private var summary = SessionSummary()
    private var trace = TraceHash()
    private var lines: [String] = []
    private let block = EventBlock(capacity: 4 << 10)

    /// Of a device, a second.
    private static let rate = 2.0

    public init(_ options: SessionWorldOptions) {
        self.options = options
        // The generator's states lie on one orbit: seeds must not be steps of it.
        var seeds = SeededRandom(seed: options.seed)
        random = seeds.fork()
        var limits = PacketIDLimits()
        (limits.ids, limits.deliveriesMax) = (63, 15)
        self.limits = limits
        // A bug is found by the faults that it is about: these worlds have them.
        let needsLostState = options.plant == .ignoresUnansweredAttempts
        let needsRabbitMQ = options.plant == .endsDrainsOnSilence || options.plant == .unsubscribesUnrecorded
        let needsNATS = options.plant == .acknowledgesLateCopies || options.plant == .unsubscribesAtOnce
        let needsMarkers = options.plant == .recordsBehindMarkers || options.plant == .dropsByOrderAlone
        let needsDrains = needsRabbitMQ || needsMarkers || options.plant == .unsubscribesAtOnce
        let kind = random.pick(BrokerModel.Kind.allCases)
        model = BrokerModel(
            kind: needsLostState || needsMarkers ? .mosquitto : needsNATS ? .nats : needsRabbitMQ ? .rabbitmq : kind,
            ids: limits.ids,
            inFlightMax: random.pick([3, 6, 12]))
        let payloadKinds = random.pick([1, 1, 3, .max])
        fleet = SessionFleet(payloadKinds: needsLostState ? 1 : payloadKinds)
        var gate = GateSettings()
        redeliversEagerly = random.chance(0.3) || needsNATS
        // Eager redeliveries end connections so often that a session is read more slowly than it fills.
        (gate.messagesPerSecond, gate.burst) = (Self.rate, redeliversEagerly ? 1_000 : 30)
        self.gate = gate
        deviceReady = Array(repeating: 0, count: 1 + random.below(2))
        let rate = random.pick([0.01, 0.04, 0.1])
        faultRate = needsLostState ? 0.2 : rate
        killsBroker = random.chance(0.5) && !needsMarkers || needsLostState
        changesClientID = random.chance(0.3) || needsDrains
        hasIntruders = random.chance(0.3) && !killsBroker
        subscribesOnce = random.chance(0.5) || options.plant == .unsubscribesUnrecorded
        main = SessionClient(.main, "c0", log: log, gate: gate, limits: limits)
    }

    public func run() -> SessionVerdict {
        var violation: String?
        do {
            func live() throws {
                for _ in 0..<options.steps { try step() }
                try comeToRest()
            }
            if let plant = options.activePlant { try plant.planted(live) } else { try live() }
        } catch {
            violation = "\(error)"
        }
        summary.published = fleet.messages.count
        summary.recordedAgain = recorded.values.reduce(0) { $0 + max(0, $1 - 1) }
        summary.suppressed += main.suppressed
        summary.trace = trace.value
        return SessionVerdict(seed: options.seed, violation: violation, summary: summary, lines: lines)
    }

    private func note(_ text: () -> String) {
        guard options.isRecording else { return }
        lines.append("\(steady / 1_000) ms: \(text())")
        if lines.count > 400 { lines.removeFirst(200) }
    }

    private func isPlanted(_ plant: SessionPlant) -> Bool { options.activePlant == plant }

    private var now: Timestamp { Timestamp(microseconds: 1_790_000_000_000_000 + steady) }

    // MARK: Scheduler

    private func step() throws {
        steady += Int64(random.below(100_000))
        let action = random.below(100)
        trace.mix(action)
        switch action {
        case ..<20: try publish()
        case ..<50: try advance(pickClient())
        case ..<80: try brokerStep()
        case ..<82: model.save()
        case ..<84: model.timePasses(isOverall: redeliversEagerly)
        default: if random.chance(faultRate) { try fail() }
        }
    }

    private func publish() throws {
        let isReceived = model.sessions.values.contains(where: \.isSubscribed)
        if isReceived { hasSubscribed = true }
        // Over MQTT 3.1.1 nobody can tell that a save from before the SUBSCRIBE came back: the session is there.
        guard isReceived || !hasSubscribed || model.kind == .mosquitto && subscribesOnce else {
            throw Violation("no session of ours is subscribed any more")
        }
        let device = random.below(deviceReady.count)
        guard deviceReady[device] <= steady else { return }
        deviceReady[device] = steady + Int64(1_100_000 / Self.rate)
        model.publish(fleet.publish(device))
    }

    private func pickClient() -> SessionClient {
        let all = [main] + drains + [intruder].compactMap(\.self)
        return all[random.below(all.count)]
    }

    private func brokerStep() throws {
        guard let link = model.links.keys.sorted().randomPick(&random) else { return }
        for _ in 0...random.below(8) { try take(link) }
    }

    private func take(_ link: Int) throws {
        try model.take(link, &random) { message in
            summary.acknowledged += 1
            note { "broker: message \(message) is acknowledged" }
            guard message < 0 || recorded[message, default: 0] > 0 else {
                throw Violation("message \(message) was acknowledged and is not in the log")
            }
        } dropped: { message, model in
            let isOnItsWay = model.links.values.contains { link in
                !link.isCut
                    && link.toClient.contains {
                        if case .publish(_, _, message) = $0 { true } else { false }
                    }
            }
            guard
                recorded[message, default: 0] > 0 || isOnItsWay
                    || model.sessions.values.contains(where: { $0.holds(message) })
            else { throw Violation("message \(message) is gone with an UNSUBSCRIBE and is not in the log") }
        }
    }

    /// One turn of a client's loop.
    private func advance(_ client: SessionClient) throws {
        guard !client.isFrozen, !client.isRefused else { return }
        guard let link = client.link else { return try client.connect(to: &model, at: now) }
        guard let open = model.links[link], !open.isCut else { return try client.lose(at: now) }
        let hasMessages = open.toClient.contains { if case .publish = $0 { true } else { false } }
        if client.isConnected { client.absence.round(at: steady, hasInput: hasMessages, client.gate) }
        if client.awaitsMarker { return takeOver(client, link) }
        if client.role == .drain { try followDrain(client, link) }
        if client.role == .main, client.isConnected, !client.isSubscribed { subscribeMain(client, link) }
        try read(client, link, atMost: 1 + random.below(8))
    }

    private func read(_ client: SessionClient, _ link: Int, atMost count: Int) throws {
        var arrivals: [(id: Int, isDuplicate: Bool, message: Int)] = [], resumeEnd: Int?
        for _ in 0..<count {
            guard let packet = model.links[link]?.toClient.first else { break }
            var recordsHere = client.role != .drain || !client.isBehindMarker
            if client.role == .drain, case .publish(_, _, let message) = packet {
                if message == handover?.marker {
                    // Read only after everything before it is durable.
                    guard arrivals.isEmpty else { break }
                    passMarker(client)
                } else if client.isBehindMarker, message >= 0, !isRecordedByMain(message) {
                    // The message waits for the new session, for a while.
                    let waits = handover?.exchange.isClosed == false
                    guard !waits || random.chance(0.05) else { break }
                    if waits { isExact = false }
                    handover?.exchange.close()
                    recordsHere = true
                }
            }
            model.links[link]?.toClient.removeFirst()
            switch packet {
            case .connack(let isPresent):
                try client.greet(
                    sessionPresent: isPresent, isMosquitto: model.kind == .mosquitto, at: now, steady: steady)
                guard !client.isRefused else {
                    summary.refused += 1
                    return model.cut(link, received: 0)
                }
                client.connectedWait = model.waits
            case .suback: if resumeEnd == nil { resumeEnd = arrivals.count }
            case .unsuback: client.unsubacks += 1
            case .publish(let id, let isDuplicate, let message):
                note { "\(client.clientID) reads id \(id)\(isDuplicate ? " DUP" : "") message \(message)" }
                client.arrivals += 1
                if message < 0 || !recordsHere {
                    if message >= 0 { summary.handedOver += 1 }
                    acknowledge([id], link)
                } else {
                    arrivals.append((id, isDuplicate, message))
                }
            }
        }
        // A kill may come before the append, or between the append and the acknowledgements.
        let dies = !isCalm && random.chance(faultRate / 4), isAppended = !dies || random.below(2) == 0
        if isPlanted(.acknowledgesBeforeAppend) { acknowledge(arrivals.map(\.id), link) }
        let ids = try client.record(
            arrivals, resumeEndsAt: resumeEnd, fleet: fleet, at: now, steady: steady, isAppended: isAppended)
        try readLog()
        if dies { return try kill() }
        guard let ids else {
            summary.lateCopies += 1
            model.cut(link, received: model.links[link]?.toBroker.count ?? 0)
            return try client.lose(at: now)
        }
        acknowledge(ids, link)
        guard resumeEnd != nil else { return }
        client.isRedelivering = false
        if client.keeper.redeliveryEnded() {
            try client.append(.sessionResumed, BrokerEvent(clientID: client.clientID), at: now)
        }
        var event = BrokerEvent(clientID: client.clientID)
        event.filters = ["#"]
        try client.append(.subscribed, event, at: now)
        client.isSubscribed = true
        client.keeper.subscribedFilters = event.filters
    }

    private func acknowledge(_ ids: [Int], _ link: Int) {
        for id in ids { model.links[link]?.toBroker.append(.puback(id)) }
    }

    // MARK: Sessions of earlier client ids

    private func subscribeMain(_ client: SessionClient, _ link: Int) {
        let receives = client.keeper.hasBacklog
        // As far as a client can see: nothing is there to be read.
        let haveCaughtUp = drains.allSatisfy { drain in
            drain.isConnected && drain.link.flatMap { model.links[$0]?.toClient.isEmpty } == true && isPatient(drain)
        }
        guard !client.hasAsked, receives || haveCaughtUp else { return }
        client.hasAsked = true
        if !drains.isEmpty, receives || handover == nil { isExact = false }
        if subscribesOnce, receives {
            client.isSubscribed = true
        } else {
            model.links[link]?.toBroker.append(.subscribe)
            guard let handover, !drains.isEmpty, !receives else { return }
            guard handover.exchange.begin() else { return isExact = false }
            model.links[link]?.toBroker.append(.marker(handover.marker))
            client.awaitsMarker = true
        }
    }

    /// Drops messages before the marker that the old session recorded.
    private func takeOver(_ client: SessionClient, _ link: Int) {
        guard let handover, let packets = model.links[link]?.toClient else { return client.awaitsMarker = false }
        let isSubscribed = packets.contains { if case .suback = $0 { true } else { false } }
        let marker = packets.firstIndex {
            if case .publish(_, _, let message) = $0 { message == handover.marker } else { false }
        }
        let before = packets[..<(marker ?? 0)].compactMap { packet -> (id: Int, message: Int)? in
            if case .publish(let id, _, let message) = packet { (id, message) } else { nil }
        }
        if isSubscribed, let marker, before.isEmpty || handover.exchange.hasPassed {
            client.awaitsMarker = false
            guard before.isEmpty || handover.exchange.endsOld(before.flatMap { digests($0.message) }) else { return }
            client.handover = handover.exchange
            summary.handedOver += before.count
            acknowledge(before.map(\.id), link)
            model.links[link]?.toClient =
                packets[..<marker].filter {
                    if case .publish = $0 { false } else { true }
                } + packets[marker...]
        } else if random.chance(0.02) {
            // The wait expires.
            isExact = false
            client.awaitsMarker = false
        }
    }

    private func passMarker(_ drain: SessionClient) {
        guard let handover, drain.handover != nil, !isPlanted(.recordsBehindMarkers) else { return }
        handover.exchange.notePassed()
        drain.isBehindMarker = true
    }

    private func isRecordedByMain(_ message: Int) -> Bool {
        guard let handover else { return false }
        return isPlanted(.dropsByOrderAlone) || handover.exchange.takeNew(digests(message)[...]) == 1
    }

    private func digests(_ message: Int) -> [Digest] {
        var batch = RecordBatch()
        fleet.append(message, id: 1, flags: [], at: now, broker: SessionClient.broker, to: &batch)
        return Handover.digests(of: batch)
    }

    private func followDrain(_ drain: SessionClient, _ link: Int) throws {
        let isAlive = main.link.flatMap { model.links[$0] }.map { !$0.isCut } ?? false
        guard drain.isConnected, main.isSubscribed, isAlive else { return }
        guard drain.unsubacks == drain.unsubscribes else { return }
        let isAnswered = drain.unsubscribes > 1 && drain.arrivals == drain.arrivalsThen
        let isSilent = drain.unsubscribes > 0 && model.links[link]?.toClient.isEmpty == true
        if isAnswered || isPlanted(.endsDrainsOnSilence) && isSilent { return try end(drain, link) }
        guard isPatient(drain) else { return }
        // For so long that the broker has taken every PUBACK and has sent all that waited for them.
        let isQuiet = model.links[link].map { $0.toClient.isEmpty && $0.toBroker.isEmpty } ?? false
        guard drain.unsubscribes > 0 || isQuiet || isPlanted(.unsubscribesAtOnce) else { return }
        if drain.unsubscribes == 0, !isPlanted(.unsubscribesUnrecorded) {
            try drain.append(.unsubscribing, BrokerEvent(clientID: drain.clientID), at: now)
        }
        (drain.unsubscribes, drain.arrivalsThen) = (drain.unsubscribes + 1, drain.arrivals)
        model.links[link]?.toBroker.append(.unsubscribe)
    }

    /// Mosquitto has nothing that comes later.
    private func isPatient(_ drain: SessionClient) -> Bool {
        model.kind == .mosquitto || model.waits - drain.connectedWait >= 2 || isPlanted(.unsubscribesAtOnce)
    }

    private func end(_ drain: SessionClient, _ link: Int) throws {
        if let session = model.sessions[drain.clientID], session.isSubscribed || !session.isEmpty {
            throw Violation("the session \(drain.clientID) is ended before it is empty")
        }
        try drain.append(.sessionDrained, BrokerEvent(clientID: drain.clientID), at: now)
        model.forget(drain.clientID)
        model.cut(link, received: 0)
        drains.removeAll { $0 === drain }
        summary.drained += 1
    }

    // MARK: Faults

    private func fail() throws {
        switch random.below(7) {
        case 0: try kill()
        case 1:
            // The connection breaks somewhere.
            guard let link = model.links.keys.sorted().randomPick(&random), let open = model.links[link] else { return }
            if !main.isSubscribed || main.isRedelivering || !drains.isEmpty { isExact = false }
            summary.cuts += 1
            note { "cut" }
            model.cut(link, received: random.below(open.toBroker.count + 1))
        case 2 where killsBroker:
            summary.brokerKills += 1
            note { "broker killed" }
            isExact = false
            model.restart()
            // A save from before the subscription may have come back.
            hasSubscribed = model.sessions.values.contains(where: \.isSubscribed)
        case 3: main.isFrozen.toggle()
        case 4:
            // Away for a while, as the devices go on.
            for _ in 0..<random.below(200) {
                steady += 100_000
                try publish()
            }
        case 5 where hasIntruders && main.isSubscribed:
            intruder =
                intruder == nil
                ? SessionClient(.intruder, main.clientID, log: ScratchLog(), gate: gate, limits: limits) : nil
            isExact = false
        case 6:
            // Killed while frozen: what was sent to it was never read.
            try kill()
        default: break
        }
    }

    /// kill -9 of our process, and a start, perhaps under another client id.
    private func kill() throws {
        summary.kills += 1
        note { "killed" }
        summary.suppressed += main.suppressed
        for client in [main] + drains {
            guard let link = client.link else { continue }
            if !client.isSubscribed || client.isRedelivering { isExact = false }
            model.cut(link, received: random.below((model.links[link]?.toBroker.count ?? 0) + 1))
        }
        if changesClientID, random.below(4) == 0 {
            // Another one, or an earlier one again.
            if random.below(3) == 0 {
                clientNumber = random.below(clientNumbers)
            } else {
                (clientNumber, clientNumbers) = (clientNumbers, clientNumbers + 1)
            }
        }
        main = SessionClient(.main, "c\(clientNumber)", log: log, gate: gate, limits: limits)
        guard !isPlanted(.forgetsOldClientIDs) else { return drains = [] }
        let known = try SessionHistory.read(from: log, broker: SessionClient.broker, clientID: main.clientID)
        drains = known.existing.filter { $0 != main.clientID }.sorted()
            .map { SessionClient(.drain, $0, log: log, gate: gate, limits: limits) }
        markers -= 1
        handover = model.kind == .mosquitto && drains.count == 1 ? (Handover(logID: "log"), markers) : nil
        handover?.exchange.noteProbe(isAnswered: true)
        drains.first?.handover = handover?.exchange
    }

    // MARK: Checks

    private func readLog() throws {
        guard log.durableCount > readTo.rawValue else { return }
        let reader = try log.reader(from: readTo)
        while try reader.read(into: block, atLeast: 1 << 16) {
            try block.forEach { record, position throws in
                guard position >= readTo else { return }
                note {
                    let text = SessionFleet.number(of: record).map { "message \($0)" }
                    return "log \(position): \(record.topicString) id \(record.packetID) "
                        + (text ?? String(decoding: record.payload, as: UTF8.self))
                }
                guard record.kind != .rejection else { throw Violation("a device within its rate was limited") }
                guard let number = SessionFleet.number(of: record) else { return }
                recorded[number, default: 0] += 1
                trace.mix(number)
                guard !isExact || model.kind != .mosquitto || recorded[number] == 1 else {
                    throw Violation("message \(number) is recorded twice although its packet id proves it")
                }
            }
        }
        readTo = Position(log.durableCount)
        guard let intruder, intruder.log.durableCount > 0 else { return }
        let theirs = try intruder.log.reader(from: Position(0))
        while try theirs.read(into: block, atLeast: 1 << 16) {
            try block.forEach { record, _ throws in
                guard record.kind == .connection else { throw Violation("a second log took a message") }
            }
        }
    }

    private func comeToRest() throws {
        intruder = nil
        main.isFrozen = false
        isCalm = true
        for turn in 0..<3_000 {
            steady += 10_000
            if turn % 50 == 0 { model.timePasses(isOverall: redeliversEagerly) }
            for client in [main] + drains { try advanceCalmly(client) }
            for link in model.links.keys.sorted() { try take(link) }
            let mine = model.sessions.filter { $0.value.isSubscribed || !$0.value.isEmpty }
            if turn > 40, drains.isEmpty, main.isSubscribed, mine.allSatisfy({ $0.value.isEmpty }) {
                guard mine.keys.allSatisfy({ $0 == main.clientID }) else {
                    throw Violation("the sessions \(mine.keys.sorted()) still collect messages, one was expected")
                }
                return
            }
        }
        throw Violation("without faults it does not come to rest: \(model.sessions.mapValues(\.isEmpty))")
    }

    private func advanceCalmly(_ client: SessionClient) throws {
        guard log.durableCount < 50_000 else { throw Violation("it connects again and again") }
        if client.isRefused { throw Violation("our own session is taken for a stranger's") }
        try advance(client)
    }
}

extension Array {
    fileprivate func randomPick(_ random: inout SeededRandom) -> Element? {
        isEmpty ? nil : self[random.below(count)]
    }
}
