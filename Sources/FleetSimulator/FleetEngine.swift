import EventModel
import Glibc
import Primitives

/// The loop: one thread drives the generator, the clock and all connections. See `FleetSimulator` for the phases.
final class FleetEngine {
    private enum Phase { case connecting, running, draining, leaving, finished }

    private let settings: FleetSettings
    private var generator: FleetGenerator
    private let ledger: Ledger?
    private let poller = Poller()
    private var links: [DeviceLink] = []
    private var phase = Phase.connecting
    /// Links that wait for their next attempt, and how many attempts are under way.
    private var down: [Int] = []
    private var connecting = 0
    private var statistics = FleetStatistics()
    private var latencies = LatencyHistogram()
    private var failure: FleetError?
    private var startedMicros: Int64 = 0
    private var lastProgressMicros: Int64 = 0
    private var drainMicrosMax: Int64
    private var deadlineMicros: Int64 = .max
    private var updates: OTADevices
    private let identities: DeviceIdentities?
    /// Devices that are away: what they would have said is not said.
    private var away: Set<Int> = []

    /// A listen queue often holds 100 (Mosquitto's does): more attempts at once would be dropped and wait a second.
    private static let attemptsMax = 64
    /// Messages that may wait for their connection before the generator is held back.
    private static let waitingMax = 20_000
    private static let stepsPerTurnMax = 512

    init(_ settings: FleetSettings) throws(FleetError) {
        try settings.validate()
        self.settings = settings
        generator = FleetGenerator(seed: settings.seed, shape: settings.shape)
        drainMicrosMax = Int64(settings.drainTimeoutSeconds * 1e6)
        if let path = settings.ledgerPath { ledger = try Ledger(path: path) } else { ledger = nil }
        let told =
            if let path = settings.otaLedgerPath { try OTALedger(path: path, shape: settings.shape) } else {
                nil as OTALedger?
            }
        updates = OTADevices(settings.shape.ota, ledger: told)
        identities = try settings.identityFolder.map { folder throws(FleetError) in
            try DeviceIdentities(folder: folder, shape: settings.shape)
        }
        // libmosquitto takes a socket and a wake-up pair for each client.
        let wanted = settings.connectionCount * 3 + 64
        let files = raiseFileLimit(to: wanted)
        guard files >= wanted else {
            throw .invalid(
                "\(settings.connectionCount) connections need \(wanted) open files and the limit is \(files): "
                    + "raise it (ulimit -n) or share connections (--connections)")
        }
        for index in 0..<settings.connectionCount { links.append(try makeLink(index)) }
        down = Array(links.indices)
        guard !settings.isShared, settings.shape.ota.offline > 0 else { return }
        away = Set(links.indices.filter { generator.isOffline(device: $0) })
        let back = settings.shape.ota.offlineSeconds.map { SystemTime.monotonicMicroseconds() + Int64($0 * 1e6) }
        for index in away { links[index].stayAway(untilMicros: back ?? .max) }
    }

    private func makeLink(_ index: Int) throws(FleetError) -> DeviceLink {
        let shape = settings.shape
        guard !settings.isShared else {
            return try DeviceLink(
                index: index, clientID: "\(settings.clientPrefix)-shared-\(index + 1)", settings: settings, owner: self,
                device: nil)
        }
        let address = shape.address(ofDevice: index)
        let farewell = generator.announcement(ofDevice: index, status: "DISCONNECTED")
        return try DeviceLink(
            index: index, clientID: "\(settings.clientPrefix)-\(shape.tenant(ofDevice: index))-\(shape.device(index))",
            settings: settings, owner: self,
            device: .init(
                lastWill: (topic: farewell.topic, payload: FleetGenerator.lastWill), farewell: farewell,
                subscriptions: ["\(address)/ota"] + (identities == nil ? [] : ["\(address)/certificate"]),
                identity: identities.map { ($0.certificate(index), $0.key(index)) }))
    }

    /// Runs to the end. `shouldStop` is asked once a turn; `observe` gets a snapshot about ten times a second.
    func run(
        shouldStop: () -> Bool, observe: (FleetStatistics) -> Void
    ) throws(FleetError) -> FleetStatistics {
        startedMicros = SystemTime.monotonicMicroseconds()
        lastProgressMicros = startedMicros
        var observedMicros = startedMicros, tendedMicros = startedMicros
        while phase != .finished {
            let now = SystemTime.monotonicMicroseconds()
            if shouldStop() { stop(now) }
            connectDue(now)
            if phase == .running {
                perform { (updates, generator) throws(FleetError) in
                    try updates.run(now: now, &generator)
                }
            }
            if phase == .running { generate(now) }
            poller.wait(millis: pollMillis) { token, readable, writable in
                links[token].serve(readable: readable, writable: writable)
                links[token].register(with: poller)
            }
            if now - tendedMicros > 1_000_000 {
                tend(now)
                tendedMicros = now
            }
            if let failure {
                writeOff()
                throw failure
            }
            try ledger?.flush()
            try updates.flush()
            advance(SystemTime.monotonicMicroseconds())
            if now - observedMicros > 100_000 {
                observe(snapshot(now))
                observedMicros = now
            }
        }
        writeOff()
        try ledger?.flush()
        try updates.flush()
        let final = snapshot(SystemTime.monotonicMicroseconds())
        observe(final)
        return final
    }

    private var pollMillis: Int {
        guard phase == .running else { return down.isEmpty ? 20 : 2 }
        if settings.rate == 0 { return statistics.waiting < 1024 ? 0 : 5 }
        return settings.rate >= 500 ? 1 : min(20, max(1, Int(500 / settings.rate)))
    }

    private func snapshot(_ now: Int64) -> FleetStatistics {
        statistics.generated = generator.count
        statistics.repeatedCommands = updates.repeatedCommands
        statistics.certificatesInstalled = identities?.installedCount ?? 0
        statistics.seconds = Double(now - startedMicros) / 1e6
        statistics.ackMicrosP50 = latencies.micros(atQuantile: 0.5)
        statistics.ackMicrosP99 = latencies.micros(atQuantile: 0.99)
        return statistics
    }
}

// Phases
extension FleetEngine {
    /// From phase to phase, when its time has come.
    private func advance(_ now: Int64) {
        switch phase {
        case .connecting:
            // A few stragglers must not keep the fleet waiting: they join while it runs.
            let patience = Int64(settings.connectTimeoutSeconds * 1e6)
            if statistics.connected >= links.count - away.count || now - lastProgressMicros > patience { begin(now) }
        case .running:
            let isOver =
                switch settings.extent {
                case .messages(let count): generator.count >= count
                case .seconds(let seconds): now - startedMicros >= Int64(seconds * 1e6)
                case .endless: false
                }
            if isOver { drain(now) }
        case .draining:
            let isQuiet = statistics.waiting == 0 && statistics.inFlight == 0
            if isQuiet || now - lastProgressMicros > drainMicrosMax { sayFarewell(now) }
        case .leaving:
            if now > deadlineMicros || links.allSatisfy({ $0.state == .ended }) { phase = .finished }
        case .finished: break
        }
    }

    private func begin(_ now: Int64) {
        phase = .running
        startedMicros = now
    }

    private func drain(_ now: Int64) {
        phase = .draining
        lastProgressMicros = now
        updates.stop()
    }

    /// Asked to stop: what has been published is waited for, a little; what still waits never was.
    private func stop(_ now: Int64) {
        guard phase == .connecting || phase == .running else { return }
        for link in links { link.discardWaiting() }
        statistics.waiting = 0
        drainMicrosMax = min(drainMicrosMax, 5_000_000)
        drain(now)
    }

    private func sayFarewell(_ now: Int64) {
        phase = .leaving
        deadlineMicros = now + min(drainMicrosMax, 10_000_000)
        down.removeAll()
        for link in links {
            if link.state == .up {
                if !settings.isShared { statistics.waiting += 1 }
                link.enqueue(
                    settings.isShared
                        ? .hangUp(offlineMicros: .max) : .leave(orderly: true, offlineMicros: .max))
                link.register(with: poller)
            } else if link.state != .leaving {
                link.end()
            }
        }
    }

    /// Whatever was never acknowledged goes into the ledger as such.
    private func writeOff() {
        guard let ledger else { return }
        do throws(FleetError) {
            for publish in links.flatMap(\.leftOver).sorted(by: { $0.order < $1.order }) {
                try ledger.write(publish, acknowledged: false, shape: settings.shape)
            }
            try ledger.flush()
        } catch {
            failure = failure ?? error
        }
    }
}

// Work of one turn
extension FleetEngine {
    private func connectDue(_ now: Int64) {
        guard phase != .leaving, !down.isEmpty, connecting < Self.attemptsMax else { return }
        let candidates = down
        down.removeAll(keepingCapacity: true)
        for index in candidates {
            guard connecting < Self.attemptsMax, links[index].retryAtMicros <= now, failure == nil else {
                down.append(index)
                continue
            }
            connecting += 1
            links[index].connect(settings, now: now)
            links[index].register(with: poller)
        }
    }

    private func generate(_ now: Int64) {
        let elapsed = Double(now - startedMicros) / 1e6
        var due = settings.rate == 0 ? Int.max : Int(elapsed * settings.rate) + 1
        if case .messages(let count) = settings.extent { due = min(due, count) }
        let waitingMax = settings.rate == 0 ? 1024 : Self.waitingMax
        var steps = 0
        while generator.count < due, statistics.waiting < waitingMax, steps < Self.stepsPerTurnMax {
            steps += 1
            switch generator.next(at: timestamp(ofMessage: generator.count)) {
            case .publish(let message): if away.isEmpty || !away.contains(message.device) { enqueue(message) }
            case .leave(let device, let orderly, let offlineMillis):
                if orderly { statistics.waiting += 1 } else { statistics.ungracefulLeaves += 1 }
                links[device].enqueue(.leave(orderly: orderly, offlineMicros: Int64(offlineMillis) * 1000))
                links[device].register(with: poller)
            }
        }
    }

    private func timestamp(ofMessage index: Int) -> Timestamp {
        guard let start = settings.startTime else { return Timestamp(microseconds: SystemTime.wallMicroseconds()) }
        let interval = settings.rate == 0 ? 1000 : 1e6 / settings.rate
        return start.adding(microseconds: Int64(Double(index) * interval))
    }

    private func enqueue(_ message: FleetMessage) {
        statistics.waiting += 1
        let link = links[message.device % links.count]
        link.enqueue(.message(message))
        link.register(with: poller)
    }

    private func perform(
        _ body: (inout OTADevices, inout FleetGenerator) throws(FleetError) -> [OTADevices.Step]
    ) {
        do throws(FleetError) {
            for step in try body(&updates, &generator) {
                switch step {
                case .publish(let message): enqueue(message)
                case .restart(let device, let micros):
                    statistics.waiting += 1
                    links[device].enqueue(.leave(orderly: true, offlineMicros: micros))
                    links[device].register(with: poller)
                }
            }
        } catch {
            failure = failure ?? error
        }
    }

    private func perform(_ steps: [DeviceIdentities.Step]) {
        for step in steps {
            switch step {
            case .publish(let message): enqueue(message)
            case .reconnect(let device):
                statistics.waiting += 1
                links[device].enqueue(.leave(orderly: true, offlineMicros: 0))
                links[device].register(with: poller)
            }
        }
    }

    private func tend(_ now: Int64) {
        for link in links {
            if case .connecting(let deadline) = link.state, now > deadline { link.abandonAttempt() }
            link.keepAlive()
            link.register(with: poller)
        }
    }
}

extension FleetEngine: LinkOwner {
    func link(_ link: DeviceLink, isSending message: FleetMessage) -> Publish {
        statistics.published += 1
        statistics.inFlight += 1
        statistics.waiting -= 1
        if message.index == nil { statistics.onTheSide += 1 }
        if message.defect != nil { statistics.malformed += 1 }
        if message.isDuplicate { statistics.duplicates += 1 }
        return Publish(
            topic: message.topic, digest: ledger == nil ? [] : Ledger.digest(message.payload), device: message.device,
            kind: message.kind, seq: message.seq, index: message.index, defect: message.defect,
            isDuplicate: message.isDuplicate, order: statistics.published,
            sentAtMicros: SystemTime.monotonicMicroseconds())
    }

    func link(_ link: DeviceLink, acknowledged publish: Publish) {
        let now = SystemTime.monotonicMicroseconds()
        statistics.acknowledged += 1
        lastProgressMicros = now
        latencies.add(micros: now - publish.sentAtMicros)
        settle(publish, acknowledged: true)
    }

    func link(_ link: DeviceLink, refused publish: Publish) { settle(publish, acknowledged: false) }

    private func settle(_ publish: Publish, acknowledged: Bool) {
        statistics.inFlight -= 1
        do throws(FleetError) {
            try ledger?.write(publish, acknowledged: acknowledged, shape: settings.shape)
        } catch {
            failure = error
        }
    }

    func linkConnected(_ link: DeviceLink) {
        connecting -= 1
        statistics.connected += 1
        statistics.connectionsMade += 1
        lastProgressMicros = SystemTime.monotonicMicroseconds()
        guard !settings.isShared, phase != .leaving else { return }
        statistics.waiting += 1
        away.remove(link.index)
        link.enqueueFirst(.message(generator.announcement(ofDevice: link.index, status: "CONNECTED")))
        perform { (updates, generator) in
            updates.connected(device: link.index, now: SystemTime.monotonicMicroseconds(), &generator)
        }
        if let identities { perform(identities.connected(device: link.index)) }
    }

    func link(_ link: DeviceLink, ended reason: String, wasConnected: Bool, expected: Bool) {
        if wasConnected { statistics.connected -= 1 } else { connecting -= 1 }
        if !expected, wasConnected { statistics.connectionsLost += 1 }
        if statistics.connectionsMade == 0, failure == nil {
            failure = .unreachable("cannot connect to the broker at \(settings.broker.address): \(reason)")
        }
        if link.state == .down {
            if phase == .leaving { link.end() } else { down.append(link.index) }
        }
    }

    func link(_ link: DeviceLink, received payload: UnsafeRawBufferPointer, on topic: String, retained: Bool) {
        statistics.commands += 1
        if let identities, topic.hasSuffix("/certificate") {
            guard phase == .connecting || phase == .running else { return }
            do throws(FleetError) {
                perform(try identities.received(payload, device: link.index))
            } catch {
                failure = failure ?? error
            }
            return
        }
        guard phase == .running else { return }
        perform { (updates, generator) throws(FleetError) in
            try updates.received(
                payload, device: link.index, isRetained: retained, now: SystemTime.monotonicMicroseconds(), &generator)
        }
    }
}
